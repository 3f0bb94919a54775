"""--hotwords and --phrases: files with one phrase a line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--hotwords", type=Path, metavar="FILE", help="one phrase a line, optionally a tab and its boost"
    )
    either.add_argument(
        "--phrases", type=Path, metavar="FILE", help="hear these or nothing: one phrase a line"
    )


def arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What `Recognizer.stream` is to be told of them; both need its beam. Raises ConfigError."""
    if options.hotwords:
        return {"search": "beam", "hotwords": read_hotwords(options.hotwords)}
    if options.phrases:
        return {"search": "beam", "phrases": read_phrases(options.phrases)}
    return {}


def read_hotwords(path: Path) -> tuple[tuple[str, float], ...]:
    """File with one phrase a line, optionally a tab and its boost -> phrases. Raises ConfigError."""
    from ..search.hotwords import DEFAULT_BOOST

    found = []
    for number, line in _lines(path, "--hotwords"):
        phrase, _, boost = line.partition("\t")
        try:
            found.append((phrase, float(boost) if boost else DEFAULT_BOOST))
        except ValueError:
            raise ConfigError(f"--hotwords: {path}: line {number}: {boost!r} is no boost") from None
    return tuple(found)


def read_phrases(path: Path) -> tuple[str, ...]:
    """File with one phrase a line -> phrases. Raises ConfigError."""
    found = []
    for number, line in _lines(path, "--phrases"):
        if "\t" in line.strip():
            raise ConfigError(
                f"--phrases: {path}: line {number}: {line!r} holds a tab; phrases have no boost"
            )
        found.append(line)
    return tuple(found)


def _lines(path: Path, option: str) -> Iterator[tuple[int, str]]:
    """Numbers and lines that are not empty, at least one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {path}: cannot be read: {error}") from None
    if not any(map(str.strip, lines)):
        raise ConfigError(f"{option}: {path}: holds no phrase")
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())
