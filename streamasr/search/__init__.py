"""log_probs -> hypotheses with times. One interface for every method; state bounded by one segment.

    start() -> state
    advance(state, log_probs [S, V]) -> bool     has the best hypothesis changed?
    best(state) -> Hypothesis                    of everything since the last commit
    shown(state) -> Hypothesis                   of it, what is likely to stay
    said(state) -> texts, stable                 the words of that and how many are stable, at less cost
    commit(state, sentence_ends) -> Hypothesis   the same, made final: its history is dropped
    between_words(state) -> bool                 would a commit now cut no word in two?

Times are steps, counted from the start of the stream; a word's are those of its tokens on the best path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..vocabulary import Vocabulary

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word from step `first` to step `last`, both included; `confidence` in [0, 1]."""

    text: str
    first: int
    last: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Words of the segment so far. The first `stable` of them will not change any more."""

    words: tuple[TimedWord, ...]
    stable: int

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.words]


class Search(Protocol[S]):
    @property
    def vocabulary(self) -> Vocabulary: ...

    def start(self) -> S: ...

    def advance(self, state: S, log_probs: NDArray[np.float32], /) -> bool: ...

    def best(self, state: S) -> Hypothesis: ...

    def shown(self, state: S) -> Hypothesis: ...

    def said(self, state: S) -> tuple[list[str], int]: ...

    def commit(self, state: S, sentence_ends: bool = True) -> Hypothesis: ...

    def between_words(self, state: S) -> bool: ...
