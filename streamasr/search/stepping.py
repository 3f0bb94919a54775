"""Inner loop of the prefix beam search, compiled by numba (docs/search.md has the formulas).

A hypothesis is one row of two arrays, `ints` and `floats`; an extended one, a candidate, is a row of the
same kind with where it came from, until the beam is chosen anew (choosing.py). What hypotheses have in
common lies in the arena: one entry per token said, linked to the one before it. columns.py names the columns.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False

from __future__ import annotations

import numpy as np
from numba import njit

from . import columns as c
from .choosing import choose
from .kernels import INNER, ending, hot_end, hot_next, lm_score, log_add, mix, total

_INF = np.inf


@njit(**INNER)
def _power(least):
    size = 64
    while size < least:
        size *= 2
    return size


@njit(**INNER)
def _slot(table, keys, key):
    """Place of a key in the hash table: where it is, or where it belongs."""
    mask = len(table) - 1
    place = key & mask
    while table[place] >= 0 and keys[table[place], c.KEY] != key:
        place = (place + 1) & mask
    return place


@njit(**INNER)
def _copy(source, target, rows):
    # Loops here and below, not slices: they compile in a fraction of the time.
    for i in range(rows):
        for k in range(source.shape[1]):
            target[i, k] = source[i, k]


@njit(**INNER)
def _tabled(table, ints, count):
    """Makes a hash table of the prefixes' keys."""
    for place in range(len(table)):
        table[place] = -1
    for i in range(count):
        table[_slot(table, ints, ints[i, c.KEY])] = i


@njit(**INNER)
def _select(row, most, threshold, chosen):
    """Marks the tokens of a step that may extend a hypothesis; [V] -> chosen [V], how many."""
    floor = -_INF
    for token in range(len(row)):
        floor = max(floor, row[token])
    floor -= threshold
    count = 0
    chosen[0] = False
    for token in range(1, len(row)):
        chosen[token] = row[token] > floor
        count += chosen[token]
    while count > most:
        worst = -1
        for token in range(len(row) - 1, 0, -1):
            if chosen[token] and (worst < 0 or row[token] < row[worst]):
                worst = token
        chosen[worst] = False
        count -= 1


@njit(**INNER)
def _stay(ints, floats, i, row, top, separator, step, ci, cf):
    """Hypothesis i, the same prefix one step later -> row i of the candidates."""
    blank, token = floats[i, c.BLANK], floats[i, c.TOKEN]
    last = ints[i, c.LABEL]
    for k in range(c.INTS):
        ci[i, k] = ints[i, k]
    for k in range(c.FLOATS):
        cf[i, k] = floats[i, k]
    ci[i, c.FROM_OWN] = i
    cf[i, c.BLANK] = log_add(blank, token) + row[0]
    best_b, best_n = floats[i, c.BEST_B], floats[i, c.BEST_N]
    cf[i, c.BEST_B] = max(best_b, best_n) + row[0] - top
    ci[i, c.FROM_B] = best_n > best_b
    if ints[i, c.NODE] == 0 and last == separator:  # one more space is none more
        cf[i, c.TOKEN] = log_add(blank, token) + row[last]
        cf[i, c.BEST_N] = max(best_b, best_n) + row[last] - top
        ci[i, c.FROM_SOURCE] = c.STAY
    else:
        cf[i, c.TOKEN] = token + row[last]
        cf[i, c.BEST_N] = best_n + row[last] - top
        ci[i, c.FROM_SOURCE] = c.REPEAT


@njit(**INNER)
def _begin(ci, cf, j, ints, i, key, node, token, word, separator):
    """Candidate j: a prefix that no hypothesis is yet, hypothesis i and one token more."""
    ci[j, c.KEY], ci[j, c.NODE], ci[j, c.LABEL] = key, node, token
    ci[j, c.ENDED] = word if token != separator else c.NONE
    ci[j, c.ORDINAL], ci[j, c.WORDS_KEY] = ints[i, c.ORDINAL], ints[i, c.WORDS_KEY]
    if word != c.NONE:
        ci[j, c.ORDINAL] += 1
        ci[j, c.WORDS_KEY] = key if word == c.OPEN else mix(ints[i, c.WORDS_KEY], word)
    ci[j, c.FROM_OWN], ci[j, c.FROM_B] = -1, 0
    cf[j, c.BLANK], cf[j, c.BEST_B] = -_INF, -_INF
    cf[j, c.TOKEN], cf[j, c.BEST_N] = -_INF, -_INF


@njit(**INNER)
def _reach(ci, cf, j, ints, floats, i, added, path, token, word, separator):
    """Candidate j is reached from hypothesis i: `added` in all, `path` by the best alignment."""
    cf[j, c.TOKEN] = log_add(cf[j, c.TOKEN], added)
    if path > cf[j, c.BEST_N]:
        cf[j, c.BEST_N] = path
        # Whose token ends where this one begins, and in which of its alignments.
        from_n = token != ints[i, c.LABEL] and floats[i, c.BEST_N] > floats[i, c.BEST_B]
        ci[j, c.FROM_SOURCE] = c.NEW + 2 * i + from_n
        ci[j, c.FROM_WORD] = word if token == separator else ints[i, c.ENDED]
        ci[j, c.FROM_WORDS_KEY] = ci[j, c.WORDS_KEY] if token == separator else ints[i, c.WORDS_KEY]


@njit(**INNER)
def _extend(row, top, step, ints, floats, count, room, static, weights, limits):
    """One step for all hypotheses, into candidates -> (their number, what they must be worth).

    row [V] log-probabilities less the prior, top the highest of them. -1 candidates: there is no room.
    """
    ci, cf, table, chosen = room[:4]
    lexicon, side, look_ahead, lm_ids, lm, hot = static
    lm_weight, threshold, unknown = weights[c.LM_WEIGHT], weights[c.BEAM_THRESHOLD], weights[c.UNKNOWN]
    separator = limits[c.SEPARATOR]
    nodes = len(lexicon[1])
    is_open, has_hot, has_side = nodes == 1, len(hot[1]) > 0, len(side[1]) > 1
    _select(row, limits[c.TOKENS], weights[c.TOKEN_THRESHOLD], chosen)
    for i in range(count):
        _stay(ints, floats, i, row, top, separator, step, ci, cf)
    _tabled(table, ints, count)
    n, floor = count, -_INF
    for i in range(count):
        floor = max(floor, log_add(cf[i, c.BLANK], cf[i, c.TOKEN]) + cf[i, c.SCORE] - threshold)
    for i in range(count):
        node, last = ints[i, c.NODE], ints[i, c.LABEL]
        both = log_add(floats[i, c.BLANK], floats[i, c.TOKEN])
        best = max(floats[i, c.BEST_B], floats[i, c.BEST_N])
        # A root's children are those of two trees, one after the other; a node of the side tree has
        # children there only.
        for tree in range(2):
            if is_open:
                if tree:
                    break
                begin, end = 1, len(row)
            elif tree == 0:
                begin, end = (0, 0) if node >= nodes else (lexicon[0][node], lexicon[0][node + 1])
            elif node == 0 and has_side:
                begin, end = side[0][0], side[0][1]
            elif node > nodes:
                begin, end = side[0][node - nodes], side[0][node - nodes + 1]
            else:
                break
            for child in range(begin, end + 1):
                # The last of the loop is the separator, which is in no tree.
                if child == end:
                    if tree != (node >= nodes and not is_open) or separator < 0:
                        break
                    token = separator
                elif is_open:
                    token = child
                    if token == separator:
                        continue
                else:
                    token = side[1][child] if tree else lexicon[1][child]
                if not chosen[token]:
                    continue
                if token == last:
                    if node == 0 and token == separator:
                        continue  # `_stay` has it
                    added, path = floats[i, c.BLANK], floats[i, c.BEST_B]
                else:
                    added, path = both, best
                added += row[token]
                path += row[token] - top
                if added + floats[i, c.SCORE] + weights[c.MOST_GAIN] < floor:
                    continue
                hot_state, hot_score = ints[i, c.HOT], 0.0
                if has_hot and token != separator:
                    hot_state, hot_score = hot_next(hot, ints[i, c.HOT], -token if tree else token, False)
                key = mix(ints[i, c.KEY], token)
                # What this token ends: nothing (nth = -1), or each word of a node in turn.
                nth = 0 if token == separator and node != 0 else -1
                target, ahead = 0, 0.0
                if token != separator:
                    if is_open:
                        target = 1
                    elif tree:
                        target, key = nodes + child, mix(key, -1) if node == 0 else key
                        ahead = unknown if node == 0 else 0.0
                    else:
                        target = child
                        ahead = look_ahead[child] - (look_ahead[node] if node else 0.0)
                while True:
                    score = floats[i, c.SCORE] + lm_weight * ahead + hot_score
                    state, word, where, new_key = ints[i, c.LM], c.NONE, target, key
                    if nth >= 0:
                        if token == separator:
                            score, state, word = ending(ints, floats, i, nth, static, weights)
                            if has_hot and word != c.NONE:
                                hot_state, hot_score = hot_end(hot, ints[i, c.HOT], word, separator, len(row))
                                score += hot_score
                        else:
                            word = c.NONE
                            spelling = lexicon[2][child] + nth
                            if spelling < lexicon[2][child + 1]:
                                word = lexicon[3][spelling]
                                log_prob, state = lm_score(lm, ints[i, c.LM], lm_ids[word])
                                past = look_ahead[node] if node else 0.0
                                score = (
                                    floats[i, c.SCORE]
                                    + lm_weight * (log_prob - past)
                                    + weights[c.WORD_BONUS]
                                    + hot_score
                                )
                        if word == c.NONE:
                            break
                        where, new_key = 0, mix(key, word)
                    whole = added + score
                    if whole >= floor:
                        place = _slot(table, ci, new_key)
                        if table[place] < 0:
                            if n == len(ci):
                                return -1, floor
                            table[place] = n
                            _begin(ci, cf, n, ints, i, new_key, where, token, word, separator)
                            ci[n, c.LM], ci[n, c.HOT], cf[n, c.SCORE] = state, hot_state, score
                            n += 1
                        else:
                            # The same score, unless hotwords have changed within the word: the prefix that is
                            # there was begun without their credit.
                            whole = added + cf[table[place], c.SCORE]
                        floor = max(floor, whole - threshold)
                        _reach(ci, cf, table[place], ints, floats, i, added, path, token, word, separator)
                    if nth < 0 and (separator >= 0 or is_open or token == separator):
                        break
                    nth += 1
    return n, floor


@njit(**INNER)
def _rest(blank, top, ints, floats, count):
    """A step of the blank, `blank` its log-probability: all hypotheses stay, and end in it."""
    for i in range(count):
        floats[i, c.BLANK] = log_add(floats[i, c.BLANK], floats[i, c.TOKEN]) + blank
        floats[i, c.TOKEN] = -_INF
        if floats[i, c.BEST_N] > floats[i, c.BEST_B]:
            floats[i, c.BEST_B] = floats[i, c.BEST_N]
            ints[i, c.PATH_B], ints[i, c.FIRST_B] = ints[i, c.PATH_N], ints[i, c.FIRST_N]
            ints[i, c.LAST_B], floats[i, c.PEAK_B] = ints[i, c.LAST_N], floats[i, c.PEAK_N]
        floats[i, c.BEST_B] += blank - top
        floats[i, c.BEST_N] = -_INF


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _room(most, tokens):
    """Scratch memory of a step with at most so many candidates."""
    return (
        np.empty((most, c.INTS + 5), np.int64),
        np.empty((most, c.FLOATS)),
        np.empty(_power(4 * most), np.int32),
        np.empty(tokens, np.bool_),
        np.empty(most),
        np.empty(most),
        np.empty(most, np.int64),
    )


@njit(cache=True, nogil=True)
def advance(log_probs, prior, step, ints, floats, count, arena, keys, values, used, static, weights, limits):
    """Steps [S, V] for all hypotheses -> (their number, arena entries used, the best of them).

    Arrays change in place. static: lexicon, side, look_ahead, lm_ids, lm, hot.
    """
    row = np.empty(log_probs.shape[1])
    old_ints, old_floats = np.empty_like(ints), np.empty_like(floats)
    most = 0
    room = _room(0, 0)
    for s in range(len(log_probs)):
        top = -_INF
        for token in range(len(row)):
            row[token] = log_probs[s, token] - prior[token]
            top = max(top, row[token])
        if log_probs[s, 0] > weights[c.BLANK_SKIP]:
            _rest(row[0], top, ints, floats, count)
            continue
        if most < 2 * count:
            most = max(64, 4 * count)
            room = _room(most, len(row))
        n, floor = _extend(row, top, step + s, ints, floats, count, room, static, weights, limits)
        while n < 0:
            most *= 2
            room = _room(most, len(row))
            n, floor = _extend(row, top, step + s, ints, floats, count, room, static, weights, limits)
        _copy(ints, old_ints, count)
        _copy(floats, old_floats, count)
        count, used = choose(
            row, step + s, ints, floats, old_ints, old_floats, n, floor, room, arena, keys, values, used,
            len(static[0][1]) == 1, limits,
        )  # fmt: skip
    best = 0
    for i in range(1, count):
        if total(floats, i) > total(floats, best):
            best = i
    return count, used, best
