"""text -> phone numbers through a lexicon, words set apart by a boundary token: targets of phone losses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

BOUNDARY = 1


class PhoneLexicon:
    """word TAB phones files (as CMUdict: stress digits are dropped; the first pronunciation counts).

    Phone 0 is the CTC blank, phone 1 stands between words.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._phones: dict[str, tuple[str, ...]] = {}
        for path in paths:
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path}: cannot read the lexicon: {error}") from error
            for number, line in enumerate(lines, 1):
                word, *rest = line.split("\t")
                if not rest or not rest[0].split():
                    raise ConfigError(f"{path}: line {number}: expected word TAB phones")
                self._phones.setdefault(word, tuple(p.rstrip("012") for p in rest[0].split()))
        self.names = ["<blank>", " ", *sorted({p for phones in self._phones.values() for p in phones})]
        self._number = {name: i for i, name in enumerate(self.names)}

    def __call__(self, text: str) -> NDArray[np.int64] | None:
        """Phones of all words, or None if a word is not in the lexicon."""
        numbers: list[int] = []
        for word in text.split():
            if word not in self._phones:
                return None
            if numbers:
                numbers.append(BOUNDARY)
            numbers += (self._number[p] for p in self._phones[word])
        return np.array(numbers, np.int64)
