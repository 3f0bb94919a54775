"""Normalised frames [T, F] -> the same less a running mean: what voice and microphone add to all of them.

An offset that every frame of a recording has says who speaks through what, not which words: the mean of what
has been heard takes it off (Atal 1974; online as Kaldi's `OnlineCmvn`). Begun as some frames of the global
mean, which is 0 here, and forgotten over a window, so that a session of hours follows its speakers.

Frames that are not louder than the background do not count: through a pause of ten minutes the mean stays
what it was when somebody spoke. The background goes quickly to what is softer and slowly to what is louder.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_DB = math.log(10) / 10  # of a natural log of power
MARGIN = 8 * _DB
BACKGROUND = -10 * _DB  # at first; levels are those beside the global mean
# Of the way, in a frame.
FALL = 0.1
RISE = 0.002


def subtract(
    frames: NDArray[np.float32],
    scale: NDArray[np.float32],
    mean: NDArray[np.float64],
    counted: float,
    background: float,
    window: float,
) -> tuple[float, float]:
    """frames [T, F] and their running mean [F] are changed in place -> (counted, background) after them.

    scale [F]: natural log of power in one unit of a normalised frame, over F. counted: frames in the mean, at
    most `window`. Plain loops, for numba compiles them where it is installed; frame by frame, so that chunks
    do not matter.
    """
    for t in range(len(frames)):
        frame = frames[t]
        level = float((frame * scale).sum())
        if level > background + MARGIN:
            counted = min(counted + 1.0, window)
            mean += (frame - mean) / counted
        background += (FALL if level < background else RISE) * (level - background)
        frame -= mean
    return counted, background
