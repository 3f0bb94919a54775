"""Transcripts in the text of the language model: found, and only those."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

from streamasr.data import overlap

SAID = "Four score, and seven years ago our fathers brought forth"


def test_sequences() -> None:
    assert list(overlap.sequences("a b c", 4)) == []
    lines = ["well four score and seven years ago our fathers", "four score and seven days ago our fathers"]
    assert overlap.found([SAID], lines * 2, 8) == {"four score and seven years ago our fathers": 2}
    assert overlap.found([SAID], lines, 9) == {}


def test_command(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text(json.dumps({"id": "1", "audio": "1.wav", "text": SAID}) + "\n")
    (tmp_path / "1.wav").touch()
    for text, code, told in [
        ("ago our fathers came", 1, "1 of 8 seq"),
        ("ago our mothers came", 0, "0 of 8 seq"),
    ]:
        (tmp_path / "text.xz").write_bytes(lzma.compress(text.encode()))
        command = [sys.executable, "-m", "streamasr.data.overlap", str(tmp_path / "text.xz")]
        command += ["--transcripts", str(tmp_path / "dev.jsonl"), "--words", "3"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, told in done.stdout) == (code, True), done
