"""Words -> lexicon of the beam search.

    python -m streamasr.data.lexicon lm.safetensors MODEL lexicon.safetensors [--words N]
    python -m streamasr.data.lexicon lm.safetensors MODEL lexicon.safetensors --pronunciations cmudict.txt ...

The words are those of a language model (of which the first N, as it has them in its order), or of a text
file, one word a line. They are spelt in the letters of a character model; for a model of phones as the
files say: word TAB phones, further fields are ignored, several lines a word are several pronunciations.
Words that cannot be spelt are left out and counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .. import modelfile
from ..errors import ConfigError, StreamASRError
from ..search import lexicon, lm
from ..vocabulary import BLANK, Vocabulary
from . import dictionary


def from_words(words: Sequence[str], vocabulary: Vocabulary) -> tuple[lexicon.Lexicon, int]:
    """Words -> lexicon of those that can be written, how many were left out. ConfigError if all were."""
    letters = {t for i, t in enumerate(vocabulary.tokens) if i not in (BLANK, vocabulary.space)}
    kept = [word for word in dict.fromkeys(words) if word and letters.issuperset(word)]
    if not kept:
        raise ConfigError(
            f"no word of {len(words)} is written in the model's letters, {''.join(sorted(letters))}"
        )
    return lexicon.build(lexicon.spell(kept, vocabulary), len(vocabulary)), len(words) - len(kept)


def pronunciations(paths: Iterable[Path], tokens: Sequence[str]) -> dict[str, list[list[int]]]:
    """Files of word TAB phones -> token ids of each word's pronunciations, stress digits dropped.

    Raises ConfigError naming the line that is something else, or has a phone that is no token.
    """
    ids = {token: number for number, token in enumerate(tokens) if number != BLANK}
    found: dict[str, dict[tuple[int, ...], None]] = {}  # alike but for stress: once
    for where, word, phones in dictionary.read(paths):
        unknown = [phone for phone in phones if phone not in ids]
        if unknown:
            raise ConfigError(f"{where}: phone {unknown[0]!r} is no token of the model")
        found.setdefault(word, {})[tuple(ids[phone] for phone in phones)] = None
    return {word: [list(each) for each in spellings] for word, spellings in found.items()}


def from_pronunciations(
    words: Sequence[str], spoken: Mapping[str, Sequence[Sequence[int]]], tokens: int
) -> tuple[lexicon.Lexicon, int]:
    """Words, pronunciations -> lexicon of those that have one, how many have none. ConfigError if all."""
    kept = [word for word in dict.fromkeys(words) if word in spoken]
    if not kept:
        raise ConfigError(f"no word of {len(words)} is among the {len(spoken)} with a pronunciation")
    pairs = ((word, spelling) for word in kept for spelling in spoken[word])
    return lexicon.build(pairs, tokens), len(words) - len(kept)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m streamasr.data.lexicon", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("words", type=Path, metavar="WORDS", help="lm.safetensors, or a text file")
    parser.add_argument("model", metavar="MODEL", help="name or path of the model that will use it")
    parser.add_argument("target", type=Path, metavar="OUT", help="lexicon.safetensors")
    parser.add_argument("--words", dest="most", type=int, metavar="N", help="the first N only")
    parser.add_argument(
        "--pronunciations", type=Path, nargs="+", metavar="FILE", help="for a model of phones"
    )
    options = parser.parse_args()
    if options.words.suffix == ".safetensors":
        words = list(lm.read(options.words).words)
    else:
        try:
            words = options.words.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{options.words}: cannot be read: {error}") from None
    description = modelfile.read(modelfile.find(options.model)).description
    vocabulary = description.phones or description.vocabulary
    if (vocabulary.kind == "phones") != bool(options.pronunciations):
        what = "needs --pronunciations" if vocabulary.kind == "phones" else "spells words by itself"
        raise ConfigError(f"{options.model}: a model of {vocabulary.kind} {what}")
    if options.pronunciations:
        spoken = pronunciations(options.pronunciations, vocabulary.tokens)
        found, left_out = from_pronunciations(words[: options.most], spoken, len(vocabulary))
    else:
        found, left_out = from_words(words[: options.most], vocabulary)
    found.write(options.target, vocabulary)
    count = f"{len(found.words):,} words, {len(found.arrays.word):,} spellings in {len(found):,} nodes"
    print(f"{options.target}: {count}; {left_out:,} words left out")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
