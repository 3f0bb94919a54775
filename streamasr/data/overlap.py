"""Are transcripts that something is judged by in the text that its language model was made of?

    python -m streamasr.data.overlap books.txt.xz everyday.txt.xz --transcripts dev.jsonl test.jsonl

Counts the sequences of eight words (--words) of the transcripts that occur in the text, one sentence a line
(plain, .gz, .xz), and shows them. Exit code 1 if there are any. Both sides are normalised as for scoring.
"""

from __future__ import annotations

import argparse
import lzma
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import ConfigError, StreamASRError
from . import manifest, ngram
from .text import normalise

_SHOWN = 20


def sequences(text: str, length: int) -> Iterator[str]:
    """Normal text -> every `length` words in a row.

    >>> list(sequences("to be or not", 3))
    ['to be or', 'be or not']
    """
    words = text.split()
    return (" ".join(words[i : i + length]) for i in range(len(words) - length + 1))


def found(transcripts: Iterable[str], lines: Iterable[str], length: int) -> dict[str, int]:
    """Sequences of both -> how often each occurs in the lines."""
    known = {each for text in transcripts for each in sequences(normalise(text), length)}
    counts: dict[str, int] = {}
    for line in lines:
        for each in sequences(normalise(line), length):
            if each in known:
                counts[each] = counts.get(each, 0) + 1
    return counts


def _lines(path: Path) -> Iterator[str]:
    try:
        with ngram.open_text(path) as file:
            yield from file
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m streamasr.data.overlap", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("text", type=Path, nargs="+", metavar="TEXT")
    parser.add_argument("--transcripts", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--words", type=int, default=8, metavar="N", help="in a row; default: %(default)s")
    options = parser.parse_args()
    if options.words < 1:
        raise ConfigError(f"--words {options.words}: must be at least 1")
    transcripts = [u.text for path in options.transcripts for u in manifest.read(path)]
    lines = (line for path in options.text for line in _lines(path))
    counts = found(transcripts, lines, options.words)
    for each, count in sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN]:
        print(f"{count:6}  {each}")
    total = len({each for text in transcripts for each in sequences(normalise(text), options.words)})
    print(f"{len(counts)} of {total:,} sequences of {options.words} words occur in the text")
    return 1 if counts else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
