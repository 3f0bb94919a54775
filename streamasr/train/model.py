"""Normalised frames [B, T, F] -> logits [S, B, V]: the torch side of `streamasr/encoder.py`.

The network of docs/design.md, section Encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .config import ModelConfig
from .lnlstm import RecurrentLayer, reverse

State = list[tuple[Tensor, Tensor]]


def network(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an AcousticModel without those that only training needs."""
    return {name: weight for name, weight in weights.items() if not name.startswith("auxiliary.")}


class StepsDropout(nn.Module):
    """Dropout on x [S, B, H] with one mask for all steps of an utterance (Gal & Ghahramani 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        keep = torch.rand(x.shape[1:], device=x.device) >= self.rate
        return x * (keep / (1 - self.rate)).to(x.dtype)


class LookAhead(nn.Module):
    """x [S, B, H] -> y[s] = sum_{j=0..K} w[j] x[s + j], elementwise.

    The row convolution of Deep Speech 2, arXiv:1512.02595, section 3.7.
    """

    def __init__(self, steps: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(steps + 1, hidden))
        nn.init.ones_(self.weight.data[0])

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (0, 0, 0, 0, 0, len(self.weight) - 1))
        return torch.stack([w.to(x.dtype) * padded[j : j + len(x)] for j, w in enumerate(self.weight)]).sum(0)


@dataclass
class Output:
    logits: Tensor  # [S, B, V] float32
    encoded: Tensor  # [S, B, H], what they are computed from
    steps: Tensor  # [B] int64, how many of the S steps count
    phone_logits: Tensor | None  # [S, B, phones] float32
    state: State  # of every recurrent layer after its last counted step, detached


class AcousticModel(nn.Module):
    """Convolutional subsampling, recurrent stack with residuals, optional look-ahead, CTC head."""

    def __init__(
        self, config: ModelConfig, mel_bands: int, tokens: int, phones: int = 0, precision: str = "bfloat16"
    ) -> None:
        super().__init__()
        self.config = config
        self.dtype = getattr(torch, precision)
        k, channels, hidden = config.frames_per_step, config.channels, config.hidden
        width = k * mel_bands
        if channels:
            self.conv1 = nn.Conv2d(1, channels, (k + 2, 3), stride=(k, 2))
            self.conv2 = nn.Conv2d(channels, channels, 3, stride=(1, 2))
            for conv in (self.conv1, self.conv2):
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            width = channels * -(-mel_bands // 4)
        directions = 2 if config.bidirectional else 1
        between = config.norm == "between"
        layers = []
        for _ in range(config.layers):
            for _ in range(directions):
                layer = RecurrentLayer(width, hidden, config.cell, "none" if between else config.norm)
                layer.compute_dtype, layer.weight_dropout = self.dtype, config.weight_dropout
                layers.append(layer)
            width = hidden * directions
        self.layers = nn.ModuleList(layers)
        outputs = config.layers if between else 0  # of layers, normalised before the residual sum
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(outputs))
        self.dropout = StepsDropout(config.dropout)
        self.look_ahead = LookAhead(config.look_ahead, width) if config.look_ahead else None
        self.output = nn.Linear(width, tokens)
        self.phone_output = nn.Linear(width, phones) if phones and config.phone_layer else None
        for head in (self.output, self.phone_output):
            if head is not None:
                nn.init.xavier_uniform_(head.weight)
                nn.init.zeros_(head.bias)
        self.auxiliary = nn.ModuleDict()  # what only training needs: objective.auxiliaries

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        state: State | None = None,
        bptt_steps: int = 0,
        checkpoint_layers: bool = False,
    ) -> Output:
        """frames [B, T, F], lengths [B] frames that count, multiples of frames_per_step."""
        steps = lengths // self.config.frames_per_step
        x = self._convolutions(frames) if self.config.channels else self._side_by_side(frames)
        inside = (torch.arange(len(x), device=x.device)[:, None] < steps[None, :].to(x.device))[..., None]
        final: State = []
        phone_logits = None
        for level in range(self.config.layers):
            initial = None if state is None else state[level]
            if checkpoint_layers and self.training:
                y, last = checkpoint(self._level, level, x, initial, steps, bptt_steps, use_reentrant=False)
            else:
                y, last = self._level(level, x, initial, steps, bptt_steps)
            if self.norms:
                y = self.norms[level](y.float()).to(y.dtype)
            y = self.dropout(y)
            x = x + y if self.config.residual and x.shape == y.shape else y
            final.append((last[0].detach(), last[1].detach()))
            if level + 1 == self.config.layers and self.look_ahead is not None:
                x = self.look_ahead(x * inside.to(x.dtype))
            if self.phone_output is not None and level + 1 == self.config.phone_layer:
                phone_logits = self.phone_output(x.float())
        logits = self.output(x.float())
        return Output(logits, x, steps, phone_logits, final)

    def _convolutions(self, frames: Tensor) -> Tensor:
        relu = nn.functional.relu
        x = nn.functional.pad(frames, (1, 1, 2, 0))[:, None].to(self.dtype)
        for conv, before in ((self.conv1, (1, 1, 2, 0)), (self.conv2, None)):
            assert conv.bias is not None
            x = relu(nn.functional.conv2d(x, conv.weight.to(x.dtype), conv.bias.to(x.dtype), conv.stride))
            if before is not None:
                x = nn.functional.pad(x, before)
        return x.permute(2, 0, 1, 3).flatten(2)  # [S, B, channels * bands], channel-major

    def _side_by_side(self, frames: Tensor) -> Tensor:
        batch, count, bands = frames.shape
        k = self.config.frames_per_step
        return frames.reshape(batch, count // k, k * bands).transpose(0, 1).to(self.dtype)

    def _level(
        self, level: int, x: Tensor, initial: tuple[Tensor, Tensor] | None, steps: Tensor, bptt_steps: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if self.config.bidirectional:
            ahead, last = self.layers[2 * level](x, None, steps)
            back, _ = self.layers[2 * level + 1](reverse(x, steps), None, steps)
            return torch.cat([ahead, reverse(back, steps)], -1), last
        layer = self.layers[level]
        if not bptt_steps:
            return layer(x, initial, steps)  # type: ignore[no-any-return]
        outputs = []
        for first in range(0, len(x), bptt_steps):  # Werbos 1990: the state goes on, its gradient does not
            chunk = x[first : first + bptt_steps]
            y, (h, c) = layer(chunk, initial, (steps - first).clamp(0, len(chunk)))
            initial = (h.detach(), c.detach())
            outputs.append(y)
        assert initial is not None
        return torch.cat(outputs), initial
