"""samples -> log-mel frames [T, 80].

Frame i covers samples [160 i, 160 i + 400): Hann window (periodic), 512-point FFT, power spectrum,
80 triangular filters equally wide on the HTK mel scale between 20 and 7600 Hz, natural log of
max(power, floor). With `mean` and `std` (the model's frozen global statistics) a frame is
normalised, without them it is the plain log-mel frame that training caches.

Every frame is computed as a row of its own (one [1, 257] x [257, 80] product), because BLAS gives
other last bits for one row than for many: so it does not matter how many frames arrive at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError


@dataclass(frozen=True)
class FeatureConfig:
    """What a frame is. Lengths in samples, frequencies in Hz."""

    sample_rate: int = 16_000
    window_samples: int = 400  # 25 ms
    hop_samples: int = 160  # 10 ms
    fft_size: int = 512
    mel_bands: int = 80
    low_hz: float = 20.0
    high_hz: float = 7600.0
    # Below the power that one bit of 16-bit noise gives in most bands, so that digital silence and a
    # silent room look alike, and -40 dB of gain leaves speech above it.
    floor: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.hop_samples <= self.window_samples <= self.fft_size:
            raise ConfigError(
                f"features: need 0 < hop_samples <= window_samples <= fft_size, not "
                f"{self.hop_samples}, {self.window_samples}, {self.fft_size}"
            )
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate / 2:
            raise ConfigError(
                f"features: need 0 <= low_hz < high_hz <= sample_rate / 2, not "
                f"{self.low_hz}, {self.high_hz} at {self.sample_rate} Hz"
            )
        if self.mel_bands < 1 or not self.floor > 0:
            raise ConfigError("features: mel_bands and floor must be positive")

    def frames_covering(self, samples: int) -> int:
        """Number of windows it takes to cover `samples` samples; 0 for none."""
        if samples <= 0:
            return 0
        return -(-max(samples - self.window_samples, 0) // self.hop_samples) + 1

    def samples_of(self, frames: int) -> int:
        """Number of samples from the first of frame 0 to the last of frame `frames` - 1."""
        return (frames - 1) * self.hop_samples + self.window_samples if frames > 0 else 0


def mel_filters(config: FeatureConfig) -> NDArray[np.float32]:
    """Triangular filters [fft_size // 2 + 1, mel_bands], HTK scale, peak 1 (no area normalisation).

    mel(f) = 2595 log10(1 + f / 700). Same as `torchaudio.functional.melscale_fbanks(norm=None,
    mel_scale="htk")` and `librosa.filters.mel(norm=None, htk=True).T`.
    """

    def to_mel(hz: float) -> float:
        return 2595.0 * float(np.log10(1.0 + hz / 700.0))

    points_mel = np.linspace(to_mel(config.low_hz), to_mel(config.high_hz), config.mel_bands + 2)
    points = 700.0 * (10.0 ** (points_mel / 2595.0) - 1.0)  # corner frequencies, Hz
    bins = np.linspace(0, config.sample_rate / 2, config.fft_size // 2 + 1)
    rising = (bins[:, None] - points[None, :-2]) / (points[1:-1] - points[:-2])
    falling = (points[None, 2:] - bins[:, None]) / (points[2:] - points[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


@dataclass(slots=True)
class LogMelState:
    tail: NDArray[np.float32]  # samples not yet passed by the hop of the next frame


class LogMel:
    """Stage samples [N] float32 -> frames [T, mel_bands] float32."""

    def __init__(
        self,
        config: FeatureConfig,
        mean: NDArray[np.float32] | None = None,
        std: NDArray[np.float32] | None = None,
    ) -> None:
        self.config = config
        self.mean, self.std = mean, std
        n = np.arange(config.window_samples)
        window = 0.5 - 0.5 * np.cos(2.0 * np.pi * n / config.window_samples)
        self._window = window.astype(np.float32)
        self._filters = mel_filters(config)

    def start(self) -> LogMelState:
        return LogMelState(np.zeros(0, np.float32))

    def advance(self, state: LogMelState, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """All frames whose last sample has now been heard."""
        return self.advance_batch([state], [samples])[0]

    def advance_batch(
        self, states: Sequence[LogMelState], samples: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """`advance` for several streams at once, with the same bits: all frames are rows of one array."""
        size, hop = self.config.window_samples, self.config.hop_samples
        parts = [part for state, new in zip(states, samples, strict=True) for part in (state.tail, new)]
        sound = np.concatenate(parts)
        counts, starts, begin = [], [], 0
        for state, new in zip(states, samples, strict=True):
            end = begin + len(state.tail) + len(new)
            counts.append(max((end - begin - size) // hop + 1, 0))
            starts.append(np.arange(begin, begin + counts[-1] * hop, hop))
            state.tail = sound[begin + counts[-1] * hop : end].copy()
            begin = end
        frames = np.empty((sum(counts), self.config.mel_bands), np.float32)
        # All windows there are, as a view; `sliding_window_view` takes longer than a short chunk's frames.
        shape, strides = (max(len(sound) - size + 1, 0), size), (sound.itemsize, sound.itemsize)
        windows: NDArray[np.float32] = np.ndarray(shape, sound.dtype, sound, 0, strides)
        rows = np.concatenate(starts)
        # 1,000 frames at a time: an hour handed over at once must not need an hour's spectra.
        for first in range(0, len(rows), 1000):
            frames[first : first + 1000] = self._frames(windows[rows[first : first + 1000]])
        return np.split(frames, np.cumsum(counts)[:-1])

    def finish(self, state: LogMelState) -> NDArray[np.float32]:
        """Nothing: whoever ends a stream pads with zero samples first (docs/design.md, Flush)."""
        state.tail = np.zeros(0, np.float32)
        return np.zeros((0, self.config.mel_bands), np.float32)

    def levels(self, frames: NDArray[np.float32], size: int) -> list[float]:
        """frames [S size, mel_bands] of this stage -> power in dB [S] of `size` frames each, all bands.

        White noise of root mean square 1 is at about 46 dB.
        """
        if self.mean is not None and self.std is not None:
            frames = frames * self.std + self.mean
        powers = np.exp(frames).astype(np.float64).reshape(-1, size * self.config.mel_bands).sum(1)
        return [10.0 * math.log10(power / size) for power in powers.tolist()]

    def _frames(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        spectrum = np.fft.rfft(windows * self._window, self.config.fft_size, axis=-1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        mel = np.matmul(power[:, None, :], self._filters)[:, 0]
        frames = np.log(np.maximum(mel, np.float32(self.config.floor)))
        if self.mean is not None and self.std is not None:
            frames = (frames - self.mean) / self.std
        return np.asarray(frames, np.float32)
