"""Bytes that torch's unpickler answers with other errors than its own (test_train_loop.py has the rest)."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from streamasr.errors import ModelError
from streamasr.train import checkpoint


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"j",
        b"junk\n",
        b"hello there\n",
        b"\x80",
        b"\x80\x02.",
        b"PK\x03\x04",
        pickle.dumps(Code()),
        b"g5\n.",
    ],
)
def test_damage_is_a_model_error(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="last.pt: "):
        checkpoint.read(path)
    assert capsys.readouterr().out == ""
