"""text -> phone numbers through a lexicon, words set apart by a boundary token: targets of phone losses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import dictionary

BOUNDARY = 1


class PhoneLexicon:
    """Dictionaries (data/dictionary.py), of which a word's first pronunciation counts.

    Phone 0 is the CTC blank, phone 1 stands between words.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._phones: dict[str, tuple[str, ...]] = {}
        for _, word, phones in dictionary.read(paths):
            self._phones.setdefault(word, phones)
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
