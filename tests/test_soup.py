"""Means of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from streamasr.train import checkpoint, soup


def write(path: Path, value: float, **changes: Any) -> Path:
    content = {
        "config": "{}",
        "average": {"a.weight": torch.full((2, 3), value), "a.bias": torch.tensor([value, -value])},
        "statistics": [torch.zeros(4), torch.ones(4)],
        "vocabulary": {"tokens": ["<blank>", "a"], "kind": "characters"},
        "summary": {"epochs": int(value)},
        "optimiser": {"big": torch.zeros(9)},
    }
    checkpoint.write(path, {**content, **changes})
    return path


def test_the_mean_of_the_weights_and_all_that_export_needs_of_the_last(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{v}.pt", v) for v in (1.0, 2.0, 6.0)]
    out = tmp_path / "out.pt"
    assert soup.main([*map(str, paths), str(out)]) == 0
    content = checkpoint.read(out)
    assert content["average"]["a.weight"].eq(3.0).all()
    assert content["average"]["a.bias"].tolist() == [3.0, -3.0]
    assert content["summary"] == {"epochs": 6}
    assert "optimiser" not in content and "model" not in content


def test_what_only_training_needs_is_left_out(tmp_path: Path) -> None:
    """So a run with a decoder beside CTC and one without have a mean."""
    weights = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
    more = {"auxiliary.decoder.key.weight": torch.zeros(2, 2)}
    paths = [write(tmp_path / f"{n}.pt", 1.0, average=weights | extra) for n, extra in enumerate((more, {}))]
    for order in (paths, paths[::-1]):
        assert soup.mean(order)["average"].keys() == weights.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"average": {"a.weight": torch.zeros(2, 4), "a.bias": torch.zeros(2)}},
        {"vocabulary": {"tokens": ["<blank>", "b"], "kind": "characters"}},
        {"statistics": [torch.zeros(4), torch.full((4,), 2.0)]},
        {"phones": ["<blank>", "AA"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_fit_is_named(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = write(tmp_path / "odd.pt", 1.0, **changes)
    last = write(tmp_path / "last.pt", 2.0)
    assert soup.main([str(odd), str(last), str(tmp_path / "out.pt")]) == 1
    assert "odd.pt: of another network" in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert soup.main(["a.pt", "out.pt"]) == 2
    assert "usage" in capsys.readouterr().err
