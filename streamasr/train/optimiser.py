"""One step of the optimiser, as every run takes it: rate, clipping, averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .processes import Processes


class Optimiser:
    """AdamW for all parameters, or Muon for the recurrent layers' matrices and AdamW for the rest.

    Muon (Jordan et al. 2024, arXiv:2502.16982): the momentum of a matrix is made orthogonal, every direction
    of it moves alike. Its steps are as long, by root mean square, as AdamW's, so both take the same rate.
    Matrices decay; gains and biases do not.

    To make them orthogonal takes a fifth of the time of a small batch: of several `processes` each does some
    and shares them with the others.
    """

    def __init__(
        self, model: nn.Module, kind: str, weight_decay: float, processes: Processes | None = None
    ) -> None:
        muon = [
            p
            for n, p in model.named_parameters()
            if kind == "muon" and n.startswith("layers.") and p.dim() == 2
        ]
        taken = set(map(id, muon))
        rest = [p for p in model.parameters() if id(p) not in taken]
        groups = [
            {"params": [p for p in rest if p.dim() > 1], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self._processes = processes
        self._owners: dict[Tensor, int] = {}  # of Muon's matrices, if there are several processes
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)]
        if muon:
            self._parts.append(
                torch.optim.Muon(muon, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        if processes and processes.world > 1:
            busy = [0] * processes.world
            for p in sorted(muon, key=_labour, reverse=True):
                self._owners[p] = busy.index(min(busy))
                busy[self._owners[p]] += _labour(p)

    def zero_grad(self) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        processes = self._processes
        for p, owner in self._owners.items():
            if processes and owner != processes.rank:
                p.grad = None
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
        if processes:
            for p, owner in self._owners.items():
                processes.share(p.data, owner)

    def state_dict(self) -> list[dict[str, Any]]:
        """To be asked for in every process at once."""
        if self._processes:
            for p, owner in self._owners.items():
                momentum = self._parts[1].state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                self._processes.share(momentum, owner)
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]] | dict[str, Any]) -> None:
        """Raises ValueError if they are of another optimiser."""
        several = [states] if isinstance(states, dict) else states  # one, as checkpoints had it before Muon
        for part, state in zip(self._parts, several, strict=True):
            part.load_state_dict(state)


def _labour(p: Tensor) -> int:
    """Of making a matrix orthogonal: products of the longer side with the shorter one twice."""
    return max(p.shape) * min(p.shape) ** 2


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
    optimiser: Optimiser,
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
        optimiser.step(rate)
    # Early averages would be of weights that are still far away: the window grows with the run.
    decay = min(average_decay, (2 + updates) / (11 + updates))
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        torch._foreach_lerp_([average[n] for n in parameters], list(parameters.values()), 1 - decay)
    return norm
