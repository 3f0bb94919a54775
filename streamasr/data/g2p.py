"""Pronouncing dictionary -> model that pronounces words it does not hold (search/pronounce.py uses it).

    python -m streamasr.data.g2p cmudict.txt g2p.safetensors [--size 1500000]

A joint-sequence model (Bisani, Ney 2008): a word and its phones are one sequence of graphones, each some
letters with the phones they stand for. Which graphones a word is made of is learnt by expectation
maximisation over all ways to cut it; the best cuts are then the text of an n-gram model of graphones
(interpolated Kneser-Ney, pruned to the size wanted). Prints the phone error rate on a twentieth of the
words, which are left out at first and learnt at the end.

DICTIONARY: word TAB phones (TAB anything) a line; several lines are several pronunciations. Stress digits go.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, StreamASRError
from ..search import lm
from ..search.pronounce import Phones, Pronouncer, graphone
from . import dictionary

# How many letters and phones a graphone has. Longer ones (2 letters, 2 phones) take data from these.
_SHAPES = ((1, 0), (1, 1), (1, 2), (2, 1))
_ORDER = 5  # the longest of the language model's format
_ROUNDS = 12  # of expectation maximisation: the cuts hardly change after ten
_LEAST = 8  # graphones that the best cuts use less often are misprints and abbreviations: not learnt
_ONE_IN = 20  # words left out to measure the error
_BYTES = 8  # of an n-gram in the file, about

Pairs = list[tuple[str, Phones]]
Counts = list[tuple[NDArray[np.int64], NDArray[np.float64]]]


def read(path: Path) -> Pairs:
    """Dictionary -> (word, phones), each once. Raises ConfigError naming the line."""
    pairs = [(word, phones) for _, word, phones in dictionary.read([path])]
    if not pairs:
        raise ConfigError(f"{path}: holds no words")
    return list(dict.fromkeys(pairs))


def train(pairs: Pairs, size: int) -> lm.LanguageModel:
    """(word, phones) -> n-gram model of graphones of about `size` bytes. Raises ConfigError."""
    sequences = Cutter(pairs).cut()
    if not sequences:
        raise ConfigError(
            "g2p: no word of the dictionary can be cut into graphones; are phones in its column 2?"
        )
    names = [lm.BEGIN, lm.END, *sorted({name for sequence in sequences for name in sequence})]
    ids = {name: number for number, name in enumerate(names)}
    counts = _counts([[0, *(ids[name] for name in sequence), 1] for sequence in sequences], len(names))
    return lm.build(names, _prune(_estimate(counts, len(names)), counts, size // _BYTES, len(names)))


class Cutter:
    """Words and their phones -> the graphones they are made of.

    Words of one length in letters and in phones are computed together: alpha [i, j, words] is the sum over
    all ways to cut the first i letters and j phones.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._letters = sorted({letter for word, _ in pairs for letter in word})
        self._phones = sorted({phone for _, phones in pairs for phone in phones})
        number = {letter: i for i, letter in enumerate(self._letters, 1)}
        place = {phone: i for i, phone in enumerate(self._phones, 1)}
        self._base = (len(number) + 1, len(place) + 1)
        groups: dict[tuple[int, int], list[tuple[list[int], list[int]]]] = {}
        for word, phones in pairs:
            spelling, sounds = [number[c] for c in word], [place[p] for p in phones]
            groups.setdefault((len(word), len(phones)), []).append((spelling, sounds))
        # Where there are more than twice as many phones as letters nothing can be cut.
        self._groups = [
            (np.array([spelling for spelling, _ in group]), np.array([sounds for _, sounds in group]))
            for (letters, phones), group in groups.items()
            if (letters + 1) // 2 <= phones + letters and phones <= 2 * letters
        ]
        self._weights = np.ones((self._base[0] * self._base[1]) ** 2)

    def cut(self) -> list[list[str]]:
        for _ in range(_ROUNDS):
            expected = np.zeros(len(self._weights))
            for group in self._groups:
                self._expect(*group, expected)
            self._weights = expected / expected.sum()
        used = np.bincount(np.concatenate([k for k in self._best() if len(k)]), minlength=len(self._weights))
        self._weights[used < _LEAST] = 0.0
        names: dict[int, str] = {}
        return [[names.setdefault(k, self._name(k)) for k in keys] for keys in self._best()]

    def _key(
        self, spelling: NDArray[np.int64], sounds: NDArray[np.int64], i: int, j: int, shape: tuple[int, int]
    ) -> NDArray[np.int64]:
        """Graphones of a shape that end at letter i and phone j [words]."""
        key = np.zeros(len(spelling), np.int64)
        for count, end, symbols, base in (
            (shape[0], i, spelling, self._base[0]),
            (shape[1], j, sounds, self._base[1]),
        ):
            for k in range(2):
                key = key * base + (symbols[:, end - count + k] if k < count else 0)
        return key

    def _name(self, key: int) -> str:
        key, second = divmod(key, self._base[1])
        key, first = divmod(key, self._base[1])
        one, two = divmod(key, self._base[0])
        letters = "".join(self._letters[k - 1] for k in (one, two) if k)
        return graphone(letters, [self._phones[k - 1] for k in (first, second) if k])

    def _expect(
        self, spelling: NDArray[np.int64], sounds: NDArray[np.int64], expected: NDArray[np.float64]
    ) -> None:
        """Adds how often each graphone is used, over all cuts by their probability."""
        letters, phones = spelling.shape[1], sounds.shape[1]
        alpha, beta = (np.zeros((letters + 1, phones + 1, len(spelling))) for _ in range(2))
        alpha[0, 0], beta[letters, phones] = 1.0, 1.0
        keys = {
            (i, j, shape): self._key(spelling, sounds, i, j, shape)
            for i in range(1, letters + 1)
            for j in range(phones + 1)
            for shape in _SHAPES
            if shape[0] <= i and shape[1] <= j
        }
        for (i, j, (a, b)), key in keys.items():
            alpha[i, j] += alpha[i - a, j - b] * self._weights[key]
        for (i, j, (a, b)), key in reversed(keys.items()):
            beta[i - a, j - b] += beta[i, j] * self._weights[key]
        total = alpha[letters, phones]
        scale = np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)
        for (i, j, (a, b)), key in keys.items():
            np.add.at(expected, key, alpha[i - a, j - b] * self._weights[key] * beta[i, j] * scale)

    def _best(self) -> list[list[int]]:
        """The likeliest cut of every word that has one: keys of its graphones."""
        found = []
        with np.errstate(divide="ignore"):
            logs = np.log(self._weights)
        for spelling, sounds in self._groups:
            letters, phones = spelling.shape[1], sounds.shape[1]
            best = np.full((letters + 1, phones + 1, len(spelling)), -np.inf)
            best[0, 0] = 0.0
            back = np.zeros((letters + 1, phones + 1, len(spelling)), np.int8)
            for i in range(1, letters + 1):
                for j in range(phones + 1):
                    for number, (a, b) in enumerate(_SHAPES):
                        if a <= i and b <= j:
                            score = best[i - a, j - b] + logs[self._key(spelling, sounds, i, j, (a, b))]
                            back[i, j][score > best[i, j]] = number
                            best[i, j] = np.maximum(best[i, j], score)
            for n in np.flatnonzero(best[letters, phones] > -np.inf):
                i, j, keys = letters, phones, []
                while i:
                    shape = _SHAPES[back[i, j, n]]
                    keys.append(int(self._key(spelling[n : n + 1], sounds[n : n + 1], i, j, shape)[0]))
                    i, j = i - shape[0], j - shape[1]
                found.append(keys[::-1])
        return found


def _counts(sequences: Sequence[Sequence[int]], words: int) -> Counts:
    """Sequences that begin with 0 -> n-grams of every order as numbers in base `words`, ascending; counts.

    Below the longest order it is not how often an n-gram occurs that counts but after how many words (Kneser,
    Ney 1995); at the beginning of a sequence there is none before.
    """
    text = np.array([word for sequence in sequences for word in sequence])
    of = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    found = []
    for k in range(1, _ORDER + 1):
        keys = np.zeros(len(text) - k + 1, np.int64)
        for place in range(k):
            keys = keys * words + text[place : len(text) - k + 1 + place]
        found.append(np.unique(keys[of[: len(keys)] == of[k - 1 :]], return_counts=True))
    for k in range(1, _ORDER):
        keys, often = found[k - 1]
        after = np.bincount(np.searchsorted(keys, found[k][0] % words**k), minlength=len(keys))
        found[k - 1] = keys, np.where(keys < words ** (k - 1), often, after)
    return [(keys, count.astype(np.float64)) for keys, count in found]


def _estimate(counts: Counts, words: int) -> list[NDArray[np.float64]]:
    """Interpolated Kneser-Ney: p of every n-gram, of all orders."""
    seen = counts[0][1] * (counts[0][0] > 0)  # 0 begins a sequence, and is never said in one
    lower = seen / seen.sum()
    found = [lower]
    for k in range(2, _ORDER + 1):
        keys, count = counts[k - 1]
        parent = np.searchsorted(counts[k - 2][0], keys // words)
        suffix = np.searchsorted(counts[k - 2][0], keys % words ** (k - 1))
        once, twice = (count == 1).sum(), (count == 2).sum()
        discount = once / max(once + 2 * twice, 1)
        total, kinds = np.bincount(parent, count), np.bincount(parent)
        lower = (count - discount) / total[parent] + (discount * kinds / np.maximum(total, 1))[
            parent
        ] * lower[suffix]
        found.append(lower)
    return found


def _prune(
    probabilities: list[NDArray[np.float64]],
    counts: Counts,
    most: int,
    words: int,
) -> list[lm.Order]:
    """-> the `most` n-grams that gain most over backing off (Seymore, Rosenfeld 1996), for `lm.build`."""
    gains = [np.full(len(counts[0][0]), np.inf)]
    places = []  # of each n-gram's beginning and of its end, among those one shorter
    for k in range(2, _ORDER + 1):
        keys, shorter = counts[k - 1][0], counts[k - 2][0]
        parent = np.searchsorted(shorter, keys // words)
        suffix = np.searchsorted(shorter, keys % words ** (k - 1))
        places.append((parent, suffix))
        p, lower = probabilities[k - 1], probabilities[k - 2][suffix]
        rest = 1 - np.bincount(parent, p), 1 - np.bincount(parent, lower)
        back_off = np.maximum(rest[0], 1e-9) / np.maximum(rest[1], 1e-9)
        gains.append(counts[k - 1][1] * (np.log(p) - np.log(back_off[parent] * lower)))
    for (parent, _), longer, own in zip(places[::-1], gains[:0:-1], gains[-2::-1], strict=True):
        np.maximum.at(own, parent, longer)  # what longer ones begin with stays
    every = np.concatenate(gains[1:])
    floor = -np.sort(-every)[most] if most < len(every) else -np.inf
    kept = [gain > floor for gain in gains]
    # What is left to back off with is what the n-grams that stay leave over, here and in the shorter model.
    p, orders = probabilities[0], []
    back_offs = []
    for k in range(1, _ORDER):
        parent, suffix = places[k - 1]
        stays = kept[k]
        size = len(kept[k - 1])
        given = np.bincount(parent[stays], probabilities[k][stays], minlength=size)
        known = np.bincount(parent[stays], p[suffix][stays], minlength=size)
        back_off = np.maximum(1 - given, 1e-9) / np.maximum(1 - known, 1e-9)
        back_off[np.bincount(parent[stays], minlength=size) == 0] = 1.0
        back_offs.append(back_off)
        p = np.where(stays, probabilities[k], back_off[parent] * p[suffix])
    back_offs.append(np.ones(len(kept[-1])))
    for k, ((keys, _), stays) in enumerate(zip(counts, kept, strict=True), 1):
        ids = np.stack([keys // words ** (k - 1 - place) % words for place in range(k)], 1)
        with np.errstate(divide="ignore"):
            logs = np.maximum(np.log(probabilities[k - 1]), -99.0)
        orders.append((ids[stays].astype(np.int32), logs[stays], np.log(back_offs[k - 1][stays])))
    return orders


def error_rate(pronouncer: Pronouncer, pairs: Pairs) -> tuple[float, float]:
    """Words and their phones -> share of phones wrong, of words wrong; the nearest pronunciation counts."""
    known: dict[str, list[Phones]] = {}
    for word, phones in pairs:
        known.setdefault(word, []).append(phones)
    errors = total = wrong = 0
    for word, each in known.items():
        said = (*pronouncer(word), ())[0]
        distance, length = min((_distance(said, phones), len(phones)) for phones in each)
        errors, total, wrong = errors + distance, total + length, wrong + (distance > 0)
    return errors / max(total, 1), wrong / max(len(known), 1)


def _distance(one: Phones, other: Phones) -> int:
    """Fewest phones to change, leave out or put in (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, phone in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, second in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (phone != second))
    return row[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m streamasr.data.g2p", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("dictionary", type=Path, metavar="DICTIONARY")
    parser.add_argument("target", type=Path, metavar="OUT", help="g2p.safetensors")
    parser.add_argument("--size", type=int, default=1_500_000, metavar="BYTES", help="default: %(default)s")
    options = parser.parse_args()
    pairs = read(options.dictionary)
    words = list(dict.fromkeys(word for word, _ in pairs))
    held_out = {word for word in words if zlib.crc32(word.encode()) % _ONE_IN == 0}
    model = train([pair for pair in pairs if pair[0] not in held_out], options.size)
    phones, wrong = error_rate(Pronouncer(model), [pair for pair in pairs if pair[0] in held_out])
    print(f"{len(held_out):,} words left out: {phones:.1%} of their phones wrong, {wrong:.1%} of the words")
    train(pairs, options.size).write(options.target)
    print(f"{options.target}: {options.target.stat().st_size:,} bytes of {len(words):,} words")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
