"""Random models and synthetic sound for the tests, and Hypothesis strategies over them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import streamasr
from streamasr.encoder import EncoderConfig
from streamasr.events import Event, Final
from streamasr.features import FeatureConfig
from streamasr.modelfile import Description
from streamasr.vocabulary import Vocabulary

Array = NDArray[np.float32]

# Few examples, the same ones every time: the suite runs before every commit.
quick = settings(max_examples=6, deadline=None, derandomize=True, database=None)
thorough = settings(max_examples=40, deadline=None, derandomize=True, database=None)

CHARACTERS = Vocabulary(("<blank>", " ", *"abcdefghijklmnopqrstuvwxyz", "'"))
TINY = {"frames_per_step": 3, "channels": 4, "hidden": 16, "layers": 2, "flush_steps": 5}
JOINT = EncoderConfig(**TINY, cell="lstm", norm="joint", mean_frames=50, mean_window=200)  # type: ignore[arg-type]
# Without normalisation the state dies away in silence, so the blank's bias wins and endpoints happen.
PLAIN = EncoderConfig(**{**TINY, "frames_per_step": 4}, cell="lstm", norm="none", look_ahead=2)  # type: ignore[arg-type]


def random_model(encoder: EncoderConfig, seed: int = 0) -> tuple[Description, dict[str, Array]]:
    """A model that has learnt nothing, with weights scaled so that sound gives plenty of letters."""
    features = FeatureConfig()
    training = {"seed": seed}
    description = Description("tiny", "en", "none", "random", features, encoder, CHARACTERS, training)
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in description.shapes().items():
        if "weight" in name:
            tensor = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif "gain" in name:
            tensor = 1.0 + 0.1 * rng.standard_normal(shape)
        else:
            tensor = 0.1 * rng.standard_normal(shape)
        # Inputs that drown the memory: letters change with the sound.
        tensors[name] = (3.0 * tensor if name.endswith("weight_x") else tensor).astype(np.float32)
    # Digital silence becomes frames of zeros.
    tensors["features.mean"] = np.full(features.mel_bands, np.log(features.floor), np.float32)
    tensors["features.std"] = np.full(features.mel_bands, 4.0, np.float32)
    for name in ("conv1.bias", "conv2.bias"):
        tensors[name][:] = 0.0
    tensors["output.weight"] *= np.float32(24.0)
    tensors["output.bias"][:] = 0.0
    tensors["output.bias"][:2] = 4.0, 4.0
    return description, tensors


def random_lstm(tokens: int, embedding: int = 6, hidden: int = 10, seed: int = 0) -> dict[str, Array]:
    """Tensors of an LSTM language model of two layers, with opinions."""
    rng = np.random.default_rng(seed)
    tensors = {"embedding": rng.normal(0, 1, (tokens, embedding)), "bias": rng.normal(0, 1, tokens)}
    tensors["projection"] = rng.normal(0, 1, (embedding, hidden))
    for level, width in enumerate((embedding, hidden)):
        prefix = f"layers.{level}."
        tensors[prefix + "weight_x"] = rng.normal(0, 0.5, (4 * hidden, width))
        tensors[prefix + "weight_h"] = rng.normal(0, 0.5, (4 * hidden, hidden))
        for name, size in (
            ("gain", 4 * hidden),
            ("bias", 4 * hidden),
            ("cell_gain", hidden),
            ("cell_bias", hidden),
        ):
            tensors[prefix + name] = rng.normal(1 if "gain" in name else 0, 0.3, size)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def sound(seed: int, seconds: float, sample_rate: int = 16_000) -> Array:
    """Noise bursts, tones and silences [N], about a fifth of a second each."""
    rng = np.random.default_rng(seed)
    count = int(seconds * sample_rate)
    pieces: list[NDArray[Any]] = []
    while sum(map(len, pieces)) < count:
        n = int(rng.uniform(0.05, 0.35) * sample_rate)
        level = 10.0 ** rng.uniform(-2.5, -0.3)
        kind = rng.integers(4)
        if kind == 0:
            pieces.append(np.zeros(n))
        elif kind == 1:
            pieces.append(level * np.sin(2 * np.pi * rng.uniform(80, 4000) * np.arange(n) / sample_rate))
        else:
            pieces.append(level * rng.standard_normal(n) * np.hanning(n))
    return np.concatenate(pieces)[:count].astype(np.float32)


seeds = st.integers(0, 1000)


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[slice]:
    """Ways to cut [0, length) into consecutive slices, empty ones included."""
    points = draw(st.lists(st.integers(0, length), max_size=12))
    edges = [0, *sorted(points), length]
    return [slice(first, last) for first, last in pairwise(edges)]


def every(length: int, size: int) -> list[slice]:
    """[0, length) in slices of `size`."""
    return [slice(first, first + size) for first in range(0, length, size)]


def run(stream: streamasr.Stream, samples: Any, slices: list[slice] | None = None) -> list[Event]:
    """All events of a stream fed with the slices (None: one chunk) and finished."""
    events: list[Event] = []
    for part in slices if slices is not None else [slice(None)]:
        events += stream.accept(samples[part])
    return events + stream.finish()


def finals(events: list[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]
