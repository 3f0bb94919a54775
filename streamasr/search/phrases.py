"""Phrase mode: a segment is one of some phrases, or several in a row, or none of them.

The search is the beam's, in a lexicon of the phrases' words, led by an automaton as hotwords are
(hotwords.py), which knows no way but the phrases. What it finds competes with the open loop, any token after
any other:

    sum over the steps of log p(likeliest token) - penalty * tokens of that path

A segment whose best whole phrases score less than the open loop is none of them, and has no words. Partials
hold whole phrases only, and as "none of them" may still win, no part of them is stable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..vocabulary import BLANK
from . import Hypothesis, hotwords, lexicon
from . import columns as c
from .beam import BeamSearch
from .beam_state import BeamState, totals

# A token that no phrase explains weighs about 4. Chosen of 0.25 to 3 on commands-dev, half of its texts for
# phrases: with more the other half is taken for them, with less they are refused.
PENALTY = 1.5
# The beam's thresholds are for choosing among 100,000 words. Phrases are few: the one that was said stays in
# even where it was not said clearly. Wider than this finds no more on commands-dev.
_TOKEN_THRESHOLD, _BEAM_THRESHOLD = 14.0, 28.0
_FORBIDDEN = -1e9  # below any threshold of the beam
_START = 2  # node of the automaton where a phrase begins; 0 and 1 are where no phrase leads
_MOST_NODES = 2_000_000


@dataclass(slots=True)
class PhraseState(BeamState):
    open_path: float  # log-probability of the likeliest token of every step since the commit
    open_tokens: int  # of that path
    previous: int  # its last


class PhraseSearch(BeamSearch):
    """Search for some phrases only; shared by the streams that listen for the same."""

    def __init__(self, search: BeamSearch, phrases: Iterable[str], penalty: float = PENALTY) -> None:
        """`search`: the model's, for how words are spelt. Raises ConfigError naming what cannot be heard."""
        texts = check(phrases)
        vocabulary, config = search.vocabulary, search.config
        if vocabulary.space < 0:
            raise ConfigError("phrases need a model that writes where words end; this one does not")
        words = dict.fromkeys(word for text in texts for word in text.split(" "))
        try:
            spelt = [(word, tokens) for word in words for tokens in search.speller.word(word)]
        except ConfigError as error:
            raise ConfigError(f"phrases: {error}") from None
        self._penalty = penalty
        config = replace(
            config,
            word_bonus=0.0,
            token_threshold=max(config.token_threshold, _TOKEN_THRESHOLD),
            beam_threshold=min(max(config.beam_threshold, _BEAM_THRESHOLD), -_FORBIDDEN / 2),
        )
        own = lexicon.build(spelt, len(vocabulary))
        super().__init__(
            vocabulary, config, own, prior=search.prior, phrases=texts, confidence=search.confidence
        )

    def with_phrases(self, phrases: Iterable[hotwords.Phrase]) -> BeamSearch:
        raise ConfigError("hotwords: this stream hears its phrases only; open another for hotwords")

    def _compile(self, phrases: Iterable[hotwords.Phrase]) -> hotwords.Hotwords:
        assert self.lexicon is not None
        texts = tuple((text, 1.0) for text in check(phrases))
        arrays, self._accepts = _grammar([text.split(" ") for text, _ in texts], self.lexicon)
        return hotwords.Hotwords(texts, lexicon.build([], len(self.vocabulary)), arrays)

    def start(self) -> PhraseState:
        plain = super().start()
        values: dict[str, Any] = {field.name: getattr(plain, field.name) for field in fields(plain)}
        return PhraseState(**values, open_path=0.0, open_tokens=0, previous=BLANK)

    def advance(self, state: BeamState, log_probs: NDArray[np.float32]) -> bool:
        assert isinstance(state, PhraseState)
        for row in log_probs.astype(np.float64) - self.log_prior:
            token = int(row.argmax())
            state.open_path += float(row[token])
            state.open_tokens += token not in (BLANK, state.previous)
            state.previous = token
        return super().advance(state, log_probs)

    def best(self, state: BeamState) -> Hypothesis:
        return Hypothesis(super().best(state).words if self._fits(state) else (), 0)

    def shown(self, state: BeamState) -> Hypothesis:
        return self.best(state)

    def said(self, state: BeamState) -> tuple[list[str], int]:
        shown = self.shown(state)
        return shown.texts, shown.stable

    def nbest(self, state: BeamState, count: int) -> list[tuple[float, Hypothesis]]:
        """As the beam's, and none of them, ()."""
        found = super().nbest(state, count) if np.isfinite(self._scores(state)[0]).any() else []
        none = (self._open(state), Hypothesis((), 0))
        every = [*((score, replace(told, stable=0)) for score, told in found), none]
        return sorted(every, key=lambda each: -each[0])[:count]

    def commit(self, state: BeamState, sentence_ends: bool = True) -> Hypothesis:
        fits = self._fits(state)
        told = super().commit(state, sentence_ends)
        assert isinstance(state, PhraseState)
        state.open_path, state.open_tokens = 0.0, 0
        return told if fits else Hypothesis((), 0)

    # What follows is the inside of the above.

    def _open(self, state: BeamState) -> float:
        assert isinstance(state, PhraseState)
        return state.open_path - self._penalty * state.open_tokens

    def _fits(self, state: BeamState) -> bool:
        return bool(self._scores(state)[0].max() >= self._open(state))

    def _restart(self, state: BeamState, label: int, blank: float, token: float) -> None:
        super()._restart(state, label, blank, token)
        state.ints[0, c.HOT] = _START

    def _scores(self, state: BeamState) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """As `_complete`; -inf: not at the end of a phrase, or nothing has been said."""
        separator, tokens = self.vocabulary.space, len(self.vocabulary)
        scores, words, contexts = self._kernels.complete(
            state.ints, state.floats, state.count, self._static, self._weights, separator, tokens, -1
        )
        hot: Any = self.hotwords.arrays
        for i in np.flatnonzero(scores > _FORBIDDEN / 2):
            node, said = int(state.ints[i, c.HOT]), int(state.ints[i, c.ORDINAL])
            if state.ints[i, c.NODE]:
                node = int(self._kernels.hot_end(tuple(hot), node, int(words[i]), separator, tokens)[0])
                said += 1
            if not self._accepts[node] or not said:
                scores[i] = -np.inf
        scores[scores <= _FORBIDDEN / 2] = -np.inf
        return scores, words, contexts

    def _complete(
        self, state: BeamState, end: int = -1
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        scores, words, contexts = self._scores(state)
        if not np.isfinite(scores).any():  # what is told of these is not heard: none of the phrases
            scores, words = totals(state), np.full(state.count, c.NONE)
        return scores, words, contexts


def check(phrases: Iterable[object]) -> list[str]:
    """Phrases -> in lower case, each once. Raises ConfigError naming what is none."""
    if not isinstance(phrases, str):
        phrases = list(phrases)
        for each in phrases:
            if not isinstance(each, str):
                raise ConfigError(f"phrases: a phrase is a text, not {each!r}; boosts are for hotwords")
    texts = list(hotwords.check(phrases, "phrases"))  # type: ignore[arg-type]
    if not texts:
        raise ConfigError("phrases: the list is empty; name a phrase, or leave it out to hear all words")
    return texts


def _grammar(phrases: list[list[str]], words: lexicon.Lexicon) -> tuple[hotwords.Arrays, list[bool]]:
    """Phrases, each some words -> automaton of any number of them in a row, which nodes end a phrase.

    After some words one may be at several places of the tree of phrases ("go", "go home": after "go" the
    first has ended and the second goes on). Such a set of places is one node; from it the labels of a next
    word lead through nodes of their own to the next set. Where a phrase may begin `fail` leads to the
    node of that, at the same place within a word: so the beginnings of phrases are there once only.
    """
    tree: list[dict[str, int]] = [{}]
    ends = {0}
    for phrase in phrases:
        at = 0
        for word in phrase:
            if word not in tree[at]:
                tree[at][word] = len(tree)
                tree.append({})
            at = tree[at][word]
        ends.add(at)
    begin = frozenset({0})
    numbers = {begin: _START}
    edges: list[dict[int, int]] = [{}, {}, {}]
    fail, accepts = [1, 1, 1], [False, False, True]

    def add(back: int, accept: bool = False) -> int:
        if len(edges) == _MOST_NODES:
            raise ConfigError(f"phrases: {len(phrases)} are too many, or begin in too many ways alike")
        edges.append({})
        fail.append(back)
        accepts.append(accept)
        return len(edges) - 1

    first: dict[tuple[int, ...], int] = {}  # labels from the beginning -> node, for `fail`
    waiting = [begin]
    for places in waiting:
        inner: dict[tuple[int, ...], int] = {(): numbers[places]}
        restarts = 0 in places and places != begin
        for word in sorted({word for place in places - {0} or begin for word in tree[place]}):
            after = {tree[place][word] for place in places if word in tree[place]}
            over = after & ends
            target = frozenset({place for place in after if tree[place]} | ({0} if over else set()))
            if target not in numbers:
                numbers[target] = add(_START if 0 in target else 1, 0 in target)
                waiting.append(target)
            for tokens in words.spellings(word):
                for said in range(1, len(tokens) + 1):
                    path = tuple(tokens[:said])
                    if path not in inner:
                        inner[path] = add(first.get(path, 1) if restarts else 1)
                        edges[inner[path[:-1]]][path[-1]] = inner[path]
                edges[inner[tuple(tokens)]][words.tokens + words.ids[word]] = numbers[target]
        if places == begin:
            first = inner
    ordered = [sorted(each.items()) for each in edges]
    reward = np.zeros(len(edges))
    reward[:_START] = _FORBIDDEN
    arrays = hotwords.Arrays(
        np.concatenate([[0], np.cumsum([len(each) for each in ordered])]).astype(np.int32),
        np.array([label for each in ordered for label, _ in each], np.int32),
        np.array([target for each in ordered for _, target in each], np.int32),
        np.array(fail, np.int32),
        np.zeros(len(edges)),
        reward,
    )
    return arrays, accepts
