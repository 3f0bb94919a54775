"""n-gram files and text -> language model of the search.

    python -m streamasr.data.ngram books-large.npz.xz lm.safetensors
    python -m streamasr.data.ngram books-large.npz.xz everyday.txt.xz lm.safetensors --weights 0.8 0.2 \\
        --among cmudict.txt --words 150000 --most-bytes 14000000

Sources: ARPA text (.arpa), packed trigram (.npz), sentences (.txt: estimated, estimation.py); also .gz, .xz.
Of several the weighted mean is made, over the words of the first. With --among only words that stand first
in a line of these files are kept, with --words the N likeliest, with --most-bytes or --prune the n-grams
that say most (pruning.py); all of it otherwise.

Strict: what is wrong with an ARPA file is told with its line. KenLM's binary form is not read: its
package can score sentences but cannot list n-grams, so the ARPA file it was made from is needed.
"""

from __future__ import annotations

import argparse
import gzip
import io
import lzma
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ModelError, StreamASRError
from ..search import lm
from . import estimation, pruning
from .text import normalise

_PLAIN = re.compile("[a-z' ]*\n?")  # normal already
_LOG10 = math.log(10.0)
_PACKED = (
    "words",
    "p1",
    "b1",
    "n2",
    "p2",
    "b2",
    "n3",
    "p3",
    *(f"w{k}_{i}" for k in (2, 3) for i in range(3)),
)


Grams = tuple[list[str], list[lm.Order]]


def read(path: Path, bits: int = 8) -> lm.LanguageModel:
    """File of either kind, told by its name -> model with codes of `bits` bits. Raises ModelError."""
    return build(path, *read_grams(path), bits)


def build(path: Path, words: list[str], orders: list[lm.Order], bits: int = 8) -> lm.LanguageModel:
    """n-grams that come from `path` -> model. Raises ModelError naming it."""
    try:
        return lm.build(words, orders, bits)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def read_grams(path: Path, words: list[str] | None = None) -> Grams:
    """File of any kind, told by its name -> words, n-grams by order.

    `words`: those of the result; None: those of the file. Raises ModelError; ConfigError for empty text.
    """
    if path.name.endswith((".txt", ".txt.gz", ".txt.xz")):
        return read_text(path, words)
    found, orders = read_packed(path) if path.name.endswith((".npz", ".npz.xz")) else read_arpa(path)
    if words is None or words == found:
        return found, orders
    if sorted(words) != sorted(found):
        raise ModelError(f"{path}: has other words than the first source; only text may have")
    ids = {word: number for number, word in enumerate(words)}
    number = np.array([ids[word] for word in found], np.int32)
    return words, [(number[grams], p, back) for grams, p, back in orders]


def read_text(path: Path, words: list[str] | None = None) -> Grams:
    """Sentences, one a line -> words (None: all that occur), n-grams by order. Raises as read_grams."""
    try:
        with open_text(path) as file:
            lines = [line if _PLAIN.fullmatch(line) else normalise(line) for line in file]
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None
    counts = Counter(word for line in lines for word in line.split())
    markers = [lm.BEGIN, lm.END, lm.UNKNOWN]
    if words is None:
        words = markers + [word for word, _ in counts.most_common()]
    elif missing := [marker for marker in markers if marker not in words]:
        raise ModelError(f"{path}: cannot be mixed in: the first source lacks {', '.join(missing)}")
    return words, estimation.estimate(lines, words)


def read_arpa(path: Path) -> Grams:
    """ARPA file -> words, n-grams by order. Raises ModelError naming the line."""
    try:
        with open_text(path) as file:
            return _Arpa(path, file).read()
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None


def read_packed(path: Path) -> Grams:
    """Packed trigram (format: `lm_unpack.py` beside it) -> words, n-grams by order. Raises ModelError."""
    try:
        content = lzma.open(path).read() if path.suffix == ".xz" else path.read_bytes()
        packed = np.load(io.BytesIO(content), allow_pickle=False)
        missing = [name for name in _PACKED if name not in packed.files]
        if missing:
            raise ModelError(f"{path}: is not a packed trigram: lacks {', '.join(missing)}")
        a = {name: packed[name] for name in _PACKED}
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None
    words = a["words"].tobytes().decode().split("\n")
    history, second = _ids([a[f"w2_{i}"] for i in range(3)], a["n2"])
    pair, third = _ids([a[f"w3_{i}"] for i in range(3)], a["n3"])
    one = np.arange(len(words))[:, None]
    two = np.stack([history, second], 1)
    three = np.concatenate([two[pair], third[:, None]], 1)
    orders = [
        (one, a["p1"] / -100.0, a["b1"] / 100.0),
        (two, a["p2"] * -0.03, (a["b2"].astype(np.float64) - 200) * 0.02),
        (three, a["p3"] * -0.03, np.zeros(len(three))),
    ]
    return words, [(ids.astype(np.int32), p * _LOG10, np.round(b, 6) * _LOG10) for ids, p, b in orders]


def _ids(planes: list[NDArray[Any]], counts: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gaps of ids in byte planes, n-grams of each history -> history and id of every n-gram."""
    gap = sum((plane.astype(np.int64) << (8 * i) for i, plane in enumerate(planes)), np.int64(0))
    group = np.repeat(np.arange(len(counts)), counts)
    start = np.nonzero(np.r_[True, group[1:] != group[:-1]])[0]
    gap = np.array(gap)
    gap[start] -= 1
    total = np.cumsum(gap)
    sizes = np.diff(np.r_[start, len(gap)])
    return group, total - np.repeat(np.r_[0, total[start[1:] - 1]], sizes)


def open_text(path: Path) -> IO[str]:
    with open(path, "rb") as file:
        head = file.read(20)
    if head.startswith(b"mmap lm http://kheafield.com/code"[: len(head)]) and head:
        raise ModelError(
            f"{path}: is a KenLM binary, whose n-grams KenLM cannot list; give the ARPA file it was made from"
        )
    kinds: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    opened: IO[str] = kinds.get(path.suffix, open)(
        path, "rt", encoding="utf-8", errors="strict", newline="\n"
    )
    return opened


class _Arpa:
    """One pass over the lines; `number` is that of the last one read."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path, self.number = path, 0
        self._lines: Iterator[str] = self._numbered(file)
        self._ids: dict[str, int] = {}

    def read(self) -> Grams:
        counts = self._counts()
        orders = []
        for k, count in enumerate(counts, 1):
            self._expect(f"\\{k}-grams:")
            orders.append(self._section(k, count, k == len(counts)))
        self._expect("\\end\\")
        return list(self._ids), orders

    def _numbered(self, file: IO[str]) -> Iterator[str]:
        try:
            for line in file:
                self.number += 1
                if line.strip():
                    yield line.strip("\r\n ")
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8: {error}") from None

    def _counts(self) -> list[int]:
        for line in self._lines:  # a preamble is allowed
            if line == "\\data\\":
                break
        else:
            raise self._error("no \\data\\: this is not an ARPA file")
        counts: list[int] = []
        for line in self._lines:
            name, _, number = line.partition("=")
            if name.split() == ["ngram", str(len(counts) + 1)] and number.strip().isdigit():
                counts.append(int(number))
                continue
            if not counts or not line.startswith("\\1-grams:"):
                raise self._error(f"expected 'ngram {len(counts) + 1}=COUNT', not {line[:60]!r}")
            self._lines = chain([line], self._lines)
            break
        if not 1 <= len(counts) <= lm.MOST_ORDER:
            raise self._error(f"order {len(counts)}; 1 to {lm.MOST_ORDER} can be used")
        return counts

    def _expect(self, text: str) -> None:
        line = next(self._lines, "the end of the file")
        if line != text:
            raise self._error(f"expected {text}, not {line[:60]!r}")

    def _section(self, k: int, count: int, longest: bool) -> lm.Order:
        ids = np.zeros((count, k), np.int32)
        values = np.zeros((count, 2))
        for row in range(count):
            line = next(self._lines, None)
            if line is None or line.startswith("\\"):
                raise self._error(f"{row} {k}-grams, {count} were announced")
            fields = line.split("\t")
            if len(fields) == 1:  # some writers use spaces throughout
                fields = line.split(" ")
                fields = [fields[0], " ".join(fields[1 : k + 1]), *fields[k + 1 :]]
            words = fields[1].split(" ") if len(fields) > 1 else []
            if len(words) != k or len(fields) > 3 or (longest and len(fields) == 3):
                raise self._error(f"expected log10 probability, {k} words{'' if longest else ', back-off'}")
            values[row] = self._value(fields[0]), self._value(fields[2]) if len(fields) == 3 else 0.0
            if k == 1:
                if self._ids.setdefault(words[0], row) != row:
                    raise self._error(f"{words[0]!r} occurs twice")
                ids[row] = row
                continue
            try:
                ids[row] = [self._ids[word] for word in words]
            except KeyError as error:
                raise self._error(f"{error.args[0]!r} is not among the 1-grams") from None
        return ids, values[:, 0] * _LOG10, values[:, 1] * _LOG10

    def _value(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._error(f"{text[:40]!r} is no number")
        return value

    def _error(self, message: str) -> ModelError:
        return ModelError(f"{self.path}: line {self.number}: {message}")


def _first_words(paths: list[Path] | None) -> set[str] | None:
    """Files -> the words that lines begin with, up to a tab."""
    if paths is None:
        return None
    try:
        return {line.split("\t")[0] for path in paths for line in path.read_text("utf-8").splitlines()}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--among: cannot be read: {error}") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m streamasr.data.ngram", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, nargs="+", metavar="FILE", help="ARPA, packed, or text")
    parser.add_argument("target", type=Path, metavar="OUT", help="lm.safetensors")
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="of the sources; default: equal"
    )
    parser.add_argument("--bits", type=int, choices=(8, 16), default=8, help="of a code; default: 8")
    parser.add_argument(
        "--among", type=Path, nargs="+", metavar="WORDS", help="keep words of these files only"
    )
    parser.add_argument("--words", type=int, metavar="N", help="keep the N likeliest")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--most-bytes", type=int, metavar="N", help="of OUT: leave out what says least")
    smaller.add_argument("--prune", type=float, metavar="NATS", help="leave out what costs less a word")
    options = parser.parse_args()
    if options.most_bytes is not None and options.bits != 8:
        raise ConfigError("--most-bytes counts codes of 8 bits; leave out --bits")
    words, first = read_grams(options.source[0])
    models = [first, *(read_grams(path, words)[1] for path in options.source[1:])]
    try:
        orders = first
        if options.weights or len(models) > 1:
            orders = estimation.mix(words, models, options.weights or [1.0] * len(models))
        if options.words is not None or options.among:
            words, orders = pruning.cut(words, orders, options.words, _first_words(options.among))
        if options.most_bytes is not None or options.prune is not None:
            orders = pruning.prune(words, orders, options.most_bytes, options.prune or 0.0)
    except ModelError as error:
        raise ModelError(f"{options.source[0]}: {error}") from None
    model = build(options.source[0], words, orders, options.bits)
    model.write(options.target)
    grams = f"{len(model):,} n-grams of up to {model.order} words"
    size = options.target.stat().st_size
    print(f"{options.target}: {size:,} bytes, {len(model.words):,} words, {grams}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
