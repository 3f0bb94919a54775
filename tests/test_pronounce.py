"""What is spelt how: letters, the lexicon's pronunciations, and words that nobody has written down."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from streamasr.data import g2p
from streamasr.errors import ConfigError, ModelError
from streamasr.search import lexicon, lm
from streamasr.search.pronounce import Pronouncer, Speller
from streamasr.vocabulary import Vocabulary

PHONES = Vocabulary(("<blank>", " ", "B", "D", "EY", "F", "OW", "T"), "phones")
SAID = {"bow": ["B OW"], "fade": ["F EY D"], "toe": ["T OW"], "tow": ["T OW"]}


def words() -> lexicon.Lexicon:
    number = {token: i for i, token in enumerate(PHONES.tokens)}
    pairs = [(word, [number[p] for p in each.split()]) for word, ways in SAID.items() for each in ways]
    return lexicon.build(pairs, len(PHONES))


def dictionary() -> list[tuple[str, tuple[str, ...]]]:
    """Every word of three letters, by rule: "ph" is F, "x" two phones, "e" at the end silent."""
    sounds = {"a": ["AA"], "b": ["B"], "e": ["EH"], "p": ["P"], "h": ["HH"], "x": ["K", "S"]}
    found = []
    for letters in itertools.product("abephx", repeat=4):
        word, phones, at = "".join(letters), [], 0
        while at < len(word):
            if word[at : at + 2] == "ph":
                phones, at = [*phones, "F"], at + 2
            elif at == 3 and word[at] == "e":
                at += 1
            else:
                phones, at = [*phones, *sounds[word[at]]], at + 1
        if phones:
            found.append((word, tuple(phones)))
    return found


@pytest.fixture(scope="module")
def rules() -> Pronouncer:
    return Pronouncer(g2p.train(dictionary(), 100_000))


def test_rules_are_learnt(rules: Pronouncer) -> None:
    assert rules("phax")[0] == ("F", "AA", "K", "S")
    assert rules("xaphe")[0] == ("K", "S", "AA", "F")
    assert len(rules("phape", 3)) == 3
    assert g2p.error_rate(rules, dictionary()) < (0.01, 0.02)


def test_scores_are_sums_over_the_cuts(rules: Pronouncer) -> None:
    """By hand: every way to cut the word into graphones, by the model's own definition."""
    model = g2p.train(dictionary(), 100_000)
    totals: dict[tuple[str, ...], float] = {}

    def go_on(rest: str, state: int, score: float, said: tuple[str, ...]) -> None:
        if not rest:
            total = score + model.score(state, model.id_of(lm.END))[0]
            totals[said] = float(np.logaddexp(totals.get(said, -math.inf), total))
        for name in model.words[2:]:
            letters, _, phones = name.rpartition(":")
            if rest.startswith(letters):
                gain, after = model.score(state, model.ids[name])
                go_on(
                    rest[len(letters) :],
                    after,
                    score + gain,
                    said + tuple(phones.split("_") if phones else ()),
                )

    go_on("phe", model.start, 0.0, ())
    expected = sorted((said for said in totals if said), key=lambda said: -totals[said])
    assert rules("phe", 2) == expected[:2]


def test_what_cannot_be_pronounced(rules: Pronouncer) -> None:
    with pytest.raises(ConfigError, match="'naïve' holds 'n', 'v', 'ï'"):
        rules("naïve")
    with pytest.raises(ModelError, match="'b' is no graphone"):
        Pronouncer(
            lm.build(
                ["<s>", "</s>", "b"], [(np.arange(3)[:, None].astype(np.int32), np.zeros(3), np.zeros(3))]
            )
        )


def test_a_dictionary_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("a\tAH\nbee\n")
    with pytest.raises(ConfigError, match="line 2: expected word TAB phones"):
        g2p.read(path)
    path.write_text("")
    with pytest.raises(ConfigError, match="holds no words"):
        g2p.read(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        g2p.read(tmp_path / "nothing")
    path.write_text("a\tAH0\na\tEY1\nbe\tB IY1\n")
    assert g2p.read(path) == [("a", ("AH",)), ("a", ("EY",)), ("be", ("B", "IY"))]


def test_the_model_says_other_phones(rules: Pronouncer) -> None:
    with pytest.raises(ConfigError, match="g2p.safetensors says AA, EH, HH, K, P, S"):
        Speller(PHONES, words(), rules)


def test_spellings_come_from_the_lexicon() -> None:
    found = words()
    numbers = {token: i for i, token in enumerate(PHONES.tokens)}
    for word, ways in SAID.items():
        assert found.spellings(word) == [[numbers[p] for p in each.split()] for each in ways]
    speller = Speller(PHONES, found)
    labels = speller.phrase("tow bow", speller.side(["tow", "bow"]))
    toe, tow = (len(PHONES) + found.ids[word] for word in ("toe", "tow"))
    assert labels == [[7, 6, tow, 2, 6, len(PHONES) + found.ids["bow"]]] and toe != tow
    with pytest.raises(ConfigError, match="'boat' is not in the model's lexicon.*g2p.safetensors"):
        speller.side(["bow", "boat"])


def test_every_spelling_of_a_large_lexicon() -> None:
    rng = np.random.default_rng(0)
    pairs = {
        ("".join(rng.choice([*"abc"], 3)), tuple(rng.integers(1, 6, rng.integers(1, 5)).tolist()))
        for _ in range(300)
    }
    found = lexicon.build(sorted(pairs), 6)
    assert {(w, tuple(s)) for w in found.words for s in found.spellings(w)} == pairs
