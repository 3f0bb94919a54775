"""n best texts of a segment -> the one that the LSTM language model likes too, in bounded time.

    score'(W) = score(W) + weight * log p_LSTM(W | the stable words before)

score(W) is the search's (docs/search.md): the n-gram's opinion stays in it. The n best share all stable
words, so none of those can change; and they are what the beam holds, not how it was fed, so chunks
change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ConfigError
from .lstm_lm import LstmModel
from .subwords import LINE_END

# What bounds the time; chosen: as many texts as the default beam has, and few sentences are longer.
MOST_TEXTS = 50
MOST_CONTEXT_WORDS = 32  # of the segment's stable words, the last ones
MOST_SUBWORDS = 96  # of a text after them; what is beyond is not looked at


class Rescorer:
    """The model and its weight; shared by all streams."""

    def __init__(self, model: LstmModel, weight: float) -> None:
        self.model, self.weight = model, weight

    def check(self, words: Iterable[str]) -> None:
        """Words that the search may find. Raises ConfigError naming a letter that the model cannot spell."""
        if unknown := self.model.subwords.spells(words):
            raise ConfigError(
                f"rescoring: words of the lexicon have letters that the LSTM language model lacks: "
                f"{unknown[:20]!r}; train one on text of this language, or leave rescoring out"
            )

    def score(
        self, before: Sequence[str], texts: Sequence[Sequence[str]], sentence_ends: bool = True
    ) -> list[float]:
        """Words before, words of each text -> what to add to each text's score.

        Letters that the model lacks, as hotwords may have some, are passed over.
        """
        end = [LINE_END] if sentence_ends else []
        context = [LINE_END, *self._spell(before[-MOST_CONTEXT_WORDS:])]
        subwords = [(self._spell(words) + end)[:MOST_SUBWORDS] for words in texts]
        return [self.weight * float(score) for score in self.model.score(context, subwords)]

    def _spell(self, words: Sequence[str]) -> list[int]:
        known = self.model.subwords.letters
        spelt = ("".join(letter for letter in word if letter in known) for word in words)
        return [token for word in spelt if word for token in self.model.subwords.word(word)]
