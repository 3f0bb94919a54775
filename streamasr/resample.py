"""samples at any whole rate -> samples at 16,000 Hz, chunk by chunk.

Let R be the source rate, g = gcd(R, 16000), L = 16000 / g, M = R / g. Output j lies at source position
j M / L, whose whole part n and phase p = (j M) mod L are integers. It is the windowed-sinc sum

    y[j] = sum_{k = -W+1 .. W} x[n + k] h(p / L - k)
    h(t) = sinc(2 f t) kaiser(t / W),   f = CUTOFF min(R, 16000) / (2 R)   (cycles per source sample)

scaled so that the 2 W values of every phase add up to 1: DC passes exactly. x is 0 before the first
sample and after the last. W is HALF_WIDTH samples of the lower of the two rates, in source samples;
so output j can be computed once W samples beyond position n have been heard, and N samples
followed by W zeros give exactly ceil(N L / M) outputs.

Kaiser's design formulas (Oppenheim & Schafer, Discrete-Time Signal Processing, section 7.5.3) for
A = 80 dB: beta = 0.1102 (A - 8.7), and a transition of (A - 7.95) / (2.285 * 2 pi * 2 HALF_WIDTH) of
the lower rate = 0.05, centred on the cut-off: flat to 0.45, at -80 dB from 0.5 of the lower rate.
From 48 kHz that is flat to 7.2 kHz, and nothing from above 8 kHz.

The L phases are tabulated. Awkward rates (44,101 Hz: L = 16,000) have more phases than are worth
their memory, so beyond MAX_PHASES the table has MAX_PHASES rows between two source samples and a
phase is interpolated linearly. The error is at most |h''| / (8 MAX_PHASES^2), |h''| < (2 pi f)^2 / 3
of the peak: below 4e-7 or -128 dB, under what float32 sums keep.

Every output is a [1, 2 W] x [2 W, 1] product of its own, so chunks cannot change its bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import AudioError

TARGET_RATE = 16_000  # Hz, what the features expect
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz: below is no speech, above is no sound card

HALF_WIDTH = 51  # samples of the lower rate; 0.05 of transition at ATTENUATION, see above
CUTOFF = 0.95  # of half the lower rate: the middle of the transition from 0.9 to 1
ATTENUATION = 80.0  # dB: a 16-bit microphone's noise is about there
MAX_PHASES = 1024  # 11,025 Hz, the richest of the usual rates, has 640
BLOCK_VALUES = 1 << 18  # filter values gathered at once, 1 MB: stays in the cache


@dataclass(slots=True)
class ResamplerState:
    tail: NDArray[np.float32]  # source samples still needed; its last one is number `heard` - 1
    heard: int  # source samples
    made: int  # output samples


def whole_rate(rate: int) -> int:
    """Hz, NumPy's integers too -> Python's integer. Raises AudioError for other types and rates."""
    whole = isinstance(rate, (int, np.integer)) and not isinstance(rate, bool)
    if not whole or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"sample rate {rate!r}: must be a whole number of Hz, {LOWEST_RATE} to {HIGHEST_RATE}"
        )
    return int(rate)


class Resampler:
    """Stage samples [N] float32 at `source_rate` Hz -> samples [N'] float32 at 16,000 Hz.

    After `finish`, N' = ceil(N * 16000 / source_rate). 16,000 Hz passes unchanged.
    `look_ahead` is the number of source samples that an output waits for.
    Raises AudioError unless `source_rate` is a whole number from 1,000 to 768,000.
    """

    def __init__(self, source_rate: int) -> None:
        self.source_rate = whole_rate(source_rate)
        common = math.gcd(self.source_rate, TARGET_RATE)
        self._up, self._down = TARGET_RATE // common, self.source_rate // common
        if self._up == self._down:
            self.look_ahead = 0
            return
        lower = min(self.source_rate, TARGET_RATE)
        self.look_ahead = -(-HALF_WIDTH * self.source_rate // lower)
        self._phases = min(self._up, MAX_PHASES)
        self._table = _filters(self._phases, self.look_ahead, CUTOFF * lower / (2 * self.source_rate))

    def start(self) -> ResamplerState:
        # Output 0 looks at the W - 1 samples before the first one.
        return ResamplerState(np.zeros(max(self.look_ahead - 1, 0), np.float32), 0, 0)

    def advance(self, state: ResamplerState, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """All outputs whose last source sample has now been heard."""
        state.heard += len(samples)
        if self.look_ahead == 0:
            state.made += len(samples)
            return samples.astype(np.float32)
        heard = np.concatenate([state.tail, samples])
        ready = max(-(-(state.heard - self.look_ahead) * self._up // self._down), 0)
        if ready <= state.made:
            state.tail = heard
            return np.zeros(0, np.float32)
        first = state.heard - len(heard)  # number of the source sample heard[0]
        windows = np.lib.stride_tricks.sliding_window_view(heard, 2 * self.look_ahead)
        outputs = np.empty(ready - state.made, np.float32)
        block = max(BLOCK_VALUES // (2 * self.look_ahead), 1)
        for start in range(0, len(outputs), block):
            count = min(block, len(outputs) - start)
            outputs[start : start + count] = self._outputs(windows, first, state.made + start, count)
        state.made = ready
        state.tail = heard[ready * self._down // self._up - self.look_ahead + 1 - first :].copy()
        return outputs

    def finish(self, state: ResamplerState) -> NDArray[np.float32]:
        """The outputs up to the end of what was heard, as if followed by silence."""
        outputs = self.advance(state, np.zeros(self.look_ahead, np.float32))
        state.tail = np.zeros(0, np.float32)
        return outputs

    def _outputs(
        self, windows: NDArray[np.float32], first: int, made: int, count: int
    ) -> NDArray[np.float32]:
        """Outputs [count] from number `made` on; row r of `windows` starts at source sample first + r."""
        whole, phase = divmod(made * self._down, self._up)  # Python integers: no overflow, ever
        positions = phase + self._down * np.arange(count)
        rows = whole - self.look_ahead + 1 - first + positions // self._up
        phases = positions % self._up
        if self._phases == self._up:
            filters = self._table[phases]
        else:
            index, rest = np.divmod(phases * self._phases, self._up)
            share = (rest / self._up).astype(np.float32)[:, None]
            filters = self._table[index] * (1 - share) + self._table[index + 1] * share
        return np.asarray(np.matmul(windows[rows][:, None, :], filters[:, :, None])[:, 0, 0], np.float32)


def _filters(phases: int, half: int, cutoff: float) -> NDArray[np.float32]:
    """h(p / phases - k) -> [phases + 1, 2 half], rows p = 0 .. phases, columns k = -half+1 .. half.

    `half` is W in source samples, `cutoff` is f in cycles per source sample.
    """
    p = np.arange(phases + 1)[:, None] / phases
    t = p - np.arange(-half + 1, half + 1)
    beta = 0.1102 * (ATTENUATION - 8.7)
    window = np.i0(beta * np.sqrt(np.maximum(1.0 - np.square(t / half), 0.0)))
    h = np.sinc(2.0 * cutoff * t) * window
    return np.asarray(h / h.sum(axis=1, keepdims=True), np.float32)
