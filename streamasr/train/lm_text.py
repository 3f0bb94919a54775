"""Texts for the language model: lines of words -> sub-words, with some lines held out, and perplexity."""

from __future__ import annotations

import gzip
import json
import lzma
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.text import normalise
from ..errors import ConfigError, ManifestError
from ..search import lm
from ..search.subwords import LINE_END, Subwords

# Lines are held out in runs of so many, so that they are running text too. Chosen.
RUN_LINES = 100

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Lines:
    """Lines to measure perplexity on, with the n-gram's opinion where there is an n-gram."""

    tokens: list[Tokens]  # of each line, its end included
    ends: list[NDArray[np.bool_]]  # sub-words that end a word (or the line)
    known: NDArray[np.bool_]  # words, ends of lines among them, that the n-gram knows; all without one
    ngram: float | None  # its perplexity on those


def read(path: Path) -> list[str]:
    """Text file, plain, .gz or .xz, one line a line -> its lines that hold words. Raises ConfigError."""
    kinds: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    try:
        with kinds.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            return [line for line in map(str.strip, file) if line]
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None


def transcripts(path: Path) -> list[str]:
    """Manifest -> what is said, normalised; the recordings are not opened. Raises ManifestError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        texts = [normalise(json.loads(line)["text"]) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path}: not a manifest: {error!r}") from None
    return [text for text in texts if text]


def split(lines: list[str], share: float) -> tuple[list[str], list[str]]:
    """Lines -> (training, held out): of every 1 / share runs of lines one, evenly over the file."""
    every = round(1 / share)
    runs = [lines[i : i + RUN_LINES] for i in range(0, len(lines), RUN_LINES)]
    chosen = [i % every == every // 2 for i in range(len(runs))]
    kept, held = (
        [line for run, out in zip(runs, chosen, strict=True) if out is held_out for line in run]
        for held_out in (False, True)
    )
    return kept, held


def count(lines: list[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
    return counts


def encode(lines: list[str], subwords: Subwords) -> Tokens:
    """Lines -> the sub-words of all, a line's end after each. Raises ConfigError (a letter has none)."""
    words = count(lines)
    if unknown := subwords.spells(words):
        raise ConfigError(f"the text has letters that the sub-words lack: {unknown[:40]!r}; clean it")
    ids = {word: subwords.word(word) for word in words}
    parts: list[int] = []
    for line in lines:
        for word in line.split():
            parts += ids[word]
        parts.append(LINE_END)
    return np.array(parts, np.int32)


def measured(texts: list[str], subwords: Subwords, ngram: lm.LanguageModel | None) -> Lines:
    """Texts -> what `perplexity` needs; texts with letters that no sub-word has are left out."""
    texts = [text for text in texts if text.split() and not subwords.spells(text.split())]
    ending = np.array([piece[-1] in " \n" for piece in subwords.pieces])
    tokens = [encode([text], subwords) for text in texts]
    ends = [ending[line] for line in tokens]
    if ngram is None:
        return Lines(tokens, ends, np.ones(sum(int(e.sum()) for e in ends), bool), None)
    known = [word in ngram.ids for text in texts for word in (*text.split(), lm.END)]
    scores = [score for text in texts for score in ngram.sentence(text)]
    mask = np.array(known, bool)
    return Lines(tokens, ends, mask, math.exp(-float(np.mean(np.array(scores)[mask]))))


def perplexity(lines: Lines, log_probs: list[NDArray[np.float64]]) -> float:
    """log p of every sub-word of every line -> perplexity per known word, ends of lines counted as words."""
    words = [
        np.add.reduceat(scores, np.r_[0, np.flatnonzero(ends)[:-1] + 1])
        for scores, ends in zip(log_probs, lines.ends, strict=True)
    ]
    return math.exp(-float(np.concatenate(words)[lines.known].mean()))
