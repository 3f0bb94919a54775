"""Does a confidence mean what it says? (confidence, correct) of many words -> expected calibration error."""

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
