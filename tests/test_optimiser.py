"""The optimiser's parts: who moves what, and that it goes on where it stopped."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from streamasr.train.config import ModelConfig
from streamasr.train.model import AcousticModel
from streamasr.train.optimiser import Optimiser


def network() -> nn.Module:
    torch.manual_seed(0)
    return AcousticModel(ModelConfig(channels=2, hidden=24, layers=2), 12, 5, precision="float32")


def descend(model: nn.Module, optimiser: Optimiser, steps: int) -> None:
    """Steps along gradients that depend on the weights alone."""
    for _ in range(steps):
        optimiser.zero_grad()
        sum(((p - 3).square().sum() for p in model.parameters()), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        optimiser.step(1e-2)


def test_muon_moves_every_direction_of_a_recurrent_matrix_alike() -> None:
    model = network()
    before = copy.deepcopy(dict(model.named_parameters()))
    descend(model, Optimiser(model, "muon", 0.0), 1)
    for name, p in model.named_parameters():
        moved = (p - before[name]).detach()
        if name.startswith("layers.") and p.dim() == 2:
            sizes = torch.linalg.svdvals(moved)
            # Five Newton-Schulz steps bring the singular values to about 0.7 to 1.2.
            assert sizes.max() / sizes.min() < 3
            assert moved.square().mean().sqrt() == pytest.approx(0.2 * 1e-2, rel=0.35)
        else:  # AdamW's first step: each number by the rate
            torch.testing.assert_close(moved.abs(), torch.full_like(moved, 1e-2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_it_goes_on_where_it_stopped(kind: str) -> None:
    whole, halves = network(), network()
    descend(whole, Optimiser(whole, kind, 0.1), 6)
    first, second = Optimiser(halves, kind, 0.1), Optimiser(halves, kind, 0.1)
    descend(halves, first, 3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    descend(halves, second, 3)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError):
        Optimiser(halves, "adamw" if kind == "muon" else "muon", 0.1).load_state_dict(first.state_dict())


def test_only_matrices_decay() -> None:
    model = network()
    before = copy.deepcopy(dict(model.named_parameters()))
    optimiser = Optimiser(model, "muon", 0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step(1e-2)
    for name, p in model.named_parameters():
        expected = before[name] * (1 - 0.5 * 1e-2) if p.dim() > 1 else before[name]
        torch.testing.assert_close(p.detach(), expected.detach(), atol=1e-6, rtol=1e-5)
