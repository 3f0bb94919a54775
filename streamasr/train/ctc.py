"""logits [S, B, V], targets -> CTC loss per utterance and its gradient, on the CPU, in double precision.

Graves et al., "Connectionist Temporal Classification" (ICML 2006): with the target l spread out with
blanks to l' of length 2 U + 1, alpha_t(s) and beta_t(s) of their eq. 6-11, each rescaled to sum 1 at
every step (section 4.1). The loss is minus the sum of the logs of alpha's scales; the gradient towards
the logits is softmax - gamma, where gamma_t(v) is the posterior of token v at step t (their eq. 16).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .lnlstm import halves, run_split


@njit(nogil=True, cache=True, error_model="numpy")
def _utterance(probs, target, steps, gradient, alpha, beta):  # type: ignore[no-untyped-def]
    """One utterance: probs [S, V] -> loss; gradient [S, V] is overwritten. inf if no path fits."""
    length = 2 * len(target) + 1
    for s in range(length):
        alpha[0, s] = 0.0
    alpha[0, 0] = probs[0, 0]
    if length > 1:
        alpha[0, 1] = probs[0, target[0]]
    loss = 0.0
    for t in range(steps):
        total = 0.0
        if t > 0:
            for s in range(length):
                token = target[s // 2] if s % 2 else 0
                v = alpha[t - 1, s]
                if s > 0:
                    v += alpha[t - 1, s - 1]
                if s % 2 and s > 1 and target[s // 2] != target[s // 2 - 1]:
                    v += alpha[t - 1, s - 2]
                # States from which the end cannot be reached any more stay empty.
                if s < length - 2 * (steps - t):
                    v = 0.0
                alpha[t, s] = v * probs[t, token]
                total += alpha[t, s]
        else:
            for s in range(min(2, length)):
                if s < length - 2 * steps:
                    alpha[0, s] = 0.0
                total += alpha[0, s]
        if not total > 0.0:
            return np.inf
        loss -= np.log(total)
        for s in range(length):
            alpha[t, s] /= total
    end = alpha[steps - 1, length - 1]
    if length > 1:
        end += alpha[steps - 1, length - 2]
    if not end > 0.0:
        return np.inf
    loss -= np.log(end)
    for s in range(length):
        beta[steps - 1, s] = 1.0 if s >= length - 2 else 0.0
    for t in range(steps - 2, -1, -1):  # beta without the probability of its own step
        total = 0.0
        for s in range(length):
            token = target[s // 2] if s % 2 else 0
            v = beta[t + 1, s] * probs[t + 1, token]
            if s + 1 < length:
                v += beta[t + 1, s + 1] * probs[t + 1, target[(s + 1) // 2] if (s + 1) % 2 else 0]
            if s % 2 and s + 2 < length and target[s // 2 + 1] != target[s // 2]:
                v += beta[t + 1, s + 2] * probs[t + 1, target[s // 2 + 1]]
            beta[t, s] = v
            total += v
        for s in range(length):
            beta[t, s] /= total
    for t in range(steps):
        total = 0.0
        for s in range(length):
            total += alpha[t, s] * beta[t, s]
        for v in range(probs.shape[1]):
            gradient[t, v] = probs[t, v]
        for s in range(length):
            token = target[s // 2] if s % 2 else 0
            gradient[t, token] -= np.float32(alpha[t, s] * beta[t, s] / total)
    return loss


class _CTC(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: list[np.ndarray], steps: np.ndarray) -> Tensor:
        probs = logits.detach().to(torch.float32).softmax(-1).transpose(0, 1).contiguous().numpy()
        gradient = np.zeros_like(probs)
        losses = np.zeros(probs.shape[0])

        def work(first: int, last: int) -> None:
            width = 2 * max(len(targets[b]) for b in range(first, last)) + 1
            alpha = np.empty((int(steps[first:last].max(initial=1)), width))
            beta = np.empty_like(alpha)
            for b in range(first, last):
                if steps[b] < 1:
                    losses[b] = np.inf if len(targets[b]) else 0.0
                    continue
                losses[b] = _utterance(probs[b], targets[b], int(steps[b]), gradient[b], alpha, beta)
                if losses[b] == np.inf:
                    gradient[b] = 0.0

        run_split(work, halves(probs.shape[0]))
        ctx.save_for_backward(torch.from_numpy(gradient))
        ctx.dtype = logits.dtype
        return torch.from_numpy(losses).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        # An infeasible utterance has loss inf; inf * 0 must not poison the batch.
        scaled = gradient * upstream[:, None, None]
        return scaled.transpose(0, 1).to(ctx.dtype), None, None


def ctc_loss(logits: Tensor, targets: list[np.ndarray], steps: Tensor) -> Tensor:
    """Minus log probability of each utterance [B], natural log; inf where no alignment fits.

    logits [S, B, V], token 0 is the blank; targets: one int64 array of tokens an utterance (may be empty);
    steps [B]: how many of the S steps count. On other devices torch's own loss is used.
    """
    if logits.device.type == "cpu":
        return _CTC.apply(logits, targets, steps.numpy())  # type: ignore[no-any-return, no-untyped-call]
    flat = torch.from_numpy(np.concatenate([*targets, np.zeros(0, np.int64)]))
    lengths = torch.tensor([len(t) for t in targets])
    # zero_infinity: torch gives NaN gradients for an utterance that does not fit, even where it is masked.
    losses = torch.nn.functional.ctc_loss(
        logits.float().log_softmax(-1),
        flat.to(logits.device),
        steps,
        lengths,
        reduction="none",
        zero_infinity=True,
    )
    repeats = torch.tensor([int((t[1:] == t[:-1]).sum()) for t in targets])
    return torch.where((lengths + repeats <= steps).to(logits.device), losses, torch.inf)


@njit(nogil=True, cache=True, error_model="numpy")
def _best_path(log_probs, target, path):  # type: ignore[no-untyped-def]
    """log_probs [S, V] -> path [S] is overwritten with the likeliest one; False if there is none."""
    steps, length = len(log_probs), 2 * len(target) + 1
    score = np.full((steps, length), -np.inf)
    back = np.zeros((steps, length), np.int8)
    for t in range(steps):
        for s in range(length):
            token = target[s // 2] if s % 2 else 0
            if t == 0:
                if s < 2:
                    score[0, s] = log_probs[0, token]
                continue
            best = score[t - 1, s]
            if s > 0 and score[t - 1, s - 1] > best:
                best, back[t, s] = score[t - 1, s - 1], 1
            if s % 2 and s > 1 and target[s // 2] != target[s // 2 - 1] and score[t - 1, s - 2] > best:
                best, back[t, s] = score[t - 1, s - 2], 2
            score[t, s] = best + log_probs[t, token]
    s = length - 1
    if length > 1 and score[steps - 1, s - 1] > score[steps - 1, s]:
        s -= 1
    if not score[steps - 1, s] > -np.inf:
        return False
    for t in range(steps - 1, -1, -1):
        path[t] = target[s // 2] if s % 2 else 0
        s -= back[t, s]
    return True


def best_path(log_probs: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """log_probs [S, V], tokens [U] -> the token of every step [S] in their likeliest alignment (Viterbi).

    None where none fits.
    """
    path = np.zeros(len(log_probs), np.int64)
    found = len(path) > 0 and _best_path(np.ascontiguousarray(log_probs), target.astype(np.int64), path)
    return path if found else None
