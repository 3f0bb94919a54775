"""text -> phone numbers through a lexicon, words set apart by a boundary token: targets of phone losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import dictionary
from ..errors import ConfigError

BOUNDARY = 1


class PhoneLexicon:
    """Dictionaries (data/dictionary.py), of which a word's first pronunciation counts.

    Phone 0 is the CTC blank, phone 1 stands between words.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        names: Sequence[str] = (),
        others: Callable[[str], tuple[str, ...] | None] = lambda word: None,
    ) -> None:
        """`names`: all phones with blank and boundary, in order; none: those of the dictionaries.
        `others`: pronounces words that are in no dictionary, or gives None.

        Raises ConfigError naming the line that has another phone.
        """
        self._phones: dict[str, tuple[str, ...] | None] = {}
        self._others = others
        for where, word, phones in dictionary.read(paths):
            if names and (strange := [phone for phone in phones if phone not in names]):
                known = " ".join(names[2:])
                raise ConfigError(f"{where}: phone {strange[0]!r} is none of the model's: {known}")
            self._phones.setdefault(word, phones)
        found = {phone for phones in self._phones.values() for phone in phones or ()}
        self.names = list(names) or ["<blank>", " ", *sorted(found)]
        self._number = {name: i for i, name in enumerate(self.names)}

    def __call__(self, text: str) -> NDArray[np.int64] | None:
        """Phones of all words, or None if one of them has no pronunciation."""
        numbers: list[int] = []
        for word in text.split():
            phones = self.word(word)
            if phones is None:
                return None
            if numbers:
                numbers.append(BOUNDARY)
            numbers += (self._number[p] for p in phones)
        return np.array(numbers, np.int64)

    def word(self, word: str) -> tuple[str, ...] | None:
        """Phones of a word, or None."""
        if word not in self._phones:
            self._phones[word] = self._others(word)
        return self._phones[word]


def unknown_words(
    lexicon: PhoneLexicon, texts: Iterable[str], guessed: Mapping[str, Sequence[str]]
) -> list[str]:
    """What to say of words without a pronunciation of their own in `texts`; `guessed` are by their look."""
    texts = list(texts)
    words = dict.fromkeys(word for text in texts for word in text.split())
    silent = {word for word in words if lexicon.word(word) is None}
    looked = [f"{word} = {' '.join(guessed[word])}" for word in words if word in guessed]
    notes = []
    if looked:
        notes.append(
            f"{len(looked)} words are in no lexicon and are pronounced by their look ({_first(looked)}); "
            "what is wrong goes into a file of data.lexicon"
        )
    if silent:
        count = sum(not silent.isdisjoint(text.split()) for text in texts)
        notes.append(
            f"{len(silent)} words have no pronunciation ({_first(sorted(silent))}): the {count} utterances "
            "with them teach the letters alone"
        )
    return notes


def _first(items: Sequence[str]) -> str:
    return ", ".join(items[:5]) + (", ..." if len(items) > 5 else "")
