"""Word n-gram language model with back-off, as flat arrays: (state, word) -> (log-probability, next state).

    log p(w | h) = log p*(w | h)                  where the n-gram h w is in the model
                   log b(h) + log p(w | h')       elsewhere; h' is h without its first word

Entries are the n-grams of all orders, by order, then by the entry of their beginning (all words but the
last), then by their last word: the first entries are the unigrams, in the order of the words. Contexts are
those n-grams that matter as histories: with children (longer n-grams that they begin) or a back-off weight.
A state is 0, the empty context, or 1 + the entry of a context: all of the history that matters.

    context [states / 32]     bit s & 31 of number s >> 5: is s a context? c: how many are before it
    first [contexts + 1]      entries first[c] .. first[c + 1] - 1 are the children of context c
    backoff [contexts]        code of log b(c)
    suffix [long contexts]    of those of three and more words, which come last: the longest context, as a
                              state, that is a proper suffix; that of two words is the last word's, or 0
    word [entries - words]    last word of the n-gram; ascending among the children of one context
    log_prob [entries]        code of log p*
    log_probs, backoffs       what the codes mean, natural logarithms

Codes are 8 or 16 bits, word ids 16 where that is enough. An n-gram that two contexts share is looked for
in both: nothing says where the state after it is (KenLM's trie, Heafield 2011, does the same).
`score` here is the plain definition; kernels.py has the same for the inner loop.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import tensorfile
from ..errors import ConfigError, ModelError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
MOST_ORDER = 5
# log p of an unknown word in a model without <unk>: -100 as log10, as KenLM has it.
_IMPOSSIBLE = -100.0 * np.log(10.0)
# Attempts to draw a word: enough where a thousandth of the probability is left to draw from.
_MOST_DRAWS = 1000

Order = tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]


class Arrays(NamedTuple):
    """The arrays above, as they are in the file."""

    context: NDArray[np.int32]
    first: NDArray[np.int32]
    backoff: NDArray[np.integer[Any]]
    suffix: NDArray[np.int32]
    word: NDArray[np.integer[Any]]
    log_prob: NDArray[np.integer[Any]]
    log_probs: NDArray[np.float32]
    backoffs: NDArray[np.float32]


class LanguageModel:
    """n-grams over `words`; shared by all streams, never changes."""

    def __init__(self, words: Sequence[str], arrays: Arrays, where: str = "language model") -> None:
        """Raises ModelError naming `where` when the arrays are no language model.

        Kernels trust the arrays, so every index is checked here.
        """
        self.words = tuple(words)
        self.arrays = arrays
        self.order = _check(arrays, len(self.words), where)
        if len(self.ids) != len(self.words):
            raise ModelError(f"{where}: the vocabulary holds a word twice")
        bits = arrays.context.view(np.uint32)
        inside = _bits(arrays).reshape(-1, 32).sum(1)
        ranks = (np.cumsum(inside) - inside).astype(np.int32)
        # In the order that the kernels take them in; ranks: contexts before each number of `context`.
        self.tables = (bits, ranks, *arrays[1:])
        for array in (*arrays, *self.tables):
            array.flags.writeable = False
        self.unknown = self.ids.get(UNKNOWN, -1)
        begin, self.end = self.ids.get(BEGIN, -1), self.ids.get(END, -1)  # -1: there is none
        self.start = begin + 1 if self.are_states(np.array([begin + 1])) else 0

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word -> id."""
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        """Number of n-grams."""
        return len(self.arrays.log_prob)

    def are_states(self, states: NDArray[np.integer[Any]]) -> bool:
        """Are all of these numbers [n] states?"""
        if states.min() < 0 or states.max() > len(self):
            return False
        return bool((self.tables[0][states >> 5] >> (states & 31).astype(np.uint32) & np.uint32(1)).all())

    @property
    def unigrams(self) -> NDArray[np.float64]:
        """log p of every word without history [words]."""
        codes = self.arrays.log_prob[: len(self.words)]
        return np.asarray(self.arrays.log_probs[codes], np.float64)

    @property
    def unknown_log_prob(self) -> float:
        return float(self.unigrams[self.unknown]) if self.unknown >= 0 else _IMPOSSIBLE

    @cached_property
    def rarest(self) -> int:
        """Id of the word with the lowest log p, -1 where there is none: what one never seen is like.

        <unk> is not: it may stand for all unknown words together, or be no more than a formality.
        """
        special = [self.ids[word] for word in (BEGIN, END, UNKNOWN) if word in self.ids]
        values = self.unigrams.copy()
        values[special] = np.inf
        return int(np.argmin(values)) if len(special) < len(self.words) else -1

    def id_of(self, word: str) -> int:
        """Word -> id, that of <unk> for others; -1 where there is none."""
        return self.ids.get(word, self.unknown)

    def score(self, state: int, word: int) -> tuple[float, int]:
        """State and word id (-1: unknown) -> natural log p, next state. The reference of the kernels."""
        a, count = self.arrays, len(self.words)
        if word < 0:
            return _IMPOSSIBLE, 0
        total, found = 0.0, False
        while True:
            entry = word
            if state:
                number = self._number(state)
                begin, end = int(a.first[number]) - count, int(a.first[number + 1]) - count
                place = begin + int(np.searchsorted(a.word[begin:end], word))
                entry = count + place if place < end and a.word[place] == word else -1
                if entry < 0 and not found:
                    total += float(a.backoffs[a.backoff[number]])
            if entry >= 0:
                if not found:
                    total, found = total + float(a.log_probs[a.log_prob[entry]]), True
                if self.are_states(np.array([entry + 1])):
                    return total, entry + 1
            if not state:
                return total, 0
            state = self._suffix(state)

    def _number(self, state: int) -> int:
        """How many contexts are before this one."""
        bits, ranks = self.tables[:2]
        return int(ranks[state >> 5]) + (int(bits[state >> 5]) & ((1 << (state & 31)) - 1)).bit_count()

    def _suffix(self, state: int) -> int:
        a, count = self.arrays, len(self.words)
        place = self._number(state) - (len(a.backoff) - len(a.suffix))
        if place >= 0:
            return int(a.suffix[place])
        shorter = int(a.word[state - 1 - count]) + 1 if state > count else 0
        return shorter if self.are_states(np.array([shorter])) else 0

    def sentence(self, text: str) -> list[float]:
        """Words of a sentence -> natural log p of each and of the sentence's end."""
        state, scores = self.start, []
        for word in (*text.split(), END):
            score, state = self.score(state, self.id_of(word))
            scores.append(score)
        return scores

    def draw(self, state: int, random: np.random.Generator) -> int:
        """State -> id of a word that may follow, drawn by its probability; <s> may not."""
        a, count = self.arrays, len(self.words)
        if not state:
            return int(np.searchsorted(self._shares, random.random() * self._shares[-1], side="right"))
        number = self._number(state)
        begin, end = int(a.first[number]), int(a.first[number + 1])
        known = a.word[begin - count : end - count]
        shares = np.cumsum(np.exp(a.log_probs[a.log_prob[begin:end]].astype(np.float64)))
        place = int(np.searchsorted(shares, random.random(), side="right"))
        if place < len(known):
            return int(known[place])
        for _ in range(_MOST_DRAWS):  # of what is left, which is not what has a share here
            word = self.draw(self._suffix(state), random)
            if word not in known:
                break
        return word

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """Sums of the probabilities of the words up to each [words], without history."""
        shares = np.exp(self.unigrams)
        shares[[self.ids[word] for word in (BEGIN,) if word in self.ids]] = 0.0
        return np.cumsum(shares)

    def write(self, path: str | os.PathLike[str]) -> None:
        """-> one safetensors file (docs/search.md, Files)."""
        content = tensorfile.render({**self.arrays._asdict(), "words": tensorfile.text_tensor(self.words)})
        part = Path(f"{os.fspath(path)}.part")  # never a half-written file under the real name
        part.write_bytes(content)
        os.replace(part, path)


def read(path: str | os.PathLike[str]) -> LanguageModel:
    """File from `LanguageModel.write` -> the model, mapped: processes share its memory. Raises ModelError."""
    where = os.fspath(path)
    tensors = tensorfile.mapped(path)
    words = tensorfile.tensor_text(tensors.pop("words", None), where)
    if tensors.keys() != set(Arrays._fields):
        raise ModelError(
            f"{where}: is not a language model of streamasr; `python -m streamasr.data.ngram` makes one"
        )
    return LanguageModel(words, Arrays(**tensors), where)


class Arranged(NamedTuple):
    """n-grams of every order as a model has them: by the entry of their beginning, then by their word."""

    grams: list[NDArray[np.int32]]  # [n, k]
    parents: list[NDArray[np.int64]]  # [n] entry of the beginning, within its order; of unigrams 0
    keys: list[NDArray[np.int64]]  # [n] parent * words + last word, ascending
    log_probs: list[NDArray[np.float64]]  # [n]
    backoffs: list[NDArray[np.float64]]  # [n]

    def find(self, ids: NDArray[np.int32]) -> NDArray[np.int64]:
        """n-grams [n, k] -> their entries within order k [n], -1 where there is none; k = 0: 0."""
        entry, count = np.zeros(len(ids), np.int64), len(self.grams[0])
        for known, column in zip(self.keys, ids.T, strict=False):
            key = np.where(entry >= 0, entry * count + column, -1)
            place = np.minimum(np.searchsorted(known, key), len(known) - 1)
            entry = np.where(known[place] == key, place, -1) if len(known) else np.full(len(ids), -1)
        return entry


def arrange(words: Sequence[str], orders: Sequence[Order]) -> Arranged:
    """n-grams by order, any sequence -> arranged. Order 1 holds every word.

    Raises ModelError when an n-gram's beginning is no n-gram itself, or an n-gram occurs twice.
    """
    count, found = len(words), Arranged([], [], [], [], [])
    if not 1 <= len(orders) <= MOST_ORDER:
        raise ModelError(f"language model: order {len(orders)}, must be 1 to {MOST_ORDER}")
    for k, (ids, log_prob, back) in enumerate(orders, 1):
        parent = found.find(ids[:, :-1]) if k > 1 else np.zeros(len(ids), np.int64)
        if (parent < 0).any():
            lost = grams_text(words, ids[int(np.argmax(parent < 0))])
            raise ModelError(f"language model: n-gram {lost!r} is there, its first {k - 1} words are not")
        key = parent * count + ids[:, -1]
        order = np.argsort(key, kind="stable")
        key = key[order]
        if (np.diff(key) == 0).any():
            twice = grams_text(words, ids[order][int(np.argmax(np.diff(key) == 0))])
            raise ModelError(f"language model: n-gram {twice!r} occurs twice")
        found.grams.append(ids[order])
        found.parents.append(parent[order])
        found.keys.append(key)
        found.log_probs.append(log_prob[order])
        found.backoffs.append(back[order])
        if k == 1 and len(ids) != count:
            raise ModelError(f"language model: {len(ids)} unigrams for {count} words")
    return found


def silent() -> LanguageModel:
    """Every word has probability 1: none at all, for a search that asks one."""
    return build([UNKNOWN], [(np.zeros((1, 1), np.int32), np.zeros(1), np.zeros(1))])


def build(words: Sequence[str], orders: Sequence[Order], bits: int = 8) -> LanguageModel:
    """n-grams by order, each (ids [n, k], log p [n], log back-off [n]; natural) -> model of `bits` bit codes.

    Raises ModelError as `arrange`.
    """
    if bits not in (8, 16):
        raise ConfigError(f"language model: codes of 8 or 16 bits, not {bits}")
    arranged = arrange(words, orders)
    grams, parents = arranged.grams, arranged.parents
    used = [back != 0 for back in arranged.backoffs]
    for k in range(len(orders) - 1):
        used[k][parents[k + 1]] = True
    used[-1][:] = False  # the longest n-grams are no histories
    ends = np.cumsum([len(ids) for ids in grams])
    first = [np.zeros(1, np.int64)]
    suffix = [np.zeros(0, np.int64)]
    for k in range(1, len(orders)):
        own = np.flatnonzero(used[k - 1])
        first.append(ends[k - 1] + np.searchsorted(parents[k], own))
        if k < 3:
            continue
        shorter = np.zeros(len(own), np.int64)
        for start in range(k - 1, 0, -1):  # from the shortest suffix: longer ones replace it
            entry = arranged.find(grams[k - 1][own, start:])
            there = (entry >= 0) & used[k - start - 1][entry]
            shorter = np.where(there, 1 + entry + (ends[k - start - 2] if k - start > 1 else 0), shorter)
        suffix.append(shorter)
    marks = np.zeros(-(-(int(ends[-1]) + 1) // 32) * 32, bool)
    marks[: ends[-1] + 1] = np.concatenate([[True], *used])
    codes, table = _quantise(np.concatenate(arranged.log_probs), bits)
    back_off = [np.zeros(1), *(back[each] for back, each in zip(arranged.backoffs, used, strict=True))]
    back_codes, back_table = _quantise(np.concatenate(back_off), bits)
    last = np.concatenate([np.zeros(0, np.int32), *(ids[:, -1] for ids in grams[1:])])
    arrays = Arrays(
        np.packbits(marks, bitorder="little").view(np.int32),
        np.concatenate([*first, ends[-1:]]).astype(np.int32),
        back_codes,
        np.concatenate(suffix).astype(np.int32),
        last.astype(np.uint16 if not len(last) or last.max() < 1 << 16 else np.int32),
        codes,
        table,
        back_table,
    )
    return LanguageModel(words, arrays)


def grams_text(words: Sequence[str], ids: NDArray[np.int32]) -> str:
    return " ".join(words[i] for i in ids)


def _quantise(values: NDArray[np.float64], bits: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """values [n] -> codes [n], table [2^bits]: lossless where they are few."""
    size = 1 << bits
    dtype = np.uint8 if bits == 8 else np.uint16
    distinct, inverse, counts = np.unique(values.astype(np.float32), return_inverse=True, return_counts=True)
    table = np.zeros(size, np.float32)
    if len(distinct) <= size:
        table[: len(distinct)] = distinct
        return inverse.astype(dtype), table
    # Equal steps, so that the frequent n-grams, few but asked for most, are as exact as the many rare
    # ones. A gap without values counts as one step at most: far outliers cost a code, not all codes.
    gaps = np.diff(distinct.astype(np.float64), prepend=distinct[0])
    low, high = np.searchsorted(np.cumsum(counts), np.array([0.0001, 0.9999]) * counts.sum())
    place = np.cumsum(np.minimum(gaps, (distinct[high] - distinct[low]) / size))
    code = np.minimum((place / place[-1] * size).astype(np.int64), size - 1)
    sums = np.bincount(code, distinct.astype(np.float64) * counts, size)
    table[:] = sums / np.maximum(np.bincount(code, counts, size), 1)
    return code[inverse].astype(dtype), table


def _bits(a: Arrays) -> NDArray[np.uint8]:
    """0 or 1 for every state, and the rest of the last number."""
    return np.unpackbits(a.context.view(np.uint8), bitorder="little")


def _check(a: Arrays, words: int, where: str) -> int:
    """Every index within bounds, every loop ending -> order; ModelError names the array."""
    contexts, entries = len(a.backoff), len(a.log_prob)
    kinds = {"context": "i4", "first": "i4", "suffix": "i4", "log_probs": "f4", "backoffs": "f4"}
    for name, array in a._asdict().items():
        expected = (kinds[name],) if name in kinds else ("u2", "i4") if name == "word" else ("u1", "u2")
        if array.ndim != 1 or array.dtype.str[1:] not in expected:
            raise ModelError(f"{where}: {name} has {array.ndim} axes of {array.dtype}")
    if entries < 1 or words < 1 or entries != words + len(a.word):
        raise ModelError(f"{where}: word and log_prob are of different lengths")
    if len(a.context) != entries // 32 + 1:
        raise ModelError(f"{where}: context is of {len(a.context)} numbers for {entries} n-grams")
    bits = _bits(a)
    before = np.cumsum(bits, dtype=np.int32)  # contexts up to and with this state
    if bits[0] != 1 or bits[entries + 1 :].any() or before[-1] != contexts or len(a.first) != contexts + 1:
        raise ModelError(f"{where}: context, first and backoff are of different lengths")
    if a.first[0] != 0 or a.first[-1] != entries or (np.diff(a.first) < 0).any():
        raise ModelError(f"{where}: first does not divide the n-grams")
    # Where each order ends: the children of an order's contexts are the next order.
    ends = [0, int(a.first[1])]
    while ends[-1] < entries:
        ends.append(int(a.first[before[ends[-1]]]))
        if ends[-1] <= ends[-2] or len(ends) > MOST_ORDER + 1:
            raise ModelError(f"{where}: first does not divide the n-grams into orders")
    if ends[1] != words:
        raise ModelError(f"{where}: first does not begin with the words")
    if len(a.word) and (a.word.min() < 0 or a.word.max() >= words):
        raise ModelError(f"{where}: word holds an id outside the vocabulary")
    short = int(before[ends[2]]) if len(ends) > 2 else contexts
    if len(a.suffix) != contexts - short:
        raise ModelError(f"{where}: suffix is of {len(a.suffix)} contexts, not {contexts - short}")
    if len(a.suffix):
        own = np.flatnonzero(bits)[short:]
        if a.suffix.min() < 0 or (a.suffix >= own).any() or not bits[a.suffix].all():
            raise ModelError(f"{where}: suffix does not lead to shorter contexts")
    for codes, table, name in ((a.log_prob, a.log_probs, "log_probs"), (a.backoff, a.backoffs, "backoffs")):
        if int(codes.max()) >= len(table) or not np.isfinite(table).all():
            raise ModelError(f"{where}: {name} lacks values, or holds NaN or infinity")
    return len(ends) - 1
