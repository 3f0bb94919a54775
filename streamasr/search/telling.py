"""Alignments of a beam's hypotheses -> words with times and confidence.

A word's number is the lexicon's; beyond those are the words of the hotwords' own tree, and below OPEN the
words of hotwords that are no more, which a hypothesis may still hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..vocabulary import Vocabulary
from . import TimedWord
from . import columns as c
from .beam_state import BeamState
from .confidence import Confidence, Evidence
from .lexicon import Lexicon


class _Token(NamedTuple):
    token: int
    word: int  # that it ends
    first: int
    last: int
    peak: float
    path: float  # BEST when the next one began


@dataclass(frozen=True)
class Teller:
    """Of one search and its hotwords; shared by the streams that have the same."""

    vocabulary: Vocabulary
    lexicon: Lexicon | None
    side: Lexicon  # words of hotwords that the lexicon lacks
    log_prior: list[float]  # of the tokens, as it was taken from the log-probabilities
    confidence: Confidence
    kernels: Any  # the module
    tables: Any  # of the language model; None: there is none
    numbers: NDArray[np.int32]  # the language model's, of the lexicon's words and of all others
    expected: Mapping[str, float]  # added to the language model's log p of hotwords, for confidences

    def words(self, state: BeamState, row: int, word: int, most: int = -1) -> list[TimedWord]:
        """Volatile words of a hypothesis, or the first `most`; `word`: what its last tokens are."""
        return [timed for timed, *_ in self.told(state, row, word, most)]

    def names(self, state: BeamState, row: int) -> list[str]:
        """Volatile words of a hypothesis that another token has followed; with a lexicon."""
        numbers = self.kernels.words_said(state.ints, state.floats, row, state.arena)
        return [self._name(state, word) for word in numbers.tolist()]

    def told(
        self, state: BeamState, row: int, word: int, most: int = -1
    ) -> list[tuple[TimedWord, int, float]]:
        """As `words`, each with the language model's state and BEST at its end."""
        ints, floats = state.ints[row].tolist(), state.floats[row].tolist()
        path, first, last, peak = c.PATH_N, c.FIRST_N, c.LAST_N, c.PEAK_N
        if floats[c.BEST_B] > floats[c.BEST_N]:
            path, first, last, peak = c.PATH_B, c.FIRST_B, c.LAST_B, c.PEAK_B
        entries = self.kernels.entries_to(state.arena, ints[path])
        tokens = [
            _Token(token, ends, begin, end, *values)
            for (_, token, ends, _, begin, end), values in zip(
                state.arena[entries].tolist(), state.values[entries].tolist(), strict=True
            )
        ]
        if ints[first] >= 0:
            ended = ints[c.ENDED] if ints[c.NODE] == 0 else word
            now = max(floats[c.BEST_B], floats[c.BEST_N])
            tokens.append(_Token(ints[c.LABEL], ended, ints[first], ints[last], floats[peak], now))
        told: list[tuple[TimedWord, int, float]] = []
        spelling: list[_Token] = []
        language, before = state.language, state.path
        for each in tokens:
            if len(told) == most:
                break
            spelling.append(each)
            if each.word != c.NONE:
                timed, language = self._word(state, spelling, language, before)
                told.append((timed, language, each.path))
                spelling, before = [], each.path
        return told

    def rename(self, state: BeamState, new: Teller) -> None:
        """Words of hotwords that were said: from their numbers here to those in `new`."""
        if self.lexicon is None:
            return
        known = len(self.lexicon.words)
        words = state.arena[: state.used, c.ENTRY_WORD]
        said = np.unique(words[(words >= known) | (words < c.OPEN)]).tolist()
        former: list[str] = []
        numbers = {}
        for word in said:
            text = self._name(state, word)
            if text in new.side.ids:
                numbers[word] = known + new.side.ids[text]
            else:
                former.append(text)
                numbers[word] = c.OPEN - len(former)
        for entry in np.flatnonzero(np.isin(words, said)) if said else ():
            words[entry] = numbers[int(words[entry])]
        state.former = former

    def _word(
        self, state: BeamState, tokens: Sequence[_Token], language: int, before: float
    ) -> tuple[TimedWord, int]:
        """Tokens of a word, the language model's state and BEST before it -> word, state after it."""
        word, log_prob = tokens[-1].word, 0.0
        if word == c.OPEN or self.lexicon is None:
            text = self.vocabulary.decode(each.token for each in tokens)
        else:
            text = self._name(state, word)
        if self.tables is not None:
            listed = 0 <= word < len(self.numbers)
            number = int(self.numbers[word if listed else -1])
            log_prob, language = self.kernels.lm_score(self.tables, language, number)
            log_prob = min(log_prob + self.expected.get(text, 0.0), 0.0)
        # Geometric mean; log_softmax in float32 may end a rounding above 0.
        mean = math.fsum([each.peak + self.log_prior[each.token] for each in tokens]) / len(tokens)
        evidence = Evidence(min(math.exp(mean), 1.0), len(tokens), before - tokens[-1].path, log_prob)
        confidence = self.confidence.of(evidence)
        return TimedWord(text, tokens[0].first, tokens[-1].last, confidence), language

    def _name(self, state: BeamState, word: int) -> str:
        """A word by its number."""
        assert self.lexicon is not None
        known = len(self.lexicon.words)
        if word < c.OPEN:
            return state.former[c.OPEN - 1 - word]
        return self.lexicon.words[word] if word < known else self.side.words[word - known]
