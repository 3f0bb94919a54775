"""Transcripts in the text of the language model: found, and only those."""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import pytest

from streamasr.data import overlap

SAID = "Four score, and seven years ago our fathers brought forth"


def test_sequences() -> None:
    assert list(overlap.sequences("a b c", 4)) == []
    lines = ["well four score and seven years ago our fathers", "four score and seven days ago our fathers"]
    assert overlap.found([SAID], lines * 2, 8) == {"four score and seven years ago our fathers": 2}
    assert overlap.found([SAID], lines, 9) == {}


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    dev, text = tmp_path / "dev.jsonl", tmp_path / "text.xz"
    dev.write_text(json.dumps({"id": "1", "audio": "1.wav", "text": SAID}) + "\n")
    (tmp_path / "1.wav").touch()
    monkeypatch.setattr(sys, "argv", ["", str(text), "--transcripts", str(dev), "--words", "3"])
    for line, code, told in [
        ("ago our fathers came", 1, "1 of 8 seq"),
        ("ago our mothers came", 0, "0 of 8"),
    ]:
        text.write_bytes(lzma.compress(line.encode()))
        assert overlap.main() == code
        assert told in capsys.readouterr().out
