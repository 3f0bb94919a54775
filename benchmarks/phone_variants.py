"""Pronouncing dictionaries with other units than phones, for `data.lexicon` and a lexicon of the search.

    python benchmarks/phone_variants.py biphones|states FILE ... > OUT

biphones: a phone is another one after a vowel, after a consonant, and at the start of its word (AH, AH/v,
AH/c): left-biphones, clustered by hand; what is left of a word is not looked at, so a word has one spelling.
states: a phone is two tokens, its beginning and its end (AH, AH/e), as an HMM of two states.
"""

from __future__ import annotations

import sys
from pathlib import Path

from streamasr.data import dictionary

VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())


def biphones(phones: tuple[str, ...]) -> list[str]:
    after = [f"{b}/{'v' if a in VOWELS else 'c'}" for a, b in zip(phones, phones[1:], strict=False)]
    return [phones[0], *after]


def states(phones: tuple[str, ...]) -> list[str]:
    return [state for phone in phones for state in (phone, f"{phone}/e")]


def main() -> int:
    if len(sys.argv) < 3 or sys.argv[1] not in ("biphones", "states"):
        sys.exit(__doc__)
    change = biphones if sys.argv[1] == "biphones" else states
    for _, word, phones in dictionary.read(map(Path, sys.argv[2:])):
        print(word, " ".join(change(phones)), sep="\t")
    return 0


if __name__ == "__main__":
    sys.exit(main())
