"""LSTM language model -> text drawn from it, word by word."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .lstm_lm import LstmModel
from .subwords import LINE_END

# Sub-words a word on average, above which a model that ends none is given up.
_MOST_SUBWORDS = 16


def generate(
    model: LstmModel,
    prompt: str = "",
    words: int = 50,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """What may follow the prompt -> sub-words, until `words` words are whole; "\\n" between lines.

    `temperature` divides the logits: 0 takes the likeliest. `top_k` likeliest sub-words only (0: all); of
    those the likeliest that together have at least `top_p` (Holtzman et al. 2020). The same seed gives the
    same text. Raises ConfigError for values out of range and letters that the model does not know.
    """
    if not (words >= 1 and temperature >= 0 and top_k >= 0 and 0 < top_p <= 1):
        raise ConfigError(
            "generate: words must be 1 or more, temperature and top-k 0 or more, top-p above 0 and at most 1"
        )
    if unknown := model.subwords.spells(prompt.split()):
        raise ConfigError(f"generate: the model does not know the letters {unknown!r} of the prompt")
    state, known = model.start(), np.zeros((1, 0), np.float32)
    for token in (LINE_END, *(t for word in prompt.split() for t in model.subwords.word(word))):
        known = model.step([token], state)
    random = np.random.default_rng(seed)
    for _ in range(words * _MOST_SUBWORDS):
        token = draw(known[0], temperature, top_k, top_p, random)
        piece = model.subwords.pieces[token]
        yield piece
        words -= piece.endswith(" ")
        if not words:
            return
        known = model.step([token], state)


def draw(
    log_probs: NDArray[np.float32], temperature: float, top_k: int, top_p: float, random: np.random.Generator
) -> int:
    """log_probs [V] -> one of them, drawn; of equal ones the first counts as likelier."""
    if temperature == 0:
        return int(np.argmax(log_probs))
    order = np.argsort(-log_probs, kind="stable")[: top_k or None]
    z = log_probs[order].astype(np.float64) / temperature
    p = np.exp(z - z[0])
    p /= p.sum()
    enough = int(np.searchsorted(np.cumsum(p), top_p)) + 1
    p = p[:enough] / p[:enough].sum()
    return int(order[random.choice(len(p), p=p)])
