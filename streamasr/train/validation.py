"""Model and validation sets -> greedy CER and WER of each, and PER where there are phones.

Or, of a model that predicts frames, how far it is off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..evaluate import wer
from ..vocabulary import BLANK
from .batches import Batches
from .model import AcousticModel
from .phones import BOUNDARY
from .units import Units


@contextmanager
def evaluating(model: AcousticModel, weights: dict[str, Tensor]) -> Iterator[None]:
    """The model in evaluation, with these weights; its own are put back."""
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    _put(model, weights)
    model.eval()
    try:
        yield
    finally:
        _put(model, own)


@torch.no_grad()
def error_rates(
    model: AcousticModel, sets: dict[str, Batches], vocabulary: Units, device: torch.device
) -> tuple[dict[str, dict[str, float]], Tensor]:
    """Error rates, fractions, pooled over each set.

    {set: {"cer", "wer"}}, and "per" of the phone head, over the utterances whose words are in the lexicon;
    and the log of the phone head's mean output over all steps [phones], its prior.
    """
    scores = {}
    total = torch.zeros(0)
    for name, batches in sets.items():
        references, hypotheses = {}, {}
        phones, phone_hypotheses = {}, {}
        for numbers in batches.plan(0, 0):
            batch = batches.make(numbers, (0,))
            out = model(batch.frames.to(device), batch.lengths)
            if out.phone_logits is not None:
                steps = torch.arange(len(out.phone_logits))[:, None] < out.steps
                summed = out.phone_logits.cpu().softmax(-1)[steps].sum(0)
                total = summed if not len(total) else total + summed
            for row, utterance in enumerate(batch.utterances):
                best = out.logits[: out.steps[row], row].argmax(-1).unique_consecutive()
                references[utterance.id] = utterance.text
                hypotheses[utterance.id] = vocabulary.decode(best[best != BLANK].tolist())
                known = batch.phones[row]
                if out.phone_logits is not None and known is not None:
                    best = out.phone_logits[: out.steps[row], row].argmax(-1).unique_consecutive()
                    phones[utterance.id] = _spell(known)
                    phone_hypotheses[utterance.id] = _spell(best[best != BLANK].numpy())
        score = wer.score(references, hypotheses)
        scores[name] = {"cer": score.characters.rate, "wer": score.words.rate}
        if phones:
            scores[name]["per"] = wer.score(phones, phone_hypotheses).words.rate
    return scores, (total / total.sum()).clamp_min(1e-6).log()


@torch.no_grad()
def prediction_errors(
    model: AcousticModel, sets: dict[str, Batches], device: torch.device
) -> dict[str, dict[str, float]]:
    """{set: {"l1"}}: how far predicted frames are off on the mean, in standard deviations of their bands."""
    scores = {}
    for name, batches in sets.items():
        total, numbers = 0.0, 0
        for chosen in batches.plan(0, 0):
            batch = batches.make(chosen, (0,))
            out = model(batch.frames.to(device), batch.lengths)
            error, count = model.auxiliary["predictor"](out.encoded, batch.frames, out.steps)
            total, numbers = total + float(error), numbers + count
        scores[name] = {"l1": total / max(1, numbers)}
    return scores


def _spell(numbers: NDArray[np.int64]) -> str:
    """Phone numbers as a text of one word a phone; boundaries between words do not count."""
    return " ".join(f"p{n}" for n in numbers if n != BOUNDARY)


@torch.no_grad()
def _put(model: AcousticModel, weights: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        p.copy_(weights[name])
