"""Token ids <-> text.

Token 0 is the CTC blank; words are what stands between spaces. Kind "characters": every other token is one
character. Kind "phones": a name of one or more; only a lexicon knows how its words are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import ConfigError

BLANK = 0


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids. Raises ConfigError when they cannot be a vocabulary."""

    tokens: tuple[str, ...]
    kind: str = "characters"

    def __post_init__(self) -> None:
        if self.kind not in ("characters", "phones"):
            raise ConfigError(
                f'vocabulary: kind {self.kind!r} is unknown; this version knows "characters" and "phones"'
            )
        if len(self.tokens) < 2 or self.tokens[BLANK] != "<blank>":
            raise ConfigError('vocabulary: token 0 must be "<blank>", and at least one other must follow')
        if self.kind == "characters":
            wrong = [token for token in self.tokens[1:] if len(token) != 1]
            if wrong:
                raise ConfigError(f"vocabulary: not one character each: {wrong}")
        elif unnamed := [token for token in self.tokens[1:] if token != " " and token.split() != [token]]:
            raise ConfigError(f"vocabulary: not names of phones: {unnamed}")
        twice = [token for token, count in Counter(self.tokens).items() if count > 1]
        if twice:
            raise ConfigError(f"vocabulary: tokens that occur twice: {twice}")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def space(self) -> int:
        """Id of the space, -1 where there is none."""
        return self.tokens.index(" ") if " " in self.tokens else -1

    def encode(self, text: str) -> list[int]:
        """Text -> ids, one a character.

        Raises ConfigError naming the characters that are not in the vocabulary, and for phones.

        >>> Vocabulary(("<blank>", " ", "a", "b")).encode("a b")
        [2, 1, 3]
        """
        if self.kind == "phones":
            raise ConfigError("phones do not spell text: that takes a lexicon")
        ids = {token: index for index, token in enumerate(self.tokens) if index != BLANK}
        unknown = sorted(set(text) - ids.keys())
        if unknown:
            raise ConfigError(
                f"characters {unknown} of {text[:60]!r} are not in the vocabulary; normalise the text first"
            )
        return [ids[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids (already collapsed) -> text; blanks vanish, runs of spaces become one, ends are stripped.

        >>> Vocabulary(("<blank>", " ", "a", "b")).decode([1, 2, 0, 1, 1, 3])
        'a b'
        """
        text = "".join(self.tokens[i] for i in ids if i != BLANK)
        return " ".join(word for word in text.split(" ") if word)
