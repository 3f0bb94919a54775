"""Modified Kneser-Ney against a slow dictionary; mixtures word by word."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from test_pruning import sums

from streamasr.data import estimation
from streamasr.errors import ConfigError
from streamasr.search import lm

WORDS = ["<s>", "</s>", "<unk>", *"abcdefgh"]


def text(seed: int, lines: int = 60) -> list[str]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(9, 0.6), 9)  # each word's own followers
    sentences = []
    for _ in range(lines):
        word, said = int(rng.integers(9)), []
        for _ in range(rng.integers(1, 9)):
            said.append([*"abcdefgh", "zebra"][word])
            word = int(rng.choice(9, p=p[word]))
        sentences.append(" ".join(said))
    return [*sentences, "", "  "]


class Slow:
    """p(w | u v), as the formula says, with dictionaries."""

    def __init__(self, lines: list[str]) -> None:
        self.counts: list[Counter[tuple[str, ...]]] = [Counter(), Counter(), Counter()]
        for line in lines:
            if not line.split():
                continue
            told = ["<s>", *(w if w in WORDS else "<unk>" for w in line.split()), "</s>"]
            for n in (1, 2, 3):
                self.counts[n - 1].update(tuple(told[i : i + n]) for i in range(len(told) - n + 1))
        pairs, triples = self.counts[1], self.counts[2]
        # Kept as they are, for nothing comes before <s>; the others: how many different words come before.
        before = Counter(t[1:] for t in triples)
        self.counts[1] = Counter({g: pairs[g] if g[0] == "<s>" else before[g] for g in pairs})
        self.counts[0] = Counter(g[1:] for g in pairs)

    def discount(self, n: int, count: int) -> float:
        values = list(self.counts[n - 1].values())
        n1, n2, n3, n4 = (max(values.count(c), 1) for c in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        d = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3][min(count, 3)]
        return min(max(d, 0.0), float(min(count, 3)))

    def p(self, *gram: str) -> float:
        if not gram[1:] and gram[0] == "<s>":
            return 0.0
        below = self.p(*gram[1:]) if gram[1:] else 1 / (len(WORDS) - 1)
        counts = {g: c for g, c in self.counts[len(gram) - 1].items() if g[:-1] == gram[:-1]}
        if not counts:
            return below
        total, count = sum(counts.values()), counts.get(gram, 0)
        left = sum(self.discount(len(gram), c) for c in counts.values()) / total
        return (count - self.discount(len(gram), count)) / total + left * below


@pytest.mark.parametrize("seed", range(3))
def test_kneser_ney_is_the_formula(seed: int) -> None:
    lines = text(seed)
    model, slow = lm.build(WORDS, estimation.estimate(lines, WORDS, least=1), 16), Slow(lines)
    rng = np.random.default_rng(seed)
    for total in sums(model):
        assert total == pytest.approx(1.0, abs=1e-4)  # codes of 16 bits
    for _ in range(40):
        history = [WORDS[i] for i in rng.choice([0, *range(2, len(WORDS))], 2)]
        if history[1] == "<s>":
            continue
        state = model.start if history[0] == "<s>" else model.score(0, model.ids[history[0]])[1]
        _, state = model.score(state, model.ids[history[1]])
        for word in WORDS[1:]:
            found = model.score(state, model.ids[word])[0]
            assert math.exp(found) == pytest.approx(slow.p(*history, word), abs=1e-3), (history, word)


def test_trigrams_that_occur_once_are_left_out() -> None:
    whole, fewer = (estimation.estimate(text(4), WORDS, least) for least in (1, 2))
    assert 0 < len(fewer[2][0]) < len(whole[2][0]) and len(fewer[1][0]) == len(whole[1][0])
    for total in sums(lm.build(WORDS, fewer, 16)):
        assert total == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ConfigError, match="the text holds no words"):
        estimation.estimate(["", " "], WORDS)


def test_a_mixture_is_the_mean_of_its_parts() -> None:
    parts = [estimation.estimate(text(seed), WORDS, 1) for seed in (5, 6)]
    model = lm.build(WORDS, estimation.mix(WORDS, parts, [3.0, 1.0]), 16)
    single = [lm.build(WORDS, part, 16) for part in parts]
    for total in sums(model):
        assert total == pytest.approx(1.0, abs=1e-4)
    # Exactly the mean where the n-gram is listed; where all back off, they do so by one weight together.
    listed = {tuple(gram) for part in parts for gram in part[2][0].tolist()}
    for u, v, w in list(listed)[::7]:
        scores = []
        for each in (model, *single):
            state = each.start if u == 0 else each.score(0, u)[1]
            _, state = each.score(state, v)
            scores.append(math.exp(each.score(state, w)[0]))
        assert scores[0] == pytest.approx(0.75 * scores[1] + 0.25 * scores[2], rel=2e-3)  # codes of 16 bits
    with pytest.raises(ConfigError, match="2 models need as many weights above 0"):
        estimation.mix(WORDS, parts, [1.0])
