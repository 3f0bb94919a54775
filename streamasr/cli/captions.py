"""captions on a terminal, redrawn in place; plain lines elsewhere.

    what is final stays, and scrolls away as ordinary lines
    the segment being spoken: what is stable is bright and does not move, what may still change is dim
    a notice, for as long as there is something to tell
    the status line

Only lines that have changed are written again. Where the output is no terminal there are only the finals.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections import deque
from collections.abc import Sequence
from typing import TextIO

from ..events import Event, Final

DIM, LEVEL, WARNING, NORMAL = "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
REMEMBERED = 500  # texts above the unfinished lines, for when the terminal is resized; no screen holds more

Line = tuple[tuple[str, str], ...]  # (style or "", text) of each part


class Captions:
    """Writes to `out`; `in_place` where that is a terminal, `coloured` with marks for dim and colours."""

    def __init__(self, out: TextIO, in_place: bool, coloured: bool = True) -> None:
        self._out = out
        self.in_place = in_place
        self._coloured = coloured
        self._stable = self._text = self._notice = ""
        self._status: Line = ()
        self._above: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)  # (style, text) of lines that stay
        self._drawn: list[Line] = []  # below those, on the screen; the cursor is at the start of the last
        self._size: tuple[int, int] | None = None  # columns, rows they were drawn for

    @property
    def meter(self) -> str:
        """A cell of a level meter that is lit, and one that is not."""
        return "▰▱" if self._printable("▰▱") == "▰▱" else "#-"

    def show(self, event: Event) -> None:
        """The event takes the place of the unfinished segment."""
        if isinstance(event, Final):
            self._stable = self._text = ""
            self.line(event.text)
        else:
            self._stable, self._text = event.stable, self._printable(event.text)
            self._draw()

    def line(self, text: str, style: str = "") -> None:
        """A line that stays, above the unfinished ones."""
        text = self._printable(text)
        if self.in_place:
            self._draw((style, text))
        else:
            self._out.write(f"{text}\n")
            self._out.flush()

    def status(self, status: Line, notice: str = "") -> None:
        """The lowest line, and what is to be told above it for as long as it is true."""
        self._status = tuple((style, self._printable(text)) for style, text in status)
        self._notice = self._printable(notice)
        self._draw()

    def close(self, transcript: Sequence[str] = ()) -> None:
        """Wipes what is not final; on a terminal `transcript` follows.

        Its lines are the terminal's own to wrap: what is copied from there has no breaks within a line.
        """
        self._stable = self._text = self._notice = ""
        self._status = ()
        self._draw()
        if self.in_place and transcript:
            self._out.write("\n" + "".join(f"{self._printable(line)}\n" for line in transcript))
            self._out.flush()

    def _draw(self, added: tuple[str, str] | None = None) -> None:
        """Brings the screen up to date, with `added` above the unfinished lines."""
        if not self.in_place:
            return
        columns, rows = size = _terminal_size(self._out)
        unfinished = self._unfinished(columns, rows)
        above: list[Line] = []
        written = ""
        if self._size not in (None, size):
            # Nobody knows what the terminal has made of the old lines: all that are ours are drawn again.
            written = self._erased(columns, rows)
            self._drawn = []
            above = [line for entry in self._above for line in _lines(*entry, columns)]
            above = above[max(len(above) - (rows - len(unfinished)), 0) :]
        self._size = size
        if added:
            above += _lines(*added, columns)
            self._above.append(added)
        written += self._changes(above + unfinished)
        self._drawn = unfinished
        if written:
            self._out.write(written)
            self._out.flush()

    def _unfinished(self, columns: int, rows: int) -> list[Line]:
        """The lines that may change, at least one, fewer than `rows`."""
        told: list[Line] = []
        position = 0
        for line in wrap(self._text, columns - 1) if self._text else ():
            position = self._text.index(line, position)
            bright = max(len(self._stable) - position, 0)
            told.append((("", line[:bright]), (DIM, line[bright:])))
            position += len(line)
        notice = _lines(WARNING, self._notice, columns) if self._notice else []
        status = [_cut(self._status, columns - 1)] if self._status else []
        below = (notice + status)[-max(rows - 2, 1) :]
        # Lines that have scrolled away could not be reached; what is new is at the end.
        return [*told[len(told) - min(len(told), max(rows - 1 - len(below), 0)) :], *below] or [()]

    def _changes(self, lines: Sequence[Line]) -> str:
        """What turns the lines on the screen into these, of which there is at least one."""
        drawn = self._drawn
        row = max(len(drawn) - 1, 0)
        written = ""
        if len(lines) < len(drawn):
            written = f"{_moved(row, len(lines))}\x1b[J"
            row = len(lines)
        for i, line in enumerate(lines):
            if i >= len(drawn) or line != drawn[i]:
                written += f"{_moved(row, i)}{self._rendered(line)}\x1b[K\r"
                row = i
        return written + (_moved(row, len(lines) - 1) if row != len(lines) - 1 else "")

    def _erased(self, columns: int, rows: int) -> str:
        """What wipes all lines that are ours, where a terminal of a new size has wrapped them anew."""
        assert self._size is not None
        above = [line for entry in self._above for line in _lines(*entry, self._size[0])]
        widths = [sum(cells(text) for _, text in line) for line in (*above, *self._drawn[:-1])]
        height = sum(max(-(-width // columns), 1) for width in widths)
        return f"{_moved(min(height, rows - 1), 0)}\x1b[J"

    def _rendered(self, line: Line) -> str:
        return "".join(
            f"{style}{text}{NORMAL}" if style and text and self._coloured else text for style, text in line
        )

    def _printable(self, text: str) -> str:
        """Without what steers the terminal (letters come from the model file, which is not ours) and what
        it cannot show."""
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        text = text.encode(encoding, "replace").decode(encoding)
        return "".join(c if c.isprintable() else "?" for c in text)


def cells(text: str) -> int:
    """Columns that a terminal gives to `text`: two for a wide character, none for a combining mark."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def wrap(text: str, columns: int) -> list[str]:
    """Text -> lines of at most `columns` cells, broken at spaces; within words only where it must be."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and cells(line) + 1 + cells(word) <= columns:
            line += " " + word
            continue
        if line:
            lines.append(line)
        while cells(word) > columns and len(word) > 1:
            part = _start(word, columns) or word[0]
            lines.append(part)
            word = word[len(part) :]
        line = word
    return [*lines, line]


def _start(text: str, columns: int) -> str:
    """As much of the text as fits."""
    end = 0
    while end < len(text) and (columns := columns - cells(text[end])) >= 0:
        end += 1
    return text[:end]


def _lines(style: str, text: str, columns: int) -> list[Line]:
    # One column stays free: a terminal that has filled its last one differs from others in what it does.
    return [((style, line),) for line in wrap(text, columns - 1)]


def _cut(line: Line, columns: int) -> Line:
    """As many of the parts as fit, the last one in part."""
    kept = []
    for style, text in line:
        kept.append((style, _start(text, columns)))
        columns = max(columns - cells(text), 0)
    return tuple(kept)


def _moved(row: int, to: int) -> str:
    """The cursor's way from one row to the start of another."""
    return f"\r\x1b[{row - to}A" if to < row else "\r" + "\n" * (to - row)


def _terminal_size(out: TextIO) -> tuple[int, int]:
    """(columns, rows), both at least 2."""
    try:
        columns, rows = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        columns, rows = shutil.get_terminal_size()
    return max(columns or 80, 2), max(rows or 24, 2)
