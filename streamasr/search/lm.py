"""Word n-gram language model with back-off, as flat arrays: (state, word) -> (log-probability, next state).

    log p(w | h) = log p*(w | h)                  where the n-gram h w is in the model
                   log b(h) + log p(w | h')       elsewhere; h' is h without its first word

Entries are the n-grams of all orders, contexts those histories that matter: an n-gram that has
children (longer n-grams beginning with it) or a back-off weight. Context 0 is the empty one, its
children are the unigrams, so entry = word there.

    first [contexts + 1]   entries first[c] .. first[c + 1] - 1 are the children of context c
    suffix [contexts]      the longest context that is a proper suffix of c; suffix[c] < c
    backoff [contexts]     code of log b(c)
    word [entries]         last word of the n-gram; ascending among the children of one context
    log_prob [entries]     code of log p*
    after [entries]        the longest context that is a suffix of the n-gram: the state after it
    log_probs, backoffs    what the codes mean, natural logarithms

A state is the number of a context: all of the history that can make a difference. Codes are 8 or 16
bits. `score` here is the plain definition; kernels.py has the same for the inner loop.
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

Order = tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]


class Arrays(NamedTuple):
    """The arrays above, in the order that the kernels take them in."""

    first: NDArray[np.int32]
    suffix: NDArray[np.int32]
    backoff: NDArray[np.integer[Any]]
    word: NDArray[np.int32]
    log_prob: NDArray[np.integer[Any]]
    after: NDArray[np.int32]
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
        _check(arrays, len(self.words), where)
        if len(self.ids) != len(self.words):
            raise ModelError(f"{where}: the vocabulary holds a word twice")
        for array in arrays:
            array.flags.writeable = False
        self.unknown = self.ids.get(UNKNOWN, -1)
        begin, self.end = self.ids.get(BEGIN, -1), self.ids.get(END, -1)  # -1: there is none
        self.start = int(arrays.after[begin]) if begin >= 0 else 0

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word -> id."""
        return {word: number for number, word in enumerate(self.words)}

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        length, context = 1, len(self.arrays.suffix) - 1
        while context:  # the last context is one of the longest
            length, context = length + 1, int(self.arrays.suffix[context])
        return length if np.diff(self.arrays.first)[-1] else max(length - 1, 1)

    @property
    def unigrams(self) -> NDArray[np.float64]:
        """log p of every word without history [words]."""
        codes = self.arrays.log_prob[: len(self.words)]
        return np.asarray(self.arrays.log_probs[codes], np.float64)

    @property
    def unknown_log_prob(self) -> float:
        return float(self.unigrams[self.unknown]) if self.unknown >= 0 else _IMPOSSIBLE

    def id_of(self, word: str) -> int:
        """Word -> id, that of <unk> for others; -1 where there is none."""
        return self.ids.get(word, self.unknown)

    def score(self, state: int, word: int) -> tuple[float, int]:
        """State and word id (-1: unknown) -> natural log p, next state. The reference of the kernels."""
        a = self.arrays
        if word < 0:
            return _IMPOSSIBLE, 0
        total = 0.0
        while state:
            begin, end = int(a.first[state]), int(a.first[state + 1])
            entry = begin + int(np.searchsorted(a.word[begin:end], word))
            if entry < end and a.word[entry] == word:
                return total + float(a.log_probs[a.log_prob[entry]]), int(a.after[entry])
            total += float(a.backoffs[a.backoff[state]])
            state = int(a.suffix[state])
        return total + float(a.log_probs[a.log_prob[word]]), int(a.after[word])

    def sentence(self, text: str) -> list[float]:
        """Words of a sentence -> natural log p of each and of the sentence's end."""
        state, scores = self.start, []
        for word in (*text.split(), END):
            score, state = self.score(state, self.id_of(word))
            scores.append(score)
        return scores

    def write(self, path: str | os.PathLike[str]) -> None:
        """-> one safetensors file (docs/search.md, Files)."""
        content = tensorfile.render({**self.arrays._asdict(), "words": text_tensor(self.words)})
        part = Path(f"{os.fspath(path)}.part")  # never a half-written file under the real name
        part.write_bytes(content)
        os.replace(part, path)


def read(path: str | os.PathLike[str]) -> LanguageModel:
    """File from `LanguageModel.write` -> the model, mapped: processes share its memory. Raises ModelError."""
    where = os.fspath(path)
    tensors = tensorfile.mapped(path)
    words = tensor_text(tensors.pop("words", None), where)
    if tensors.keys() != set(Arrays._fields):
        raise ModelError(
            f"{where}: is not a language model of streamasr; `python -m streamasr.data.ngram` makes one"
        )
    return LanguageModel(words, Arrays(**tensors), where)


def build(words: Sequence[str], orders: Sequence[Order], bits: int = 8) -> LanguageModel:
    """n-grams by order, each (ids [n, k], log p [n], log back-off [n]; natural) -> model of `bits` bit codes.

    Order 1 holds every word. Raises ModelError when an n-gram's beginning is no n-gram itself.
    """
    count = len(words)
    if not 1 <= len(orders) <= MOST_ORDER:
        raise ModelError(f"language model: order {len(orders)}, must be 1 to {MOST_ORDER}")
    if bits not in (8, 16):
        raise ConfigError(f"language model: codes of 8 or 16 bits, not {bits}")
    keys: list[NDArray[np.int64]] = []  # of every order, ascending: entry of the beginning, last word
    grams: list[NDArray[np.int32]] = []
    values: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    parents: list[NDArray[np.int64]] = []
    for k, (ids, log_prob, back) in enumerate(orders, 1):
        parent = _find(keys, ids[:, :-1], count)
        if (parent < 0).any():
            lost = " ".join(words[i] for i in ids[int(np.argmax(parent < 0))])
            raise ModelError(f"language model: n-gram {lost!r} is there, its first {k - 1} words are not")
        key = parent * count + ids[:, -1]
        order = np.argsort(key, kind="stable")
        keys.append(key[order])
        if (np.diff(keys[-1]) == 0).any():
            twice = grams_text(words, ids[order][int(np.argmax(np.diff(keys[-1]) == 0))])
            raise ModelError(f"language model: n-gram {twice!r} occurs twice")
        grams.append(ids[order])
        parents.append(parent[order])
        values.append((log_prob[order], back[order]))
    if len(keys[0]) != count:
        raise ModelError(f"language model: {len(keys[0])} unigrams for {count} words")
    # Contexts are numbered as the entries are, from 1; the longest n-grams are none.
    contexts, total = [], 1
    for k in range(len(orders) - 1):
        used = values[k][1] != 0
        used[parents[k + 1]] = True
        contexts.append(np.where(used, total + np.cumsum(used) - 1, 0))
        total += int(used.sum())
    after, suffix, back_off, first = [], [np.zeros(1, np.int64)], [np.zeros(1)], [np.zeros(1, np.int64)]
    offset = count
    for k, ids in enumerate(grams, 1):
        shorter = np.zeros(len(ids), np.int64)
        for start in range(k - 1, 0, -1):  # from the shortest suffix: longer ones replace it
            entry = _find(keys, ids[:, start:], count)
            found = np.where(entry >= 0, contexts[k - start - 1][entry], 0)
            shorter = np.where(found > 0, found, shorter)
        if k == len(orders):
            after.append(shorter)
            break
        own = contexts[k - 1]
        after.append(np.where(own > 0, own, shorter))
        suffix.append(shorter[own > 0])
        back_off.append(values[k - 1][1][own > 0])
        first.append(offset + np.searchsorted(parents[k], np.nonzero(own)[0]))
        offset += len(grams[k])
    codes, table = _quantise(np.concatenate([v for v, _ in values]), bits)
    back_codes, back_table = _quantise(np.concatenate(back_off), bits)
    arrays = Arrays(
        np.concatenate([*first, [offset]]).astype(np.int32),
        np.concatenate(suffix).astype(np.int32),
        back_codes,
        np.concatenate([ids[:, -1] for ids in grams]).astype(np.int32),
        codes,
        np.concatenate(after).astype(np.int32),
        table,
        back_table,
    )
    return LanguageModel(words, arrays)


def grams_text(words: Sequence[str], ids: NDArray[np.int32]) -> str:
    return " ".join(words[i] for i in ids)


def _find(keys: list[NDArray[np.int64]], ids: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """n-grams [n, k] -> their entries within order k [n], -1 where there is none; k = 0: 0."""
    entry = np.zeros(len(ids), np.int64)
    for known, column in zip(keys, ids.T, strict=False):
        key = np.where(entry >= 0, entry * count + column, -1)
        position = np.minimum(np.searchsorted(known, key), len(known) - 1)
        entry = np.where(known[position] == key, position, -1) if len(known) else np.full(len(ids), -1)
    return entry


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


def _check(a: Arrays, words: int, where: str) -> None:
    """Every index within bounds, every loop ending; ModelError names the array."""
    contexts, entries = len(a.suffix), len(a.word)
    kinds = {"first": "i4", "suffix": "i4", "word": "i4", "after": "i4", "log_probs": "f4", "backoffs": "f4"}
    for name, array in a._asdict().items():
        expected = (kinds[name],) if name in kinds else ("u1", "u2")
        if array.ndim != 1 or array.dtype.str[1:] not in expected:
            raise ModelError(f"{where}: {name} has {array.ndim} axes of {array.dtype}")
    if len(a.first) != contexts + 1 or len(a.backoff) != contexts or contexts < 1:
        raise ModelError(f"{where}: first, suffix and backoff are of different lengths")
    if not entries == len(a.log_prob) == len(a.after) or entries < words or words < 1:
        raise ModelError(f"{where}: word, log_prob and after are of different lengths")
    if a.first[0] != 0 or a.first[-1] != entries or (np.diff(a.first) < 0).any():
        raise ModelError(f"{where}: first does not divide the entries")
    if a.first[1] != words or not np.array_equal(a.word[:words], np.arange(words)):
        raise ModelError(f"{where}: the first entries are not the words")
    if a.word.min() < 0 or a.word.max() >= words:
        raise ModelError(f"{where}: word holds an id outside the vocabulary")
    if a.after.min() < 0 or a.after.max() >= contexts:
        raise ModelError(f"{where}: after holds a context that is not there")
    if a.suffix[0] != 0 or a.suffix.min() < 0 or (a.suffix[1:] >= np.arange(1, contexts)).any():
        raise ModelError(f"{where}: suffix does not lead to shorter contexts")
    for codes, table, name in ((a.log_prob, a.log_probs, "log_probs"), (a.backoff, a.backoffs, "backoffs")):
        if int(codes.max()) >= len(table) or not np.isfinite(table).all():
            raise ModelError(f"{where}: {name} lacks values, or holds NaN or infinity")


def text_tensor(words: Sequence[str]) -> NDArray[np.uint8]:
    """Words -> UTF-8 bytes, one word a line."""
    return np.frombuffer("\n".join(words).encode(), np.uint8)


def tensor_text(tensor: NDArray[Any] | None, where: str) -> list[str]:
    """The way back. Raises ModelError."""
    if tensor is None or tensor.dtype != np.uint8 or tensor.ndim != 1:
        raise ModelError(f"{where}: holds no list of words")
    try:
        return tensor.tobytes().decode().split("\n") if len(tensor) else []
    except UnicodeDecodeError as error:
        raise ModelError(f"{where}: the list of words is not UTF-8: {error}") from None
