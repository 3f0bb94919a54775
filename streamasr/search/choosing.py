"""Which candidates of a step become the hypotheses of the next one, compiled by numba (stepping.py).

Rows of `ints` and `floats` are as columns.py names them; what is kept takes along how it came about: entries
of the arena, the times of its tokens, its best alignment.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False

from __future__ import annotations

import numpy as np
from numba import njit

from . import columns as c
from .kernels import INNER, log_add, mix

_INF = np.inf


@njit(**INNER)
def _nth(values, nth):
    """The nth largest of the values, which change places (Hoare's quickselect)."""
    low, high, place = 0, len(values) - 1, nth - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if place <= j:
            high = j
        elif place >= i:
            low = i
        else:
            break
    return values[place]


@njit(**INNER)
def _future(ci, j):
    """Key of all that what comes after candidate j depends on."""
    key = mix(mix(ci[j, c.NODE], ci[j, c.LM]), ci[j, c.HOT])
    return mix(mix(key, ci[j, c.LABEL]), ci[j, c.ENDED] != c.NONE)


@njit(**INNER)
def _recombine(ci, totals, n, futures, table):
    """Of candidates with the same future only the best stays.

    What is said later adds the same to all of them. What is lost is the share that another, now weaker
    one might still have got from later alignments of its words: measured, far less than the room is worth.
    """
    mask = len(table) - 1
    for place in range(len(table)):
        table[place] = -1
    for j in range(n):
        futures[j] = _future(ci, j)
        place = futures[j] & mask
        while table[place] >= 0 and futures[table[place]] != futures[j]:
            place = (place + 1) & mask
        other = table[place]
        if other < 0:
            table[place] = j
        elif totals[j] > totals[other]:
            totals[other] = -_INF
            table[place] = j
        else:
            totals[j] = -_INF


@njit(**INNER)
def choose(
    row, step, ints, floats, old_ints, old_floats, n, floor, room, arena, keys, values, used, is_open, limits
):
    """The best candidates become the hypotheses, in place of the old ones -> their number, entries used."""
    ci, cf, table, _, totals, ranked, futures = room
    beam, separator = limits[c.BEAM], limits[c.SEPARATOR]
    for j in range(n):
        totals[j] = log_add(cf[j, c.BLANK], cf[j, c.TOKEN]) + cf[j, c.SCORE]
    if limits[c.RECOMBINE] and not is_open:
        _recombine(ci, totals, n, futures, table)
    cut = floor
    if n > beam:
        for j in range(n):
            ranked[j] = totals[j]
        cut = max(floor, _nth(ranked[:n], beam))
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
        for k in range(c.INTS):
            ints[kept, k] = ci[j, k]
        for k in range(c.FLOATS):
            floats[kept, k] = cf[j, k]
        own, source = ci[j, c.FROM_OWN], ci[j, c.FROM_SOURCE]
        if own >= 0 and ci[j, c.FROM_B]:
            ints[kept, c.PATH_B] = old_ints[own, c.PATH_N]
            ints[kept, c.FIRST_B] = old_ints[own, c.FIRST_N]
            ints[kept, c.LAST_B] = old_ints[own, c.LAST_N]
            floats[kept, c.PEAK_B] = old_floats[own, c.PEAK_N]
        if source == c.STAY:
            if old_floats[own, c.BEST_B] > old_floats[own, c.BEST_N]:
                ints[kept, c.PATH_N] = old_ints[own, c.PATH_B]
            ints[kept, c.FIRST_N] = -1
        elif source == c.REPEAT:
            ints[kept, c.LAST_N] = step
            floats[kept, c.PEAK_N] = max(floats[kept, c.PEAK_N], row[ints[kept, c.LABEL]])
        else:
            parent, from_n = (source - c.NEW) >> 1, (source - c.NEW) & 1
            path = old_ints[parent, c.PATH_N if from_n else c.PATH_B]
            first = old_ints[parent, c.FIRST_N if from_n else c.FIRST_B]
            if first >= 0:
                word = ci[j, c.FROM_WORD]
                arena[used, c.ENTRY_PARENT] = path
                arena[used, c.ENTRY_TOKEN] = old_ints[parent, c.LABEL]
                arena[used, c.ENTRY_WORD] = word
                ends_before = old_ints[parent, c.ENDED] != c.NONE
                arena[used, c.ENTRY_ORDINAL] = old_ints[parent, c.ORDINAL] - ends_before
                arena[used, c.ENTRY_FIRST] = first
                arena[used, c.ENTRY_LAST] = old_ints[parent, c.LAST_N if from_n else c.LAST_B]
                keys[used] = ci[j, c.FROM_WORDS_KEY]
                values[used, c.VALUE_PEAK] = old_floats[parent, c.PEAK_N if from_n else c.PEAK_B]
                values[used, c.VALUE_PATH] = old_floats[parent, c.BEST_N if from_n else c.BEST_B]
                path = used
                used += 1
            ints[kept, c.PATH_N] = path
            token = ints[kept, c.LABEL]
            ints[kept, c.FIRST_N] = -1 if token == separator else step
            ints[kept, c.LAST_N] = step
            floats[kept, c.PEAK_N] = row[token]
            if own < 0:
                ints[kept, c.PATH_B], ints[kept, c.FIRST_B], ints[kept, c.LAST_B] = path, -1, step
                floats[kept, c.PEAK_B] = 0.0
        kept += 1
    return kept, used
