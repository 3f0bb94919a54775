"""Hotwords: what a path earns, what it gives back, and that the list may change in the middle."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import CHARACTERS, thorough
from test_beam import SPELT, VOCABULARY, bigram, equal, lexicon_of, random_log_probs

from streamasr import state
from streamasr.errors import ConfigError
from streamasr.search import kernels, lexicon, lm
from streamasr.search.beam import BeamConfig, BeamSearch
from streamasr.search.hotwords import Hotwords, compile_phrases
from streamasr.search.pronounce import Pronouncer, Speller
from streamasr.vocabulary import Vocabulary

CONFIG = BeamConfig(beam=8, tokens=4, blank_skip=1.0)


def earned(hot: Hotwords, text: str) -> tuple[float, float]:
    """Text said from a word's beginning on -> score so far, score if it ended here."""
    node, total = 0, 0.0
    for token in CHARACTERS.encode(text):
        node, change = kernels.hot_next(tuple(hot.arrays), node, token, token == CHARACTERS.space)
        total += change
    end, change = kernels.hot_next(tuple(hot.arrays), node, CHARACTERS.space, True)
    return total, total + change - hot.arrays.potential[end]


def test_credit_grows_and_is_given_back() -> None:
    hot = compile_phrases([("art", 4.0)], Speller(CHARACTERS))
    assert [earned(hot, "art"[:n])[0] for n in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert earned(hot, "art ")[0] == earned(hot, "art")[1] == 4.0
    for text in ("artist", "ar", "part", "artist ", "ar t"):
        assert earned(hot, text)[1] == 0.0, text
    assert earned(hot, "so art so art art")[1] == 12.0


def test_phrases_within_phrases() -> None:
    hot = compile_phrases(
        [("new york city", 6.0), ("new york", 4.0), ("york", 3.0), ("york minster", 5.0)], Speller(CHARACTERS)
    )
    assert earned(hot, "york")[1] == 3.0
    assert earned(hot, "new york")[1] == 4.0
    assert earned(hot, "new york city")[1] == 6.0  # in all: the shorter one's 4 are part of it
    assert earned(hot, "new york minster")[1] >= 5.0
    assert earned(hot, "new new york")[1] == 4.0
    assert earned(hot, "new yorkers")[1] == 0.0


def test_a_phrase_at_the_end_of_the_beginning_of_another() -> None:
    hot = compile_phrases([("the big apple pie", 8.0), ("big apple", 4.0)], Speller(CHARACTERS))
    assert earned(hot, "the big apple tree")[1] == pytest.approx(4.0)
    assert earned(hot, "a big apple")[1] == pytest.approx(4.0)


@thorough
@given(
    st.lists(
        st.tuples(st.text("ab ", min_size=1).filter(str.strip), st.floats(0.5, 9)), min_size=1, max_size=6
    ),
    st.text("ab ", max_size=25),
)
def test_no_more_is_earned_than_the_phrases_that_are_said(
    phrases: list[tuple[str, float]], text: str
) -> None:
    hot = compile_phrases(phrases, Speller(CHARACTERS))
    said = f" {' '.join(text.split())} "
    most = 0.0
    for phrase, boost in hot.phrases:
        count = sum(said.startswith(f" {phrase} ", at) for at in range(len(said)))
        most += boost * count
    end = earned(hot, " ".join(text.split()))[1]
    assert -1e-9 <= end <= most + 1e-9
    if len(hot.phrases) == 1 and " " not in hot.phrases[0][0]:
        assert end == pytest.approx(most)


@pytest.mark.parametrize("listed", [["ab"], ["ah", "abab", "ba"], [*SPELT]])
def test_with_its_credit_a_beginning_hopes_for_what_the_best_word_of_it_gets(listed: list[str]) -> None:
    words, boost, weight = lexicon_of(VOCABULARY), 1.7, 0.8
    config, phrases = BeamConfig(lm_weight=weight), [(word, boost) for word in listed]
    search = BeamSearch(VOCABULARY, config, words, bigram(), phrases=phrases)
    arrays, ahead, known = search.hotwords.arrays, search._shared[1], search._known
    gets = {word: weight * known[words.ids[word]] + boost * (word in listed) for word in SPELT}
    for spelling in (text for word in listed for text in SPELT[word]):
        node = 0
        for said in range(1, len(spelling) + 1):
            tokens = VOCABULARY.encode(spelling[:said])
            node, _ = kernels.hot_next(tuple(arrays), node, tokens[-1], False)
            hopes = weight * ahead[words.path(tokens)[-1]] + arrays.potential[node]
            best = max(gets[w] for w, ways in SPELT.items() for t in ways if t.startswith(spelling[:said]))
            assert hopes == pytest.approx(best, abs=1e-5), spelling[:said]  # look-ahead is float32


def run(search: BeamSearch, log_probs: NDArray[np.float32]) -> list[str]:
    s = search.start()
    search.advance(s, log_probs)
    return [word.text for word in search.best(s).words]


def spoken(text: str, doubt: dict[int, str]) -> NDArray[np.float32]:
    """log_probs [2 * letters, 4] that say `text`; at those in `doubt` another letter is likelier."""
    rows = []
    for place, letter in enumerate(text):
        row = np.full(4, 0.02)
        row[VOCABULARY.encode(letter)] = 0.9
        if place in doubt:
            row[VOCABULARY.encode(letter)], row[VOCABULARY.encode(doubt[place])] = 0.4, 0.54
        rows += [row, np.array([0.94, 0.02, 0.02, 0.02])]
    return np.log(np.array(rows, np.float32))


def test_a_doubtful_word_is_heard_as_the_hotword() -> None:
    log_probs = spoken("ab ba", {1: "a"})
    assert run(BeamSearch(VOCABULARY, CONFIG), log_probs) == ["aa", "ba"]
    assert run(BeamSearch(VOCABULARY, CONFIG, phrases=[("ab", 1.5)]), log_probs) == ["ab", "ba"]


def test_a_hotword_that_the_lexicon_lacks() -> None:
    log_probs = spoken("bab ab", {})
    without = BeamSearch(VOCABULARY, CONFIG, lexicon_of(VOCABULARY), bigram())
    assert "bab" not in SPELT and run(without, log_probs)[0] != "bab"
    assert run(without.with_phrases([("bab", 2.0)]), log_probs) == ["bab", "ab"]
    assert run(without.with_phrases([("bab", 2.0)]).with_phrases([]), log_probs) == run(without, log_probs)


@pytest.mark.parametrize("seed", range(3))
def test_an_empty_list_changes_nothing(seed: int) -> None:
    log_probs = random_log_probs(60, 4, seed)
    plain = BeamSearch(VOCABULARY, CONFIG, lexicon_of(VOCABULARY), bigram())
    empty = BeamSearch(VOCABULARY, CONFIG, lexicon_of(VOCABULARY), bigram(), phrases=[])
    s, t = plain.start(), empty.start()
    plain.advance(s, log_probs)
    empty.advance(t, log_probs)
    assert equal(s, t)


def test_the_list_changes_in_the_middle() -> None:
    plain = BeamSearch(VOCABULARY, CONFIG, lexicon_of(VOCABULARY), bigram())
    log_probs = np.concatenate([spoken("bab ", {}), spoken("bab ", {}), spoken("bab ab", {})])
    s = plain.start()
    plain.advance(s, log_probs[:8])
    with_word = plain.with_phrases([("bab", 3.0)])
    plain.change_phrases(s, with_word)
    with_word.advance(s, log_probs[8:16])
    with_word.change_phrases(s, plain)
    plain.advance(s, log_probs[16:])
    first, second, third = [w.text for w in plain.commit(s).words][:3]
    assert first != "bab" and second == "bab" and third != "bab"


def test_a_word_of_the_old_list_in_progress() -> None:
    plain = BeamSearch(VOCABULARY, CONFIG, lexicon_of(VOCABULARY), bigram())
    old = plain.with_phrases([("babbab", 50.0)])
    for steps in range(1, 12):
        s = old.start()
        old.advance(s, spoken("babbab", {})[:steps])
        old.change_phrases(s, plain)
        plain.advance(s, spoken(" ab ab", {}))
        assert [w.text for w in plain.commit(s).words][-2:] == ["ab", "ab"]


@pytest.mark.parametrize("seed", range(5))
def test_a_new_list_within_a_word_never_empties_the_beam(seed: int) -> None:
    """A prefix begun without its credit meets the same prefix with it: they are worth what is there."""
    plain = BeamSearch(VOCABULARY, CONFIG, lexicon_of(VOCABULARY), bigram())
    new = plain.with_phrases([(word, 100.0) for word in SPELT])
    log_probs = random_log_probs(40, 4, seed)
    for steps in range(1, 20):
        s = plain.start()
        plain.advance(s, log_probs[:steps])
        plain.change_phrases(s, new)
        for row in log_probs[steps:]:
            new.advance(s, row[None])
            assert s.count > 0
        new.commit(s)


PHONES = Vocabulary(("<blank>", " ", "B", "OW", "T"), "phones")


def phone_search(**settings: Any) -> BeamSearch:
    words = {"bow": [2, 3], "toe": [4, 3], "tow": [4, 3]}
    graphones = ["<s>", "</s>", "b:B", "o:OW", "a:", "t:T", "w:"]
    model = lm.build(graphones, [(np.arange(7, dtype=np.int32)[:, None], np.full(7, -2.0), np.zeros(7))])
    return BeamSearch(
        PHONES, CONFIG, lexicon.build(words.items(), len(PHONES)), pronouncer=Pronouncer(model), **settings
    )


def phones_said(text: str) -> NDArray[np.float32]:
    """log_probs of the tokens, each a letter here, with a blank after each."""
    rows = np.full((2 * len(text), len(PHONES)), 0.02)
    rows[1::2, 0] = 0.92
    rows[np.arange(0, len(rows), 2), [" BOT".index(letter) + 1 for letter in text]] = 0.92
    return np.log(rows / rows.sum(1, keepdims=True)).astype(np.float32)


def test_only_the_hotword_is_raised_not_what_sounds_like_it() -> None:
    log_probs = phones_said("TO BO")
    for word in ("toe", "tow"):
        assert run(phone_search(phrases=[(word, 0.1)]), log_probs) == [word, "bow"]
        assert run(phone_search(phrases=[(f"{word} bow", 0.1)]), log_probs) == [word, "bow"]


def test_a_hotword_that_is_pronounced() -> None:
    search = phone_search()
    log_probs = phones_said("BOT TO")
    assert "boat" not in run(search, log_probs)
    assert run(search.with_phrases(["boat", "boot"]), log_probs)[0] in ("boat", "boot")
    with pytest.raises(ConfigError, match="hotwords: 'zoë' holds 'z', 'ë'"):
        search.with_phrases(["zoë"])


def test_words_of_former_hotwords_stay_as_they_were() -> None:
    plain = phone_search()
    old, new = plain.with_phrases([("boat", 2.0)]), plain.with_phrases([("tob", 2.0), ("boat", 1.0)])
    for other in (plain, new):
        s = old.start()
        old.advance(s, phones_said("BOT BO B"))
        old.change_phrases(s, other)
        other.check(state.unpack(other.start(), state.pack(s)))
        other.advance(s, phones_said("O "))
        assert [w.text for w in other.best(s).words] == ["boat", "bow", "bow"]
        other.change_phrases(s, old)
        old.check(s)
        assert [w.text for w in old.commit(s).words] == ["boat", "bow", "bow"]


def test_a_word_the_language_model_has_never_seen_is_like_its_rarest() -> None:
    for unknown in (-0.1, -30.0):
        grams = [
            (
                np.arange(7, dtype=np.int32)[:, None],
                np.array([unknown, -9, -1, -2, -3, -4, -2.0]),
                np.zeros(7),
            )
        ]
        search = BeamSearch(VOCABULARY, CONFIG, lexicon_of(VOCABULARY), lm.build(bigram().words, grams))
        assert search._known[-1] == pytest.approx(-4.0)  # "ba", not <s>


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        (["smörgås"], "'smörgås' holds 'å', 'ö'"),
        (["route 66"], "hotwords: '66' holds '6'.*as it is spoken"),
        (["  "], "holds no word"),
        ([("yes", 0)], "boost of 'yes' must be above 0"),
        ([("yes", "much")], "boost of 'yes'"),
        ([3], "a phrase or"),
        ("yes", "a list of phrases"),
        ({"yes": 3.0}, "a list of phrases"),
        (3, "a list of phrases, not 3"),
        (["so", "n" * 65], "has 65 letters, a word may have 64"),
    ],
)
def test_what_cannot_be_a_hotword(phrases: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compile_phrases(phrases, Speller(CHARACTERS))  # type: ignore[arg-type]


def test_ten_thousand_phrases_cost_as_little_as_ten() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice([*"abcdefghij"], 7)) for _ in range(10_000)]
    log_probs = random_log_probs(100, len(CHARACTERS), 1)
    times = []
    for count in (10, 10_000):
        search = BeamSearch(CHARACTERS, BeamConfig(beam=30), phrases=words[:count])
        s = search.start()
        search.advance(s, log_probs)
        best = np.inf
        for _ in range(3):
            begin = time.process_time()
            search.advance(s, log_probs)
            best = min(best, time.process_time() - begin)
        times.append(best)
    assert times[1] < 3 * times[0] + 0.02


def test_the_benchmark_counts_what_is_listed_apart() -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "hotwords.py"
    spec = importlib.util.spec_from_file_location("hotwords_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    references = {"a": "so said madge to madge", "b": "the quick kirkleatham yeast"}
    found = {"a": "so said madge to match", "b": "the yeast kirkleatham yeast madge"}
    # One of four listed; hotwords that nobody said, or in the place of another word, count for the others.
    assert module.errors(references, found, {"madge", "kirkleatham", "yeast"}) == (1 / 4, 2 / 5, 3 / 9)
    assert module.errors({"a": "so"}, {"a": ""}, set()) == (0.0, 1.0, 1.0)
