"""Made-up rooms: as loud and as long, tails of the power and length that were drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfilt
from strategies import sound

from streamasr.train import rooms

RATE = 16_000


@pytest.mark.parametrize("seed", range(8))
def test_the_tail_has_the_power_and_the_time_that_were_drawn(seed: int) -> None:
    room = rooms.impulse_response(np.random.default_rng(seed), RATE)
    random = np.random.default_rng(seed)
    seconds = np.exp(random.uniform(np.log(rooms.SHORTEST_SECONDS), np.log(rooms.LONGEST_SECONDS)))
    direct_db = random.uniform(rooms.LEAST_DIRECT_DB, rooms.MOST_DIRECT_DB)
    assert room[0] == 1.0 and len(room) == 1 + round(seconds * RATE)
    assert -10 * np.log10(np.sum(room[1:] ** 2)) == pytest.approx(direct_db, abs=1e-6)
    # ISO 3382: the backward integral's fall from -5 to -25 dB, below 1 kHz, where the time is the one drawn.
    low = sosfilt(butter(4, 700, "lowpass", fs=RATE, output="sos"), room[1:])
    left_db = 10 * np.log10(np.cumsum(low[::-1] ** 2)[::-1] / np.sum(low**2))
    first, last = (int(np.argmax(left_db < level)) for level in (-5, -25))
    assert 3 * (last - first) / RATE == pytest.approx(seconds, rel=0.2)


def test_as_long_and_as_loud_and_the_same_again() -> None:
    dry = sound(3, 1.5)
    wet = rooms.in_a_room(dry, np.random.default_rng(1), RATE)
    assert wet.dtype == np.float32 and wet.shape == dry.shape and not np.allclose(wet, dry, atol=1e-3)
    assert np.std(wet) == pytest.approx(np.std(dry), rel=1e-2)
    np.testing.assert_array_equal(wet, rooms.in_a_room(dry, np.random.default_rng(1), RATE))


def test_it_is_convolution() -> None:
    dry = sound(4, 0.3)
    room = rooms.impulse_response(np.random.default_rng(2), RATE)
    expected = np.convolve(dry, room)[: len(dry)]
    wet = rooms.in_a_room(dry, np.random.default_rng(2), RATE)
    np.testing.assert_allclose(wet / np.std(wet), expected / np.std(expected), atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_silence_stays_silence(count: int) -> None:
    silence = np.zeros(count, np.float32)
    np.testing.assert_array_equal(rooms.in_a_room(silence, np.random.default_rng(0), RATE), silence)
