"""Does a confidence mean what it says, and does it tell right from wrong? (confidence, correct) of words ->
expected calibration error, area under the curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 10


def bins(words: Sequence[tuple[float, bool]]) -> list[tuple[float, float, int]]:
    """(confidence, correct) -> mean confidence, share correct and number of the words in each bin.

    Ten bins of equally many words, from the least confident on; fewer where there are fewer words.
    """
    ordered = sorted(words)
    parts = np.array_split(np.array(ordered, np.float64).reshape(-1, 2), BINS)
    return [(float(p[:, 0].mean()), float(p[:, 1].mean()), len(p)) for p in parts if len(p)]


def expected_error(words: Sequence[tuple[float, bool]]) -> float | None:
    """(confidence, correct) -> mean over all words of |mean confidence - share correct| of their bin.

    None without words.

    >>> expected_error([(0.75, True), (0.25, False)])
    0.25
    """
    if not words:
        return None
    return sum(abs(mean - share) * count for mean, share, count in bins(words)) / len(words)


def area(words: Sequence[tuple[float, bool]]) -> float | None:
    """(confidence, correct) -> chance that a right word has a higher confidence than a wrong one.

    The area under the receiver operating characteristic; ties count half. None unless there are both.

    >>> area([(0.9, True), (0.5, False), (0.5, True)])
    0.75
    """
    right = np.array([confidence for confidence, correct in words if correct])
    wrong = np.sort([confidence for confidence, correct in words if not correct])
    if not len(right) or not len(wrong):
        return None
    below = np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")
    return float(below.mean() / (2 * len(wrong)))
