"""CTC-CRF's denominator against the sum over every path, and its gradient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from streamasr.train.crf import EDGE, Trigram, log_denominator

TOKENS = 4


def trigram() -> Trigram:
    random = np.random.default_rng(3)
    return Trigram([random.integers(1, TOKENS, random.integers(0, 6)) for _ in range(30)], TOKENS)


def brute_force(logits: Tensor, model: Trigram) -> Tensor:
    """log of the sum over every path [S] of its probability times that of what it collapses to."""
    log_probs = logits.double().log_softmax(-1)
    scores = []
    for path in itertools.product(range(TOKENS), repeat=len(logits)):
        said = np.array([token for token, _ in itertools.groupby(path) if token], np.int64)
        score = sum((log_probs[t, v] for t, v in enumerate(path)), torch.zeros((), dtype=torch.float64))
        scores.append(score + model.log_probability(said))
    return torch.stack(scores).logsumexp(0)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_sum_over_all_paths_and_its_gradient(steps: int) -> None:
    torch.manual_seed(steps)
    model = trigram()
    logits = (2 * torch.randn(5, 3, TOKENS)).requires_grad_()  # beyond `steps` nothing counts
    log_z = log_denominator(logits, model, torch.tensor([steps] * 3))
    (torch.tensor([1.0, 2.0, -1.0]) * log_z).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    for b, weight in enumerate((1.0, 2.0, -1.0)):
        exact = logits.detach()[:steps, b].double().requires_grad_()
        expected = brute_force(exact, model)
        torch.testing.assert_close(log_z[b].double(), expected, atol=1e-5, rtol=1e-5)
        (gradient,) = torch.autograd.grad(weight * expected, exact)
        torch.testing.assert_close(logits.grad[:steps, b].double(), gradient, atol=1e-5, rtol=1e-4)
        assert not logits.grad[steps:, b].any()


def test_trigram_is_normalised_and_knows_what_it_saw() -> None:
    model = trigram()
    torch.testing.assert_close(model.probabilities.sum(-1), np.ones((TOKENS, TOKENS), np.float32))
    seen = Trigram([np.array([1, 2, 3])] * 50, TOKENS)
    assert seen.probabilities[EDGE, EDGE, 1] > 0.9 and seen.probabilities[2, 3, EDGE] > 0.9


def test_an_empty_utterance_costs_nothing() -> None:
    logits = torch.randn(2, 1, TOKENS, requires_grad=True)
    assert log_denominator(logits, trigram(), torch.tensor([0])).item() == 0.0
