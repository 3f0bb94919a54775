"""Cached utterances -> padded batches, in an order that depends on seed and epoch alone.

Batch b of epoch e is made from the random generator seeded (seed, e, b), so training can go on at any
batch and hear exactly what it would have heard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from .. import running_mean
from ..errors import ConfigError
from ..features import FeatureConfig
from .augment import Augmenter
from .cache import CachedUtterance
from .config import DataConfig, ModelConfig
from .units import Units

Phones = Callable[[str], NDArray[np.int64] | None]
_subtract_mean = njit(nogil=True, cache=True)(running_mean.subtract)


@dataclass(frozen=True)
class Batch:
    frames: Tensor  # [B, T, F] float32, normalised, filled up with digital silence
    unmasked: Tensor  # the same before parts of it were masked
    lengths: Tensor  # [B] frames that count, flush included
    tokens: list[NDArray[np.int64]]
    phones: list[NDArray[np.int64] | None]
    utterances: list[CachedUtterance]
    seconds: float  # of speech, padding and flush not counted


class Batches:
    """Makes batches. `augmenter=None` leaves the frames as they are.

    With `views` 2, row B + b of a batch is row b's utterance again: perturbed alike, masked differently.
    """

    def __init__(
        self,
        utterances: list[CachedUtterance],
        data: DataConfig,
        model: ModelConfig,
        features: FeatureConfig,
        statistics: tuple[NDArray[np.float32], NDArray[np.float32]],
        vocabulary: Units,
        phones: Phones | None = None,
        augmenter: Augmenter | None = None,
        views: int = 1,
    ) -> None:
        self.views = views
        self.data, self.model, self.features = data, model, features
        self.mean, self.std = statistics
        self.phones, self.augmenter = phones, augmenter
        per_second = features.sample_rate / features.hop_samples
        longest = data.longest_seconds * per_second
        self.utterances = [u for u in utterances if 0 < len(u.frames) <= longest]
        self.left_out = len(utterances) - len(self.utterances)
        if not self.utterances:
            raise ConfigError("no utterance is left to train on: see data.train and data.longest_seconds")
        self.per_second = per_second
        self._lengths = np.array([len(u.frames) for u in self.utterances])
        self._tokens = [np.array(vocabulary.encode(u.text), np.int64) for u in self.utterances]
        self._scale = self.std / np.float32(len(self.std))
        self._silence = (np.float32(np.log(features.floor)) - self.mean) / self.std

    @property
    def seconds(self) -> float:
        return float(self._lengths.sum() / self.per_second)

    def plan(self, seed: int, epoch: int, together: int = 1) -> list[NDArray[np.int64]]:
        """Utterance numbers of every batch of an epoch: like lengths together, batches shuffled.

        `together`: so many batches of like lengths follow each other, for as many processes; what does not
        fill a group is left out. The first epoch goes from short to long (SortaGrad, Deep Speech 2,
        arXiv:1512.02595, 3.3).
        """
        random = np.random.default_rng([seed, epoch])
        order = np.argsort(self._lengths * random.uniform(0.9, 1.1, len(self._lengths)), kind="stable")
        if self.augmenter is not None and self.data.temperature != 1:
            order = np.repeat(order, self._draw(random)[order])
        budget = self.data.batch_seconds * self.per_second
        flush = self.model.flush_steps * self.model.frames_per_step
        batches: list[NDArray[np.int64]] = []
        first, longest = 0, 0
        for i, number in enumerate(order):
            longest = max(longest, int(self._lengths[number]) + flush)
            rows = (i - first + 1) * self.views
            if i > first and (longest * rows > budget or rows > self.data.batch_rows):
                batches.append(order[first:i])
                first, longest = i, int(self._lengths[number]) + flush
        batches.append(order[first:])
        for _ in range(len(batches) % together):
            batches.pop(random.integers(len(batches)))
        groups = range(len(batches) // together)
        shuffled = random.permutation(len(groups)) if epoch > 0 else groups
        return [batches[group * together + i] for group in shuffled for i in range(together)]

    def _draw(self, random: np.random.Generator) -> NDArray[np.int64]:
        """How often an epoch hears each utterance [N]: corpora in proportion to hours^(1 / temperature)."""
        _, corpus = np.unique([u.corpus for u in self.utterances], return_inverse=True)
        seconds = np.bincount(corpus, self._lengths)
        share = seconds ** (1 / self.data.temperature)
        often = (share / share.sum() * seconds.sum() / seconds)[corpus]
        return np.asarray(often + random.random(len(often)), np.int64)

    def make(self, numbers: NDArray[np.int64], seed: tuple[int, ...]) -> Batch:
        """The batch of these utterances, perturbed by a generator of this seed."""
        random = np.random.default_rng(list(seed))
        k = self.model.frames_per_step
        rows = [(self._frames(self.utterances[number], random) - self.mean) / self.std for number in numbers]
        rows, numbers = rows * self.views, np.tile(numbers, self.views)
        lengths = np.array([(-(-len(x) // k) + self.model.flush_steps) * k for x in rows])
        unmasked = np.empty((len(rows), int(lengths.max()), self.features.mel_bands), np.float32)
        unmasked[:] = self._silence
        for row, x in zip(unmasked, rows, strict=True):
            row[: len(x)] = x
            if self.model.mean_frames:
                begun, window = float(self.model.mean_frames), float(self.model.mean_window)
                mean, background = np.zeros(len(self.std)), running_mean.BACKGROUND
                _subtract_mean(row, self._scale, mean, begun, background, window)
        masked = unmasked.copy()
        if self.augmenter is not None:
            for row, x in zip(masked, rows, strict=True):
                self.augmenter.mask(row[: len(x)], random)
        utterances = [self.utterances[n] for n in numbers]
        return Batch(
            frames=torch.from_numpy(masked),
            unmasked=torch.from_numpy(unmasked),
            lengths=torch.from_numpy(lengths),
            tokens=[self._tokens[n] for n in numbers],
            phones=[self.phones(u.text) if self.phones else None for u in utterances],
            utterances=utterances,
            seconds=float(sum(map(len, rows)) / self.per_second),
        )

    def _frames(self, utterance: CachedUtterance, random: np.random.Generator) -> NDArray[np.float32]:
        if self.augmenter is None:
            return utterance.frames.astype(np.float32)
        in_room = utterance.frames_in_room
        if in_room is not None and random.random() < self.augmenter.config.room_probability:
            return self.augmenter.perturb(in_room, random)
        return self.augmenter.perturb(utterance.frames, random)


def pieces(utterances: list[CachedUtterance], longest: int) -> list[CachedUtterance]:
    """Recordings without words, cut into pieces of at most `longest` frames."""
    return [
        replace(u, frames=u.frames[first : first + longest])
        for u in utterances
        if not u.text
        for first in range(0, len(u.frames), longest)
    ]


def statistics(utterances: list[CachedUtterance]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation [F] of all frames; utterance by utterance, in double precision."""
    count, total, square = 0, 0.0, 0.0
    for utterance in utterances:
        x = utterance.frames.astype(np.float64)
        count, total, square = count + len(x), total + x.sum(0), square + np.square(x).sum(0)
    mean = np.asarray(total) / max(count, 1)
    std = np.sqrt(np.maximum(np.asarray(square) / max(count, 1) - mean**2, 1e-4))
    return mean.astype(np.float32), std.astype(np.float32)
