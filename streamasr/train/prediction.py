"""Encoder outputs and frames -> how badly the one predicts the other: autoregressive predictive coding.

Chung et al., "An unsupervised autoregressive model for speech representation learning" (arXiv:1904.03240):
whoever can tell what sound comes next has learnt something of speech, without a transcript. With x_s the k
frames of step s, end to end, and y_s the last layer's output, which has heard no frame after x_s,

    loss = mean of |x_{s+n} - (W y_s + b)|
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import ModelConfig


class FramePredictor(nn.Module):
    """One linear layer. `ahead`: how many steps it looks into the future, n."""

    def __init__(self, model: ModelConfig, mel_bands: int, ahead: int) -> None:
        super().__init__()
        self.frames_per_step, self.flush_steps, self.ahead = model.frames_per_step, model.flush_steps, ahead
        self.output = nn.Linear(model.hidden, model.frames_per_step * mel_bands)

    def forward(self, encoded: Tensor, frames: Tensor, steps: Tensor) -> tuple[Tensor, int]:
        """encoded [S, B, H], frames [B, T, F], steps [B] -> (sum of absolute errors, of how many numbers).

        The flush silence is not predicted: that a recording ends is nowhere to be heard.
        """
        count = len(encoded)
        frames = frames[:, : count * self.frames_per_step].to(encoded.device)
        x = frames.reshape(len(frames), count, -1).transpose(0, 1)
        ahead = min(self.ahead, count)
        inside = torch.arange(ahead, count)[:, None] < steps - self.flush_steps
        inside = inside.to(encoded.device)
        errors = self.output(encoded[: count - ahead][inside].float()) - x[ahead:][inside]
        return errors.abs().sum(), errors.numel()
