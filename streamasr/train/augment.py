"""Log-mel frames [T, F] -> perturbed log-mel frames: tempo, warp, reverb, gain, tilt, noise, SpecAugment.

Everything works on frames (natural log of power), so that they are computed once and cached:

  tempo   frames are interpolated in time: duration / factor (as `sox tempo`)
  warp    bands are interpolated in frequency: every frequency * factor, the other half of a speed
          perturbation (Ko et al. 2015) and a vocal-tract length perturbation (Jaitly & Hinton 2013)
  reverb  a tail that decays exponentially follows every frame: the expectation of Polack's model of a
          room (Habets, "Single- and Multi-Microphone Speech Dereverberation", 2007, section 2.4)
  gain    a constant is added, exactly as if the samples had been scaled; then the floor again
  tilt    a ramp over the bands is added: another microphone
  line    what is above one frequency and below another falls off: a telephone, a cheap microphone
  noise   powers are added: log(exp(x) + exp(n)), the expectation over the unknown phase
  masks   SpecAugment (Park et al. 2019) without time warping, on normalised frames, filled with 0

A draw depends only on the generator handed in, so that a batch can be made again.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..features import FeatureConfig
from .config import AugmentConfig

Frames = NDArray[np.float32]
_DB = np.log(10.0) / 10.0  # natural log of power in one dB


class Augmenter:
    """All perturbations of one utterance, in the order of a recording's life."""

    def __init__(
        self, config: AugmentConfig, features: FeatureConfig, noises: list[NDArray[np.float16]]
    ) -> None:
        self.config, self.features = config, features
        self.noises = [n for n in noises if len(n)]
        self._floor = np.float32(np.log(features.floor))

    def perturb(self, frames: NDArray[np.float16], random: np.random.Generator) -> Frames:
        """Cached frames [T, F] -> [T', F], not normalised, not below the floor."""
        c = self.config
        x = stretch(frames.astype(np.float32), random.uniform(1 - c.tempo, 1 + c.tempo))
        x = warp(x, random.uniform(1 - c.warp, 1 + c.warp), self.features)
        if c.reverb_probability and random.random() < c.reverb_probability:
            seconds = random.uniform(c.reverb_shortest_seconds, c.reverb_longest_seconds)
            direct_db = random.uniform(c.reverb_direct_low_db, c.reverb_direct_high_db)
            x = add_reverb(x, seconds, direct_db, self.features.hop_samples / self.features.sample_rate)
        tilt = random.uniform(-c.tilt_db, c.tilt_db) * np.linspace(-1, 1, x.shape[1])
        x += (tilt * _DB).astype(np.float32)
        if c.line_probability and random.random() < c.line_probability:
            low_hz = np.exp(random.uniform(np.log(50.0), np.log(500.0)))
            high_hz = random.uniform(3000.0, 7000.0)
            x += np.float32(_DB) * line_db(low_hz, high_hz, random.uniform(12.0, 60.0), self.features)
        if self.noises and random.random() < c.noise_probability:
            snr = random.uniform(c.noise_snr_low_db, c.noise_snr_high_db)
            x = add_noise(x, self.noises[random.integers(len(self.noises))], snr, random)
        x += np.float32(random.uniform(c.gain_low_db, c.gain_high_db) * _DB)
        return np.maximum(x, self._floor, out=x)

    def mask(self, frames: Frames, random: np.random.Generator) -> None:
        """Zero random bands and stretches of normalised frames [T, F], in place."""
        c = self.config
        count, bands = frames.shape
        for _ in range(c.band_masks):
            width = random.integers(0, min(c.band_mask_width, bands) + 1)
            first = random.integers(0, bands - width + 1)
            frames[:, first : first + width] = 0.0
        seconds = count * self.features.hop_samples / self.features.sample_rate
        longest = round(c.time_mask_seconds * self.features.sample_rate / self.features.hop_samples)
        for _ in range(random.poisson(c.time_masks_per_second * seconds)):
            # Never more than a tenth of a short utterance: it may be a single word.
            width = random.integers(0, min(longest, count // 10) + 1)
            first = random.integers(0, count - width + 1)
            frames[first : first + width] = 0.0


def stretch(frames: Frames, factor: float) -> Frames:
    """Frames [T, F] -> [round(T / factor), F] by linear interpolation in time."""
    if factor == 1.0 or len(frames) < 2:
        return frames
    count = max(1, round(len(frames) / factor))
    position = np.linspace(0, len(frames) - 1, count)
    left = np.minimum(position.astype(np.int64), len(frames) - 2)
    rows: Frames = _blend_rows(frames, left, (position - left).astype(np.float32))
    return rows


def centres_hz(features: FeatureConfig) -> NDArray[np.float64]:
    """Of the mel bands [F]."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (features.low_hz, features.high_hz))
    mel = np.linspace(low, high, features.mel_bands + 2)[1:-1]
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


def line_db(low_hz: float, high_hz: float, slope_db: float, features: FeatureConfig) -> Frames:
    """Gain of every band [F] in decibel: 0 from `low_hz` to `high_hz`, outside less by so much an octave."""
    hz = centres_hz(features)
    octaves = np.maximum(np.log2(hz / high_hz), 0) + np.maximum(np.log2(low_hz / hz), 0)
    return (-slope_db * octaves).astype(np.float32)


def warp(frames: Frames, factor: float, features: FeatureConfig) -> Frames:
    """Frames [T, F] of a sound whose every frequency is multiplied by `factor`, by linear interpolation."""
    if factor == 1.0:
        return frames
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (features.low_hz, features.high_hz))
    width = (high - low) / (features.mel_bands + 1)
    centre_hz = centres_hz(features)
    position = (2595 * np.log10(1 + centre_hz / factor / 700) - low) / width - 1
    position = np.clip(position, 0, features.mel_bands - 1)
    left = np.minimum(position.astype(np.int64), features.mel_bands - 2)
    bands: Frames = _blend_bands(frames, left, (position - left).astype(np.float32))
    return bands


def add_reverb(frames: Frames, seconds: float, direct_db: float, hop_seconds: float) -> Frames:
    """Frames [T, F] heard in a room: a tail falls by 60 dB in `seconds`, in the highest band in half of that.

    `direct_db`: power of the direct sound over that of its whole tail.
    """
    times = seconds * np.linspace(1.0, 0.5, frames.shape[1])
    decay = np.exp(-6 * np.log(10.0) * hop_seconds / times)
    share = 10 ** (-direct_db / 10) * (1 - decay) / decay
    heard: Frames = _add_tail(frames, decay.astype(np.float32), share.astype(np.float32))
    return heard


def add_noise(
    frames: Frames, noise: NDArray[np.float16], snr_db: float, random: np.random.Generator
) -> Frames:
    """Mix a random stretch of `noise` [N, F] in, at a ratio of mean powers of `snr_db`."""
    start = random.integers(len(noise))
    piece = noise[(start + np.arange(len(frames))) % len(noise)].astype(np.float32)
    mixed: Frames = _add_powers(frames, piece, np.float32(10 ** (-snr_db / 10)))
    return mixed


# The loops below are numba's, not NumPy's, because they must release the GIL: batches are made beside the
# time loops of the model, and each of those waits for the GIL several times a step.


@njit(nogil=True, cache=True, fastmath=True)
def _blend_rows(x, left, share):  # type: ignore[no-untyped-def]
    y = np.empty((len(left), x.shape[1]), np.float32)
    for t in range(len(left)):
        a, b, s = x[left[t]], x[left[t] + 1], share[t]
        for f in range(x.shape[1]):
            y[t, f] = a[f] + (b[f] - a[f]) * s
    return y


@njit(nogil=True, cache=True, fastmath=True)
def _blend_bands(x, left, share):  # type: ignore[no-untyped-def]
    y = np.empty_like(x)
    for t in range(len(x)):
        for f in range(x.shape[1]):
            a, b = x[t, left[f]], x[t, left[f] + 1]
            y[t, f] = a + (b - a) * share[f]
    return y


@njit(nogil=True, cache=True, fastmath=True)
def _add_powers(x, noise, ratio):  # type: ignore[no-untyped-def]
    """log(exp(x) + g exp(noise)) with g such that the mean powers stand at 1 : ratio."""
    a, b = np.exp(x), np.exp(noise)
    gain = np.float32(ratio * a.mean() / (b.mean() + np.float32(1e-20)))
    return np.log(a + gain * b)


@njit(nogil=True, cache=True, fastmath=True)
def _add_tail(x, decay, share):  # type: ignore[no-untyped-def]
    """log(p_t + share * sum of decay^k p_(t-k), k >= 1) of powers p = exp(x), band by band."""
    y = np.empty_like(x)
    tail = np.zeros(x.shape[1], np.float32)
    for t in range(len(x)):
        for f in range(x.shape[1]):
            power = np.exp(x[t, f])
            y[t, f] = np.log(power + share[f] * tail[f])
            tail[f] = decay[f] * (tail[f] + power)
    return y
