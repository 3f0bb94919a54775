"""Captions on a terminal, which is played by pyte."""

from __future__ import annotations

import io
import os
import re
import shutil
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamasr.cli.captions import DIM, NORMAL, Captions, cells, wrap
from streamasr.events import Final, Partial

pyte = pytest.importorskip("pyte")
wcwidth = pytest.importorskip("wcwidth")


class Screen:
    """A terminal (pyte), whose lines are wrapped anew when it is resized, as most do, or cut off."""

    def __init__(self, columns: int, rows: int) -> None:
        self.out = io.StringIO()
        self.screen = pyte.Screen(columns, rows)
        self.size = columns, rows

    def update(self) -> str:
        """Shows what was written since -> that."""
        written = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        pyte.Stream(self.screen).feed(written.replace("\n", "\r\n"))
        return written

    def resize(self, columns: int, reflow: bool) -> None:
        rows = self.size[1]
        self.size = columns, rows
        if not reflow:
            self.screen.resize(rows, columns)
            return
        old, self.screen = self.screen, pyte.Screen(columns, rows)
        lines = [line.rstrip() for line in old.display[: old.cursor.y]]
        pieces = [line[i : i + columns] for line in lines for i in range(0, max(len(line), 1), columns)]
        pyte.Stream(self.screen).feed("\r\n".join([*pieces, old.display[old.cursor.y][: columns - 1]]) + "\r")

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    made = Screen(21, 6)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size(made.size))
    return made


def final(text: str) -> Final:
    return Final(0, text, (), 0.0, 1.0, 1.0, "finish")


def test_captions_are_redrawn_in_place(screen: Screen) -> None:
    captions = Captions(screen.out, in_place=True)
    captions.show(Partial(0, "", "one too", (), 0.5))
    captions.status((("", "0:01"),))
    captions.show(Partial(0, "one", "two three four five six seven", (), 1.0))
    captions.show(Partial(0, "one two", "three", (), 1.5))
    captions.show(final("one two three"))
    captions.show(Partial(1, "", "four", (), 2.0))
    captions.line("[a note]")
    captions.status((("", "0:02"),), notice="something is wrong here")
    screen.update()
    assert screen.lines == ["one two three", "[a note]", "four", "something is wrong", "here", "0:02"]
    captions.status((("", "0:03"),))
    captions.close(["one two three"])
    screen.update()
    assert screen.lines[:4] == ["one two three", "[a note]", "", "one two three"]


def test_only_lines_that_change_are_written(screen: Screen) -> None:
    captions = Captions(screen.out, in_place=True)
    captions.status((("", "0:01"),))
    captions.show(Partial(0, "one two three four five", "six", (), 0.5))
    screen.update()
    captions.show(Partial(0, "one two three four five", "six", (), 0.5))
    captions.status((("", "0:01"),))
    assert screen.update() == ""
    captions.show(Partial(0, "one two three four five", "seven", (), 0.5))
    written = screen.update()
    assert "seven" in written and "one" not in written and "0:01" not in written
    captions.status((("", "0:02"),))
    written = screen.update()
    assert "0:02" in written and "five" not in written


def test_more_lines_than_the_terminal_has(screen: Screen) -> None:
    captions = Captions(screen.out, in_place=True)
    captions.status((("", "0:01"),))
    text = " ".join(f"word{i}" for i in range(100))
    captions.show(Partial(0, "", text, (), 0.5))
    screen.update()
    expected = wrap(text, 20)
    assert screen.lines == [*expected[-4:], "0:01", ""]
    captions.show(final(text))
    captions.show(Partial(1, "", "next", (), 0.5))
    screen.update()
    assert screen.lines[-4:] == [*expected[-2:], "next", "0:01"]


def test_stable_is_bright_and_the_rest_dim(screen: Screen) -> None:
    captions = Captions(screen.out, in_place=True)
    captions.show(Partial(0, "one two", "three", (), 0.5))
    assert f"one two{DIM} three{NORMAL}" in screen.update()
    captions = Captions(screen.out, in_place=True, coloured=False)
    captions.show(Partial(0, "one two", "three", (), 0.5))
    captions.status((("\x1b[32m", "0:01"),), "notice")
    written = screen.update()
    assert "one two three" in written and not re.search(r"\x1b\[\d*m", written)


TEXTS = st.lists(st.sampled_from(["a", "b", " ", "語", "e\u0301"]), max_size=60).map(
    lambda letters: " ".join("".join(letters).split())
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("partial"), TEXTS),
        st.tuples(st.just("final"), TEXTS.filter(bool)),
        st.tuples(st.just("status"), TEXTS),
        st.tuples(st.just("resize"), st.integers(8, 40)),
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(steps=STEPS)
def test_the_screen_shows_the_end_of_what_was_said(screen: Screen, steps: list[tuple[str, Any]]) -> None:
    """Whatever the letters and the sizes: what a terminal shows is the text, wrapped for its width."""
    screen.__init__(21, 6)  # type: ignore[misc]
    captions = Captions(screen.out, in_place=True, coloured=False)
    captions.status((("", "status"),))
    finals: list[str] = []
    partial, notice = "", ""
    for kind, value in steps:
        if kind == "resize":
            screen.update()
            screen.resize(value, reflow=False)
        elif kind == "status":
            notice = value
        elif kind == "partial":
            captions.show(Partial(0, "", value, (), 0.0))
            partial = value
        else:
            captions.show(final(value))
            finals.append(value)
            partial = ""
        captions.status((("", "status"),), notice)
    screen.update()
    width = screen.size[0] - 1
    below = [*(wrap(notice, width) if notice else []), "status"][-4:]
    unfinished = wrap(partial, width)[-(5 - len(below)) :] if partial else []  # the rest is out of reach
    lines = [line for text in finals for line in wrap(text, width)] + unfinished + below
    # A mark may be a letter's own in pyte: both are compared composed. What has scrolled away stays away.
    shown = [unicodedata.normalize("NFC", line) for line in screen.lines]
    while shown[-1] == "":
        shown.pop()
    assert len(shown) >= len(unfinished + below)
    assert shown == [unicodedata.normalize("NFC", line) for line in lines[-len(shown) :]]


@given(TEXTS, st.integers(1, 30))
def test_lines_fit_and_lose_nothing(text: str, columns: int) -> None:
    found = wrap(text, columns)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    for line in found:
        assert wcwidth.wcswidth(line) == cells(line)
        assert cells(line) <= columns or len(line) == 1 or columns < 2
    for line, after in zip(found, found[1:], strict=False):  # no line could have taken more
        assert cells(line) + 1 + cells(after.split(" ")[0]) > columns or "".join(found) == text


@pytest.mark.parametrize("columns", [10, 14, 30, 60])
def test_a_terminal_that_wraps_its_lines_anew_when_resized(screen: Screen, columns: int) -> None:
    captions = Captions(screen.out, in_place=True)
    screen.screen.draw("$ streamasr listen")
    screen.screen.linefeed()
    screen.screen.carriage_return()
    captions.show(final("one two three four five"))
    captions.show(Partial(1, "", "six seven", (), 0.0))
    captions.status((("", "0:01"),))
    screen.update()
    screen.resize(columns, reflow=True)
    captions.status((("", "0:02"),))
    screen.update()
    told = [line for text in ("one two three four five", "six seven") for line in wrap(text, columns - 1)]
    shown = [line for line in screen.lines if line]
    assert shown[-len(told) - 1 :] == [*told, "0:02"][-6:]
    assert "".join(shown[: -len(told) - 1]) in "$ streamasr listen"


def test_plain_lines_where_the_output_is_no_terminal() -> None:
    out = io.StringIO()
    captions = Captions(out, in_place=False)
    captions.show(Partial(0, "one", "two", (), 1.0))
    captions.status((("", "0:01"),), "notice")
    captions.show(final("one two " * 50))
    captions.close(["one two"])
    assert out.getvalue() == "one two " * 50 + "\n"


def test_a_model_cannot_steer_the_terminal(screen: Screen) -> None:
    captions = Captions(screen.out, in_place=True)
    captions.show(Partial(0, "", "a\x1b[2Jb", (), 0.5))
    captions.show(final("a\x1b]0;title\x07b"))
    captions.close(["a\x1b]0;title\x07b"])
    written = screen.update()
    assert "\x1b[2J" not in written and "\x1b]" not in written
    assert "a?]0;title?b" in written


def test_letters_that_the_terminal_cannot_show() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    captions = Captions(out, in_place=True)
    assert captions.meter == "#-"
    captions.show(final("é語"))
    assert b"??" in out.buffer.getvalue()  # type: ignore[attr-defined]
