"""Files of checkpoints: damaged ones are explained, none runs code, a whole one is never lost."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "flipped", "other"])
def test_damaged_checkpoints_are_explained(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.write(path, {"average": {"w": torch.arange(1000.0)}})
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "other":
        torch.save({"version": 99}, path)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[:middle],
                "garbage": b"not a checkpoint at all",
                "flipped": content[:20] + bytes(200) + content[220:],
            }[damage]
        )
    with pytest.raises(ModelError, match=r"last\.pt: (damaged|not a checkpoint of version 1)"):
        checkpoint.read(path)


def test_reading_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"version": 1, "average": Path("/")}, path)  # any object of a class would do
    with pytest.raises(ModelError, match="damaged checkpoint"):
        checkpoint.read(path)


def test_an_old_checkpoint_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.write(path, {"n": 1})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        checkpoint.write(path, {"n": lambda: None})  # cannot be saved
    assert checkpoint.read(path)["n"] == 1
