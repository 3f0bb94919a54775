"""Inner loop of the prefix beam search, compiled by numba (docs/search.md has the formulas).

A hypothesis is one row of two arrays, `ints` and `floats`; an extended one, a candidate, is a row of the
same kind, with where it came from, until the beam is chosen anew. columns.py names the columns. What hypotheses have in common lies in the arena: one entry per token said, linked to the one
before it. Arrays of words, nodes and contexts are those of lexicon.py, lm.py and hotwords.py, whose
constructors have checked every index: nothing is checked here.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .columns import (
    BEAM,
    BEAM_THRESHOLD,
    BEST_B,
    BEST_N,
    BLANK,
    BLANK_SKIP,
    ENDED,
    ENTRY_FIRST,
    ENTRY_LAST,
    ENTRY_ORDINAL,
    ENTRY_PARENT,
    ENTRY_TOKEN,
    ENTRY_WORD,
    FIRST_B,
    FIRST_N,
    FLOATS,
    FROM_B,
    FROM_OWN,
    FROM_SOURCE,
    FROM_WORD,
    FROM_WORDS_KEY,
    HOT,
    INTS,
    KEY,
    LABEL,
    LAST_B,
    LAST_N,
    LM,
    LM_WEIGHT,
    MOST_GAIN,
    NEW,
    NODE,
    NONE,
    OPEN,
    ORDINAL,
    PATH_B,
    PATH_N,
    PEAK_B,
    PEAK_N,
    REPEAT,
    SCORE,
    SEPARATOR,
    STAY,
    TOKEN,
    TOKENS,
    TOKEN_THRESHOLD,
    UNKNOWN,
    WORDS_KEY,
    WORD_BONUS,
)


_INF = np.inf


@njit(cache=True, nogil=True)
def log_add(a, b):
    """log(exp a + exp b)"""
    if a < b:
        a, b = b, a
    return a if b == -_INF else a + math.log1p(math.exp(b - a))


@njit(cache=True, nogil=True)
def mix(key, value):
    """Prefix key and what follows -> key of the longer prefix: 64 bits, so two never meet by chance."""
    x = (key ^ (np.int64(value) + 1442695040888963407)) * 6364136223846793005
    x ^= (x >> 32) & 0xFFFFFFFF
    x *= -7046029254386353131
    return x ^ ((x >> 29) & 0x7FFFFFFFF)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def lm_score(lm, state, word):
    """LanguageModel.score: natural log p, next state."""
    first, suffix, backoff, words, log_prob, after, log_probs, backoffs = lm
    if word < 0:
        return -100.0 * math.log(10.0), np.int64(0)
    total = 0.0
    while state:
        entry = find(words, first[state], first[state + 1], word)
        if entry >= 0:
            return total + log_probs[log_prob[entry]], np.int64(after[entry])
        total += backoffs[backoff[state]]
        state = suffix[state]
    return total + log_probs[log_prob[word]], np.int64(after[word])


@njit(cache=True, nogil=True)
def hot_next(hot, state, token, separator):
    """Hotword state and token -> next state, change of score (hotwords.py)."""
    first, tokens, fail, potential, reward = hot
    node = state
    while True:
        child = find(tokens, first[node], first[node + 1], token)
        if child >= 0:
            break
        if node < 2:  # at or within a word that begins no phrase
            child = 0 if token == separator else 1
            break
        node = fail[node]
    return child, potential[child] - potential[state] + reward[child]


@njit(cache=True, nogil=True)
def ending(ints, floats, i, nth, static, weights):
    """Hypothesis i within a word -> score once its nth word has ended, LM state, word; word NONE: no such."""
    lexicon, side, look_ahead, lm_ids, lm, hot = static
    lm_weight, bonus, unknown = weights[LM_WEIGHT], weights[WORD_BONUS], weights[UNKNOWN]
    node, score, nodes = ints[i, NODE], floats[i, SCORE] + bonus, len(lexicon[1])
    if nodes == 1:  # open vocabulary
        return (score, ints[i, LM], OPEN) if nth == 0 else (score, ints[i, LM], NONE)
    if node >= nodes:
        if nth or side[2][node - nodes] == side[2][node - nodes + 1]:
            return score, ints[i, LM], NONE
        log_prob, after = lm_score(lm, ints[i, LM], lm_ids[len(lm_ids) - 1])
        return score + lm_weight * (log_prob - unknown), after, OPEN
    spelling = lexicon[2][node] + nth
    if spelling >= lexicon[2][node + 1]:
        return score, ints[i, LM], NONE
    word = lexicon[3][spelling]
    log_prob, after = lm_score(lm, ints[i, LM], lm_ids[word])
    return score + lm_weight * (log_prob - look_ahead[node]), after, word


@njit(cache=True, nogil=True)
def _slot(table, keys, key):
    """Place of a key in the hash table: where it is, or where it belongs."""
    mask = len(table) - 1
    place = key & mask
    while table[place] >= 0 and keys[table[place], KEY] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def _grown(array):
    longer = np.empty((2 * len(array), array.shape[1]), array.dtype)
    longer[: len(array)] = array
    return longer


@njit(cache=True, nogil=True)
def _tabled(ints, count, size):
    table = np.full(size, -1, np.int32)
    for i in range(count):
        table[_slot(table, ints, ints[i, KEY])] = i
    return table


@njit(cache=True, nogil=True)
def _select(row, most, threshold, chosen):
    """Marks the tokens of a step that may extend a hypothesis; [V] -> chosen [V], how many."""
    floor = -_INF
    for token in range(len(row)):
        floor = max(floor, row[token])
    floor -= threshold
    count = 0
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


@njit(cache=True, nogil=True)
def _stay(ints, floats, i, row, separator, step, ci, cf):
    """Hypothesis i, the same prefix one step later -> row i of the candidates."""
    blank, token = floats[i, BLANK], floats[i, TOKEN]
    last = ints[i, LABEL]
    ci[i, :INTS] = ints[i]
    cf[i, :FLOATS] = floats[i]
    ci[i, FROM_OWN] = i
    cf[i, BLANK] = log_add(blank, token) + row[0]
    best_b, best_n = floats[i, BEST_B], floats[i, BEST_N]
    cf[i, BEST_B] = max(best_b, best_n) + row[0]
    ci[i, FROM_B] = best_n > best_b
    if ints[i, NODE] == 0 and last == separator:  # one more space is none more
        cf[i, TOKEN] = log_add(blank, token) + row[last]
        cf[i, BEST_N] = max(best_b, best_n) + row[last]
        ci[i, FROM_SOURCE] = STAY
    else:
        cf[i, TOKEN] = token + row[last]
        cf[i, BEST_N] = best_n + row[last]
        ci[i, FROM_SOURCE] = REPEAT


@njit(cache=True, nogil=True)
def step_(row, step, ints, floats, count, arena, keys, peaks, used, static, weights, limits):
    """One step for all hypotheses -> (their new number, arena entries used); arrays change in place.

    row [V] log-probabilities less the prior; static: lexicon, side, look_ahead, lm_ids, lm, hot.
    """
    lexicon, side, look_ahead, lm_ids, lm, hot = static
    lm_weight, threshold, token_threshold, unknown = weights[LM_WEIGHT], weights[BEAM_THRESHOLD], weights[TOKEN_THRESHOLD], weights[UNKNOWN]
    beam, most, separator = limits[BEAM], limits[TOKENS], limits[SEPARATOR]
    nodes = len(lexicon[1])
    is_open, has_hot, has_side = nodes == 1, len(hot[1]) > 2, len(side[1]) > 1
    capacity = max(64, 8 * count)
    ci = np.empty((capacity, INTS + 5), np.int64)
    cf = np.empty((capacity, FLOATS), np.float64)
    chosen = np.zeros(len(row), np.bool_)
    _select(row, most, token_threshold, chosen)
    for i in range(count):
        _stay(ints, floats, i, row, separator, step, ci, cf)
    table = _tabled(ints, count, _power(4 * capacity))
    n, floor = count, -_INF
    for i in range(count):
        floor = max(floor, log_add(cf[i, BLANK], cf[i, TOKEN]) + cf[i, SCORE] - threshold)
    for i in range(count):
        node, last = ints[i, NODE], ints[i, LABEL]
        total = log_add(floats[i, BLANK], floats[i, TOKEN])
        best = max(floats[i, BEST_B], floats[i, BEST_N])
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
                    added, path = floats[i, BLANK], floats[i, BEST_B]
                else:
                    added, path = total, best
                added += row[token]
                path += row[token]
                if added + floats[i, SCORE] + weights[MOST_GAIN] < floor:
                    continue
                hot_state, hot_score = ints[i, HOT], 0.0
                if has_hot:
                    hot_state, hot_score = hot_next(hot, ints[i, HOT], token, separator)
                key = mix(ints[i, KEY], token)
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
                    score = floats[i, SCORE] + lm_weight * ahead + hot_score
                    state, word, where, new_key = ints[i, LM], NONE, target, key
                    if nth >= 0:
                        if token == separator:
                            score, state, word = ending(ints, floats, i, nth, static, weights)
                            score += hot_score
                        else:
                            word = NONE
                            spelling = lexicon[2][child] + nth
                            if spelling < lexicon[2][child + 1]:
                                word = lexicon[3][spelling]
                                log_prob, state = lm_score(lm, ints[i, LM], lm_ids[word])
                                past = look_ahead[node] if node else 0.0
                                score = floats[i, SCORE] + lm_weight * (log_prob - past) + weights[WORD_BONUS] + hot_score
                        if word == NONE:
                            break
                        where, new_key = 0, mix(key, word)
                    whole = added + score
                    if whole >= floor:
                        floor = max(floor, whole - threshold)
                        if n == len(ci):
                            ci, cf = _grown(ci), _grown(cf)
                            table = _tabled(ci, n, _power(4 * len(ci)))
                        place = _slot(table, ci, new_key)
                        j = table[place]
                        if j < 0:
                            table[place] = n
                            j = n
                            n += 1
                            ci[j, KEY], ci[j, NODE], ci[j, LM], ci[j, HOT] = new_key, where, state, hot_state
                            ci[j, LABEL] = token
                            ci[j, ENDED] = word if token != separator else NONE
                            ci[j, ORDINAL] = ints[i, ORDINAL] + (word != NONE)
                            ci[j, WORDS_KEY] = ints[i, WORDS_KEY]
                            if word != NONE:
                                ci[j, WORDS_KEY] = new_key if word == OPEN else mix(ints[i, WORDS_KEY], word)
                            ci[j, FROM_OWN] = -1
                            cf[j, BLANK], cf[j, BEST_B], cf[j, SCORE] = -_INF, -_INF, score
                            cf[j, TOKEN], cf[j, BEST_N] = -_INF, -_INF
                        cf[j, TOKEN] = log_add(cf[j, TOKEN], added)
                        if path > cf[j, BEST_N]:
                            cf[j, BEST_N] = path
                            # Whose token ends where this one begins, and in which of its alignments.
                            from_n = token != last and floats[i, BEST_N] > floats[i, BEST_B]
                            ci[j, FROM_SOURCE] = NEW + 2 * i + from_n
                            ci[j, FROM_WORD] = word if token == separator else ints[i, ENDED]
                            ci[j, FROM_WORDS_KEY] = (
                                ci[j, WORDS_KEY] if token == separator else ints[i, WORDS_KEY]
                            )
                    if nth < 0 and (separator >= 0 or is_open or token == separator):
                        break
                    nth += 1
    return _choose(row, step, ints, floats, ci, cf, n, beam, floor, arena, keys, peaks, used, separator)


@njit(cache=True, nogil=True)
def _power(least):
    size = 64
    while size < least:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def _choose(row, step, ints, floats, ci, cf, n, beam, floor, arena, keys, peaks, used, separator):
    """The best candidates become the hypotheses -> their number, arena entries used."""
    totals = np.empty(n)
    for j in range(n):
        totals[j] = log_add(cf[j, BLANK], cf[j, TOKEN]) + cf[j, SCORE]
    cut = floor
    if n > beam:
        cut = max(floor, np.partition(totals, n - beam)[n - beam])
    old_ints, old_floats = ints.copy(), floats.copy()
    above = 0
    for j in range(n):
        above += totals[j] > cut
    ties, kept = beam - above, 0
    for j in range(n):
        if totals[j] < cut or totals[j] == -_INF:
            continue
        if totals[j] == cut:
            if ties == 0:
                continue
            ties -= 1
        ints[kept] = ci[j, :INTS]
        floats[kept] = cf[j]
        own, source = ci[j, FROM_OWN], ci[j, FROM_SOURCE]
        if own >= 0 and ci[j, FROM_B]:
            ints[kept, PATH_B] = old_ints[own, PATH_N]
            ints[kept, FIRST_B] = old_ints[own, FIRST_N]
            ints[kept, LAST_B] = old_ints[own, LAST_N]
            floats[kept, PEAK_B] = old_floats[own, PEAK_N]
        if source == STAY:
            if old_floats[own, BEST_B] > old_floats[own, BEST_N]:
                ints[kept, PATH_N] = old_ints[own, PATH_B]
            ints[kept, FIRST_N] = -1
        elif source == REPEAT:
            ints[kept, LAST_N] = step
            floats[kept, PEAK_N] = max(floats[kept, PEAK_N], row[ints[kept, LABEL]])
        else:
            parent, from_n = (source - NEW) >> 1, (source - NEW) & 1
            path = old_ints[parent, PATH_N if from_n else PATH_B]
            first = old_ints[parent, FIRST_N if from_n else FIRST_B]
            if first >= 0:
                word = ci[j, FROM_WORD]
                arena[used, ENTRY_PARENT] = path
                arena[used, ENTRY_TOKEN] = old_ints[parent, LABEL]
                arena[used, ENTRY_WORD] = word
                ends_before = old_ints[parent, ENDED] != NONE
                arena[used, ENTRY_ORDINAL] = old_ints[parent, ORDINAL] - ends_before
                arena[used, ENTRY_FIRST] = first
                arena[used, ENTRY_LAST] = old_ints[parent, LAST_N if from_n else LAST_B]
                keys[used] = ci[j, FROM_WORDS_KEY]
                peaks[used] = old_floats[parent, PEAK_N if from_n else PEAK_B]
                path = used
                used += 1
            ints[kept, PATH_N] = path
            token = ints[kept, LABEL]
            ints[kept, FIRST_N] = -1 if token == separator else step
            ints[kept, LAST_N] = step
            floats[kept, PEAK_N] = row[token]
            if own < 0:
                ints[kept, PATH_B], ints[kept, FIRST_B], ints[kept, LAST_B] = path, -1, step
                floats[kept, PEAK_B] = 0.0
        kept += 1
    return kept, used


@njit(cache=True, nogil=True)
def advance(log_probs, prior, step, ints, floats, count, arena, keys, peaks, used, static, weights, limits):
    """Steps [S, V] for all hypotheses -> (their number, arena entries used, the best of them)."""
    row = np.empty(log_probs.shape[1])
    for s in range(len(log_probs)):
        for token in range(len(row)):
            row[token] = log_probs[s, token] - prior[token]
        if log_probs[s, 0] > weights[BLANK_SKIP]:
            for i in range(count):
                floats[i, BLANK] = log_add(floats[i, BLANK], floats[i, TOKEN]) + row[0]
                floats[i, TOKEN] = -_INF
                if floats[i, BEST_N] > floats[i, BEST_B]:
                    floats[i, BEST_B] = floats[i, BEST_N]
                    ints[i, PATH_B], ints[i, FIRST_B] = ints[i, PATH_N], ints[i, FIRST_N]
                    ints[i, LAST_B], floats[i, PEAK_B] = ints[i, LAST_N], floats[i, PEAK_N]
                floats[i, BEST_B] += row[0]
                floats[i, BEST_N] = -_INF
        else:
            count, used = step_(
                row, step + s, ints, floats, count, arena, keys, peaks, used, static, weights, limits
            )
    best = 0
    for i in range(1, count):
        if total(floats, i) > total(floats, best):
            best = i
    return count, used, best


@njit(cache=True, nogil=True)
def total(floats, i):
    """Score of hypothesis i, all its alignments together."""
    return log_add(floats[i, BLANK], floats[i, TOKEN]) + floats[i, SCORE]


@njit(cache=True, nogil=True)
def complete(ints, floats, count, static, weights, separator):
    """Hypotheses -> scores [count] if the stream ended here, words [count] that then end (NONE: between words).

    -inf: the hypothesis is within what is no word yet.
    """
    scores, words = np.full(count, -_INF), np.full(count, NONE, np.int64)
    hot = static[5]
    for i in range(count):
        base = log_add(floats[i, BLANK], floats[i, TOKEN])
        change = -hot[3][ints[i, HOT]]
        if ints[i, NODE] == 0:
            scores[i] = base + floats[i, SCORE] + change
            continue
        if separator >= 0 and len(hot[1]) > 2:
            state, change = hot_next(hot, ints[i, HOT], separator, separator)
            change -= hot[3][state]
        nth = 0
        while True:
            score, _, word = ending(ints, floats, i, nth, static, weights)
            if word == NONE:
                break
            if base + score + change > scores[i]:
                scores[i], words[i] = base + score + change, word
            nth += 1
    return scores, words


@njit(cache=True, nogil=True)
def agreed(ints, floats, count, arena, keys, base):
    """Ordinal up to which the words said are the same in all hypotheses."""
    length = ints[0, ORDINAL] - base
    if length <= 0:
        return base
    known = np.zeros(length, np.int64)
    there = np.zeros(length, np.bool_)
    common = base + length
    for i in range(count):
        path = ints[i, PATH_B] if floats[i, BEST_B] > floats[i, BEST_N] else ints[i, PATH_N]
        match = base
        while path >= 0:
            place = arena[path, ENTRY_ORDINAL] - base
            if arena[path, ENTRY_WORD] != NONE and place < length:
                if i == 0:
                    known[place], there[place] = keys[path], True
                    match = max(match, base + place + 1)
                elif there[place] and known[place] == keys[path]:
                    match = base + place + 1
                    break
            path = arena[path, ENTRY_PARENT]
        common = min(common, match)
        if common == base:
            break
    return common
