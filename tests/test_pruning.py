"""Smaller language models are distributions still, and lose least: against the definitions, word by word."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from test_lm import random_arpa, write

from streamasr.data import ngram, pruning
from streamasr.errors import ConfigError
from streamasr.search import lm


def grams(tmp_path: Path, seed: int, order: int = 3) -> ngram.Grams:
    return ngram.read_grams(write(tmp_path / "lm.arpa", random_arpa(seed, order)))


def sums(model: lm.LanguageModel) -> list[float]:
    """Sum of p(. | h) over all words but <s>, for every state h."""
    begin = model.ids[lm.BEGIN]
    states = [s for s in range(len(model) + 1) if model.are_states(np.array([s]))]
    words = [w for w in range(len(model.words)) if w != begin]
    return [sum(math.exp(model.score(state, word)[0]) for word in words) for state in states]


def entropy(model: lm.LanguageModel, other: lm.LanguageModel, frequencies: np.ndarray) -> float:
    """Relative entropy of two bigrams, nats a word; histories as often as `frequencies` says."""
    total = 0.0
    for history, word in itertools.product(range(len(model.words)), range(len(model.words))):
        if word == model.ids[lm.BEGIN]:
            continue
        ours, theirs = (
            m.score(history + 1 if m.are_states(np.array([history + 1])) else 0, word)[0]
            for m in (model, other)
        )
        total += frequencies[history] * math.exp(ours) * (ours - theirs)
    return total


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_context_sums_to_one(tmp_path: Path, order: int) -> None:
    words, orders = grams(tmp_path, 1, order)
    whole = pruning.normalised(words, orders)
    pruned = pruning.prune(words, orders, threshold=0.002)
    fewer, cut = pruning.cut(words, orders, 4)
    assert order == 1 or sum(len(ids) for ids, _, _ in pruned) < 0.9 * sum(len(ids) for ids, _, _ in whole)
    assert len(fewer) == 7 and set(fewer) > {"<unk>", "<s>", "</s>"}
    for vocabulary, model in ((words, whole), (words, pruned), (fewer, cut)):
        for total in sums(lm.build(vocabulary, model, 16)):
            assert total == pytest.approx(1.0, abs=1e-4)  # codes of 16 bits


def test_a_normalised_model_stays_as_it_is(tmp_path: Path) -> None:
    words, orders = grams(tmp_path, 2)
    once = pruning.normalised(words, orders)
    for (_, p, b), (_, p2, b2) in zip(once, pruning.normalised(words, once), strict=True):
        np.testing.assert_allclose(p, p2, atol=1e-9)
        np.testing.assert_allclose(b, b2, atol=1e-9)


def test_costs_are_relative_entropies(tmp_path: Path) -> None:
    """Each bigram left out by itself, and the entropy summed over all words and histories."""
    words, orders = grams(tmp_path, 3, 2)
    orders = pruning.normalised(words, orders)
    model = lm.arrange(words, orders)
    frequencies, costs = pruning._frequencies(model, words), pruning._costs(model, words)[1]
    whole = lm.build(words, orders, 16)
    for i in range(0, len(costs), 5):
        ids, p, back = orders[1]
        rest = np.arange(len(ids)) != i
        without = pruning.normalised(words, [orders[0], (ids[rest], p[rest], back[rest])])
        found = entropy(whole, lm.build(words, without, 16), frequencies)
        assert found == pytest.approx(costs[i], rel=0.02, abs=1e-6)  # codes of 16 bits
    assert (costs >= -1e-12).all()


def test_frequencies_are_those_of_text(tmp_path: Path) -> None:
    """Words drawn from the model."""
    words, orders = grams(tmp_path, 4, 2)
    orders = pruning.normalised(words, orders)
    model, rng = lm.build(words, orders, 16), np.random.default_rng(0)
    expected = pruning._frequencies(lm.arrange(words, orders), words)
    expected /= expected.sum()
    rows = {}
    for word in range(len(words)):
        state = word + 1 if model.are_states(np.array([word + 1])) else 0
        row = np.exp([model.score(state, following)[0] for following in range(len(words))])
        rows[word] = np.cumsum(row / row.sum())
    counts, word = np.zeros(len(words)), model.ids[lm.BEGIN]
    for uniform in rng.uniform(size=20_000):
        counts[word] += 1
        word = int(np.searchsorted(rows[word], uniform))
        word = model.ids[lm.BEGIN] if word == model.ids[lm.END] else word
    np.testing.assert_allclose(counts / counts.sum(), expected, atol=0.015)  # 20,000 draws


def test_what_costs_least_goes_first(tmp_path: Path) -> None:
    words, orders = grams(tmp_path, 5)
    sizes = []
    for threshold in (0.0, 0.001, 0.01, math.inf):
        kept = pruning.prune(words, orders, threshold=threshold)
        sizes.append(sum(len(ids) for ids, _, _ in kept))
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[1] > sizes[2] > sizes[3] == len(words)


def test_size(tmp_path: Path) -> None:
    """Never above what was asked for, and not far below."""
    rng = np.random.default_rng(0)
    words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(400))]
    orders = [(np.arange(403, dtype=np.int32)[:, None], -rng.uniform(3, 9, 403), np.zeros(403))]
    for _ in range(3):
        begun = orders[-1][0][rng.integers(len(orders[-1][0]), size=6000)]
        ids = np.unique(np.column_stack([begun, rng.integers(3, 403, 6000)]).astype(np.int32), axis=0)
        orders.append((ids, -rng.uniform(3, 9, len(ids)), np.zeros(len(ids))))
    for most in (20_000, 50_000, 70_000):
        model = lm.build(words, pruning.prune(words, orders, most_bytes=most))
        model.write(tmp_path / "lm.safetensors")
        assert most - 1500 < (tmp_path / "lm.safetensors").stat().st_size <= most
    with pytest.raises(ConfigError, match="403 words alone are above 100 bytes"):
        pruning.prune(words, orders, most_bytes=100)


def test_probability_of_words_left_out_is_that_of_unknown_ones(tmp_path: Path) -> None:
    words, orders = grams(tmp_path, 7, 2)
    whole = lm.build(words, pruning.normalised(words, orders), 16)
    fewer, cut = pruning.cut(words, orders, 3)
    model = lm.build(fewer, cut, 16)
    lost = [whole.ids[word] for word in words if word not in fewer] + [whole.unknown]
    assert len(lost) == 5
    expected = np.logaddexp.reduce(whole.unigrams[lost])
    assert model.unigrams[model.unknown] == pytest.approx(expected, abs=1e-3)
    assert list(np.diff(model.unigrams[3:]) <= 0) == [True, True]  # likeliest first
    with pytest.raises(ConfigError, match="no words are kept"):
        pruning.cut(words, orders, 0)
    among, _ = pruning.cut(words, orders, among={"b", "c", "xylem"})
    assert sorted(among[3:]) == ["b", "c"]
