"""logits of two views of the same utterances -> how far they disagree: consistency-regularised CTC.

Yao et al., "CR-CTC: Consistency regularization on CTC for improved speech recognition" (arXiv:2410.05101),
eq. 4-5: the views are masked differently; each is to predict what the other does, step by step. Gradients
flow into the prediction only, not into what is predicted.
"""

from __future__ import annotations

import torch
from torch import Tensor


def disagreement(logits: Tensor, steps: Tensor) -> Tensor:
    """logits [S, 2 B, V], row B + b another view of what row b is of; steps [2 B] that count -> [B], in nats.

    The mean of both directions' Kullback-Leibler divergences, summed over the steps.
    """
    one, other = logits.float().log_softmax(-1).chunk(2, 1)
    inside = torch.arange(len(logits))[:, None] < steps[: one.shape[1]]
    both = divergence(one.detach(), other) + divergence(other.detach(), one)
    return 0.5 * (both * inside.to(both.device)).sum(0)


def lateness(logits: Tensor, steps: Tensor) -> Tensor:
    """logits [S, B, V], steps [B] that count -> how far each step is from what the next one says [B].

    In nats, summed over the steps: peak-first regularisation (Tian et al., arXiv:2211.03284, eq. 6). The
    gradient flows into the earlier step only, so that tokens move forward.
    """
    said = logits.float().log_softmax(-1)
    inside = torch.arange(1, len(logits))[:, None] < steps
    return (divergence(said[1:].detach(), said[:-1]) * inside.to(said.device)).sum(0)


def divergence(target: Tensor, predicted: Tensor) -> Tensor:
    """KL(target || predicted) of log-probabilities [..., V] -> [...]."""
    return (target.exp() * (target - predicted)).sum(-1)
