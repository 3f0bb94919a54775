"""text -> phone numbers through a lexicon, words set apart by a boundary token: targets of phone losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data import dictionary
from ..errors import ConfigError
from ..search import pronounce

BOUNDARY = 1


Phones = tuple[str, ...]


class PhoneLexicon:
    """Dictionaries (data/dictionary.py), of which a word's first pronunciation counts.

    Models of pronunciation (g2p.safetensors) among the files say what words are by their look that are in no
    dictionary. Phone 0 is the CTC blank, phone 1 stands between words.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        names: Sequence[str] = (),
        others: Callable[[str], Phones | None] = lambda word: None,
    ) -> None:
        """`names`: all phones with blank and boundary, in order; none: those of the dictionaries.
        `others`: pronounces words that are in no dictionary, or gives None.

        Raises ConfigError naming the line, or the file, that has another phone.
        """
        paths = list(paths)
        models = [path for path in paths if path.suffix == ".safetensors"]
        self._phones: dict[str, Phones | None] = {}
        self._others = others
        self.guessed: dict[str, Phones] = {}  # words that were pronounced by their look
        for where, word, phones in dictionary.read(path for path in paths if path not in models):
            if names and (strange := [phone for phone in phones if phone not in names]):
                known = " ".join(names[2:])
                raise ConfigError(f"{where}: phone {strange[0]!r} is none of the model's: {known}")
            self._phones.setdefault(word, phones)
        found = {phone for phones in self._phones.values() for phone in phones or ()}
        self.names = list(names) or ["<blank>", " ", *sorted(found)]
        self._number = {name: i for i, name in enumerate(self.names)}
        self._pronouncers = [pronounce.read(path) for path in models]
        for path, pronouncer in zip(models, self._pronouncers, strict=True):
            if strange := sorted(pronouncer.phones - self._number.keys()):
                raise ConfigError(f"{path}: says {strange[0]!r}, which is in no dictionary of data.lexicon")

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
            self._phones[word] = self._others(word) or self._guess(word)
        return self._phones[word]

    def _guess(self, word: str) -> Phones | None:
        for pronouncer in self._pronouncers:
            try:
                self.guessed[word] = pronouncer(word)[0]
            except (ConfigError, IndexError):  # letters that it does not know, or nothing to say
                continue
            return self.guessed[word]
        return None


def unknown_words(lexicon: PhoneLexicon, texts: Iterable[str]) -> list[str]:
    """What to say of words without a pronunciation of their own in `texts`."""
    texts = list(texts)
    words = dict.fromkeys(word for text in texts for word in text.split())
    silent = {word for word in words if lexicon.word(word) is None}
    looked = [f"{word} = {' '.join(lexicon.guessed[word])}" for word in words if word in lexicon.guessed]
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
            "with them teach the letters alone; data.lexicon may name a g2p.safetensors to pronounce them"
        )
    return notes


def _first(items: Sequence[str]) -> str:
    return ", ".join(items[:5]) + (", ..." if len(items) > 5 else "")
