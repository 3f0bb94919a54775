"""log-mel frames [T, F] -> log_probs [S, V]: mean, convolutions, recurrent layers, look-ahead, CTC head.

Causal but for a declared look-ahead (docs/design.md, Encoder). Step s is computed when the last of
its frames, k s + k - 1, has been heard, K steps of look-ahead later; frames that do not fill a step
wait in the state. The arithmetic is an engine's; this file knows only what waits for what.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import running_mean
from .engine import open_engine
from .errors import ConfigError

Array = NDArray[np.float32]

CELLS = {"lstm": 4, "gru": 3, "rnn": 1}  # blocks of H rows in a layer's matrices
NORMS = ("joint", "separate", "none")

# Upper bounds keep a damaged or hostile model.json from asking for absurd memory; far above any use.
_LIMITS = {
    "frames_per_step": (1, 64),
    "channels": (1, 4096),
    "hidden": (1, 65536),
    "layers": (1, 256),
    "look_ahead": (0, 1024),
    "flush_steps": (0, 1024),
    "mean_frames": (0, 1_000_000),
    "mean_window": (0, 1_000_000),
}


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder. Raises ConfigError naming the field that cannot be."""

    frames_per_step: int = 3  # k: 30 ms steps
    channels: int = 32
    cell: str = "lstm"
    norm: str = "joint"
    hidden: int = 384
    layers: int = 4
    look_ahead: int = 0  # K, steps
    flush_steps: int = 20  # steps of silence after the last frame, in which the CTC head gets done
    mean_frames: int = 0  # of the global mean, with which the running mean begins; 0: there is none
    mean_window: int = 0  # frames; the running mean is of about so many

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"encoder: {name} must be {low} to {high}, not {getattr(self, name)}")
        if self.cell not in CELLS:
            raise ConfigError(f"encoder: cell must be one of {', '.join(CELLS)}, not {self.cell!r}")
        if self.norm not in NORMS:
            raise ConfigError(f"encoder: norm must be one of {', '.join(NORMS)}, not {self.norm!r}")
        if self.mean_frames and self.mean_window < self.mean_frames:
            raise ConfigError(
                f"encoder: mean_window must be at least mean_frames, {self.mean_frames}; "
                f"it is {self.mean_window}"
            )

    def frames_to_finish(self, frames: int) -> int:
        """Frames to feed in all, so that the steps over `frames` heard ones and the flush are whole."""
        if frames <= 0:
            return 0
        return (-(-frames // self.frames_per_step) + self.flush_steps) * self.frames_per_step

    def shapes(self, bands: int, vocabulary: int, phones: int = 0) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the encoder, for F = `bands` and V = `vocabulary`.

        With `phones`, of a second head too, and of the log prior probabilities of its tokens.
        """
        channels, hidden, rows = self.channels, self.hidden, CELLS[self.cell] * self.hidden
        shapes: dict[str, tuple[int, ...]] = {
            "conv1.weight": (channels, 1, self.frames_per_step + 2, 3),
            "conv1.bias": (channels,),
            "conv2.weight": (channels, channels, 3, 3),
            "conv2.bias": (channels,),
        }
        width = channels * -(-bands // 4)
        for layer in range(self.layers):
            prefix = f"layers.{layer}."
            shapes[prefix + "weight_x"] = (rows, width)
            shapes[prefix + "weight_h"] = (rows, hidden)
            shapes[prefix + "bias"] = (rows,)
            if self.norm != "none":
                shapes[prefix + "gain"] = (rows,)
            if self.norm == "separate":
                shapes[prefix + "gain_x"] = (rows,)
            if self.norm != "none" and self.cell == "lstm":
                shapes[prefix + "cell_gain"] = (hidden,)
                shapes[prefix + "cell_bias"] = (hidden,)
            width = hidden
        if self.look_ahead:
            shapes["look_ahead.weight"] = (self.look_ahead + 1, hidden)
        shapes["output.weight"] = (vocabulary, hidden)
        shapes["output.bias"] = (vocabulary,)
        if phones:
            shapes["phone_output.weight"] = (phones, hidden)
            shapes["phone_output.bias"] = (phones,)
            shapes["phone_output.prior"] = (phones,)
        return shapes


@dataclass(slots=True)
class EncoderState:
    mean: NDArray[np.float64]  # [F], the running one; zeros where there is none
    counted: float  # frames in it
    background: float  # level, running_mean.py
    context: Array  # [2, F]: the two frames before the next step's own
    waiting: Array  # [fewer than k, F]: frames that do not fill a step yet
    columns: Array  # [1, 2, C, F/2]: the last two of conv1
    h: Array  # [1, L, H]
    c: Array  # [1, L, H]; zeros for gru and rnn
    ring: Array  # [1, K+1, H]: inputs of the look-ahead, oldest first
    steps: int  # computed so far, those in the ring included


class Encoder:
    """Stage frames [T, F] float32, normalised -> log_probs [S, V] float32, natural log.

    `frames_per_step` frames make a step; a step comes out `look_ahead` steps after its frames.
    """

    def __init__(
        self, config: EncoderConfig, bands: int, tensors: Mapping[str, Array], numbers: str = "float32"
    ) -> None:
        """`numbers`: how the model file holds them; what engine computes depends on it (engine/)."""
        self.config = config
        self.frames_per_step = config.frames_per_step
        self.look_ahead = config.look_ahead
        self._bands = bands
        std = tensors["features.std"] if config.mean_frames else np.zeros(bands, np.float32)
        self._scale = std / np.float32(bands)
        self._engine = open_engine(config.cell, config.norm, bands, tensors, numbers)

    def with_head(self, weight: Array, bias: Array) -> Encoder:
        """The same encoder with another output layer, [V, H] and [V]; all else is shared."""
        twin = copy.copy(self)
        twin._engine = self._engine.with_head(weight, bias)
        return twin

    def start(self) -> EncoderState:
        config, bands = self.config, self._bands
        return EncoderState(
            mean=np.zeros(bands),
            counted=float(config.mean_frames),
            background=running_mean.BACKGROUND,
            context=np.zeros((2, bands), np.float32),
            waiting=np.zeros((0, bands), np.float32),
            columns=np.zeros((1, 2, config.channels, -(-bands // 2)), np.float32),
            h=np.zeros((1, config.layers, config.hidden), np.float32),
            c=np.zeros((1, config.layers, config.hidden), np.float32),
            ring=np.zeros((1, config.look_ahead + 1, config.hidden), np.float32),
            steps=0,
        )

    def advance(self, state: EncoderState, frames: Array) -> Array:
        """All steps whose frames, look-ahead included, have now been heard."""
        return self.advance_batch([state], [frames])[0]

    def advance_batch(self, states: Sequence[EncoderState], frames: Sequence[Array]) -> list[Array]:
        """`advance` for several streams at once, with the same bits: one product for the rows of all."""
        k = self.frames_per_step
        inputs = []
        for state, new in zip(states, frames, strict=True):
            heard = np.concatenate([state.context, state.waiting, new])
            self._centre(state, heard[len(heard) - len(new) :])
            count = (len(heard) - 2) // k
            inputs.append(self._engine.subsample(heard[: 2 + count * k], state.columns[0]))
            # Copies, so that a large chunk does not stay in memory behind two frames.
            state.context = heard[count * k : count * k + 2].copy()
            state.waiting = heard[count * k + 2 :].copy()
        outputs = self._recur(states, inputs)
        ready = [self._look_ahead(state, y) for state, y in zip(states, outputs, strict=True)]
        log_probs = self._engine.output(np.concatenate(ready))
        return np.split(log_probs, np.cumsum([len(y) for y in ready])[:-1])

    def _centre(self, state: EncoderState, frames: Array) -> None:
        """Takes the running mean off new frames [T, F], in place."""
        if self.config.mean_frames:
            window = float(self.config.mean_window)
            state.counted, state.background = self._engine.centre(
                frames, self._scale, state.mean, state.counted, state.background, window
            )

    def finish(self, state: EncoderState) -> Array:
        """The steps that waited for their look-ahead. Waiting frames are the caller's to fill up first."""
        zeros = np.zeros((self.look_ahead, self.config.hidden), np.float32)
        return self._engine.output(self._look_ahead(state, zeros))

    def _recur(self, states: Sequence[EncoderState], inputs: Sequence[Array]) -> list[Array]:
        """Inputs [S_b, I] of each stream through the recurrent layers -> [S_b, H] of each."""
        if len(states) == 1:
            return [self._engine.recur(inputs[0], [1] * len(inputs[0]), states[0].h, states[0].c)]
        steps = np.array([len(x) for x in inputs])
        order = np.argsort(-steps, kind="stable")  # so that in every step the first ones go on
        active = [int((steps > step).sum()) for step in range(int(steps.max()))]
        first = np.cumsum([0, *active])
        rows = {b: first[: steps[b]] + place for place, b in enumerate(order)}
        x = np.empty((int(steps.sum()), inputs[0].shape[1]), np.float32)
        for b, own in rows.items():
            x[own] = inputs[b]
        h = np.concatenate([states[b].h for b in order])
        c = np.concatenate([states[b].c for b in order])
        y = self._engine.recur(x, active, h, c)
        for place, b in enumerate(order):
            states[b].h[0], states[b].c[0] = h[place], c[place]
        return [y[rows[b]] for b in range(len(states))]

    def _look_ahead(self, state: EncoderState, y: Array) -> Array:
        """Top layer's y [S, H] -> those rows, after the look-ahead, that it completes."""
        if not self.look_ahead:
            state.steps += len(y)
            return y
        rows = [np.zeros((0, self.config.hidden), np.float32)]
        for row in y:
            state.ring[0, :-1] = state.ring[0, 1:]
            state.ring[0, -1] = row
            state.steps += 1
            if state.steps > self.look_ahead:
                rows.append(self._engine.look_ahead(state.ring[0]))
        return np.concatenate(rows)
