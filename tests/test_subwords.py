from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamasr.data import subwords as learning
from streamasr.errors import ConfigError, ModelError
from streamasr.search.subwords import LINE_END, Subwords

COUNTS = {"going": 10, "gong": 9, "on": 30, "sing": 8, "no": 7, "rare": 1}
LEARNT = learning.learn(COUNTS, 20)  # 17 letters and the end of a line, three more


def test_the_commonest_neighbours_become_one() -> None:
    letters = sorted(set("".join(COUNTS)))
    assert LEARNT.pieces[:17] == ("\n", *letters, *(f"{letter} " for letter in letters))
    # o+"n " 30 times, n+"g " 27, then g+o 19; after those i+"ng " 18.
    assert LEARNT.pieces[17:] == ("on ", "ng ", "go")
    more = learning.learn(COUNTS, 1000).pieces
    assert more[:21] == (*LEARNT.pieces, "ing ")
    assert learning.learn(dict(reversed(COUNTS.items())), 1000).pieces == more


def test_words_are_spelt_as_they_were_learnt() -> None:
    many = learning.learn(COUNTS, 1000)
    assert all(many.word(word) == (many.ids[f"{word} "],) for word in COUNTS if word != "rare")
    assert [many.pieces[i] for i in many.word("goings")] == ["go", "i", "n", "g", "s "]


@given(st.text(st.sampled_from("goingsrae"), min_size=1, max_size=12))
def test_every_word_of_known_letters_can_be_spelt(word: str) -> None:
    ids = LEARNT.word(word)
    assert "".join(LEARNT.pieces[i] for i in ids) == f"{word} "
    assert all(not LEARNT.pieces[i].endswith(" ") for i in ids[:-1])  # no word begins another


def test_text_and_back() -> None:
    ids = [*LEARNT.word("sing"), *LEARNT.word("on"), LINE_END, *LEARNT.word("no")]
    assert LEARNT.decode(ids) == "sing on\nno"
    assert LEARNT.spells(["sing", "on"]) == "" and LEARNT.spells(["zoo", "é"]) == "zé"
    with pytest.raises(KeyError):
        LEARNT.word("zoo")


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([], "first sub-word"),
        (["a", "a ", "\n"], "first sub-word"),
        (["\n", "a", "a ", "a"], "twice"),
        (["\n", "a", "a ", "ab "], "single letter 'b'"),
        (["\n", "a", "a ", "a a"], "'a a' is no sub-word"),
        (["\n", "a", "a ", ""], "'' is no sub-word"),
    ],
)
def test_a_broken_inventory_is_told(pieces: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Subwords(pieces)


def test_too_few_sub_words_are_told() -> None:
    with pytest.raises(ConfigError, match="fewer than the 17 that"):
        learning.learn({"abcdefgh": 3}, 10)
