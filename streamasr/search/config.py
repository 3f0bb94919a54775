"""Settings of the beam search, as model.json has them under "search"."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..errors import ConfigError


@dataclass(frozen=True)
class BeamConfig:
    """How wide to search, and what weighs how much; scores are natural logarithms.

    Defaults were chosen on a part of librispeech-dev (docs/search.md, Figures).
    """

    beam: int = 50  # hypotheses
    tokens: int = 20  # per step that may extend a hypothesis
    token_threshold: float = 8.0  # below the step's best
    beam_threshold: float = 14.0  # below the best hypothesis
    blank_skip: float = 0.999  # steps whose blank is above this extend nothing; 1: every step may
    lm_weight: float = 0.8
    word_bonus: float = 0.0
    prior_scale: float = 0.0
    rescore_weight: float = 0.4  # of the LSTM language model, where there is one, in the choice of a final
    recombine: bool = True  # hypotheses that differ only in what can no longer matter

    def __post_init__(self) -> None:
        limits = {"beam": (1, 100_000), "tokens": (1, 1_000_000), "blank_skip": (0.5, 1.0)}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and isinstance(value, bool):
                continue
            low, high = limits.get(field.name, (0.0, math.inf))
            if field.name == "word_bonus":
                low = -math.inf
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigError(f"search: {field.name} must be {low:g} to {high:g}, not {value!r}")
