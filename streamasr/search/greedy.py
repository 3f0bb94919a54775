"""Best path: at every step the likeliest token; repeats collapse, blanks vanish, spaces part words.

A token lasts from the first to the last step of its run of best steps, and its probability is the
highest of the run. A word's confidence is made of the geometric mean of its tokens' probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..vocabulary import BLANK, Vocabulary
from . import Hypothesis, TimedWord
from .confidence import RAW, Confidence, Evidence


@dataclass(slots=True)
class GreedyState:
    step: int  # steps heard, since the start of the stream
    previous: int  # best token of the step before
    # Complete words since the last commit.
    texts: list[str]
    firsts: list[int]
    lasts: list[int]
    confidences: list[float]
    # The word in progress; empty tokens: there is none.
    tokens: list[int]
    first: int
    last: int
    log_prob: float  # sum over its tokens but the last
    peak: float  # log-probability of its last token


class GreedySearch:
    """Search by the best path alone: no lexicon, no language model, no hotwords."""

    def __init__(self, vocabulary: Vocabulary, confidence: Confidence = RAW) -> None:
        self.vocabulary, self._confidence = vocabulary, confidence
        self._space = vocabulary.space

    def start(self) -> GreedyState:
        return GreedyState(0, BLANK, [], [], [], [], [], 0, 0, 0.0, 0.0)

    def advance(self, state: GreedyState, log_probs: NDArray[np.float32]) -> bool:
        """log_probs [S, V] -> whether the text or a time has changed."""
        changed = False
        for row in log_probs:
            token = int(row.argmax())
            if token == self._space:
                changed |= bool(state.tokens)
                self._close_word(state)
            elif token != BLANK:
                _hear(state, token, float(row[token]))
                changed = True
            state.previous = token
            state.step += 1
        return changed

    def best(self, state: GreedyState) -> Hypothesis:
        complete = tuple(map(TimedWord, state.texts, state.firsts, state.lasts, state.confidences))
        if not state.tokens:
            return Hypothesis(complete, len(complete))
        return Hypothesis((*complete, self._word(state)), len(complete))

    def shown(self, state: GreedyState) -> Hypothesis:
        """All of it: a letter that is told stays."""
        return self.best(state)

    def said(self, state: GreedyState) -> tuple[list[str], int]:
        shown = self.shown(state)
        return shown.texts, shown.stable

    def commit(self, state: GreedyState, sentence_ends: bool = True) -> Hypothesis:
        """The best hypothesis, its word in progress closed; the state starts anew after it.

        Sentences are nothing to it.
        """
        self._close_word(state)
        hypothesis = self.best(state)
        state.texts, state.firsts, state.lasts, state.confidences = [], [], [], []
        return hypothesis

    def between_words(self, state: GreedyState) -> bool:
        return not state.tokens

    def _word(self, state: GreedyState) -> TimedWord:
        # log_softmax in float32 may end a rounding above 0.
        sound = min(math.exp((state.log_prob + state.peak) / len(state.tokens)), 1.0)
        confidence = self._confidence.of(Evidence(sound, len(state.tokens)))
        return TimedWord(self.vocabulary.decode(state.tokens), state.first, state.last, confidence)

    def _close_word(self, state: GreedyState) -> None:
        """The word in progress, if any -> the complete ones."""
        if state.tokens:
            word = self._word(state)
            state.texts.append(word.text)
            state.firsts.append(word.first)
            state.lasts.append(word.last)
            state.confidences.append(word.confidence)
            state.tokens = []


def _hear(state: GreedyState, token: int, log_prob: float) -> None:
    """One step whose best token is a letter."""
    if token == state.previous:
        if state.tokens:  # else a commit fell into the run: its token is told already
            state.peak = max(state.peak, log_prob)
            state.last = state.step
        return
    if state.tokens:
        state.log_prob += state.peak
    else:
        state.first, state.log_prob = state.step, 0.0
    state.tokens.append(token)
    state.peak, state.last = log_prob, state.step
