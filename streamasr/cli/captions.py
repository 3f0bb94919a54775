"""events -> captions on a terminal, redrawn in place; plain lines elsewhere.

What is stable is bright and does not move; what may still change is dim. A final segment becomes an
ordinary line that scrolls away. Where the output is no terminal, only final segments are written.
"""

from __future__ import annotations

import shutil
import textwrap
from typing import TextIO

from ..events import Event, Final

BRIGHT, DIM, NORMAL = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class Captions:
    """Writes to `out`; `in_place` where it is a terminal."""

    def __init__(self, out: TextIO, in_place: bool) -> None:
        self._out = out
        self._in_place = in_place
        self._drawn = 0  # lines on the screen that may change

    def show(self, event: Event) -> None:
        """The event takes the place of the unfinished lines."""
        if isinstance(event, Final):
            self.line(event.text)
        elif self._in_place:
            size = shutil.get_terminal_size()
            # Lines that have scrolled away cannot be reached; what is new is at the end.
            drawn = lines(event.stable, event.text, size.columns)[-max(size.lines - 1, 1) :]
            self._out.write(self._erase() + "\n".join(drawn))
            self._out.flush()
            self._drawn = len(drawn)

    def line(self, text: str) -> None:
        """A line that stays, in the place of the unfinished ones."""
        if self._in_place:
            text = "\n".join(_wrap(_printable(text), shutil.get_terminal_size().columns))
        self._out.write(f"{self._erase()}{_printable(text)}\n")
        self._out.flush()
        self._drawn = 0

    def _erase(self) -> str:
        if not self._in_place:
            return ""
        up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
        return f"\r{up}\x1b[J"


def lines(stable: str, text: str, columns: int) -> list[str]:
    """A partial's text, of which `stable` is a prefix -> lines of less than `columns` characters with
    the terminal's marks for bright and dim."""
    text = _printable(text)
    drawn = []
    position = 0
    for line in _wrap(text, columns):
        position = text.index(line, position)
        bright = max(len(stable) - position, 0)
        drawn.append(f"{BRIGHT}{line[:bright]}{NORMAL}{DIM}{line[bright:]}{NORMAL}")
        position += len(line)
    return drawn


def _wrap(text: str, columns: int) -> list[str]:
    # One column stays free: a terminal that has filled its last one differs from others in what it does.
    return textwrap.wrap(text, max(columns - 1, 1), break_on_hyphens=False) or [""]


def _printable(text: str) -> str:
    """Without characters that steer the terminal; letters come from the model file, which is not ours."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
