"""Pronunciation lexicon of the auxiliary phone loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamasr.errors import ConfigError
from streamasr.train.phones import PhoneLexicon


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
