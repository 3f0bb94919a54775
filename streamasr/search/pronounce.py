"""Word -> how it may be spelt in tokens, or said: by its letters, by the lexicon, by its look.

Words that the lexicon lacks are pronounced by an n-gram model of graphones. A graphone is a few letters and
the phones they stand for, "ph:F" or "e:" (silent). The model is a file of `lm.LanguageModel` whose words are
graphones; data/g2p.py makes it from a pronouncing dictionary.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import ConfigError, ModelError
from ..vocabulary import BLANK, Vocabulary
from . import lm
from .lexicon import Lexicon, build

FILE = "g2p.safetensors"
_BEAM = 12  # chosen: twice as wide finds nothing else for 99 words in 100

_GUESSES = 3  # pronunciations of a word that is pronounced by its look
_MOST_WAYS = 32  # to say a phrase; chosen: three words of three pronunciations each

Phones = tuple[str, ...]


def graphone(letters: str, phones: Sequence[str]) -> str:
    """("ph", ["F"]) -> "ph:F", as the model's words have it."""
    return f"{letters}:{'_'.join(phones)}"


class Pronouncer:
    """Letters -> phones; never changes."""

    def __init__(self, model: lm.LanguageModel, where: str = "pronunciation model") -> None:
        """Raises ModelError naming `where` when the model's words are no graphones."""
        from . import kernels

        self._scores, self._arrays = kernels.lm_scores, model.tables
        self._start, self._end = model.start, model.id_of(lm.END)
        self._graphones: dict[str, tuple[list[int], list[Phones]]] = {}
        for number, name in enumerate(model.words):
            letters, colon, phones = name.rpartition(":")
            if name in (lm.BEGIN, lm.END, lm.UNKNOWN):
                continue
            if not letters or not colon:
                raise ModelError(
                    f"{where}: {name!r} is no graphone; `python -m streamasr.data.g2p` makes such a model"
                )
            numbers, sounds = self._graphones.setdefault(letters, ([], []))
            numbers.append(number)
            sounds.append(tuple(phones.split("_")) if phones else ())
        if self._end < 0 or not self._graphones:
            raise ModelError(
                f"{where}: holds no graphones; `python -m streamasr.data.g2p` makes such a model"
            )
        self._longest = max(map(len, self._graphones))

    @property
    def phones(self) -> set[str]:
        """All that it may say."""
        return {phone for _, every in self._graphones.values() for sounds in every for phone in sounds}

    def __call__(self, word: str, count: int = 1) -> list[Phones]:
        """Word -> its `count` likeliest pronunciations, best first. Raises ConfigError naming a letter."""
        unknown = sorted({letter for letter in word if letter not in self._graphones})
        if unknown or not word:
            shown = ", ".join(map(repr, unknown)) or "no letters"
            raise ConfigError(f"{word!r} holds {shown}, which nobody has taught the model to pronounce")
        # Beside the score a hypothesis holds the model's state and the phones; where both agree, so does all
        # that follows, and the ways to cut the letters add up.
        beams: list[dict[tuple[int, Phones], float]] = [{} for _ in range(len(word) + 1)]
        beams[0][self._start, ()] = 0.0
        for at in range(len(word)):
            alive = sorted(beams[at].items(), key=lambda item: -item[1])[:_BEAM]
            states = np.array([state for (state, _), _ in alive], np.int64)
            for length in range(1, min(self._longest, len(word) - at) + 1):
                numbers, sounds = self._graphones.get(word[at : at + length], ([], []))
                if not numbers or not alive:
                    continue
                scores, after = self._scores(self._arrays, states, np.array(numbers, np.int64))
                target = beams[at + length]
                for (key, score), gains, nexts in zip(alive, scores.tolist(), after.tolist(), strict=True):
                    for said, gain, state in zip(sounds, gains, nexts, strict=True):
                        _add(target, (state, key[1] + said), score + gain)
        whole: dict[Phones, float] = {}
        for (state, said), score in beams[-1].items():
            gain = self._scores(self._arrays, np.array([state]), np.array([self._end]))[0][0, 0]
            if said:
                _add(whole, said, score + float(gain))
        return sorted(whole, key=lambda said: (-whole[said], said))[:count]


class Speller:
    """Phrases -> labels of the hotwords' automaton: the tokens of each word, then its end.

    Token models of letters spell every word; those of phones look it up, and pronounce what is not there.
    """

    def __init__(
        self, vocabulary: Vocabulary, lexicon: Lexicon | None = None, pronouncer: Pronouncer | None = None
    ) -> None:
        self._vocabulary, self._lexicon, self._pronouncer = vocabulary, lexicon, pronouncer
        self.separator, self.tokens = vocabulary.space, len(vocabulary)
        self._numbers = {t: i for i, t in enumerate(vocabulary.tokens) if i not in (BLANK, vocabulary.space)}
        if pronouncer is not None and not pronouncer.phones <= self._numbers.keys():
            strange = ", ".join(sorted(pronouncer.phones - self._numbers.keys()))
            raise ConfigError(
                f"search: {FILE} says {strange}, which the model does not; make it for this model"
            )

    def word(self, word: str) -> list[list[int]]:
        """Word -> its spellings. Raises ConfigError naming it."""
        if self._vocabulary.kind != "characters" and self._lexicon and word in self._lexicon.ids:
            return self._lexicon.spellings(word)
        return self._spellings(word)

    def side(self, words: Iterable[str]) -> Lexicon:
        """Those words that the lexicon lacks, spelt; without a lexicon none: any word can be written.

        Raises ConfigError naming the word and what is wrong with it.
        """
        every = dict.fromkeys(words)
        known = self._lexicon.ids if self._lexicon else {}
        spelt = [(word, tokens) for word in every if word not in known for tokens in self._spellings(word)]
        return build(spelt if self._lexicon else [], self.tokens)

    def phrase(self, text: str, side: Lexicon) -> list[list[int]]:
        """Words of the lexicon or of `side` -> labels of the phrase, once for each way to say it."""
        ways = []
        for word in text.split(" "):
            end, spellings = self.separator, []
            if self._lexicon is None:
                spellings = self._spellings(word)
            elif word in self._lexicon.ids:
                end, spellings = self.tokens + self._lexicon.ids[word], self._lexicon.spellings(word)
            else:
                end = self.tokens + len(self._lexicon.words) + side.ids[word]
                spellings = [[-token for token in tokens] for tokens in side.spellings(word)]
            ways.append([[*tokens, end] for tokens in spellings])
        several = itertools.islice(itertools.product(*ways), _MOST_WAYS)
        return [[label for word in way for label in word] for way in several]

    def _spellings(self, word: str) -> list[list[int]]:
        if self._vocabulary.kind == "characters":
            unknown = sorted(set(word) - self._numbers.keys())
            if unknown:
                raise ConfigError(
                    f"{word!r} holds {', '.join(map(repr, unknown))}, which this model cannot write; "
                    "write the phrase as it is spoken, in the model's letters"
                )
            return [[self._numbers[letter] for letter in word]]
        if self._pronouncer is None:
            raise ConfigError(
                f"{word!r} is not in the model's lexicon, and the model has no {FILE} to pronounce it by; "
                "leave it out, or make that file with `python -m streamasr.data.g2p`"
            )
        return [[self._numbers[phone] for phone in said] for said in self._pronouncer(word, _GUESSES)]


def _add(scores: dict, key: object, value: float) -> None:  # type: ignore[type-arg]
    before = scores.get(key)
    if before is None:
        scores[key] = value
    else:
        high, low = max(before, value), min(before, value)
        scores[key] = high + math.log1p(math.exp(low - high))


def read(path: str | os.PathLike[str]) -> Pronouncer:
    """File from data/g2p.py -> pronouncer. Raises ModelError."""
    return Pronouncer(lm.read(path), os.fspath(path))
