"""Prefix beam search over CTC log-probabilities (Hannun et al. 2014), streaming.

A hypothesis is a prefix: the words so far and the beginning of the next one. Its score adds up

    log sum over its alignments of p(alignment), each token divided by its prior^prior_scale
    + lm_weight * log p(words) + word_bonus * words + hotwords

With a lexicon only its words are heard, and hotwords; without one, whatever the tokens spell. Words that
all hypotheses agree on are stable: they leave the arena of back-pointers, so a state does not grow with
the stream. docs/search.md has the formulas and what is pruned, stepping.py the inner loop, beam_state.py the
state, telling.py what is told of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, MissingDependency, SnapshotError
from ..vocabulary import Vocabulary
from . import Hypothesis, TimedWord, hotwords
from . import columns as c
from . import lexicon as lexicons
from . import lm as models
from .beam_state import (
    SETTLE_STEPS,
    BeamState,
    fresh,
    is_sound,
    keep_word,
    restart,
    stable_words,
    totals,
)
from .confidence import RAW, Confidence
from .config import BeamConfig
from .pronounce import Pronouncer, Speller
from .rescoring import MOST_TEXTS, Rescorer
from .telling import Teller

# Arena entries a hypothesis may hold on average before the beam is made to agree: far above any word.
_MOST_ENTRIES = 64
# Share of the probability in the beam that agrees with a word that is shown: chosen, beside
# more and less, on dev sets (docs/search.md, What is shown).
_MAJORITY = 0.5
# Steps after which a word whose end has not been heard is shown: before a pause nothing follows that ends it.
# Chosen of 4 to 8, likewise.
_PATIENCE = 6


class BeamSearch:
    """Search by beam; shared by the streams that have the same hotwords."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        config: BeamConfig | None = None,
        lexicon: lexicons.Lexicon | None = None,
        model: models.LanguageModel | None = None,
        prior: NDArray[np.float32] | None = None,
        phrases: Iterable[hotwords.Phrase] = (),
        pronouncer: Pronouncer | None = None,
        confidence: Confidence = RAW,
    ) -> None:
        """`prior`: log-probabilities of the tokens [V]; `pronouncer`: of hotwords that the lexicon lacks.

        Raises ConfigError when parts do not fit each other, MissingDependency without numba."""
        try:
            from . import kernels, stepping
        except ImportError as error:
            raise MissingDependency(
                f"beam search needs numba ({error}); pip install numba, or search greedily"
            ) from None
        config = config or BeamConfig()
        if model is not None and lexicon is None:
            raise ConfigError("search: a language model of words needs a lexicon that spells them")
        if vocabulary.kind == "phones" and lexicon is None:
            raise ConfigError("search: phones need a lexicon that says what words they are")
        if lexicon is not None:
            lexicon.check(vocabulary)
        if prior is not None and prior.shape != (len(vocabulary),):
            raise ConfigError(f"search: the prior is of {len(prior)} tokens, the model has {len(vocabulary)}")
        self.vocabulary, self.config, self.lexicon, self.model = vocabulary, config, lexicon, model
        self.prior, self.confidence = prior, confidence
        self.rescorer: Rescorer | None = None
        self._kernels: Any = kernels
        self._step: Any = stepping.advance
        self.log_prior = (
            np.zeros(len(vocabulary)) if prior is None else config.prior_scale * prior.astype(np.float64)
        )
        used = lexicon or lexicons.build([], len(vocabulary))
        language = model or models.silent()
        # One id more than the lexicon has words: that of all others.
        if model is None:
            ids = np.zeros(len(used.words) + 1, np.int32)
        else:
            ids = np.append(lexicons.language_model_ids(used, model), np.int32(model.rarest))
        known = np.where(ids >= 0, language.unigrams[ids], language.unknown_log_prob)
        look_ahead = used.look_ahead(known[:-1])
        for array in (ids, look_ahead):
            array.flags.writeable = False
        self._known = known  # log p of every word, last that of those the lexicon lacks
        self._start, self._end, self._language = language.start, language.end, language
        self.speller = Speller(vocabulary, lexicon, pronouncer)
        # What the beginning of a word is, where there is nothing else to tell: phones are no text.
        self._spelt = c.OPEN if vocabulary.kind == "characters" else c.NONE
        self._shared = (tuple(used.arrays), look_ahead, ids, language.tables)
        self._most_gain = config.lm_weight * max(0.0, -float(min(known.min(), 0.0))) + abs(config.word_bonus)
        self.set_phrases(phrases)

    def set_phrases(self, phrases: Iterable[hotwords.Phrase]) -> None:
        """Part of the constructor, and of `with_phrases`."""
        self.hotwords = self._compile(phrases)
        lexicon, look_ahead, ids, language = self._shared
        for array in self.hotwords.arrays:
            array.flags.writeable = False
        hot = tuple(self.hotwords.arrays)
        self._static = (lexicon, tuple(self.hotwords.side.arrays), look_ahead, ids, language, hot)
        config = self.config
        gain = self._most_gain + 2.0 * max((boost for _, boost in self.hotwords.phrases), default=0.0)
        skip = math.log(config.blank_skip) if config.blank_skip < 1.0 else math.inf
        self._weights = np.array(
            [config.lm_weight, config.word_bonus, config.beam_threshold, config.token_threshold, skip]
            + [float(self._known[-1]), gain]
        )
        self._limits = np.array([config.beam, config.tokens, self.vocabulary.space, config.recombine])
        # For confidences: a word that is listened for is likelier than the language model thinks.
        expected = {
            phrase: boost / config.lm_weight
            for phrase, boost in self.hotwords.phrases
            if config.lm_weight > 0 and " " not in phrase
        }
        self._teller = Teller(
            self.vocabulary, self.lexicon, self.hotwords.side, self.log_prior.tolist(), self.confidence,
            self._kernels, self._language.tables if self.model else None, ids, expected,
        )  # fmt: skip

    def with_phrases(self, phrases: Iterable[hotwords.Phrase]) -> BeamSearch:
        """The same search with other hotwords; lexicon and model are shared. Raises ConfigError."""
        twin = object.__new__(BeamSearch)
        twin.__dict__.update(self.__dict__)
        twin.set_phrases(phrases)
        return twin

    def with_rescorer(self, rescorer: Rescorer) -> BeamSearch:
        """The same search whose finals are chosen from the n best by an LSTM language model too."""
        twin = object.__new__(BeamSearch)
        twin.__dict__.update(self.__dict__)
        twin.rescorer = rescorer
        return twin

    def start(self) -> BeamState:
        state = fresh(self.config.beam)
        self._restart(state, max(self.vocabulary.space, 0), 0.0, -math.inf)
        return state

    def advance(self, state: BeamState, log_probs: NDArray[np.float32]) -> bool:
        """log_probs [S, V] -> whether the text or a time may have changed."""
        # Compiled loops do not look where they read.
        assert log_probs.shape[1] == len(self.vocabulary), "log_probs of another head"
        done = 0
        while done < len(log_probs):
            if state.step % SETTLE_STEPS == 0 or not len(state.arena):
                self._settle(state)
            block = log_probs[done : done + SETTLE_STEPS - state.step % SETTLE_STEPS]
            state.count, state.used, state.leader = self._step(
                np.ascontiguousarray(block), self.log_prior, state.step, state.ints, state.floats,
                state.count, state.arena, state.keys, state.values, state.used,
                self._static, self._weights, self._limits,
            )  # fmt: skip
            state.step += len(block)
            done += len(block)
        skip = float(self._weights[c.BLANK_SKIP])
        if any(blank <= skip for blank in log_probs[:, 0].tolist()):
            return True
        quiet = state.step - 1 - state.ints.item(state.leader, c.LAST_B)  # steps; in blanks B is the best
        return quiet - len(log_probs) < _PATIENCE <= quiet

    def best(self, state: BeamState) -> Hypothesis:
        scores, words, _ = self._complete(state)
        winner = int(np.argmax(scores))
        told = self._teller.words(state, winner, int(words[winner]))
        return Hypothesis((*stable_words(state), *told), int(self._agreement(state).min()))

    def shown(self, state: BeamState) -> Hypothesis:
        """The best hypothesis as far as more than half of the probability in the beam agrees with it.

        A word counts when it has ended, or nothing has come after it for `_PATIENCE` steps.
        """
        sure, stable = self._majority(state)
        if self._is_fresh(state):
            # Nearly always; what the word in progress may become need not be known.
            told = self._teller.words(state, state.leader, c.NONE, max(sure - len(state.texts), 0))
        else:
            _, words, _ = self._complete(state)
            told = self._teller.words(state, state.leader, int(words[state.leader]))
            said = self._kernels.words_keys(state.ints, state.count, words, self.vocabulary.space)
            scores = totals(state)
            weights = np.exp(scores - scores.max())
            if told and weights[said == said[state.leader]].sum() > _MAJORITY * weights.sum():
                sure = len(state.texts) + len(told)
        return Hypothesis((*stable_words(state), *told)[:sure], stable)

    def said(self, state: BeamState) -> tuple[list[str], int]:
        """Texts of `shown`, and how many of them are stable: times and confidences are what takes time."""
        if self.lexicon is None or not self._is_fresh(state):
            shown = self.shown(state)
            return shown.texts, shown.stable
        sure, stable = self._majority(state)
        told = self._teller.names(state, state.leader)
        return [*state.texts, *told][:sure], stable

    def nbest(self, state: BeamState, count: int) -> list[tuple[float, Hypothesis]]:
        """The `count` best different texts of a sentence that ends here, best first, each with its score
        (natural logarithm); with a rescorer at most `MOST_TEXTS`."""
        scores, words, _ = self._complete(state, self._end)
        return [
            (score, Hypothesis((*stable_words(state), *told), len(state.texts)))
            for score, _, told in self._ranked(state, scores, words, count)
        ]

    def commit(self, state: BeamState, sentence_ends: bool = True) -> Hypothesis:
        """The best hypothesis, made final; the state starts anew after it, within the same token.

        If the sentence goes on, so does the language model.
        """
        scores, words, contexts = self._complete(state, self._end if sentence_ends else -1)
        if self.rescorer:
            winner = self._ranked(state, scores, words, 1, sentence_ends)[0][1]
        else:
            winner = int(np.argmax(scores))
        told = (*stable_words(state), *self._teller.words(state, winner, int(words[winner])))
        blank, token = state.floats[winner, [c.BLANK, c.TOKEN]]
        both = float(np.logaddexp(blank, token))
        label = int(state.ints[winner, c.LABEL])
        self._restart(state, label, float(blank) - both, float(token) - both)
        if not sentence_ends:
            state.ints[0, c.LM] = state.language = int(contexts[winner])
        state.texts, state.firsts, state.lasts, state.confidences = [], [], [], []
        return Hypothesis(told, len(told))

    def between_words(self, state: BeamState) -> bool:
        return state.ints.item(state.leader, c.NODE) == 0

    def change_phrases(self, state: BeamState, new: BeamSearch) -> None:
        """Makes a state of this search one of `new`, which differs in hotwords only.

        Credit for phrases in progress is given back; a word that only the old hotwords knew is dropped
        from the beam, unless it is all there is: then it stays until it ends.
        """
        potential, nodes = self.hotwords.arrays.potential, len(self._shared[1])
        rows = state.ints[: state.count]
        self._teller.rename(state, new._teller)
        state.floats[: state.count, c.SCORE] -= potential[rows[:, c.HOT]]
        rows[:, c.HOT] = rows[:, c.NODE] != 0
        if nodes == 1 or self._static[1] is new._static[1]:
            return
        keep = rows[:, c.NODE] < nodes
        if not keep.any():
            self._end_word(state)
            return
        state.ints[: keep.sum()], state.floats[: keep.sum()] = rows[keep], state.floats[: state.count][keep]
        state.count = int(keep.sum())
        state.leader = int(np.argmax(totals(state)))

    def check(self, state: BeamState) -> None:
        """A state from outside: every index is within what it points into, for kernels trust them.

        Raises SnapshotError.
        """
        static: Any = self._static
        lexicon, side, _, _, _, hot = static
        nodes = len(lexicon[1]) + len(side[1]) if self.lexicon else 2
        words = len(self.lexicon.words) + len(self.hotwords.side.words) if self.lexicon else 0
        if not (
            is_sound(state, self.config.beam, len(self.vocabulary), nodes, len(hot[3]), words)
            and self._language.are_states(np.append(state.ints[: state.count, c.LM], state.language))
        ):
            raise SnapshotError(
                "the snapshot's search does not fit this model's; was it taken with other files?"
            )

    # What follows is the inside of the above.

    def _compile(self, phrases: Iterable[hotwords.Phrase]) -> hotwords.Hotwords:
        return hotwords.compile_phrases(phrases, self.speller, self._surplus if self.model else None)

    def _surplus(self, labels: Sequence[int]) -> list[float]:
        """hotwords.Surplus; words that the lexicon lacks have a look-ahead of their own."""
        assert self.lexicon is not None
        *tokens, end = labels
        word = end - self.lexicon.tokens
        if word >= len(self.lexicon.words):
            return [0.0] * len(tokens)
        ahead = self._shared[1][self.lexicon.path(tokens)]
        return [self.config.lm_weight * float(each - self._known[word]) for each in ahead]

    def _restart(self, state: BeamState, label: int, blank: float, token: float) -> None:
        """One hypothesis, the empty prefix; a token in progress may go on without being told again."""
        restart(state, label, blank, token, self._start)

    def _last(self, state: BeamState) -> int:
        """Last step of the best hypothesis' last token."""
        blank, token = state.floats[state.leader, [c.BEST_B, c.BEST_N]].tolist()
        return state.ints.item(state.leader, c.LAST_B if blank > token else c.LAST_N)

    def _complete(
        self, state: BeamState, end: int = -1
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Scores, last words and language model states of the hypotheses, if the stream ended here.

        `end`: the language model's word for the end of a sentence, -1 if that goes on.
        """
        scores, words, contexts = self._kernels.complete(
            state.ints, state.floats, state.count, self._static, self._weights, self.vocabulary.space,
            len(self.vocabulary), end,
        )  # fmt: skip
        if not np.isfinite(scores).any():  # nothing but beginnings of words: told as they are spelt
            scores, words = totals(state), np.full(state.count, self._spelt)
        return scores, words, contexts

    def _ranked(
        self,
        state: BeamState,
        scores: NDArray[np.float64],
        words: NDArray[np.int64],
        count: int,
        sentence_ends: bool = True,
    ) -> list[tuple[float, int, list[TimedWord]]]:
        """Score, row and volatile words of the `count` best hypotheses of different texts, best first."""
        most = MOST_TEXTS if self.rescorer else count
        found: dict[tuple[str, ...], tuple[float, int, list[TimedWord]]] = {}
        for row in np.argsort(-scores, kind="stable").tolist():
            if len(found) == most or scores[row] == -np.inf:
                break
            told = self._teller.words(state, row, int(words[row]))
            found.setdefault(tuple(word.text for word in told), (float(scores[row]), row, told))
        ranked = list(found.values())
        if self.rescorer and len(found) > 1:
            more = self.rescorer.score(state.texts, list(found), sentence_ends)
            ranked = [(score + m, row, told) for (score, row, told), m in zip(ranked, more, strict=True)]
            ranked.sort(key=lambda each: -each[0])  # of equals the search's choice
        return ranked[:count]

    def _settle(self, state: BeamState) -> None:
        """Stable words leave the arena, what no hypothesis needs is dropped, room is made for more."""
        self._agree(state)
        while self._compact(state) > _MOST_ENTRIES * self.config.beam:
            # No agreement for very long: the best hypothesis alone goes on, its word in progress closed.
            best = state.leader
            state.ints[0], state.floats[0] = state.ints[best].copy(), state.floats[best].copy()
            state.count, state.leader = 1, 0
            self._end_word(state)

    def _compact(self, state: BeamState) -> int:
        """Keeps the entries that a hypothesis leads to, from the first volatile word on -> their number."""
        state.arena, state.keys, state.values, state.used = self._kernels.compact(
            state.ints, state.floats, state.count, state.arena, state.keys, state.values, state.used,
            len(state.texts), SETTLE_STEPS * self.config.beam,
        )  # fmt: skip
        return state.used

    def _is_fresh(self, state: BeamState) -> bool:
        """Whether the last token of the best hypothesis may not have been its word's last."""
        return state.step - 1 - self._last(state) < _PATIENCE

    def _majority(self, state: BeamState) -> tuple[int, int]:
        """How many words of the best hypothesis the majority has said too, and how many all have."""
        most, least = self._kernels.majority(
            state.ints, state.floats, state.count, state.arena, state.keys, len(state.texts), state.leader,
            _MAJORITY,
        )  # fmt: skip
        return most, least

    def _agreement(self, state: BeamState) -> NDArray[np.int64]:
        """How many words of the best hypothesis, stable ones included, each has said too."""
        ordinals: NDArray[np.int64] = self._kernels.agreement(
            state.ints, state.floats, state.count, state.arena, state.keys, len(state.texts), state.leader
        )
        return ordinals

    def _agree(self, state: BeamState) -> None:
        base = len(state.texts)
        stable = int(self._agreement(state).min())
        if stable > base:
            for word, language, path in self._teller.told(state, state.leader, c.NONE)[: stable - base]:
                keep_word(state, word)
                state.language, state.path = language, path

    def _end_word(self, state: BeamState) -> None:
        """Of the best hypothesis, as it is spelt; it goes on alone, between words."""
        best = state.leader
        label, floats = int(state.ints[best, c.LABEL]), state.floats[best].copy()
        for word in self._teller.words(state, best, self._spelt):
            keep_word(state, word)
        self._restart(state, label, float(floats[c.BLANK]), float(floats[c.TOKEN]))
        state.ints[0, c.ORDINAL] = len(state.texts)
        state.ints[0, c.KEY] += len(state.texts)
