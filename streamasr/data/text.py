"""written text -> the words that are spoken, in the model's letters: a-z, apostrophe, single spaces.

    "Naïve — don’t you think, Mr. O’Neill?"  ->  "naive don't you think mr o'neill"

Applied to both sides before scoring and to transcripts before training, so that neither is judged by
case, accents or punctuation. Numbers and abbreviations are not spelt out: how they were said is not
known from the text.
"""

from __future__ import annotations

import re
import unicodedata

from ..errors import ManifestError

# Stored with every result. Change it with the rules: scores made by other rules do not compare.
NORMALISER = "streamasr-en-1"

_APOSTROPHES = "‘’‛ʼ′`´ʻ＇"
# Marks between words; all other punctuation is dropped without leaving a gap.
_GAPS = "/\\_|~…−"
# Letters that Unicode does not decompose into a base letter and an accent.
_LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
_TABLE = str.maketrans({**dict.fromkeys(_APOSTROPHES, "'"), **dict.fromkeys(_GAPS, " ")})
_LETTER_TABLE = str.maketrans(_LETTERS)
# Symbols that are read aloud as words, beside digits, currency signs and letters of other scripts.
_SPOKEN_SYMBOLS = "&%+=@#°§"


def normalise(text: str) -> str:
    """text -> its normal form for scoring.

    Lower case; curly quotes are apostrophes, accents are removed, hyphens and dashes are spaces, other
    punctuation is dropped. Digits and letters of other scripts stay, so that they count as errors
    instead of vanishing from the reference. Normal text is left as it is.

    >>> normalise("A well-known “café” — the DOGS’ favourite, No. 5.")
    "a well known cafe the dogs' favourite no 5"
    """
    text = unicodedata.normalize("NFKD", text.translate(_TABLE)).casefold().translate(_LETTER_TABLE)
    text = unicodedata.normalize("NFKD", text).translate(_TABLE)  # case folding may compose anew
    text = re.sub(r"\.{2,}", " ", text)
    text = "".join(_kept(character) for character in text)
    text = re.sub("''+", "", text)  # two apostrophes are a quotation mark
    return " ".join(word for word in map(_unquoted, text.split()) if word)


def normalise_for_training(text: str) -> str:
    """text -> a-z, apostrophe, single spaces; empty text stays empty.

    Raises: ManifestError if the text holds anything spoken that these letters do not say: digits,
    letters of other scripts, symbols such as & and %. The message names them.
    """
    symbols = [c for c in text if c in _SPOKEN_SYMBOLS or unicodedata.category(c) == "Sc"]
    normal = normalise(text)
    unsaid = symbols + re.findall(r"[0-9]+|[^a-z' ]", normal)
    if unsaid:
        shown = ", ".join(dict.fromkeys(unsaid))
        raise ManifestError(f'cannot train on "{text}": write as spoken words in a-z and apostrophe: {shown}')
    return normal


def _kept(character: str) -> str:
    if character.isalnum() or character == "'":
        return character
    if character.isspace() or unicodedata.category(character) == "Pd":
        return " "
    return ""


def _unquoted(word: str) -> str:
    """'hello' -> hello, a lone apostrophe -> nothing; 'tis and dogs' stay."""
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] == "'" else "" if word == "'" else word
