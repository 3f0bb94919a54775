"""Best-path search against the plain definition: arg max, collapse, drop blanks."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import cuts, thorough

from streamasr import snapshot, state
from streamasr.search import Hypothesis, TimedWord
from streamasr.search.greedy import GreedySearch
from streamasr.vocabulary import Vocabulary

VOCABULARY = Vocabulary(("<blank>", " ", "a", "b"))
SEARCH = GreedySearch(VOCABULARY)


def log_probs_of(path: list[int], seed: int = 0) -> NDArray[np.float32]:
    """Random log_probs [S, 4] whose best tokens are `path`."""
    logits = np.random.default_rng(seed).uniform(0, 1, (len(path), 4))
    logits[np.arange(len(path)), path] += 1.0
    return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)), np.float32)


def collapse(log_probs: NDArray[np.float32]) -> tuple[TimedWord, ...]:
    """The same from the whole at once."""
    best = log_probs.argmax(1)
    runs = [list(run) for _, run in groupby(range(len(best)), key=lambda step: best[step])]
    words: list[list[list[int]]] = [[]]
    for run in runs:
        if best[run[0]] == 1:
            words.append([])
        elif best[run[0]] != 0:
            words[-1].append(run)
    return tuple(
        TimedWord(
            "".join(VOCABULARY.tokens[best[run[0]]] for run in word),
            word[0][0],
            word[-1][-1],
            math.prod(float(np.exp(np.float64(log_probs[run, best[run[0]]].max()))) for run in word)
            ** (1 / len(word)),
        )
        for word in words
        if word
    )


def same(found: tuple[TimedWord, ...], expected: tuple[TimedWord, ...]) -> None:
    assert [(w.text, w.first, w.last) for w in found] == [(w.text, w.first, w.last) for w in expected]
    for has, want in zip(found, expected, strict=True):
        assert has.confidence == pytest.approx(want.confidence, rel=1e-9)  # other order of products
        assert 0.0 <= has.confidence <= 1.0


paths = st.lists(st.integers(0, 3), max_size=40)


@thorough
@given(paths, st.data())
def test_brute_collapse_in_any_chunks(path: list[int], data: st.DataObject) -> None:
    log_probs = log_probs_of(path)
    whole = SEARCH.start()
    SEARCH.advance(whole, log_probs)
    same(SEARCH.best(whole).words, collapse(log_probs))
    chunked = SEARCH.start()
    for part in data.draw(cuts(len(path))):
        SEARCH.advance(chunked, log_probs[part])
    assert chunked == whole


@thorough
@given(paths)
def test_stable_words_stay(path: list[int]) -> None:
    s, told = SEARCH.start(), []
    for row in log_probs_of(path):
        before = SEARCH.best(s)
        changed = SEARCH.advance(s, row[None])
        after = SEARCH.best(s)
        assert changed or after == before
        told.append(after.words[: after.stable])
    for early, late in pairwise(told):
        assert late[: len(early)] == early


@thorough
@given(paths, st.integers(0, 40))
def test_commit_parts_the_words(path: list[int], at: int) -> None:
    """A commit between words loses and repeats nothing; one within a word cuts it there."""
    log_probs = log_probs_of(path)
    s = SEARCH.start()
    SEARCH.advance(s, log_probs[:at])
    clean = SEARCH.between_words(s)
    first = SEARCH.commit(s)
    assert first.stable == len(first.words) and SEARCH.best(s) == Hypothesis((), 0)
    SEARCH.advance(s, log_probs[at:])
    rest = SEARCH.best(s).words
    expected = collapse(log_probs)
    if clean:
        same((*first.words, *rest), expected)
    text = "".join(word.text for word in (*first.words, *rest))
    assert text == "".join(word.text for word in expected)


def test_state_survives_a_snapshot() -> None:
    log_probs = log_probs_of([2, 2, 0, 3, 1, 2, 0, 2, 1, 3])
    whole, s = SEARCH.start(), SEARCH.start()
    SEARCH.advance(whole, log_probs)
    SEARCH.advance(s, log_probs[:6])
    _, packed = snapshot.read(snapshot.write("m", {}, state.pack(s)), "m")
    resumed: Any = state.unpack(SEARCH.start(), packed)
    SEARCH.advance(resumed, log_probs[6:])
    assert resumed == whole
    assert [word.text for word in SEARCH.best(whole).words] == ["ab", "aa", "b"]


def test_confidence_never_above_one() -> None:
    s = SEARCH.start()
    SEARCH.advance(s, np.array([[-9, -9, 1e-7, -9]], np.float32))
    assert SEARCH.best(s).words[0].confidence == 1.0
