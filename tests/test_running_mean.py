"""The running mean against its formula, and what it is for: offsets go, pauses do no harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamasr import running_mean
from streamasr.engine.int8 import Int8Engine
from streamasr.engine.reference import ReferenceEngine

Frames = NDArray[np.float32]
BANDS, BEGUN, WINDOW = 80, 150.0, 1500.0
SCALE = np.full(BANDS, 2.0 / BANDS, np.float32)  # every band's standard deviation is 2
ENGINES = [ReferenceEngine.centre, Int8Engine.centre]


def frames_of(count: int, level: float = 1.0, seed: int = 0) -> Frames:
    return (level + np.random.default_rng(seed).standard_normal((count, BANDS))).astype(np.float32)


def run(frames: Frames, centre: Any = ReferenceEngine.centre) -> tuple[Frames, NDArray[np.float64], float]:
    """-> frames less the mean, the mean, frames counted."""
    rest, mean = frames.copy(), np.zeros(BANDS)
    counted, _ = centre(rest, SCALE, mean, BEGUN, running_mean.BACKGROUND, WINDOW)
    return rest, mean, counted


@pytest.mark.parametrize("centre", ENGINES)
def test_the_mean_of_what_was_heard_and_of_the_global_one(centre: Any) -> None:
    """After t frames, all loud: their sum over 150 + t, for the global mean is 0."""
    x = frames_of(200)
    rest, mean, counted = run(x, centre)
    assert counted == BEGUN + 200
    for t in (0, 7, 199):
        expected = x[t] - x[: t + 1].sum(0, np.float64) / (BEGUN + t + 1)
        np.testing.assert_allclose(rest[t], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(mean, x.sum(0, np.float64) / (BEGUN + 200), rtol=1e-9)


def test_both_engines_agree() -> None:
    x = np.concatenate([frames_of(300), frames_of(300, -4, 1), frames_of(2000, 2, 2)])
    one, other = (run(x, centre) for centre in ENGINES)
    np.testing.assert_allclose(one[0], other[0], rtol=0, atol=1e-5)
    assert one[2] == other[2] > BEGUN + 300


@pytest.mark.parametrize("offset", [-1.5, 3.0])
def test_an_offset_of_every_frame_goes(offset: float) -> None:
    """Of another microphone, 26 dB louder or 13 dB softer: after half a minute little is left of it."""
    tilt = np.linspace(0.5, 1.5, BANDS).astype(np.float32)
    x = frames_of(3000)
    x[::4] -= 3  # softer frames between, or all would become the background
    plain, shifted = run(x)[0], run(x + offset * tilt)[0]
    assert abs((shifted - plain)[-100:].mean(0)).max() < 0.15 * abs(offset)


@pytest.mark.parametrize("level", [-4.0, -2.0])
def test_a_pause_of_ten_minutes_leaves_the_mean(level: float) -> None:
    """Whether digital silence, the same in every frame, or a room."""
    speech = frames_of(1000)
    speech[::4] -= 3
    pause = np.full((60_000, BANDS), level, np.float32) + 0.1 * frames_of(60_000, 0, 3)
    before, after = run(speech)[1], run(np.concatenate([speech, pause]))[1]
    np.testing.assert_allclose(after, before, rtol=0, atol=0.02)


def test_another_speaker_is_followed() -> None:
    speech = frames_of(20_000)
    speech[::4] -= 3
    other = speech[:5000] + np.float32(2)
    rest = run(np.concatenate([speech, other]))[0][-500:]
    alone = run(other)[0][-500:]
    assert abs(rest.mean(0) - alone.mean(0)).max() < 0.2  # of the 2 by which they differ
