"""Prefix beam search against the sum over all alignments, and against itself in other chunks."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import cuts, quick

from streamasr import snapshot, state
from streamasr.errors import ConfigError
from streamasr.search import columns as c
from streamasr.search import lexicon, lm
from streamasr.search.beam import _PATIENCE, BeamConfig, BeamSearch
from streamasr.search.beam_state import totals
from streamasr.vocabulary import Vocabulary

VOCABULARY = Vocabulary(("<blank>", " ", "a", "b"))
PHONES = Vocabulary(("<blank>", "a", "b"))
UNLIMITED = {"token_threshold": math.inf, "beam_threshold": math.inf, "blank_skip": 1.0, "recombine": False}
WIDE = BeamConfig(beam=3000, tokens=100, lm_weight=0.7, word_bonus=0.3, **UNLIMITED)  # type: ignore[arg-type]


def random_log_probs(steps: int, tokens: int, seed: int, scale: float = 2.0) -> NDArray[np.float32]:
    logits = scale * np.random.default_rng(seed).standard_normal((steps, tokens))
    return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)), np.float32)


def bigram(ends: bool = False) -> lm.LanguageModel:
    """`ends`: the model knows the ends of sentences."""
    words = ["<unk>", "<s>", "a", "ah", "ab", "ba", "bb", *["</s>"] * ends]
    n = len(words)
    rng = np.random.default_rng(3)
    pairs = np.array([[1, 2], [1, 3], [2, 4], [4, 2], [5, 5], [3, 6], *[[2, 7], [6, 7]] * ends], np.int32)
    return lm.build(
        words,
        [
            (np.arange(n, dtype=np.int32)[:, None], -rng.uniform(1, 4, n), -rng.uniform(0, 1, n)),
            (pairs, -rng.uniform(0, 2, len(pairs)), np.zeros(len(pairs))),
        ],
    )


# "a" and "ah" are spelt the same, "ba" in two ways, "abab" is not in the language model.
SPELT = {"a": ["a"], "ah": ["a"], "ab": ["ab"], "ba": ["ba", "baa"], "bb": ["bb"], "abab": ["abab"]}


def lexicon_of(vocabulary: Vocabulary) -> lexicon.Lexicon:
    pairs = [(word, vocabulary.encode(text)) for word, texts in SPELT.items() for text in texts]
    return lexicon.build(pairs, len(vocabulary))


def prefixes(log_probs: NDArray[np.float32]) -> dict[tuple[int, ...], float]:
    """Token sequence -> log of the sum over all alignments, by listing them."""
    sums: dict[tuple[int, ...], list[float]] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        collapsed = tuple(token for token, _ in itertools.groupby(path) if token)
        sums.setdefault(collapsed, []).append(
            float(sum(log_probs[range(len(path)), path].astype(np.float64)))
        )
    return {tokens: float(np.logaddexp.reduce(each)) for tokens, each in sums.items()}


def add(scores: dict[Any, float], key: Any, value: float) -> None:
    scores[key] = float(np.logaddexp(scores.get(key, -math.inf), value))


def compare(search: BeamSearch, log_probs: NDArray[np.float32], expected: dict[Any, float]) -> None:
    s = search.start()
    search.advance(s, log_probs)
    found = {tuple(w.text for w in h.words): score for score, h in search.nbest(s, 1000)}
    # Of words in progress that are spelt the same only the best is listed.
    assert {words for words in expected if words[-1:] not in [("a",), ("ah",)]} <= found.keys()
    assert found.keys() <= expected.keys()
    for words, score in found.items():
        if words[-1:] in [("a",), ("ah",)]:
            assert score <= expected[words] + 1e-5
        else:
            assert score == pytest.approx(expected[words], abs=1e-5), words  # float32 log_probs, float64 sums
    assert max(found.values()) == pytest.approx(max(expected.values()), abs=1e-5)
    best = max(expected, key=lambda words: expected[words])
    assert [word.text for word in search.commit(s).words] == list(best)


@pytest.mark.parametrize("seed", range(4))
def test_open_vocabulary_is_the_sum_over_alignments(seed: int) -> None:
    log_probs = random_log_probs(5, 4, seed)
    expected: dict[tuple[str, ...], float] = {}
    for tokens, log_prob in prefixes(log_probs).items():
        add(expected, tuple(VOCABULARY.decode(tokens).split()), log_prob)
    # The bonus is per word; spaces at the end or twice make no word.
    expected = {words: score + 0.3 * len(words) for words, score in expected.items()}
    search = BeamSearch(VOCABULARY, WIDE)
    s = search.start()
    search.advance(s, log_probs)
    # A word in progress and one that has ended are two hypotheses of one text.
    found: dict[tuple[str, ...], float] = {}
    scores, words, _ = search._complete(s)
    for i, score in enumerate(scores):
        add(found, tuple(w.text for w in search._teller.words(s, i, int(words[i]))), float(score))
    assert found.keys() == expected.keys()
    for text, score in found.items():
        assert score == pytest.approx(expected[text], abs=1e-5)


def readings(spelling: str) -> list[str]:
    return [word for word, texts in SPELT.items() if spelling in texts]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_lexicon_and_model_with_separator(seed: int, ends: bool) -> None:
    model, log_probs = bigram(ends), random_log_probs(6, 4, seed)
    alignments: dict[tuple[tuple[str, ...], bool], float] = {}
    for tokens, log_prob in prefixes(log_probs).items():
        text = "".join(VOCABULARY.tokens[token] for token in tokens)
        for words in itertools.product(*(readings(piece) for piece in text.split())):
            # One hypothesis each: the words, how they are spelt, whether the last has ended.
            add(alignments, (words, text.endswith(" ") or not text, tuple(text.split())), log_prob)
    expected: dict[tuple[str, ...], float] = {}
    for (words, _, _), log_prob in alignments.items():
        total, at = log_prob + 0.3 * len(words), model.start
        for word in words:
            score, at = model.score(at, model.id_of(word))
            total += 0.7 * score
        total += 0.7 * model.score(at, model.end)[0] if ends else 0.0
        expected[words] = max(expected.get(words, -math.inf), total)
    compare(BeamSearch(VOCABULARY, WIDE, lexicon_of(VOCABULARY), model), log_probs, expected)


@pytest.mark.parametrize("seed", range(4))
def test_lexicon_and_model_without_separator(seed: int) -> None:
    """Phones: a word may end after its last token."""
    model, log_probs = bigram(), random_log_probs(6, 3, seed)
    expected: dict[tuple[str, ...], float] = {}
    for tokens, log_prob in prefixes(log_probs).items():
        text = "".join(PHONES.tokens[token] for token in tokens)
        for words, _spelling in divisions(text):
            total, at = log_prob + 0.3 * len(words), model.start
            for word in words:
                score, at = model.score(at, model.id_of(word))
                total += 0.7 * score
            expected[words] = max(expected.get(words, -math.inf), total)
    compare(BeamSearch(PHONES, WIDE, lexicon_of(PHONES), model), log_probs, expected)


def divisions(text: str) -> list[tuple[tuple[str, ...], str]]:
    """All ways to read a text without spaces as words."""
    if not text:
        return [((), "")]
    found = []
    for end in range(1, len(text) + 1):
        for word in readings(text[:end]):
            found += [((word, *rest), text) for rest, _ in divisions(text[end:])]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_recombination_keeps_the_best(seed: int) -> None:
    log_probs, model, words = random_log_probs(20, 4, seed), bigram(), lexicon_of(VOCABULARY)
    wide = BeamSearch(VOCABULARY, WIDE, words, model)
    narrow = BeamSearch(VOCABULARY, replace(WIDE, beam=150, recombine=True), words, model)
    s, t = wide.start(), narrow.start()
    wide.advance(s, log_probs)
    narrow.advance(t, log_probs)
    assert t.count < 60  # 6 nodes and a few contexts, whatever was said before
    # Of a prefix that is dropped and comes back the earlier alignments are lost: a little, here.
    assert narrow.nbest(t, 1)[0][0] >= wide.nbest(s, 1)[0][0] - 0.5


NARROW = BeamConfig(beam=6, tokens=3, lm_weight=0.7, word_bonus=0.3, blank_skip=0.9)


@pytest.fixture(scope="module", params=["open", "lexicon", "phones", "hotwords"])
def search(request: pytest.FixtureRequest) -> BeamSearch:
    if request.param == "open":
        return BeamSearch(VOCABULARY, NARROW)
    vocabulary = PHONES if request.param == "phones" else VOCABULARY
    phrases = ["ab ba", ("bbb", 4.0)] if request.param == "hotwords" else []
    return BeamSearch(vocabulary, NARROW, lexicon_of(vocabulary), bigram(), phrases=phrases)


def speech(search: BeamSearch, steps: int, seed: int) -> NDArray[np.float32]:
    """Log_probs with runs of sure blanks in them."""
    log_probs = random_log_probs(steps, len(search.vocabulary), seed, 3.0)
    quiet = np.random.default_rng(seed + 1).random(steps) < 0.3
    log_probs[quiet] = np.log(np.float32(0.01 / (log_probs.shape[1] - 1)))
    log_probs[quiet, 0] = np.log(np.float32(0.99))
    return log_probs


def equal(one: Any, other: Any) -> bool:
    a, b = state.pack(one), state.pack(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@quick
@given(st.integers(0, 1000), st.data())
def test_any_chunks(search: BeamSearch, seed: int, data: st.DataObject) -> None:
    log_probs = speech(search, 60, seed)
    whole, chunked = search.start(), search.start()
    search.advance(whole, log_probs)
    for part in data.draw(cuts(60)):
        search.advance(chunked, log_probs[part])
        search.best(chunked)
        search.between_words(chunked)
    assert equal(whole, chunked)


@quick
@given(st.integers(0, 1000))
def test_stable_words_stay(search: BeamSearch, seed: int) -> None:
    s, told = search.start(), ()
    for row in speech(search, 80, seed):
        before = search.best(s)
        changed = search.advance(s, row[None])
        now = search.best(s)
        texts = tuple(word.text for word in now.words)
        assert texts[: len(told)] == told
        assert changed or now == before
        assert [w.first for w in now.words] == sorted(w.first for w in now.words)
        for word in now.words:
            assert 0 <= word.first <= word.last < s.step and 0.0 <= word.confidence <= 1.0
        told = texts[: now.stable]
    final = tuple(word.text for word in search.commit(s).words)
    assert final[: len(told)] == told
    assert search.best(s).words == ()


@quick
@given(st.integers(0, 1000))
def test_shown_is_what_most_of_the_beam_says(search: BeamSearch, seed: int) -> None:
    s = search.start()
    for row in speech(search, 60, seed):
        before = search.shown(s)
        changed = search.advance(s, row[None])
        shown = search.shown(s)
        assert changed or shown == before
        scores = totals(s)
        weights = np.exp(scores - scores.max())
        said = []  # of each hypothesis; a word that no token has followed is not yet said
        for i in range(s.count):
            words = [word.text for word in search._teller.words(s, i, c.NONE)]
            said.append((*s.texts, *(words[:-1] if s.ints[i, c.ENDED] != c.NONE else words)))
        leader = said[s.leader]
        agreeing = [
            sum(w for w, words in zip(weights, said, strict=True) if words[:n] == leader[:n])
            for n in range(len(leader) + 1)
        ]
        least = max(n for n, share in enumerate(agreeing) if share > weights.sum() / 2)
        texts = tuple(word.text for word in shown.words)
        assert len(texts) >= least and texts[:least] == leader[:least]
        assert shown.stable <= least
        if len(texts) > least:
            assert s.step - 1 - shown.words[-1].last >= _PATIENCE


def test_a_word_before_a_pause_is_shown_after_a_while() -> None:
    search = BeamSearch(VOCABULARY, BeamConfig(beam=8), lexicon_of(VOCABULARY), bigram())
    s = search.start()
    search.advance(s, np.log(np.array([[0.02, 0.02, 0.94, 0.02], [0.02, 0.02, 0.02, 0.94]], np.float32)))
    blank = np.log(np.array([[1 - 3e-4, 1e-4, 1e-4, 1e-4]], np.float32))
    told = []
    for _ in range(_PATIENCE + 3):
        changed = search.advance(s, blank)
        told.append((changed, [word.text for word in search.shown(s).words]))
    before, after = [(False, [])] * (_PATIENCE - 1), [(False, ["ab"])] * 3
    assert told == [*before, (True, ["ab"]), *after]


def test_state_survives_a_snapshot(search: BeamSearch) -> None:
    log_probs = speech(search, 50, 5)
    s, whole = search.start(), search.start()
    search.advance(whole, log_probs)
    search.advance(s, log_probs[:23])
    _, packed = snapshot.read(snapshot.write("m", {}, state.pack(s)), "m")
    resumed = state.unpack(search.start(), packed)
    copied = state.copy(s)
    for other in (resumed, copied):
        search.advance(other, log_probs[23:])
        assert equal(other, whole)


def test_hours_need_no_more_than_seconds(search: BeamSearch) -> None:
    """Of what is not yet told; the words told since the last commit are the caller's."""
    s, sizes = search.start(), []
    for seed in range(6):
        search.advance(s, speech(search, 150, seed))
        search.commit(s)
        search.advance(s, speech(search, 20, seed))
        packed = state.pack(s)
        sizes.append(sum(v.nbytes for v in packed.values() if isinstance(v, np.ndarray)))
    assert max(sizes[3:]) <= 1.5 * max(sizes[:3])


def test_times_are_those_of_the_best_alignment() -> None:
    path = [0, 2, 2, 3, 0, 1, 0, 3, 0, 0]
    log_probs = np.full((len(path), 4), np.log(0.01), np.float32)
    log_probs[np.arange(len(path)), path] = np.log(0.97)
    found = BeamSearch(VOCABULARY, BeamConfig(beam=20, lm_weight=0.0), lexicon_of(VOCABULARY))
    s = found.start()
    found.advance(s, log_probs)
    (word,) = [w for w in found.best(s).words if w.text == "ab"]
    assert (word.first, word.last) == (1, 3)
    assert word.confidence == pytest.approx(0.97, abs=1e-4)


def test_a_commit_within_a_token_does_not_tell_it_again() -> None:
    log_probs = np.log(np.full((6, 4), 0.01, np.float32))
    log_probs[:, 2] = np.log(0.97)
    s = (search := BeamSearch(VOCABULARY, BeamConfig(beam=10))).start()
    search.advance(s, log_probs[:3])
    assert [word.text for word in search.commit(s).words] == ["a"]
    search.advance(s, log_probs[3:])
    assert search.commit(s).words == ()


def spelt(text: str) -> NDArray[np.float32]:
    """Log_probs of which the likeliest are these tokens, a step each, with blanks between."""
    path = [token for letter in VOCABULARY.encode(text) for token in (letter, 0)]
    log_probs = np.full((len(path), 4), np.log(0.02), np.float32)
    log_probs[np.arange(len(path)), path] = np.log(0.94)
    return log_probs


def test_the_language_model_goes_on_where_the_sentence_does() -> None:
    model = bigram(ends=True)
    search = BeamSearch(VOCABULARY, replace(WIDE, beam=50), lexicon_of(VOCABULARY), model)
    one, other = search.start(), search.start()
    search.advance(one, spelt("bb ab "))
    search.advance(other, spelt("bb ab "))
    assert [word.text for word in search.commit(one, sentence_ends=False).words] == ["bb", "ab"]
    assert [word.text for word in search.commit(other).words] == ["bb", "ab"]
    after_ab = model.score(model.score(model.start, model.ids["bb"])[1], model.ids["ab"])[1]
    expected, found = [], []
    for s, begin in ((one, after_ab), (other, model.start)):
        search.advance(s, spelt("bb"))
        score, at = model.score(begin, model.ids["bb"])
        expected.append(0.7 * (score + model.score(at, model.end)[0]))
        found.append({tuple(w.text for w in h.words): total for total, h in search.nbest(s, 1000)}[("bb",)])
    # The acoustics are the same.
    assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], abs=1e-9)
    assert abs(expected[0] - expected[1]) > 0.1


def test_label_prior_divides() -> None:
    log_probs = random_log_probs(12, 4, 1)
    prior = np.log(np.array([0.6, 0.2, 0.15, 0.05], np.float32))
    config = BeamConfig(beam=10, prior_scale=0.5, blank_skip=1.0)
    with_prior, without = BeamSearch(VOCABULARY, config, prior=prior), BeamSearch(VOCABULARY, config)
    s, t = with_prior.start(), without.start()
    with_prior.advance(s, log_probs)
    without.advance(t, (log_probs - np.float64(0.5) * prior.astype(np.float64)).astype(np.float32))
    assert [w.text for w in with_prior.best(s).words] == [w.text for w in without.best(t).words]


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ConfigError, match="needs a lexicon"):
        BeamSearch(VOCABULARY, model=bigram())
    with pytest.raises(ConfigError, match="3 tokens, the model has 4"):
        BeamSearch(VOCABULARY, lexicon=lexicon_of(PHONES))
    other = lexicon.build([("xx", [2, 3]), ("yy", [3])], 4)
    with pytest.raises(ConfigError, match=r"knows 0 of the lexicon's 2 words \(not 'xx'"):
        BeamSearch(VOCABULARY, lexicon=other, model=bigram())
    with pytest.raises(ConfigError, match="beam must be 1"):
        BeamConfig(beam=0)
