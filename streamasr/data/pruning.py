"""Smaller back-off models: words and n-grams left out, so that the rest is a distribution as before.

An n-gram h w costs, when it is left out, the relative entropy between the model with and without it
(Stolcke 1998, equation 5), h' being h without its first word and a(h) the back-off weight:

    D = -P(h) { p(w | h) [log p(w | h') + log a'(h) - log p(w | h)]
               + (1 - sum p(. | h)) [log a'(h) - log a(h)] }

with the sum over all words that have an n-gram with h, and a'(h) the weight once w is not among them. What
costs least goes first. P(h) is not the product of the model's lower orders, which Kneser-Ney smoothing
made for another purpose (Chelba et al. 2010), but starts from how often a word occurs in text of the
model's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import tensorfile
from ..errors import ConfigError
from ..search import lm

_PASSES = 10  # of the words' own frequencies; they change by less than 1 % after five
# Of the probability of a context at least this goes to words that have no n-gram: a model whose numbers are
# rounded may have given away more than all.
_LEAST_LEFT = 1e-3
_TABLES = 2 * 4 * 256 + 1024  # bytes of a file that do not grow: tables of 8 bit codes, header
# Words in longer n-grams have ids of 16 bits; those beyond are unigrams.
_MOST_IDS = 1 << 16

Words = Sequence[str]
Float = NDArray[np.float64]


def normalised(words: Words, orders: Sequence[lm.Order]) -> list[lm.Order]:
    """n-grams -> the same with back-off weights so that p(. | h) sums to 1 over all words but <s>."""
    model = lm.arrange(words, orders)
    _normalise(model, words)
    return _orders(model)


def cut(
    words: Words, orders: Sequence[lm.Order], most: int | None = None, among: set[str] | None = None
) -> tuple[list[str], list[lm.Order]]:
    """The `most` likeliest words (of those `among`) and the markers; the others' probability is <unk>'s.

    Likeliest first; n-grams with other words are left out. Raises ConfigError when that leaves none.
    """
    ids, one, _ = orders[0]
    likely = np.full(len(words), -np.inf)
    likely[ids[:, 0]] = one
    markers = [i for i, word in enumerate(words) if word in (lm.BEGIN, lm.END, lm.UNKNOWN)]
    order = [int(i) for i in np.argsort(-likely, kind="stable") if i not in markers]
    kept_words = [i for i in order if among is None or words[i] in among][:most]
    if not kept_words or most is not None and most < 1:
        raise ConfigError("language model: no words are kept")
    chosen = np.array(markers + kept_words)
    number = np.full(len(words), -1, np.int32)
    number[chosen] = np.arange(len(chosen))
    kept: list[lm.Order] = []
    for grams, p, back in orders:
        inside = (number[grams] >= 0).all(1)
        kept.append((number[grams[inside]], p[inside], back[inside]))
    shorter = [words[i] for i in chosen]
    if lm.UNKNOWN in shorter and len(shorter) < len(words):
        lost = np.logaddexp.reduce(likely[number < 0])
        (row,) = np.flatnonzero(kept[0][0][:, 0] == shorter.index(lm.UNKNOWN))
        kept[0][1][row] = np.logaddexp(kept[0][1][row], lost)
    return shorter, normalised(shorter, kept)


def prune(
    words: Words, orders: Sequence[lm.Order], most_bytes: int | None = None, threshold: float = 0.0
) -> list[lm.Order]:
    """n-grams -> those that cost `threshold` nats a word or more, and no more than `most_bytes` of file hold.

    Raises ConfigError when the words alone are larger.
    """
    model = lm.arrange(words, orders)
    _normalise(model, words)
    costs = _costs(model, words)
    if most_bytes is not None:
        text = len(tensorfile.text_tensor(words))
        if _size(model, _kept(model, costs, np.inf), text) > most_bytes:
            raise ConfigError(f"language model: {len(words):,} words alone are above {most_bytes:,} bytes")
        ladder = np.sort(np.concatenate([[0.0], *costs[1:]]))
        low, high = int(np.searchsorted(ladder, threshold)), len(ladder)
        while low < high:
            middle = (low + high) // 2
            fits = _size(model, _kept(model, costs, ladder[middle]), text) <= most_bytes
            low, high = (low, middle) if fits else (middle + 1, high)
        threshold = float(ladder[low]) if low < len(ladder) else np.inf
    kept = _kept(model, costs, threshold)
    left = [(ids[k], p[k], b[k]) for (ids, p, b), k in zip(_orders(model), kept, strict=True)]
    while len(left) > 1 and not len(left[-1][0]):
        left.pop()
    return normalised(words, left)


def _orders(model: lm.Arranged) -> list[lm.Order]:
    return list(zip(model.grams, model.log_probs, model.backoffs, strict=True))


def log_prob(model: lm.Arranged, ids: NDArray[np.int32], start: int = 0) -> Float:
    """n-grams [n, k], in the model or not -> log p(last word | those before it, from `start` on) [n]."""
    k = ids.shape[1]
    total, done = np.zeros(len(ids)), np.zeros(len(ids), bool)
    for first in range(max(start, k - len(model.grams)), k):
        entry = np.where(done, -1, model.find(ids[:, first:]))
        found = entry >= 0
        total[found] += model.log_probs[k - first - 1][entry[found]]
        done |= found
        if first < k - 1:
            entry = np.where(done, -1, model.find(ids[:, first:-1]))
            total[entry >= 0] += model.backoffs[k - first - 2][entry[entry >= 0]]
    return total


def _sums(model: lm.Arranged, k: int, values: Float) -> Float:
    """Values of the n-grams of order k -> their sums by beginning [n-grams of order k - 1]."""
    return np.bincount(model.parents[k - 1], values, len(model.grams[k - 2])).astype(np.float64)


def _normalise(model: lm.Arranged, words: Words) -> None:
    """Makes every p(. | h) sum to 1, from the shortest h on; probabilities as given, weights made anew."""
    ids, one = model.grams[0][:, 0], model.log_probs[0]
    begin = words.index(lm.BEGIN) if lm.BEGIN in words else -1
    one[:] = np.where(ids == begin, -np.inf, one)
    one -= np.logaddexp.reduce(one)
    one[ids == begin] = -99.0 * np.log(10.0)
    model.backoffs[-1][:] = 0.0
    for k in range(2, len(model.grams) + 1):
        lower = np.exp(log_prob(model, model.grams[k - 1], 1))
        explicit = _sums(model, k, np.exp(model.log_probs[k - 1]))
        theirs = 1.0 - _sums(model, k, lower)
        every = theirs < 1e-6  # all words are there: nothing is left over, nor for anyone
        most = np.where(every, 1.0, 1.0 - _LEAST_LEFT)
        scale = np.where(every | (explicit > most), most / np.maximum(explicit, 1e-300), 1.0)
        model.log_probs[k - 1][:] += np.log(scale[model.parents[k - 1]])
        weight = np.where(every, 1.0, (1.0 - explicit * scale) / np.maximum(theirs, 1e-6))
        has = np.bincount(model.parents[k - 1], minlength=len(explicit)) > 0
        model.backoffs[k - 2][:] = np.where(has, np.log(weight), 0.0)


def _frequencies(model: lm.Arranged, words: Words) -> Float:
    """How often each word is history in text of the model's unigrams and bigrams [words]: <s> for </s>."""
    p = np.exp(model.log_probs[0])
    begin, end = (words.index(marker) if marker in words else -1 for marker in (lm.BEGIN, lm.END))
    often = p.copy()
    for _ in range(_PASSES):
        if begin >= 0 and end >= 0:
            often[begin], often[end] = often[end], 0.0
        if len(model.grams) > 1:
            first, second = model.grams[1].T
            weight = np.exp(model.backoffs[0])
            more = often[first] * (np.exp(model.log_probs[1]) - weight[first] * p[second])
            often = np.dot(often, weight) * p + np.bincount(second, more, len(p))
    if begin >= 0 and end >= 0:
        often[begin], often[end] = often[end], 0.0
    return often


def _costs(model: lm.Arranged, words: Words) -> list[Float]:
    """D of every n-gram [n] by order; of unigrams infinite: words stay."""
    costs = [np.full(len(words), np.inf)]
    often = np.log(np.maximum(_frequencies(model, words), 1e-300))
    for k in range(2, len(model.grams) + 1):
        parent, p = model.parents[k - 1], model.log_probs[k - 1]
        lower = log_prob(model, model.grams[k - 1], 1)
        explicit, theirs = _sums(model, k, np.exp(p)), _sums(model, k, np.exp(lower))
        left = 1.0 - explicit[parent]
        weight = model.backoffs[k - 2][parent]
        without = np.log((left + np.exp(p)) / np.maximum(1.0 - theirs[parent] + np.exp(lower), 1e-12))
        cost = -np.exp(often[parent]) * (np.exp(p) * (lower + without - p) + left * (without - weight))
        costs.append(np.where(model.grams[k - 1][:, -1] < _MOST_IDS, cost, -1.0))
        often = often[parent] + p
    return costs


def _kept(model: lm.Arranged, costs: list[Float], threshold: float) -> list[NDArray[np.bool_]]:
    """Which n-grams stay: those that cost enough, and the beginnings of others."""
    kept = [cost >= threshold for cost in costs]
    for k in range(2, len(kept)):  # no n-gram goes without its beginning
        kept[k] &= costs[k - 1][model.parents[k]] >= 0
    for k in range(len(kept) - 1, 0, -1):
        kept[k - 1][model.parents[k][kept[k]]] = True
    return kept


def _size(model: lm.Arranged, kept: list[NDArray[np.bool_]], text: int) -> int:
    """Bytes of the file with codes of 8 bits and ids of 16 (lm.py has the arrays); `text`: of the words."""
    size = text + _TABLES
    for k, each in enumerate(kept):
        size += int(each.sum()) * (1 if k == 0 else 3) + int(each.sum()) // 8
        if k + 1 < len(kept):
            contexts = np.bincount(model.parents[k + 1][kept[k + 1]]) > 0
            size += int(contexts.sum()) * (5 if k < 2 else 9)
    return size
