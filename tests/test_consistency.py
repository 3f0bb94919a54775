"""Consistency between two views, against torch's own divergence."""

from __future__ import annotations

import torch
from torch.nn.functional import kl_div

from streamasr.train.consistency import disagreement, lateness


def test_it_is_the_mean_of_both_divergences_over_the_steps_that_count() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 6, 5)
    steps = torch.tensor([7, 4, 1, 7, 4, 1])
    found = disagreement(logits, steps)
    for b in range(3):
        count = int(steps[b])
        one, other = (logits[:count, row].log_softmax(-1) for row in (b, b + 3))
        expected = 0.5 * (
            kl_div(one, other, reduction="sum", log_target=True)
            + kl_div(other, one, reduction="sum", log_target=True)
        )
        torch.testing.assert_close(found[b], expected)


def test_views_that_agree_are_left_alone() -> None:
    logits = torch.randn(4, 1, 3).repeat(1, 2, 1).requires_grad_()
    value = disagreement(logits, torch.tensor([4, 4])).sum()
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == 0.0
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-7


def test_the_gradient_is_that_of_predicting_a_fixed_target() -> None:
    """Towards a softmax's logits: (prediction - target) / 2; what is predicted gets none."""
    logits = torch.randn(3, 2, 4, dtype=torch.float64).float().requires_grad_()
    disagreement(logits, torch.tensor([3, 3])).sum().backward()  # type: ignore[no-untyped-call]
    p = logits.detach().softmax(-1)
    expected = 0.5 * torch.stack([p[:, 0] - p[:, 1], p[:, 1] - p[:, 0]], 1)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)


def test_lateness_moves_the_earlier_step_towards_the_next() -> None:
    """Torch's divergence in the steps that count; gradient p(earlier) - p(next), none to the last."""
    torch.manual_seed(1)
    logits = torch.randn(5, 2, 4, requires_grad=True)
    steps = torch.tensor([5, 3])
    found = lateness(logits, steps)
    said = logits.detach().log_softmax(-1)
    for b, count in enumerate(steps.tolist()):
        expected = kl_div(said[: count - 1, b], said[1:count, b], reduction="sum", log_target=True)
        torch.testing.assert_close(found[b].detach(), expected)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    p = said.exp()
    torch.testing.assert_close(logits.grad[:4, 0], p[:4, 0] - p[1:, 0])
    assert not logits.grad[4, 0].any() and not logits.grad[2:, 1].any()
