"""CTC-CRF's denominator against the sum over every path, and its gradient."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamasr.train.crf import EDGE, Ngram, log_denominator

TOKENS = 4
ALL = set(itertools.product(range(TOKENS), repeat=3))


def sequences() -> list[NDArray[np.int64]]:
    random = np.random.default_rng(3)
    return [random.integers(1, TOKENS, random.integers(0, 6)) for _ in range(30)]


def ngram(order: int = 3, most: int = 100) -> Ngram:
    return Ngram(sequences(), TOKENS, order, most)


def brute_force(logits: Tensor, model: Ngram) -> Tensor:
    """log of the sum over every path [S] of its probability times that of what it collapses to."""
    log_probs = logits.double().log_softmax(-1)
    scores = []
    for path in itertools.product(range(TOKENS), repeat=len(logits)):
        said = np.array([token for token, _ in itertools.groupby(path) if token], np.int64)
        score = sum((log_probs[t, v] for t, v in enumerate(path)), torch.zeros((), dtype=torch.float64))
        scores.append(score + model.log_probability(said))
    return torch.stack(scores).logsumexp(0)


@pytest.mark.parametrize(
    ("steps", "order", "most"),
    [(1, 3, 0), (2, 3, 0), (3, 3, 0), (5, 3, 0), (4, 2, 0), (5, 4, 3), (5, 4, 12), (6, 4, 100)],
)
def test_sum_over_all_paths_and_its_gradient(steps: int, order: int, most: int) -> None:
    torch.manual_seed(steps)
    model = ngram(order, most)
    logits = (2 * torch.randn(6, 3, TOKENS)).requires_grad_()  # beyond `steps` nothing counts
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


def by_definition(sequence: NDArray[np.int64], order: int, kept: Any) -> float:
    """log p by Witten & Bell's recursion over lists of what was seen; of four, only in `kept` contexts."""

    def padded(tokens: NDArray[np.int64]) -> list[int]:
        return [EDGE] * (order - 1) + tokens.tolist() + [EDGE]

    seen = [x[i - order + 1 : i + 1] for x in map(padded, sequences()) for i in range(order - 1, len(x))]

    def p(token: int, context: list[int] | None) -> float:
        if context is None:
            return 1 / TOKENS
        after = [s[-1] for s in seen if s[order - 1 - len(context) : -1] == context]
        shorter = p(token, context[1:] if context else None)
        if not after or (len(context) == 3 and (context[1] == EDGE or tuple(context) not in kept)):
            return shorter  # EDGE, EDGE, b says no more than EDGE, b
        return (after.count(token) + len(set(after)) * shorter) / (len(after) + len(set(after)))

    x = padded(sequence)
    return float(sum(np.log(p(x[i], x[i - order + 1 : i])) for i in range(order - 1, len(x))))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_probabilities_are_those_of_the_definition(order: int) -> None:
    model = ngram(order)
    for said in ([], [1], [2, 2, 1], [3, 1, 2, 2, 3, 1], [1, 1, 1, 1]):
        sequence = np.array(said, np.int64)
        assert model.log_probability(sequence) == pytest.approx(by_definition(sequence, order, ALL), rel=1e-5)


def test_a_pruned_4gram_knows_the_commonest_contexts_and_is_the_trigram_elsewhere() -> None:
    model = ngram(4, 5)
    kept = {tuple(context) for context in model.contexts.tolist()}
    assert len(kept) == 5 and all(context[1] != EDGE for context in kept)
    for said in itertools.product((1, 2, 3), repeat=4):
        sequence = np.array(said, np.int64)
        assert model.log_probability(sequence) == pytest.approx(by_definition(sequence, 4, kept), rel=1e-5)
    counts = np.zeros((TOKENS,) * 3)
    for x in sequences():
        for context in zip([EDGE, *x], x, x[1:], strict=False):
            counts[context] += 1
    assert min(counts[context] for context in kept) >= max(
        count for context, count in np.ndenumerate(counts) if context not in kept
    )


def test_without_contexts_a_4gram_is_the_trigram() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 2, TOKENS)
    steps = torch.tensor([7, 4])
    trigram = log_denominator(logits, ngram(3), steps)
    assert torch.equal(log_denominator(logits, ngram(4, 0), steps), trigram)
    assert not torch.allclose(log_denominator(logits, ngram(4), steps), trigram)
    assert not torch.allclose(log_denominator(logits, ngram(2), steps), trigram)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_an_ngram_is_normalised_and_knows_what_it_saw(order: int) -> None:
    model = ngram(order)
    ones = np.ones(len(model.probabilities), np.float32)
    torch.testing.assert_close(model.probabilities.sum(-1), ones)
    states = {2: TOKENS, 3: TOKENS**2, 4: TOKENS**2 + len(model.contexts)}
    assert model.next.shape == (states[order], TOKENS)
    seen = Ngram([np.array([1, 2, 3])] * 50, TOKENS, order)
    assert np.exp(seen.log_probability(np.array([1, 2, 3]))) > 0.8


def test_an_empty_utterance_costs_nothing() -> None:
    logits = torch.randn(2, 1, TOKENS, requires_grad=True)
    assert log_denominator(logits, ngram(), torch.tensor([0])).item() == 0.0
