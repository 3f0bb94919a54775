"""One step of the optimiser, as every run takes it: rate, clipping, averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for AdamW: matrices decay; gains and biases do not."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def warmed_up(updates: int, warmup: int) -> float:
    """Share of the learning rate at update number `updates`: a linear rise, then 1."""
    return min(1.0, (updates + 1) / max(1, warmup))


def cosine(updates: int, warmup: int, total: int) -> float:
    """Share of the learning rate: 1 until the end of the rise, then cosine to zero (arXiv:1608.03983)."""
    if updates < warmup:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((updates - warmup) / max(1, total - warmup), 1.0)))


def step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    *,
    rate: float,
    clip_norm: float,
    average_decay: float,
    updates: int,
) -> float:
    """Gradients -> new weights and averages, after `updates` steps before -> the gradient's norm.

    A gradient that is not finite changes no weight.
    """
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), clip_norm))
    if math.isfinite(norm):
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    # Early averages would be of weights that are still far away: the window grows with the run.
    decay = min(average_decay, (2 + updates) / (11 + updates))
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        torch._foreach_lerp_([average[n] for n in parameters], list(parameters.values()), 1 - decay)
    return norm
