"""What a beam search knows of one stream: hypotheses, and the arena of what they have said.

Words that all hypotheses agree on leave the arena, so that a state does not grow with the stream
(docs/search.md, Stable words). columns.py names the columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import TimedWord
from . import columns as c

# Steps between two settlements: what is stable leaves the arena. Chosen: the arena's room for that many
# steps is a few times what is in use.
SETTLE_STEPS = 16
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


def fresh(beam: int) -> BeamState:
    """Room for `beam` hypotheses; `restart` makes the first."""
    return BeamState(
        0, 1, 0, np.zeros((beam, c.INTS), np.int64), np.zeros((beam, c.FLOATS)),
        0, np.zeros((0, c.ENTRIES), np.int32), np.zeros(0, np.int64), np.zeros((0, c.VALUES)),
        0, 0.0, [], [], [], [], [],
    )  # fmt: skip


def restart(state: BeamState, label: int, blank: float, token: float, language: int) -> None:
    """One hypothesis, the empty prefix, whose alignments have ended in the blank or in a token with these
    log-probabilities; the token may go on without being told again."""
    state.count, state.leader, state.used = 1, 0, 0
    state.ints[:], state.floats[:] = 0, 0.0
    row = state.ints[0]
    row[c.KEY], row[c.WORDS_KEY], row[c.LM], row[c.LABEL] = _SEED_KEY, _SEED_KEY, language, label
    row[c.ENDED] = c.NONE
    row[[c.PATH_B, c.FIRST_B, c.PATH_N, c.FIRST_N]] = -1
    state.floats[0, [c.BLANK, c.BEST_B]] = blank
    state.floats[0, [c.TOKEN, c.BEST_N]] = token
    state.language, state.path = language, max(blank, token)


def totals(state: BeamState) -> NDArray[np.float64]:
    """Scores of the hypotheses, all alignments together."""
    floats = state.floats[: state.count]
    return np.asarray(np.logaddexp(floats[:, c.BLANK], floats[:, c.TOKEN]) + floats[:, c.SCORE])


def stable_words(state: BeamState) -> tuple[TimedWord, ...]:
    return tuple(map(TimedWord, state.texts, state.firsts, state.lasts, state.confidences))


def keep_word(state: BeamState, word: TimedWord) -> None:
    """One more stable word."""
    state.texts.append(word.text)
    state.firsts.append(word.first)
    state.lasts.append(word.last)
    state.confidences.append(word.confidence)


def is_sound(state: BeamState, beam: int, tokens: int, nodes: int, phrase_nodes: int, words: int) -> bool:
    """A state from outside: is every index within what it points into? Kernels trust them.

    `tokens` of the vocabulary, `nodes` of the trees, `phrase_nodes` of the hotwords' automaton, `words` with
    those of hotwords.
    """
    rows, floats = state.ints[: max(state.count, 0)], state.floats
    bounds = {
        c.NODE: (0, nodes),
        c.LABEL: (0, tokens),
        c.HOT: (0, phrase_nodes),
        c.ENDED: (c.OPEN, max(1, words)),
        c.ORDINAL: (len(state.texts), len(state.texts) + max(state.used, 0) + 2),
        **dict.fromkeys((c.PATH_B, c.PATH_N), (-1, state.used)),
    }
    arena = state.arena[: max(state.used, 0)]
    parents = arena[:, c.ENTRY_PARENT]
    said, ordinals, ended = (arena[:, k] for k in (c.ENTRY_TOKEN, c.ENTRY_ORDINAL, c.ENTRY_WORD))
    texts = (state.texts, state.firsts, state.lasts, state.confidences)
    room = SETTLE_STEPS - state.step % SETTLE_STEPS
    return (
        state.ints.shape == (beam, c.INTS)
        and floats.shape == (beam, c.FLOATS)
        and 0 <= state.leader < state.count <= beam
        and state.arena.shape == (len(state.keys), c.ENTRIES)
        and state.values.shape == (len(state.keys), c.VALUES)
        and math.isfinite(state.path)
        and 0 <= state.used <= len(state.keys)
        and (len(state.keys) == 0 or room == SETTLE_STEPS or state.used + room * beam <= len(state.keys))
        and not np.isnan(floats).any()
        and bool(np.isfinite(state.values[: max(state.used, 0)]).all())
        and len({len(each) for each in texts}) == 1
        and all(low <= rows[:, k].min() and rows[:, k].max() < high for k, (low, high) in bounds.items())
        and all(rows[:, k].max() <= state.step for k in (c.LAST_B, c.LAST_N))
        and bool(((parents >= -1) & (parents < np.arange(len(arena)))).all())
        and bool(((said > 0) & (said < tokens)).all())
        and bool((ordinals >= len(state.texts)).all())
        and bool(((ended >= c.OPEN - len(state.former)) & (ended < words)).all())
    )
