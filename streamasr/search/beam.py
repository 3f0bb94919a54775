"""Prefix beam search over CTC log-probabilities (Hannun et al. 2014), streaming.

A hypothesis is a prefix: the words so far and the beginning of the next one. Its score adds up

    log sum over its alignments of p(alignment), each token divided by its prior^prior_scale
    + lm_weight * log p(words) + word_bonus * words + hotwords

With a lexicon only its words are heard, and hotwords; without one, whatever the tokens spell. Words that
all hypotheses agree on are stable: they leave the arena of back-pointers, so a state does not grow with
the stream. docs/search.md has the formulas, the arrays and what is pruned; kernels.py the inner loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, MissingDependency, SnapshotError
from ..vocabulary import Vocabulary
from . import Hypothesis, TimedWord, hotwords
from . import columns as c
from . import lexicon as lexicons
from . import lm as models
from .confidence import RAW, Confidence, Evidence
from .config import BeamConfig
from .pronounce import Pronouncer, Speller
from .rescoring import MOST_TEXTS, Rescorer

# Steps between two settlements: what is stable leaves the arena. Chosen: the arena's room for that many
# steps is a few times what is in use.
_SETTLE_STEPS = 16
# Arena entries a hypothesis may hold on average before the beam is made to agree: far above any word.
_MOST_ENTRIES = 64
_SEED_KEY = 1  # of the empty prefix


@dataclass(slots=True)
class BeamState:
    step: int  # steps heard, since the start of the stream
    count: int  # hypotheses in use
    leader: int  # the best of them
    ints: NDArray[np.int64]  # [beam, INTS]
    floats: NDArray[np.float64]  # [beam, FLOATS]
    used: int  # arena entries in use
    arena: NDArray[np.int32]  # [entries, ENTRIES]
    keys: NDArray[np.int64]
    values: NDArray[np.float64]  # [entries, VALUES]
    # Where the stable words have ended: the language model's state, and BEST.
    language: int
    path: float
    # Stable words since the last commit.
    texts: list[str]
    firsts: list[int]
    lasts: list[int]
    confidences: list[float]
    # Words of hotwords that are no more: what -3, -4, ... mean in the arena.
    former: list[str]


class _Token(NamedTuple):
    token: int
    word: int  # that it ends
    first: int
    last: int
    peak: float
    path: float  # BEST when the next one began


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
        self.confidence = confidence
        self.rescorer: Rescorer | None = None
        self._kernels: Any = kernels
        self._step: Any = stepping.advance
        self.log_prior = (
            np.zeros(len(vocabulary)) if prior is None else config.prior_scale * prior.astype(np.float64)
        )
        self._prior: list[float] = self.log_prior.tolist()
        used = lexicon or _empty_lexicon(len(vocabulary))
        language = model or _silent_model()
        # One id more than the lexicon has words: that of all others.
        if model is None:
            ids = np.zeros(len(used.words) + 1, np.int32)
        else:
            ids = np.append(lexicons.language_model_ids(used, model), np.int32(model.rarest))
        known = np.where(ids >= 0, language.unigrams[ids], language.unknown_log_prob)
        look_ahead = used.look_ahead(known[:-1])
        for array in (ids, look_ahead):
            array.flags.writeable = False
        self._unknown = float(known[-1])
        self._known = known
        self._start, self._end, self._language = language.start, language.end, language
        self.speller = Speller(vocabulary, lexicon, pronouncer)
        # What the beginning of a word is, where there is nothing else to tell: phones are no text.
        self._spelt = c.OPEN if vocabulary.kind == "characters" else c.NONE
        self._shared = (tuple(used.arrays), look_ahead, ids, language.tables)
        self._language_ids = ids
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
            + [self._unknown, gain]
        )
        self._limits = np.array([config.beam, config.tokens, self.vocabulary.space, config.recombine])
        # For confidences: a word that is listened for is likelier than the language model thinks.
        self._expected = {
            phrase: boost / config.lm_weight
            for phrase, boost in self.hotwords.phrases
            if config.lm_weight > 0 and " " not in phrase
        }

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
        beam = self.config.beam
        ints, floats = np.zeros((beam, c.INTS), np.int64), np.zeros((beam, c.FLOATS))
        state = BeamState(
            0, 1, 0, ints, floats, 0, np.zeros((0, c.ENTRIES), np.int32), np.zeros(0, np.int64),
            np.zeros((0, c.VALUES)), self._start, 0.0, [], [], [], [], [],
        )  # fmt: skip
        self._restart(state, max(self.vocabulary.space, 0), 0.0, -math.inf)
        return state

    def advance(self, state: BeamState, log_probs: NDArray[np.float32]) -> bool:
        """log_probs [S, V] -> whether the text or a time may have changed."""
        # Compiled loops do not look where they read.
        assert log_probs.shape[1] == len(self.vocabulary), "log_probs of another head"
        done = 0
        while done < len(log_probs):
            if state.step % _SETTLE_STEPS == 0 or not len(state.arena):
                self._settle(state)
            block = log_probs[done : done + _SETTLE_STEPS - state.step % _SETTLE_STEPS]
            state.count, state.used, state.leader = self._step(
                np.ascontiguousarray(block), self.log_prior, state.step, state.ints, state.floats,
                state.count, state.arena, state.keys, state.values, state.used,
                self._static, self._weights, self._limits,
            )  # fmt: skip
            state.step += len(block)
            done += len(block)
        skip = float(self._weights[c.BLANK_SKIP])
        return any(blank <= skip for blank in log_probs[:, 0].tolist())

    def best(self, state: BeamState) -> Hypothesis:
        scores, words, _ = self._complete(state)
        winner = int(np.argmax(scores))
        base = len(state.texts)
        stable = self._kernels.agreed(state.ints, state.floats, state.count, state.arena, state.keys, base)
        return Hypothesis((*_stable(state), *self._words(state, winner, int(words[winner]))), int(stable))

    def nbest(self, state: BeamState, count: int) -> list[tuple[float, Hypothesis]]:
        """The `count` best different texts of a sentence that ends here, best first, each with its score
        (natural logarithm); with a rescorer at most `MOST_TEXTS`."""
        scores, words, _ = self._complete(state, self._end)
        return [
            (score, Hypothesis((*_stable(state), *told), len(state.texts)))
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
        told = (*_stable(state), *self._words(state, winner, int(words[winner])))
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
        self._rename(state, new)
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
        state.leader = int(np.argmax(self._totals(state)))

    def check(self, state: BeamState) -> None:
        """A state from outside: every index is within what it points into, for kernels trust them.

        Raises SnapshotError.
        """
        rows, floats = state.ints[: max(state.count, 0)], state.floats
        static: Any = self._static
        lexicon, side, _, _, _, hot = static
        nodes = len(lexicon[1]) + len(side[1]) if self.lexicon else 2
        named = len(self.lexicon.words) + len(self.hotwords.side.words) if self.lexicon else 0
        bounds = {
            c.NODE: (0, nodes),
            c.LABEL: (0, len(self.vocabulary)),
            c.HOT: (0, len(hot[3])),
            c.ENDED: (c.OPEN, max(1, named)),
            c.ORDINAL: (len(state.texts), len(state.texts) + max(state.used, 0) + 2),
            **dict.fromkeys((c.PATH_B, c.PATH_N), (-1, state.used)),
        }
        arena = state.arena[: max(state.used, 0)]
        parents = arena[:, c.ENTRY_PARENT]
        tokens, ordinals, words = (arena[:, k] for k in (c.ENTRY_TOKEN, c.ENTRY_ORDINAL, c.ENTRY_WORD))
        texts = (state.texts, state.firsts, state.lasts, state.confidences)
        room = _SETTLE_STEPS - state.step % _SETTLE_STEPS
        fits = (
            state.ints.shape == (self.config.beam, c.INTS)
            and floats.shape == (self.config.beam, c.FLOATS)
            and 0 <= state.leader < state.count <= self.config.beam
            and state.arena.shape == (len(state.keys), c.ENTRIES)
            and state.values.shape == (len(state.keys), c.VALUES)
            and math.isfinite(state.path)
            and 0 <= state.used <= len(state.keys)
            and (
                len(state.keys) == 0
                or room == _SETTLE_STEPS
                or state.used + room * self.config.beam <= len(state.keys)
            )
            and not np.isnan(floats).any()
            and bool(np.isfinite(state.values[: max(state.used, 0)]).all())
            and len({len(each) for each in texts}) == 1
            and all(low <= rows[:, k].min() and rows[:, k].max() < high for k, (low, high) in bounds.items())
            and self._language.are_states(np.append(rows[:, c.LM], state.language))
            and all(rows[:, k].max() <= state.step for k in (c.LAST_B, c.LAST_N))
            and bool(((parents >= -1) & (parents < np.arange(len(arena)))).all())
            and bool(((tokens > 0) & (tokens < len(self.vocabulary))).all())
            and bool((ordinals >= len(state.texts)).all())
            and bool(((words >= c.OPEN - len(state.former)) & (words < named)).all())
        )
        if not fits:
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
        state.count, state.leader, state.used = 1, 0, 0
        state.ints[:], state.floats[:] = 0, 0.0
        row = state.ints[0]
        row[c.KEY], row[c.WORDS_KEY], row[c.LM], row[c.LABEL] = _SEED_KEY, _SEED_KEY, self._start, label
        row[c.ENDED] = c.NONE
        row[[c.PATH_B, c.FIRST_B, c.PATH_N, c.FIRST_N]] = -1
        state.floats[0, [c.BLANK, c.BEST_B]] = blank
        state.floats[0, [c.TOKEN, c.BEST_N]] = token
        state.language, state.path = self._start, max(blank, token)

    def _totals(self, state: BeamState) -> NDArray[np.float64]:
        floats = state.floats[: state.count]
        return np.asarray(np.logaddexp(floats[:, c.BLANK], floats[:, c.TOKEN]) + floats[:, c.SCORE])

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
            scores, words = self._totals(state), np.full(state.count, self._spelt)
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
            told = self._words(state, row, int(words[row]))
            found.setdefault(tuple(word.text for word in told), (float(scores[row]), row, told))
        ranked = list(found.values())
        if self.rescorer and len(found) > 1:
            more = self.rescorer.score(state.texts, list(found), sentence_ends)
            ranked = [(score + m, row, told) for (score, row, told), m in zip(ranked, more, strict=True)]
            ranked.sort(key=lambda each: -each[0])  # of equals the search's choice
        return ranked[:count]

    def _words(self, state: BeamState, row: int, word: int) -> list[TimedWord]:
        """The volatile words of a hypothesis; `word`: what its last tokens are, if it is within one."""
        return [timed for timed, *_ in self._told(state, row, word)]

    def _told(self, state: BeamState, row: int, word: int) -> list[tuple[TimedWord, int, float]]:
        """As `_words`, each with the language model's state and BEST at its end."""
        ints, floats = state.ints[row].tolist(), state.floats[row].tolist()
        path, first, last, peak = c.PATH_N, c.FIRST_N, c.LAST_N, c.PEAK_N
        if floats[c.BEST_B] > floats[c.BEST_N]:
            path, first, last, peak = c.PATH_B, c.FIRST_B, c.LAST_B, c.PEAK_B
        entries = self._kernels.entries_to(state.arena, ints[path])
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
        told, spelling, language, before = [], [], state.language, state.path
        for each in tokens:
            spelling.append(each)
            if each.word != c.NONE:
                timed, language = self._word(state, spelling, language, before)
                told.append((timed, language, each.path))
                spelling, before = [], each.path
        return told

    def _word(
        self, state: BeamState, tokens: Sequence[_Token], language: int, before: float
    ) -> tuple[TimedWord, int]:
        """Tokens of a word, the language model's state and BEST before it -> word, state after it."""
        word, log_prob = tokens[-1].word, 0.0
        if word == c.OPEN or self.lexicon is None:
            text = self.vocabulary.decode(each.token for each in tokens)
        else:
            text = self._name(state, word)
        if self.model is not None:
            listed = 0 <= word < len(self._language_ids)
            number = int(self._language_ids[word if listed else -1])
            log_prob, language = self._kernels.lm_score(self._language.tables, language, number)
            log_prob = min(log_prob + self._expected.get(text, 0.0), 0.0)
        # Geometric mean; log_softmax in float32 may end a rounding above 0.
        mean = math.fsum([each.peak + self._prior[each.token] for each in tokens]) / len(tokens)
        evidence = Evidence(min(math.exp(mean), 1.0), len(tokens), before - tokens[-1].path, log_prob)
        confidence = self.confidence.of(evidence)
        return TimedWord(text, tokens[0].first, tokens[-1].last, confidence), language

    def _name(self, state: BeamState, word: int) -> str:
        """A word by its number: the lexicon's, then those of the hotwords, then those of former ones."""
        assert self.lexicon is not None
        known = len(self.lexicon.words)
        if word < c.OPEN:
            return state.former[c.OPEN - 1 - word]
        return self.lexicon.words[word] if word < known else self.hotwords.side.words[word - known]

    def _rename(self, state: BeamState, new: BeamSearch) -> None:
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
            if text in new.hotwords.side.ids:
                numbers[word] = known + new.hotwords.side.ids[text]
            else:
                former.append(text)
                numbers[word] = c.OPEN - len(former)
        for entry in np.flatnonzero(np.isin(words, said)) if said else ():
            words[entry] = numbers[int(words[entry])]
        state.former = former

    def _settle(self, state: BeamState) -> None:
        """Stable words leave the arena, what no hypothesis needs is dropped, room is made for more."""
        self._agree(state)
        while self._compact(state) > _MOST_ENTRIES * self.config.beam:
            # No agreement for very long: the best hypothesis alone goes on, its word in progress closed.
            best = state.leader
            state.ints[0], state.floats[0] = state.ints[best].copy(), state.floats[best].copy()
            state.count, state.leader = 1, 0
            self._end_word(state)

    def _agree(self, state: BeamState) -> None:
        base = len(state.texts)
        stable = self._kernels.agreed(state.ints, state.floats, state.count, state.arena, state.keys, base)
        if stable > base:
            for word, language, path in self._told(state, state.leader, c.NONE)[: stable - base]:
                _keep(state, word)
                state.language, state.path = language, path

    def _end_word(self, state: BeamState) -> None:
        """Of the best hypothesis, as it is spelt; it goes on alone, between words."""
        best = state.leader
        label, floats = int(state.ints[best, c.LABEL]), state.floats[best].copy()
        for word in self._words(state, best, self._spelt):
            _keep(state, word)
        self._restart(state, label, float(floats[c.BLANK]), float(floats[c.TOKEN]))
        state.ints[0, c.ORDINAL] = len(state.texts)
        state.ints[0, c.KEY] += len(state.texts)

    def _compact(self, state: BeamState) -> int:
        """Keeps the entries that a hypothesis leads to, from the first volatile word on -> their number."""
        state.arena, state.keys, state.values, state.used = self._kernels.compact(
            state.ints, state.floats, state.count, state.arena, state.keys, state.values, state.used,
            len(state.texts), _SETTLE_STEPS * self.config.beam,
        )  # fmt: skip
        return state.used


def _keep(state: BeamState, word: TimedWord) -> None:
    state.texts.append(word.text)
    state.firsts.append(word.first)
    state.lasts.append(word.last)
    state.confidences.append(word.confidence)


def _stable(state: BeamState) -> tuple[TimedWord, ...]:
    return tuple(map(TimedWord, state.texts, state.firsts, state.lasts, state.confidences))


def _empty_lexicon(tokens: int) -> lexicons.Lexicon:
    return lexicons.build([], tokens)


def _silent_model() -> models.LanguageModel:
    """Every word has probability 1: the search without a language model."""
    one = np.zeros((1, 1), np.int32), np.zeros(1), np.zeros(1)
    return models.build([models.UNKNOWN], [one])
