"""Words <-> sub-words, the tokens of the LSTM language model.

A sub-word is a text; that which ends a word ends in a space, so a word's probability is the product of
its sub-words' and no other word shares it. Sub-word 0 is "\\n", the end of a line.

    "going on"  ->  "go" "ing " "on "

A word is first spelt in letters; then, again and again, of all neighbours that together are a sub-word
those are joined that come first in the inventory. That is how `streamasr.data.subwords` learns it
(byte-pair encoding: Sennrich, Haddow, Birch 2016, arXiv:1508.07909), so no list of joins is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ModelError

LINE_END = 0  # id of the sub-word between lines


class Subwords:
    """An inventory; never changes. `pieces[i]` is the text of sub-word i."""

    def __init__(self, pieces: Sequence[str], where: str = "sub-words") -> None:
        """Raises ModelError naming `where` when a word of its letters could not be spelt."""
        self.pieces = tuple(pieces)
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}
        self.letters = frozenset("".join(self.pieces)) - {" ", "\n"}
        if len(self.ids) != len(self.pieces):
            raise ModelError(f"{where}: a sub-word occurs twice")
        if not self.pieces or self.pieces[LINE_END] != "\n":
            raise ModelError(f"{where}: the first sub-word must be the end of a line")
        for piece in self.pieces[1:]:
            if not piece.strip(" ") or " " in piece[:-1] or "\n" in piece:
                raise ModelError(f"{where}: {piece!r} is no sub-word")
        lacking = [letter for letter in self.letters if {letter, f"{letter} "} - self.ids.keys()]
        if lacking:
            raise ModelError(f"{where}: no sub-word is the single letter {min(lacking)!r}")

    def __len__(self) -> int:
        return len(self.pieces)

    def spells(self, words: Iterable[str]) -> str:
        """The letters of the words that are in no sub-word, in order; "" where all can be spelt."""
        return "".join(sorted(set().union(*words) - self.letters))

    def word(self, word: str) -> tuple[int, ...]:
        """Word -> its sub-words. Raises KeyError for an empty word or a letter that is in no sub-word."""
        parts = [*word[:-1], f"{word[-1:]} "]
        none = len(self.pieces)
        while len(parts) > 1:
            pairs = [self.ids.get(a + b, none) for a, b in zip(parts, parts[1:], strict=False)]
            first = min(pairs)
            if first == none:
                break
            i = pairs.index(first)
            parts[i : i + 2] = [self.pieces[first]]
        return tuple(self.ids[part] for part in parts)

    def decode(self, ids: Iterable[int]) -> str:
        """Sub-words -> text, lines divided by line feeds."""
        return "".join(self.pieces[i] for i in ids).replace(" \n", "\n").rstrip(" ")
