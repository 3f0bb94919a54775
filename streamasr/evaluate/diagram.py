"""(confidence, correct) of many words -> reliability diagram, a picture in SVG.

Each point is one of ten bins of equally many words: where it lies on the diagonal, a confidence is the share
of words that are right. Lines are 95 % intervals of that share (Wilson 1927); the bars below count words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

import numpy as np

from . import calibration

_LEFT, _TOP, _SIZE, _BARS = 64, 56, 320, 48  # pixels: of the square, and the height of the bars below it
_WIDTH, _HEIGHT = _LEFT + _SIZE + 24, _TOP + _SIZE + _BARS + 56
_INK, _PALE, _GRID, _POINTS = "#1f2933", "#7b8794", "#e4e7eb", "#2563eb"
_Z = 1.96  # of 95 %
_COUNTED = 20  # bars


def draw(words: Sequence[tuple[float, bool]], name: str) -> str:
    """(confidence, correct) of the words of a corpus -> SVG document."""
    error = calibration.expected_error(words)
    numbers = f"{len(words):,} words"
    if error is not None:
        numbers += f", expected calibration error {error:.3f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15" font-weight="600">{escape(name)}</text>',
        f'<text x="{_LEFT}" y="41" fill="{_PALE}">{numbers}</text>',
        *_axes(),
        *_points(words),
        *_bars(words),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _x(value: float) -> str:
    return f"{_LEFT + _SIZE * value:.1f}"


def _y(value: float) -> str:
    return f"{_TOP + _SIZE * (1.0 - value):.1f}"


def _line(x1: str, y1: str, x2: str, y2: str, colour: str, more: str = "") -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" {more}/>'


def _axes() -> Iterator[str]:
    below = _TOP + _SIZE + _BARS
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield _line(_x(0), _y(tick), _x(1), _y(tick), _GRID)
        yield _line(_x(tick), _y(1), _x(tick), str(below), _GRID)
        yield f'<text x="{_LEFT - 8}" y="{float(_y(tick)) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        yield f'<text x="{_x(tick)}" y="{below + 18}" text-anchor="middle">{tick:g}</text>'
    yield _line(_x(0), _y(0), _x(1), _y(1), _PALE, 'stroke-dasharray="4 4"')
    yield f'<text x="{_x(0.5)}" y="{below + 40}" text-anchor="middle">confidence</text>'
    turned = f'text-anchor="middle" transform="translate(22 {_y(0.5)}) rotate(-90)"'
    yield f"<text {turned}>words that are right</text>"


def _points(words: Sequence[tuple[float, bool]]) -> Iterator[str]:
    for mean, share, count in calibration.bins(words):
        low, high = interval(share, count)
        yield _line(_x(mean), _y(low), _x(mean), _y(high), _POINTS, 'stroke-width="1.5"')
        yield f'<circle cx="{_x(mean)}" cy="{_y(share)}" r="4.5" fill="{_POINTS}"/>'


def _bars(words: Sequence[tuple[float, bool]]) -> Iterator[str]:
    counts, _ = np.histogram([confidence for confidence, _ in words], _COUNTED, (0.0, 1.0))
    bottom, width = _TOP + _SIZE + _BARS, _SIZE / _COUNTED
    for i, count in enumerate(counts):
        height = (_BARS - 8) * count / max(counts.max(), 1)
        yield (
            f'<rect x="{_LEFT + i * width + 1:.1f}" y="{bottom - height:.1f}" width="{width - 2:.1f}" '
            f'height="{height:.1f}" fill="{_POINTS}" fill-opacity="0.35"/>'
        )


def interval(share: float, count: int) -> tuple[float, float]:
    """Share of `count` words -> 95 % interval of what it would be of all words (Wilson)."""
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)
