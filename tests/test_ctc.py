"""CTC loss and gradient against the sum over all paths, and against torch's implementation.

Ours gives the gradient in float32 (probabilities are float32, sums float64): tolerances are a few
times 2**-24 of numbers up to 1, and of losses of the size stated.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from streamasr.train.ctc import best_path, ctc_loss


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token)


def brute_force(logits: Tensor, target: tuple[int, ...]) -> Tensor:
    """Minus log of the summed probability of every path [S] that collapses to the target; float64."""
    log_probs = logits.double().log_softmax(-1)
    steps, tokens = logits.shape
    paths = [p for p in itertools.product(range(tokens), repeat=steps) if collapse(p) == target]
    if not paths:
        return torch.tensor(float("inf"))
    scores = torch.stack([sum((log_probs[t, v] for t, v in enumerate(p)), torch.zeros(())) for p in paths])
    return -scores.logsumexp(0)


def ours(logits: Tensor, targets: list[tuple[int, ...]], steps: list[int]) -> tuple[Tensor, Tensor]:
    """Losses [B], gradient [S, B, V] of the sum of the finite ones."""
    logits = logits.detach().clone().requires_grad_()
    losses = ctc_loss(logits, [np.array(t, np.int64) for t in targets], torch.tensor(steps))
    losses[torch.isfinite(losses)].sum().backward()
    assert logits.grad is not None
    return losses.detach(), logits.grad


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(5)


TARGETS = [(), (1,), (1, 2), (2, 1, 2), (1, 1), (2, 2, 2), (1, 2, 2), (1, 1, 2, 2)]


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_sum_over_all_paths(steps: int) -> None:
    """Every target at once, so that infeasible ones (too long, repeats without room) sit among the rest."""
    logits = 2 * torch.randn(steps, len(TARGETS), 3)
    losses, gradient = ours(logits, TARGETS, [steps] * len(TARGETS))
    for b, target in enumerate(TARGETS):
        exact = logits[:, b].double().requires_grad_()
        expected = brute_force(exact, target)
        if torch.isinf(expected):
            assert torch.isinf(losses[b]) and not gradient[:, b].any(), target
            continue
        expected.backward()
        assert exact.grad is not None
        torch.testing.assert_close(losses[b].double(), expected.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient[:, b].double(), exact.grad, rtol=0, atol=5e-7)


def test_some_targets_were_infeasible() -> None:
    """The test above would be empty otherwise: a repeat needs a blank between, so U + repeats steps."""
    losses, _ = ours(torch.zeros(3, len(TARGETS), 3), TARGETS, [3] * len(TARGETS))
    assert torch.isinf(losses).tolist() == [False] * 5 + [True, True, True]


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("target", TARGETS)
def test_the_likeliest_of_all_paths(steps: int, target: tuple[int, ...]) -> None:
    log_probs = (2 * torch.randn(steps, 3)).log_softmax(-1).numpy()
    paths = [p for p in itertools.product(range(3), repeat=steps) if collapse(p) == target]
    found = best_path(log_probs, np.array(target, np.int64))
    if not paths:
        assert found is None
        return
    expected = max(paths, key=lambda path: sum(log_probs[t, v] for t, v in enumerate(path)))
    assert found is not None and tuple(found.tolist()) == expected


def test_shorter_rows_ignore_what_follows() -> None:
    logits = torch.randn(6, 2, 3)
    losses, gradient = ours(logits, [(1, 2), (1,)], [4, 6])
    alone, alone_gradient = ours(logits[:4, :1], [(1, 2)], [4])
    assert losses[0] == alone[0]
    assert torch.equal(gradient[:4, 0], alone_gradient[:, 0])
    assert not gradient[4:, 0].any()


def test_no_steps() -> None:
    """Nothing heard: certain to be nothing said, impossible to be anything."""
    losses, gradient = ours(torch.randn(2, 2, 3), [(), (1,)], [0, 0])
    assert losses.tolist() == [0.0, float("inf")]
    assert not gradient.any()


def test_torch_agrees_on_real_sizes() -> None:
    """Utterances of 1 to 10 s at 30 ms, texts of all lengths with many repeats, torch in float64."""
    random = np.random.default_rng(1)
    steps = [330, 100, 250, 40, 330]
    targets = [tuple(random.integers(1, 5, n).tolist()) for n in (120, 40, 3, 0, 160)]
    logits = 3 * torch.randn(330, 5, 29)
    losses, gradient = ours(logits, targets, steps)
    exact = logits.double().requires_grad_()
    flat = torch.tensor([token for target in targets for token in target])
    lengths = torch.tensor([len(t) for t in targets])
    expected = torch.nn.functional.ctc_loss(
        exact.log_softmax(-1), flat, torch.tensor(steps), lengths, reduction="none"
    )
    expected.sum().backward()
    assert exact.grad is not None
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), exact.grad, rtol=0, atol=1e-6)


def test_gradient_is_the_slope_of_the_loss() -> None:
    """Central differences of our own loss, in float32: coarse steps, so coarse agreement."""
    logits = torch.randn(6, 1, 4)
    _, gradient = ours(logits, [(1, 3, 3)], [6])
    step = 1e-2
    for t, v in itertools.product(range(6), range(4)):
        change = torch.zeros_like(logits)
        change[t, 0, v] = step
        above, _ = ours(logits + change, [(1, 3, 3)], [6])
        below, _ = ours(logits - change, [(1, 3, 3)], [6])
        # Third derivative times step^2 / 6, and float32 losses: 2e-7 * loss / step.
        assert float(above - below) / (2 * step) == pytest.approx(float(gradient[t, 0, v]), abs=3e-4)


def test_gradient_scales_with_what_comes_from_above() -> None:
    logits = torch.randn(5, 2, 3, requires_grad=True)
    losses = ctc_loss(logits, [np.array([1]), np.array([2, 1])], torch.tensor([5, 5]))
    (first,) = torch.autograd.grad(losses @ torch.tensor([2.0, 0.0]), logits)
    _, plain = ours(logits, [(1,), (2, 1)], [5, 5])
    torch.testing.assert_close(first[:, 0], 2 * plain[:, 0], rtol=1e-6, atol=0)
    assert not first[:, 1].any()


def test_certain_and_hopeless_logits_stay_finite() -> None:
    """Logits of a trained model reach 30 nats: probabilities near 1 and 1e-13 both count."""
    logits = torch.zeros(50, 2, 3)
    logits[:, :, 0] = 30.0
    losses, gradient = ours(logits, [(), (1, 2, 1)], [50, 50])
    assert torch.isfinite(losses).all() and torch.isfinite(gradient).all()
    assert float(losses[0]) == pytest.approx(0.0, abs=1e-4)
    expected = torch.nn.functional.ctc_loss(
        logits[:, 1].double().log_softmax(-1),
        torch.tensor([1, 2, 1]),
        torch.tensor(50),
        torch.tensor(3),
        reduction="sum",
    )
    assert float(losses[1]) == pytest.approx(float(expected), rel=1e-6)


def test_threads_and_neighbours_do_not_matter() -> None:
    logits = torch.randn(8, 5, 4)
    targets = [(1, 2), (), (3, 3, 1), (1,), (1, 1, 1, 1, 1, 1)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ours(logits, targets, [8, 8, 7, 3, 8])
        torch.set_num_threads(2)
        two = ours(logits, targets, [8, 8, 7, 3, 8])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    for b, (target, steps) in enumerate(zip(targets, [8, 8, 7, 3, 8], strict=True)):
        alone, gradient = ours(logits[:, b : b + 1], [target], [steps])
        assert torch.equal(alone[0], one[0][b]) and torch.equal(gradient[:, 0], one[1][:, b])
