"""Sound [N] -> the same sound in a made-up room.

The room's impulse response is a model of Polack's (Habets, "Single- and Multi-Microphone Speech
Dereverberation", 2007, section 2.4): the direct sound, then noise that decays exponentially, sooner at high
frequencies, where air and walls take more. Made-up rooms do for training what measured ones do (Ko et al.,
"A study on data augmentation of reverberant speech for robust speech recognition", ICASSP 2017), and the
measured ones stay unheard, to test with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHORTEST_SECONDS, LONGEST_SECONDS = 0.15, 1.2  # in which the tail falls by 60 dB: a small room, a hall
LEAST_DIRECT_DB, MOST_DIRECT_DB = -6.0, 12.0  # direct sound over the tail: across the room, at the desk
_EDGES_HZ = (0.0, 500.0, 1000.0, 2000.0, 4000.0, np.inf)
_SHARES = (1.0, 1.0, 0.9, 0.75, 0.5)  # of the time, band by band

Samples = NDArray[np.float32]


def impulse_response(random: np.random.Generator, sample_rate: int) -> NDArray[np.float64]:
    """A room drawn at random: 1, and after it a tail of the power drawn."""
    seconds = np.exp(random.uniform(np.log(SHORTEST_SECONDS), np.log(LONGEST_SECONDS)))
    power = 10 ** (-random.uniform(LEAST_DIRECT_DB, MOST_DIRECT_DB) / 10)
    count = round(seconds * sample_rate)
    spectrum = np.fft.rfft(random.standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / sample_rate)
    time = np.arange(count) / sample_rate
    tail = np.zeros(count)
    for low, high, share in zip(_EDGES_HZ[:-1], _EDGES_HZ[1:], _SHARES, strict=True):
        band = np.fft.irfft(np.where((hz >= low) & (hz < high), spectrum, 0), count)
        tail += band * 10 ** (-3 * time / (share * seconds))
    return np.concatenate([[1.0], tail * np.sqrt(power / np.sum(tail**2))])


def in_a_room(samples: Samples, random: np.random.Generator, sample_rate: int) -> Samples:
    """As long and as loud as before; the tail that would follow the end is cut."""
    room = impulse_response(random, sample_rate)
    size = 1 << (len(samples) + len(room) - 1).bit_length()  # powers of two are transformed fastest
    heard = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(room, size), size)[: len(samples)]
    powers = [float(np.sum(np.square(x, dtype=np.float64))) for x in (samples, heard)]
    same: Samples = (heard * np.sqrt(powers[0] / max(powers[1], 1e-20))).astype(np.float32)
    return same
