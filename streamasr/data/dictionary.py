"""Pronouncing dictionaries: files of word TAB phones; further columns are not looked at.

Two spaces will do for the TAB, and capitals for the word: so are CMUdict and LibriSpeech's lexicon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import ConfigError

_GAP = re.compile("\t|  +")


def read(paths: Iterable[Path]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Files -> (place of the line, word, phones without stress digits), in the files' order.

    Raises ConfigError naming the file, and the line that is something else.
    """
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            word, *rest = _GAP.split(line)
            phones = tuple(phone.rstrip("012") for phone in rest[0].split()) if rest else ()
            where = f"{path}: line {number}"
            if not phones or not word.strip():
                raise ConfigError(f"{where}: expected word TAB phones, not {line[:60]!r}")
            yield where, word.strip().lower(), phones
