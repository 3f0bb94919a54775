"""Text -> trigram model with modified Kneser-Ney smoothing; several models -> their mixture.

    p(w | h) = (c(h w) - D(c(h w))) / c(h)  +  g(h) p(w | h')          h' is h without its first word

c of trigrams is how often they occur, of shorter n-grams how many different words come before them (of those
that begin with <s>: how often they occur, for nothing does); D is one of three numbers, for counts of 1, 2
and more, g(h) what the D have left over (Chen and Goodman 1999, equations 23 to 26).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..search import lm
from .pruning import log_prob, normalised

Float = NDArray[np.float64]
Ids = NDArray[np.int64]


def estimate(lines: Iterable[str], words: Sequence[str], least: int = 2) -> list[lm.Order]:
    """Sentences -> n-grams over `words`, which hold <s>, </s> and <unk>; others count as <unk>.

    Trigrams that occur less than `least` times are left out in the end. Raises ConfigError without text.
    """
    ids = {word: number for number, word in enumerate(words)}
    begin, end, unknown = (ids[marker] for marker in (lm.BEGIN, lm.END, lm.UNKNOWN))
    told: list[int] = []
    for line in lines:
        if said := line.split():
            told += [begin, *(ids.get(word, unknown) for word in said), end]
    if not told:
        raise ConfigError("language model: the text holds no words")
    text, count = np.array(told, np.int64), len(words)
    inner = text[:-1] != end
    pairs, pair_of, pair_counts = np.unique(
        np.where(inner, text[:-1] * count + text[1:], -1), return_inverse=True, return_counts=True
    )
    whole = inner[:-1] & inner[1:]
    triples, triple_counts = np.unique(pair_of[:-1][whole] * count + text[2:][whole], return_counts=True)
    if pairs[0] < 0:  # where one sentence ends and the next begins
        pairs, pair_counts, triples = pairs[1:], pair_counts[1:], triples - count
    first, second = pairs // count, pairs % count
    pair, third = triples // count, triples % count
    shorter = np.searchsorted(pairs, second[pair] * count + third)
    before = np.bincount(shorter, minlength=len(pairs))
    alike = np.where(np.arange(count) == begin, 0.0, 1.0 / max(count - 1, 1))
    one, _ = _smoothed(np.bincount(second, minlength=count), np.zeros(count, np.int64), alike, 1)
    one[begin] = 1e-99  # nothing comes before it
    two, left = _smoothed(np.where(first == begin, pair_counts, before), first, one[second], count)
    three, last = _smoothed(triple_counts, pair, two[shorter], len(pairs))
    kept = triple_counts >= least
    grams = np.stack([first, second], 1)
    orders = [
        (np.arange(count)[:, None], one, left),
        (grams, two, last),
        (np.column_stack([grams[pair], third])[kept], three[kept], np.ones(int(kept.sum()))),
    ]
    logs = ((np.log(np.maximum(values, 1e-99)) for values in each[1:]) for each in orders)
    return normalised(words, [(each[0].astype(np.int32), *pb) for each, pb in zip(orders, logs, strict=True)])


def mix(
    words: Sequence[str], models: Sequence[Sequence[lm.Order]], weights: Sequence[float]
) -> list[lm.Order]:
    """Models over the same words -> n-grams of any of them, p(w | h) the weighted mean of theirs."""
    if len(models) != len(weights) or min(weights) <= 0:
        raise ConfigError(f"language model: {len(models)} models need as many weights above 0, not {weights}")
    arranged = [lm.arrange(words, normalised(words, orders)) for orders in models]
    shares = np.log(np.array(weights) / sum(weights))
    mixed: list[lm.Order] = []
    for k in range(1, max(len(each.grams) for each in arranged) + 1):
        grams = np.concatenate([each.grams[k - 1] for each in arranged if len(each.grams) >= k])
        there = lm.arrange(words, [*mixed, (grams[:0], np.zeros(0), np.zeros(0))]) if k > 1 else None
        key = (there.find(grams[:, :-1]) if there else 0) * len(words) + grams[:, -1].astype(np.int64)
        grams = grams[np.unique(key, return_index=True)[1]]
        p = np.logaddexp.reduce([s + log_prob(each, grams) for s, each in zip(shares, arranged, strict=True)])
        mixed.append((grams, p, np.zeros(len(grams))))
    return normalised(words, mixed)


def _smoothed(counts: Ids, history: Ids, lower: Float, histories: int) -> tuple[Float, Float]:
    """Counts of n-grams [n], their histories, p(w | h') -> p(w | h) [n], g [histories]."""
    n = [max(int((counts == c).sum()), 1) for c in range(1, 5)]
    y = n[0] / (n[0] + 2 * n[1])
    steps = [0.0] + [min(max(c - (c + 1) * y * n[c] / n[c - 1], 0.0), float(c)) for c in (1, 2, 3)]
    discount = np.array(steps)[np.minimum(counts, 3)]
    total = np.maximum(np.bincount(history, counts, histories), 1)
    left = np.bincount(history, discount, histories) / total
    left[np.bincount(history, minlength=histories) == 0] = 1.0
    return (counts - discount) / total[history] + left[history] * lower, left
