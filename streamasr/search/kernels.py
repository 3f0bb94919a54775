"""Arithmetic of the prefix beam search, compiled by numba: what one hypothesis is worth, what all share.

stepping.py takes the hypotheses from one step to the next. Arrays of words, nodes, contexts and phrases
are those of lexicon.py, lm.py and hotwords.py, whose constructors have checked every index: nothing is
checked here. columns.py names the columns of the rest. What takes a few microseconds keeps Python's lock, as
getting it back would take longer.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False

from __future__ import annotations

import math

import numpy as np
from numba import njit

from . import columns as c

_INF = np.inf

# For functions that make no array: without this numba counts references to those they are given, one by one.
# That was a third of the search's time, more where threads fight for the counts of what all streams share.
BARE = {"cache": True, "_nrt": False}
INNER = {**BARE, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # and called by others here only


@njit(**INNER)
def log_add(a, b):
    """log(exp a + exp b)"""
    if a < b:
        a, b = b, a
    return a if b == -_INF else a + math.log1p(math.exp(b - a))


@njit(**INNER)
def mix(key, value):
    """Prefix key and what follows -> key of the longer prefix: 64 bits, so two never meet by chance."""
    x = (key ^ (np.int64(value) + 1442695040888963407)) * 6364136223846793005
    x ^= (x >> 32) & 0xFFFFFFFF
    x *= -7046029254386353131
    return x ^ ((x >> 29) & 0x7FFFFFFFF)


@njit(**INNER)
def find(values, begin, end, value):
    """Index of `value` in the ascending values[begin:end], -1 if it is not there."""
    high = end
    while begin < high:
        middle = (begin + high) >> 1
        if values[middle] < value:
            begin = middle + 1
        else:
            high = middle
    return begin if begin < end and values[begin] == value else -1


@njit(**INNER)
def _before(bits, ranks, state):
    """How many contexts have lower numbers, and whether this is one."""
    word, place = np.int64(bits[state >> 5]), state & 31
    x = word & ((1 << place) - 1)
    x -= (x >> 1) & 0x55555555
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ranks[state >> 5] + (((x * 0x01010101) & 0xFFFFFFFF) >> 24), (word >> place) & 1 == 1


@njit(**BARE)
def lm_score(lm, state, word):
    """LanguageModel.score: natural log p, next state."""
    bits, ranks, first, backoff, suffix, words, log_prob, log_probs, backoffs = lm
    if word < 0:
        return -100.0 * math.log(10.0), np.int64(0)
    count, long = len(log_prob) - len(words), len(backoff) - len(suffix)
    total, found, state = 0.0, False, np.int64(state)
    while True:
        number, entry = np.int64(0), np.int64(word)
        if state:
            number = _before(bits, ranks, state)[0]
            entry = count + find(words, first[number] - count, first[number + 1] - count, word)
            if entry < count:
                entry = np.int64(-1)
                if not found:
                    total += backoffs[backoff[number]]
        if entry >= 0:
            if not found:
                total += log_probs[log_prob[entry]]
                found = True
            if _before(bits, ranks, entry + 1)[1]:
                return total, entry + 1
        if state == 0:
            return total, np.int64(0)
        if number >= long:
            state = np.int64(suffix[number - long])
        elif state > count:
            state = np.int64(words[state - 1 - count]) + 1
            if not _before(bits, ranks, state)[1]:
                state = np.int64(0)
        else:
            state = np.int64(0)


@njit(cache=True, nogil=True)
def lm_scores(lm, states, words):
    """States [s], words [w] -> natural log p [s, w], next states [s, w]."""
    scores, after = np.empty((len(states), len(words))), np.empty((len(states), len(words)), np.int64)
    for i in range(len(states)):
        for k in range(len(words)):
            scores[i, k], after[i, k] = lm_score(lm, states[i], words[k])
    return scores, after


@njit(**BARE)
def hot_next(hot, state, label, ends):
    """Hotword state and label, which `ends` a word or not -> next state, change of score (hotwords.py)."""
    first, labels, target, fail, potential, reward = hot
    node = state
    while True:
        edge = find(labels, first[node], first[node + 1], label)
        if edge >= 0:
            after = np.int64(target[edge])
            break
        if node < 2:  # at or within a word that begins no phrase
            after = np.int64(0 if ends else 1)
            break
        node = fail[node]
    return after, potential[after] - potential[state] + reward[after]


@njit(**BARE)
def hot_end(hot, state, word, separator, tokens):
    """hot_next at the end of a word."""
    return hot_next(hot, state, separator if word == c.OPEN else tokens + word, True)


@njit(**INNER)
def ending(ints, floats, i, nth, static, weights):
    """Hypothesis i, within a word -> score, state and word once its nth word has ended; NONE: no such."""
    lexicon, side, look_ahead, lm_ids, lm, hot = static
    lm_weight, bonus, unknown = weights[c.LM_WEIGHT], weights[c.WORD_BONUS], weights[c.UNKNOWN]
    node, score, nodes = ints[i, c.NODE], floats[i, c.SCORE] + bonus, len(lexicon[1])
    if nodes == 1:  # open vocabulary
        return (score, ints[i, c.LM], c.OPEN) if nth == 0 else (score, ints[i, c.LM], c.NONE)
    if node >= nodes:
        spelling, words = side[2][node - nodes] + nth, len(lm_ids) - 1
        if spelling >= side[2][node - nodes + 1]:
            return score, ints[i, c.LM], c.NONE
        log_prob, after = lm_score(lm, ints[i, c.LM], lm_ids[words])
        return score + lm_weight * (log_prob - unknown), after, words + side[3][spelling]
    spelling = lexicon[2][node] + nth
    if spelling >= lexicon[2][node + 1]:
        return score, ints[i, c.LM], c.NONE
    word = lexicon[3][spelling]
    log_prob, after = lm_score(lm, ints[i, c.LM], lm_ids[word])
    return score + lm_weight * (log_prob - look_ahead[node]), after, word


@njit(**INNER)
def total(floats, i):
    """Score of hypothesis i, all its alignments together."""
    return log_add(floats[i, c.BLANK], floats[i, c.TOKEN]) + floats[i, c.SCORE]


@njit(**INNER)
def _sentence_end(state, end, static, weights):
    return weights[c.LM_WEIGHT] * lm_score(static[4], state, end)[0] if end >= 0 else 0.0


@njit(cache=True, nogil=True)
def complete(ints, floats, count, static, weights, separator, tokens, end):
    """Hypotheses -> what they would be if the stream ended here:

    scores [count] (-inf: within what is no word yet), words [count] that would then end (NONE: none),
    states [count] of the language model. `end`: its word for the end of the sentence, -1: that goes on.
    """
    scores, words = np.full(count, -_INF), np.full(count, c.NONE, np.int64)
    states = ints[:count, c.LM].copy()
    hot = static[5]
    for i in range(count):
        base = log_add(floats[i, c.BLANK], floats[i, c.TOKEN])
        change = -hot[4][ints[i, c.HOT]]
        if ints[i, c.NODE] == 0:
            scores[i] = base + floats[i, c.SCORE] + change + _sentence_end(states[i], end, static, weights)
            continue
        nth = 0
        while True:
            score, state, word = ending(ints, floats, i, nth, static, weights)
            if word == c.NONE:
                break
            if len(hot[1]):
                hot_state, change = hot_end(hot, ints[i, c.HOT], word, separator, tokens)
                change -= hot[4][hot_state]
            score += base + change + _sentence_end(state, end, static, weights)
            if score > scores[i]:
                scores[i], words[i], states[i] = score, word, state
            nth += 1
    return scores, words, states


@njit(cache=True)
def entries_to(arena, path):
    """Entries of the arena that lead to `path`, that one included, the first of them first."""
    count, entry = 0, path
    while entry >= 0:
        count, entry = count + 1, arena[entry, c.ENTRY_PARENT]
    found = np.empty(count, np.int64)
    entry = path
    for place in range(count - 1, -1, -1):
        found[place], entry = entry, arena[entry, c.ENTRY_PARENT]
    return found


@njit(cache=True, nogil=True)
def compact(ints, floats, count, arena, keys, values, used, base, spare):
    """Entries that a hypothesis leads to, from word `base` on -> arena, keys, values, how many are kept.

    The arrays are new, with room for `spare` entries more; paths of the hypotheses are changed.
    """
    number = np.empty(used, np.int64)
    for entry in range(used):
        number[entry] = -1
    for i in range(count):
        if floats[i, c.BEST_B] == -_INF:
            ints[i, c.PATH_B] = -1
        if floats[i, c.BEST_N] == -_INF:
            ints[i, c.PATH_N] = -1
        for path in (ints[i, c.PATH_B], ints[i, c.PATH_N]):
            while path >= 0 and number[path] < 0 and arena[path, c.ENTRY_ORDINAL] >= base:
                number[path], path = 0, arena[path, c.ENTRY_PARENT]
    kept = 0
    for entry in range(used):
        if number[entry] == 0:
            number[entry] = kept
            kept += 1
    fresh_arena = np.zeros((kept + spare, c.ENTRIES), np.int32)
    fresh_keys, fresh_values = np.zeros(kept + spare, np.int64), np.zeros((kept + spare, c.VALUES))
    for entry in range(used):
        place = number[entry]
        if place >= 0:
            for k in range(c.ENTRIES):
                fresh_arena[place, k] = arena[entry, k]
            for k in range(c.VALUES):
                fresh_values[place, k] = values[entry, k]
            fresh_keys[place] = keys[entry]
            parent = arena[entry, c.ENTRY_PARENT]
            fresh_arena[place, c.ENTRY_PARENT] = number[parent] if parent >= 0 else -1
    for i in range(count):
        for column in (c.PATH_B, c.PATH_N):
            path = ints[i, column]
            ints[i, column] = number[path] if path >= 0 else -1
    return fresh_arena, fresh_keys, fresh_values, kept


@njit(**INNER)
def _path(ints, floats, i):
    """Arena entry of hypothesis i's last token but one, on its best alignment."""
    return ints[i, c.PATH_B] if floats[i, c.BEST_B] > floats[i, c.BEST_N] else ints[i, c.PATH_N]


@njit(cache=True, nogil=True)
def agreement(ints, floats, count, arena, keys, base, row):
    """Ordinals [count] up to which the words that each hypothesis has said are those of hypothesis `row`."""
    length = max(ints[row, c.ORDINAL] - base, 0)
    known, there = np.zeros(length, np.int64), np.zeros(length, np.bool_)
    path = _path(ints, floats, row)
    while path >= 0:
        place = arena[path, c.ENTRY_ORDINAL] - base
        if arena[path, c.ENTRY_WORD] != c.NONE and place < length:
            known[place], there[place] = keys[path], True
        path = arena[path, c.ENTRY_PARENT]
    ordinals = np.full(count, base)
    for i in range(count):
        path = _path(ints, floats, i)
        while path >= 0:
            place = arena[path, c.ENTRY_ORDINAL] - base
            if arena[path, c.ENTRY_WORD] != c.NONE and place < length:
                if there[place] and known[place] == keys[path]:
                    ordinals[i] = base + place + 1
                    break
            path = arena[path, c.ENTRY_PARENT]
    return ordinals


@njit(cache=True, nogil=True)
def majority(ints, floats, count, arena, keys, base, row, share):
    """How many words of hypothesis `row` those have said too that have more than `share` of the
    probability in the beam, and how many all have; from `base` words on."""
    ordinals = agreement(ints, floats, count, arena, keys, base, row)
    top = total(floats, row)
    for i in range(count):
        top = max(top, total(floats, i))
    weights, whole, least = np.zeros(max(ints[row, c.ORDINAL] - base, 0) + 1), 0.0, ordinals[0]
    for i in range(count):
        weight = math.exp(total(floats, i) - top)
        weights[ordinals[i] - base] += weight
        whole += weight
        least = min(least, ordinals[i])
    most, reached = len(weights) - 1, weights[-1]
    while most > 0 and reached <= share * whole:
        most -= 1
        reached += weights[most]
    return base + most, least


@njit(cache=True)
def words_said(ints, floats, row, arena):
    """Numbers of the words that hypothesis `row` has said, but for one that its last token may end."""
    path = entries_to(arena, _path(ints, floats, row))
    count = 0
    for entry in path:
        if arena[entry, c.ENTRY_WORD] != c.NONE:
            path[count] = arena[entry, c.ENTRY_WORD]
            count += 1
    return path[:count].copy()


@njit(cache=True)
def words_keys(ints, count, words, separator):
    """Keys [count] of the words of each hypothesis, the one that would end here, if any, the last."""
    found = ints[:count, c.WORDS_KEY].copy()
    for i in range(count):
        if words[i] == c.OPEN:
            found[i] = mix(mix(ints[i, c.KEY], separator), c.OPEN)
        elif words[i] != c.NONE:
            found[i] = mix(found[i], words[i])
    return found
