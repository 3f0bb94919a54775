"""(references, hypotheses), by utterance id -> word and character errors with alignments.

Both sides are normalised by `data.text.normalise` and by nothing else. Rates are pooled: all errors of
a corpus over all its reference words, so that a long utterance counts by its length and an empty
reference ("", a recording of noise) adds its insertions. The mean of rates per utterance is another
number, and not defined where nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np

from ..data.text import normalise
from ..errors import ManifestError, MissingDependency

RESAMPLES = 1000  # bootstrap, as in Kaldi's compute-wer-bootci; the interval is then good to about 0.1

# (reference word, hypothesis word); one of them None where a word was left out or put in
Alignment = tuple[tuple[str | None, str | None], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Edit operations that turn a reference into a hypothesis, of words or of characters."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference(self) -> int:
        """Length of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per unit of reference, a fraction; above 1 is possible.

        With an empty reference the number of insertions, which is what a division by 1 gives.
        """
        return self.errors / max(self.reference, 1)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True, slots=True)
class UtteranceScore:
    """One utterance: both texts as normalised, and how they differ. Characters include spaces."""

    id: str
    reference: str
    hypothesis: str
    words: Counts
    characters: Counts
    alignment: Alignment


@dataclass(frozen=True, slots=True)
class CorpusScore:
    """All utterances, in the order of the references, and their pooled counts."""

    utterances: tuple[UtteranceScore, ...]
    words: Counts
    characters: Counts

    def interval(self, seed: int = 0, characters: bool = False) -> tuple[float, float]:
        """95 % interval of the pooled word or character error rate, by resampling utterances (bootstrap)."""
        if not self.utterances:
            return 0.0, 0.0
        counts = [score.characters if characters else score.words for score in self.utterances]
        errors = np.array([each.errors for each in counts])
        words = np.array([each.reference for each in counts])
        count = len(errors)
        generator = np.random.default_rng(seed)
        rates = np.empty(RESAMPLES)
        for i in range(RESAMPLES):
            drawn = generator.integers(count, size=count)
            rates[i] = errors[drawn].sum() / max(words[drawn].sum(), 1)
        low, high = np.quantile(rates, (0.025, 0.975))
        return float(low), float(high)


def score(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> CorpusScore:
    """{id: text}, {id: text} -> scores of the utterances of `references`, in that order.

    Hypotheses of other ids are not looked at. An empty hypothesis is that many deletions, an empty
    reference that many insertions, both empty no error.
    Raises: ManifestError if a reference has no hypothesis; MissingDependency without jiwer.

    >>> score({"a": "The cat sat."}, {"a": "the cat sad down"}).words
    Counts(hits=2, substitutions=1, deletions=0, insertions=1)
    """
    missing = [name for name in references if name not in hypotheses]
    if missing:
        raise ManifestError(
            f'no hypothesis for "{missing[0]}" ({len(missing)} missing); score by the same ids'
        )
    scores = tuple(_score_one(name, text, hypotheses[name]) for name, text in references.items())
    return CorpusScore(scores, _total(s.words for s in scores), _total(s.characters for s in scores))


def _score_one(name: str, reference: str, hypothesis: str) -> UtteranceScore:
    jiwer = _jiwer()
    reference, hypothesis = normalise(reference), normalise(hypothesis)
    # Ours instead of jiwer's default transforms: the texts are normal, only cut them.
    to_words = jiwer.Compose([jiwer.ReduceToListOfListOfWords()])
    to_characters = jiwer.Compose([jiwer.ReduceToListOfListOfChars()])
    words = jiwer.process_words(reference, hypothesis, to_words, to_words)
    characters = jiwer.process_characters(reference, hypothesis, to_characters, to_characters)
    alignment: list[tuple[str | None, str | None]] = []
    for chunk in words.alignments[0]:
        said = words.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
        heard = words.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
        width = max(len(said), len(heard))
        alignment += zip(
            [*said, *[None] * (width - len(said))], [*heard, *[None] * (width - len(heard))], strict=True
        )
    return UtteranceScore(
        name,
        reference,
        hypothesis,
        Counts(words.hits, words.substitutions, words.deletions, words.insertions),
        Counts(characters.hits, characters.substitutions, characters.deletions, characters.insertions),
        tuple(alignment),
    )


def _total(counts: Iterable[Counts]) -> Counts:
    return sum(counts, start=Counts())


@cache
def _jiwer() -> ModuleType:
    try:
        import jiwer
    except ImportError as error:
        raise MissingDependency("scoring needs the package jiwer: pip install jiwer") from error
    return jiwer
