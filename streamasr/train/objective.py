"""What the network said of a batch -> the loss to minimise, and its parts, in nats per token.

token_weight (CTC + consistency) of the characters
    + phone_weight (CTC or CTC-CRF + consistency + distillation) of the phones
    + attention_weight (cross-entropy) of the characters
or, with predict_steps, the error of the predicted frames alone.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .attention import AttentionDecoder
from .batches import Batch
from .config import Config, TrainConfig
from .consistency import disagreement, divergence, lateness
from .crf import Ngram, log_denominator
from .ctc import ctc_loss
from .model import AcousticModel, Output
from .prediction import FramePredictor
from .teachers import aligned

Targets = list[NDArray[np.int64]]


def auxiliaries(settings: Config, model: AcousticModel, mel_bands: int) -> nn.ModuleDict:
    """What the objective needs beside the network: the predictor of frames, or the decoder with attention."""
    width, tokens = model.output.in_features, model.output.out_features
    if settings.train.predict_steps:
        predictor = FramePredictor(settings.model, mel_bands, settings.train.predict_steps)
        return nn.ModuleDict({"predictor": predictor})
    if settings.train.attention_weight:
        return nn.ModuleDict({"decoder": AttentionDecoder(width, tokens, settings.model.dropout)})
    return nn.ModuleDict()


def objective(
    out: Output,
    batch: Batch,
    settings: TrainConfig,
    ngram: Ngram | None,
    auxiliary: nn.ModuleDict,
    taught: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Output for a batch -> (loss, its parts by name). The phones' loss is CTC's without an `ngram`.

    `auxiliary`: of `auxiliaries`. `taught` [S, B, phones]: log-probabilities of the teachers.
    """
    if "predictor" in auxiliary:
        total, numbers = auxiliary["predictor"](out.encoded, batch.unmasked, out.steps)
        loss = total / max(1, numbers)
        return loss, {"loss": float(loss.detach())}
    loss, measured = mean_loss(ctc_loss(out.logits, batch.tokens, out.steps), batch.tokens)
    values = {"loss": measured}
    if settings.consistency:
        loss = loss + settings.consistency * _per_token(disagreement(out.logits, out.steps), batch.tokens)
    loss = settings.token_weight * loss
    known = [b for b, phones in enumerate(batch.phones) if phones is not None]
    if out.phone_logits is not None and known:
        targets = [phones for phones in batch.phones if phones is not None]
        logits, steps = out.phone_logits[:, known], out.steps[known]
        phone_loss, of_phones = _of_phones(logits, targets, steps, settings, ngram)
        if taught is not None:
            taught = taught[:, known]
            if settings.alignment:
                taught = aligned(taught, targets, steps)
            inside = (torch.arange(len(logits))[:, None] < steps).to(logits.device)
            apart = (divergence(taught, logits.log_softmax(-1)) * inside).sum()
            apart = apart / max(1, sum(map(len, targets)))
            of_phones["distillation"] = float(apart.detach())
            phone_loss = phone_loss + settings.distillation * apart
        loss = loss + settings.phone_weight * phone_loss
        values |= of_phones
    if "decoder" in auxiliary:
        attended = auxiliary["decoder"](out.encoded, out.steps, batch.tokens)
        values["attention_loss"] = float(attended.detach())
        loss = loss + settings.attention_weight * attended
    return loss, values


def _of_phones(
    logits: Tensor, phones: Targets, steps: Tensor, settings: TrainConfig, ngram: Ngram | None
) -> tuple[Tensor, dict[str, float]]:
    losses = ctc_loss(logits, phones, steps)
    _, measured = mean_loss(losses, phones)
    values = {"phone_loss": measured}
    if ngram is not None:
        said = torch.tensor([ngram.log_probability(p) for p in phones])
        log_z = log_denominator(logits, ngram, steps)
        losses = losses + settings.denominator * (log_z - said.to(log_z.device))
    loss, values["phone_objective"] = mean_loss(losses, phones)
    if settings.peak_first:
        late = lateness(logits, steps).sum() / max(1, sum(map(len, phones)))
        values["lateness"] = float(late.detach())
        loss = loss + settings.peak_first * late
    if settings.consistency:
        apart = _per_token(disagreement(logits, steps), phones)
        values["disagreement"] = float(apart.detach())
        loss = loss + settings.consistency * apart
    return loss, values


def mean_loss(losses: Tensor, targets: Targets) -> tuple[Tensor, float]:
    """Losses [B] -> (loss per token to minimise, its value); utterances without an alignment are left out."""
    feasible = torch.isfinite(losses)
    tokens = sum(len(t) for t, ok in zip(targets, feasible.tolist(), strict=True) if ok)
    loss = losses[feasible].sum() / max(tokens, 1)
    return loss, float(loss.detach())


def _per_token(values: Tensor, targets: Targets) -> Tensor:
    """Values [B] of utterances, of which `targets` has two views -> their sum per token."""
    return values.sum() / max(1, sum(map(len, targets)) // 2)
