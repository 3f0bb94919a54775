"""Batch -> what trained models say of it, for a student to learn beside the transcripts: distillation.

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network" (arXiv:1503.02531), at temperature 1,
step by step. The teachers hear what the student hears before parts of it are masked, every utterance from
the state zero; of several, the mean of their probabilities is taught.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from . import checkpoint, start
from .config import ModelConfig
from .ctc import best_path
from .model import AcousticModel

_IMPOSSIBLE = -50.0  # a log-probability whose product with itself is nothing

Statistics = tuple[NDArray[np.float32], NDArray[np.float32]]


class Teachers:
    """The averaged weights of checkpoints, as models. `statistics`, `phones`: the student's.

    Raises ConfigError naming the checkpoint that has other phones or steps of another length.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        statistics: Statistics,
        phones: Sequence[str],
        student: ModelConfig,
        device: torch.device,
    ) -> None:
        self._members: list[tuple[AcousticModel, Tensor, Tensor]] = []
        for path in paths:
            content = checkpoint.read(path)
            begun = start.of_checkpoint(path, content)
            if begun.phones != tuple(phones):
                raise ConfigError(f"{path}: a teacher must have the phones of the model it teaches")
            model = start.network_of(path, content)
            frames_per_step = model.config.frames_per_step
            if frames_per_step != student.frames_per_step:
                raise ConfigError(
                    f"{path}: a teacher's steps must be as long as the student's: "
                    f"{frames_per_step} frames, not {student.frames_per_step}"
                )
            theirs = model.config.mean_frames, model.config.mean_window
            if theirs != (student.mean_frames, student.mean_window):
                raise ConfigError(
                    f"{path}: a teacher hears what the student hears: its model.mean_frames and mean_window, "
                    f"{theirs[0]} and {theirs[1]}, must be the student's"
                )
            # Frames come normalised by the student's statistics.
            (mean, std), (own_mean, own_std) = statistics, begun.statistics
            scale, shift = (
                torch.from_numpy(x).to(device) for x in (std / own_std, (mean - own_mean) / own_std)
            )
            self._members.append((model.to(device), scale, shift))

    @torch.no_grad()
    def __call__(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Unmasked frames [B, T, F], lengths [B] that count -> log-probabilities of phones [S, B, V]."""
        said = []
        for model, scale, shift in self._members:
            out = model(frames * scale + shift, lengths)
            assert out.phone_logits is not None
            said.append(out.phone_logits.log_softmax(-1))
        return torch.stack(said).logsumexp(0) - float(np.log(len(said)))


def aligned(taught: Tensor, targets: Sequence[NDArray[np.int64]], steps: Tensor) -> Tensor:
    """Log-probabilities [S, B, V], phones and steps [B] of each utterance -> the same of one token a step.

    It is that of the likeliest alignment: what follows is frame-level cross-entropy, as hybrid systems are
    trained. Utterances that no alignment fits keep what they have.
    """
    told = taught.cpu().numpy()
    sure = taught.clone()
    for b, (target, count) in enumerate(zip(targets, steps.tolist(), strict=True)):
        path = best_path(told[:count, b], target)
        if path is not None:
            sure[:count, b] = _IMPOSSIBLE
            sure[torch.arange(count), b, torch.from_numpy(path)] = 0.0
    return sure
