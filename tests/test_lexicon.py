"""The prefix tree against a dictionary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CHARACTERS, thorough

from streamasr.errors import ConfigError, ModelError
from streamasr.search import lexicon

spellings = st.lists(
    st.tuples(st.sampled_from(["a", "be", "see", "e"]), st.lists(st.integers(1, 4), min_size=1, max_size=5)),
    max_size=12,
)  # fmt: skip


def words_at(found: lexicon.Lexicon, spelling: list[int]) -> list[str]:
    a, node = found.arrays, 0
    for token in spelling:
        children = range(a.first_child[node], a.first_child[node + 1])
        labels = [int(a.token[child]) for child in children]
        assert labels == sorted(set(labels))
        if token not in labels:
            return []
        node = children[labels.index(token)]
    return [found.words[i] for i in a.word[a.first_word[node] : a.first_word[node + 1]]]


@thorough
@given(spellings)
def test_every_spelling_leads_to_its_words(pairs: list[tuple[str, list[int]]]) -> None:
    found = lexicon.build(pairs, 5)
    for _, spelling in pairs:
        assert sorted(words_at(found, spelling)) == sorted({w for w, s in pairs if s == spelling})
    assert len(found) == len({tuple(s[:n]) for _, s in pairs for n in range(1, len(s) + 1)}) + 1
    assert words_at(found, [1, 1, 1, 1, 1, 1]) == []


@thorough
@given(spellings)
def test_look_ahead_is_the_best_that_can_be_reached(pairs: list[tuple[str, list[int]]]) -> None:
    found = lexicon.build(pairs, 5)
    scores = -np.arange(1.0, len(found.words) + 1)
    best = found.look_ahead(scores)
    a = found.arrays
    for node in range(len(found) - 1, -1, -1):
        reach = [scores[w] for w in a.word[a.first_word[node] : a.first_word[node + 1]]]
        reach += [best[child] for child in range(a.first_child[node], a.first_child[node + 1])]
        assert best[node] == max(reach, default=-np.inf)


def test_file(tmp_path: Path) -> None:
    found = lexicon.build(lexicon.spell(["art", "artist", "a", "it's"], CHARACTERS), len(CHARACTERS))
    found.write(tmp_path / "lexicon.safetensors")
    again = lexicon.read(tmp_path / "lexicon.safetensors")
    assert again.words == found.words and again.tokens == len(CHARACTERS)
    assert words_at(again, CHARACTERS.encode("it's")) == ["it's"]
    with pytest.raises(ModelError, match="cannot be read"):
        lexicon.read(tmp_path / "none")


def test_what_cannot_be_spelt_is_named() -> None:
    with pytest.raises(ConfigError, match="'naïve' holds 'ï'"):
        lexicon.spell(["so", "naïve"], CHARACTERS)
    with pytest.raises(ConfigError, match="'new york' holds ' '"):
        lexicon.spell(["new york"], CHARACTERS)
    with pytest.raises(ConfigError, match=r"'x' is spelt \[9\]"):
        lexicon.build([("x", [9])], 5)


def test_arrays_are_checked() -> None:
    found = lexicon.build([("a", [1, 2]), ("b", [1]), ("c", [3])], 5)
    for name, place, value in [
        ("first_child", 1, 9), ("first_child", 0, 0), ("token", 1, 0), ("token", 1, 5), ("first_word", 1, 1),
        ("first_word", -1, 9), ("word", 0, 3),
    ]:  # fmt: skip
        broken = getattr(found.arrays, name).copy()
        broken[place] = value
        with pytest.raises(ModelError, match="here: "):
            lexicon.Lexicon(found.words, 5, found.arrays._replace(**{name: broken}), "here")
