"""Pronunciation lexicon of the auxiliary phone loss."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from streamasr.data import g2p
from streamasr.errors import ConfigError
from streamasr.train.phones import PhoneLexicon, unknown_words


def test_words_become_phones(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("cat\tK AE1 T\nthe\tDH AH0\nthe\tDH IY0\n")
    second.write_text("cat\tK AA2 T\ndon't\tD OW1 N T\n")
    lexicon = PhoneLexicon([first, second])
    # IY is in no pronunciation that counts.
    assert lexicon.names == [
        "<blank>", " ", "AE", "AH", "D", "DH", "K", "N", "OW", "T",
    ]  # fmt: skip
    phones = lexicon("the cat")
    assert phones is not None and phones.dtype == "int64"
    # The first pronunciation counts, also across files; stress is dropped.
    assert [lexicon.names[p] for p in phones] == ["DH", "AH", " ", "K", "AE", "T"]
    assert lexicon("the dog") is None
    empty = lexicon("")
    assert empty is not None and empty.tolist() == []


def test_dictionaries_as_others_ship_them(tmp_path: Path) -> None:
    """LibriSpeech's lexicon has capitals, and a TAB or two spaces; ours a third column."""
    path = tmp_path / "lexicon.txt"
    path.write_text("A  AH0\nA''S\tEY1 Z\nABACK  AH0 B AE1 K\nabba\tAE1 B AH0\tg2p\n")
    lexicon = PhoneLexicon([path])
    said = {word: lexicon.word(word) for word in ("a", "a''s", "aback", "abba", "none")}
    assert said == {
        "a": ("AH",), "a''s": ("EY", "Z"), "aback": ("AH", "B", "AE", "K"), "abba": ("AE", "B", "AH"),
        "none": None,
    }  # fmt: skip


def test_what_no_dictionary_has_is_pronounced_by_its_look(tmp_path: Path) -> None:
    pairs = [("".join(w), tuple(c.upper() for c in w)) for w in itertools.product("abc", repeat=3)]
    g2p.train(pairs, 100_000).write(tmp_path / "g2p.safetensors")
    dictionary = tmp_path / "own.txt"
    dictionary.write_text("abc\tC B A\n")
    lexicon = PhoneLexicon([dictionary, tmp_path / "g2p.safetensors"])
    texts = ["abc cab", "cab 5", "x"]
    assert lexicon.word("abc") == ("C", "B", "A") and lexicon.word("cab") == ("C", "A", "B")
    first, second = unknown_words(lexicon, texts)
    assert first.startswith("1 words are in no lexicon and are pronounced by their look (cab = C A B);")
    assert second.startswith(
        "2 words have no pronunciation (5, x): the 2 utterances with them teach the letters"
    )
    assert unknown_words(lexicon, ["abc"]) == []
    dictionary.write_text("ab\tA B\n")
    with pytest.raises(ConfigError, match=r"g2p\.safetensors: says 'C', which is in no dictionary"):
        PhoneLexicon([dictionary, tmp_path / "g2p.safetensors"])


@pytest.mark.parametrize(("text", "line"), [("cat\tK\n\nthe\tDH\n", 2), ("cat K AE T\n", 1), ("cat\t \n", 1)])
def test_bad_lines_are_named(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"lexicon\.txt: line {line}: expected word TAB phones"):
        PhoneLexicon([path])


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.txt: cannot be read"):
        PhoneLexicon([tmp_path / "nowhere.txt"])
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\t\x00")
    with pytest.raises(ConfigError, match="binary.txt: cannot be read"):
        PhoneLexicon([binary])
