"""Model and validation sets -> greedy CER and WER of each."""

from __future__ import annotations

import torch
from torch import Tensor

from ..evaluate import wer
from ..vocabulary import BLANK, Vocabulary
from .batches import Batches
from .model import AcousticModel


@torch.no_grad()
def error_rates(
    model: AcousticModel,
    weights: dict[str, Tensor],
    sets: dict[str, Batches],
    vocabulary: Vocabulary,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Error rates of `weights` (the model's own are put back): {set: {"cer", "wer"}}, fractions, pooled."""
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    _put(model, weights)
    model.eval()
    scores = {}
    for name, batches in sets.items():
        references, hypotheses = {}, {}
        for numbers in batches.plan(0, 0):
            batch = batches.make(numbers, (0,))
            out = model(batch.frames.to(device), batch.lengths)
            for row, utterance in enumerate(batch.utterances):
                best = out.logits[: out.steps[row], row].argmax(-1).unique_consecutive()
                references[utterance.id] = utterance.text
                hypotheses[utterance.id] = vocabulary.decode(best[best != BLANK].tolist())
        score = wer.score(references, hypotheses)
        scores[name] = {"cer": score.characters.rate, "wer": score.words.rate}
    _put(model, own)
    return scores


def _put(model: AcousticModel, weights: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        p.copy_(weights[name])
