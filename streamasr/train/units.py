"""Sub-words in place of letters: what the first head says with `data.subwords` (search/subwords.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..data import subwords
from ..search.subwords import Subwords
from ..vocabulary import Vocabulary

KIND = "subwords"


class SubwordUnits:
    """An inventory, the blank in place of the end of a line: a Vocabulary as far as training needs one."""

    kind = KIND

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._subwords = Subwords(["\n", *self.tokens[1:]])

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        return [token for word in text.split() for token in self._subwords.word(word)]

    def decode(self, ids: Iterable[int]) -> str:
        return self._subwords.decode(ids)


Units = Vocabulary | SubwordUnits


def learn(texts: Iterable[str], size: int, letters: Vocabulary) -> SubwordUnits:
    """Transcripts -> at most `size` units, the blank among them, that spell any word of the letters."""
    counts = Counter(word for text in texts for word in text.split())
    counts["".join(letters.tokens[2:])] += 0  # those that no transcript has
    return SubwordUnits(["<blank>", *subwords.learn(counts, size).pieces[1:]])
