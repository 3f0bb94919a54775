"""Words -> lexicon of the beam search, spelt in the letters of a character model.

    python -m streamasr.data.lexicon lm.safetensors MODEL lexicon.safetensors [--words N]

The words are those of a language model (of which the first N, as it has them in its order), or of a text
file, one word a line. Words with other letters than the model's are left out and counted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import modelfile
from ..errors import ConfigError, StreamASRError
from ..search import lexicon, lm
from ..vocabulary import BLANK, Vocabulary


def from_words(words: list[str], vocabulary: Vocabulary) -> tuple[lexicon.Lexicon, int]:
    """Words -> lexicon of those that can be written, how many were left out. ConfigError if all were."""
    letters = {t for i, t in enumerate(vocabulary.tokens) if i not in (BLANK, vocabulary.space)}
    kept = [word for word in dict.fromkeys(words) if word and letters.issuperset(word)]
    if not kept:
        raise ConfigError(
            f"no word of {len(words)} is written in the model's letters, {''.join(sorted(letters))}"
        )
    return lexicon.build(lexicon.spell(kept, vocabulary), len(vocabulary)), len(words) - len(kept)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m streamasr.data.lexicon", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("words", type=Path, metavar="WORDS", help="lm.safetensors, or a text file")
    parser.add_argument("model", metavar="MODEL", help="name or path of the model that will use it")
    parser.add_argument("target", type=Path, metavar="OUT", help="lexicon.safetensors")
    parser.add_argument("--words", dest="most", type=int, metavar="N", help="the first N only")
    options = parser.parse_args()
    if options.words.suffix == ".safetensors":
        words = list(lm.read(options.words).words)
    else:
        try:
            words = options.words.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{options.words}: cannot be read: {error}") from None
    vocabulary = modelfile.read(modelfile.find(options.model)).description.vocabulary
    found, left_out = from_words(words[: options.most], vocabulary)
    found.write(options.target)
    print(f"{options.target}: {len(found.words):,} words in {len(found):,} nodes; {left_out:,} left out")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
