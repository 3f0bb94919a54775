"""What is known of a word once it is told -> probability that it is right.

    confidence = 1 / (1 + exp(-x))
    x = bias + sound * log(p / (1 - p)) + tokens * n + loss * sqrt(l) + language * log q

p: geometric mean of the tokens' highest probabilities; n: tokens; l: by how much, since the word before,
the best alignment falls short of each step's likeliest token (natural logarithm); q: of the language model.
The weights are fitted to recordings by `python -m streamasr.evaluate.calibrate` and belong to the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

_LEAST_DOUBT = 1e-4  # p is kept that far from 0 and 1, where its logarithms end


class Evidence(NamedTuple):
    """Of one word: the formula's p, n, l and log q; l and log q are 0 where a search has none."""

    sound: float
    tokens: int
    loss: float = 0.0
    language: float = 0.0

    def features(self) -> tuple[float, float, float, float]:
        """What the weights weigh, in their order."""
        p = min(max(self.sound, _LEAST_DOUBT), 1.0 - _LEAST_DOUBT)
        return math.log(p / (1.0 - p)), float(self.tokens), math.sqrt(max(self.loss, 0.0)), self.language


class Confidence(Protocol):
    def of(self, evidence: Evidence, /) -> float: ...


@dataclass(frozen=True)
class Raw:
    """Of a model that is not calibrated: the tokens' probability."""

    def of(self, evidence: Evidence) -> float:
        return evidence.sound


RAW = Raw()


@dataclass(frozen=True)
class Logistic:
    """The formula's weights."""

    bias: float
    sound: float
    tokens: float
    loss: float = 0.0
    language: float = 0.0

    def of(self, evidence: Evidence) -> float:
        sound, tokens, loss, language = evidence.features()
        x = self.sound * sound + self.tokens * tokens + self.loss * loss + self.language * language
        x += self.bias
        return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0


@dataclass(frozen=True)
class Calibration:
    """What was measured of a model's words: added to where its tokens stand, and what confidences mean.

    `beam` is the beam search with the model's language model, `lexicon` the same without it. None: the
    words of that search tell their tokens' probability.
    """

    start_seconds: float = 0.0
    end_seconds: float = 0.0
    greedy: Logistic | None = None
    lexicon: Logistic | None = None
    beam: Logistic | None = None
