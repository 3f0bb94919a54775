"""logits [S, B, V] -> log of the sum over all token sequences, weighted with a trigram: CTC-CRF.

Xiang & Ou, "CRF-based single-stage acoustic modeling with CTC topology" (ICASSP 2019), eq. 4-6:

    loss = -log p(target | sound)
         = ctc_loss(target) - log_lm(target) + log Z,   Z = sum over all l:  p_ctc(l | sound) p_lm(l)

The states of log Z are the last two tokens of l and whether its alignment ends in the blank or in the last
token; alpha and beta of the forward-backward algorithm are scaled to sum 1 at every step. The gradient of
log Z towards the logits is (posterior under Z) - softmax; added to that of the CTC loss, softmax - (posterior
under the target), the softmax vanishes, as it must: a constant added to all logits changes nothing.

A dense trigram of V tokens costs 2 V^3 products a step forward and backward: for 40 phones about a
twentieth of what the recurrent layers cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from .lnlstm import halves, run_split

EDGE = 0  # before the first token and after the last: the blank's number, which no sequence contains
_LEAST = 1e-20  # shares below it are left out: their products would be denormal numbers, and slow


class Trigram:
    """Dense trigram over tokens 1..V-1: `probabilities` [V, V, V], p(c | a, b), EDGE at either end.

    Interpolated with Witten & Bell's weights: a context seen n times with d different successors keeps
    n / (n + d) for itself and leaves the rest to the shorter one.
    """

    def __init__(self, sequences: Iterable[NDArray[np.int64]], tokens: int) -> None:
        counts = np.zeros((tokens, tokens, tokens))
        for sequence in sequences:
            padded = np.concatenate([[EDGE, EDGE], sequence, [EDGE]])
            np.add.at(counts, (padded[:-2], padded[1:-1], padded[2:]), 1)
        lower = np.full(tokens, 1 / tokens)
        for level in (counts.sum((0, 1)), counts.sum(0), counts):
            n, d = level.sum(-1, keepdims=True), (level > 0).sum(-1, keepdims=True)
            lower = (level + d * lower) / np.maximum(n + d, 1) + (n + d == 0) * lower
        self.probabilities = lower.astype(np.float32)

    def log_probability(self, sequence: NDArray[np.int64]) -> float:
        padded = np.concatenate([[EDGE, EDGE], sequence, [EDGE]])
        found = self.probabilities[padded[:-2], padded[1:-1], padded[2:]]
        return float(np.log(found.astype(np.float64)).sum())


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _forward(probs, trigram, steps, alpha):  # type: ignore[no-untyped-def]
    """probs [S, V] -> log Z; alpha [S, 2, V, V]: ends in blank or token, last token but one, last token."""
    tokens = probs.shape[1]
    entering = np.empty((tokens, tokens), np.float32)
    before = np.zeros((2, tokens, tokens), np.float32)
    before[0, EDGE, EDGE] = 1.0  # nothing said, and as after a blank: anything may come
    log_z = 0.0
    for t in range(steps):
        now = alpha[t]
        for b in range(tokens):
            into = entering[b]
            into[:] = 0.0
            twice = np.float32(0.0)  # into the same token again: only after a blank
            for a in range(tokens):
                blank, token = before[0, a, b], before[1, a, b]
                share = blank + token
                now[0, a, b] = share * probs[t, 0]
                now[1, a, b] = token * probs[t, b]
                if share > _LEAST:
                    for c in range(tokens):
                        into[c] += share * trigram[a, b, c]
                    twice += blank * trigram[a, b, b]
            into[b] = twice
            into[EDGE] = 0.0
        total = np.float32(0.0)
        for b in range(tokens):
            for c in range(tokens):
                now[1, b, c] += entering[b, c] * probs[t, c]
                total += now[0, b, c] + now[1, b, c]
        log_z += np.log(total)
        scale = np.float32(1.0) / total
        for b in range(tokens):
            for c in range(tokens):
                now[0, b, c] *= scale
                now[1, b, c] *= scale
        before = now
    end = 0.0
    for a in range(tokens):
        for b in range(tokens):
            end += (before[0, a, b] + before[1, a, b]) * trigram[a, b, EDGE]
    return log_z + np.log(end)


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _backward(probs, trigram, steps, alpha, gradient):  # type: ignore[no-untyped-def]
    """Overwrites gradient [S, V] with (posterior - probs); beta goes backward and is not kept."""
    tokens = probs.shape[1]
    beta = np.empty((2, tokens, tokens), np.float32)
    for a in range(tokens):
        for b in range(tokens):
            beta[0, a, b] = beta[1, a, b] = trigram[a, b, EDGE]
    weighted = np.empty(tokens, np.float32)
    for t in range(steps - 1, -1, -1):
        blank, total = np.float32(0.0), np.float32(0.0)
        for v in range(tokens):
            gradient[t, v] = 0.0
        for a in range(tokens):
            for b in range(tokens):
                blank += alpha[t, 0, a, b] * beta[0, a, b]
                gradient[t, b] += alpha[t, 1, a, b] * beta[1, a, b]
        gradient[t, 0] = blank
        for v in range(tokens):
            total += gradient[t, v]
        for v in range(tokens):
            gradient[t, v] = gradient[t, v] / total - probs[t, v]
        if t == 0:
            break
        largest = np.float32(0.0)
        after = beta.copy()
        for b in range(tokens):
            for c in range(tokens):
                weighted[c] = probs[t, c] * after[1, b, c]
            weighted[EDGE] = 0.0
            for a in range(tokens):
                every = np.float32(0.0)
                for c in range(tokens):
                    every += trigram[a, b, c] * weighted[c]
                stay = probs[t, 0] * after[0, a, b]
                beta[0, a, b] = stay + every
                beta[1, a, b] = stay + every - trigram[a, b, b] * weighted[b] + probs[t, b] * after[1, a, b]
                largest = max(largest, beta[0, a, b])
        for a in range(tokens):
            for b in range(tokens):
                beta[0, a, b] /= largest
                beta[1, a, b] /= largest


class _LogZ(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, trigram: NDArray[np.float32], steps: NDArray[np.int64]) -> Tensor:
        probs = logits.detach().float().softmax(-1).transpose(0, 1).cpu().contiguous().numpy()
        gradient = np.zeros_like(probs)
        values = np.zeros(len(probs))
        tokens = probs.shape[2]

        def work(first: int, last: int) -> None:
            alpha = np.empty((int(steps[first:last].max(initial=1)), 2, tokens, tokens), np.float32)
            for b in range(first, last):
                if steps[b] > 0:
                    values[b] = _forward(probs[b], trigram, int(steps[b]), alpha)
                    _backward(probs[b], trigram, int(steps[b]), alpha, gradient[b])

        run_split(work, halves(len(probs)))
        ctx.save_for_backward(torch.from_numpy(gradient))
        ctx.device, ctx.dtype = logits.device, logits.dtype
        return torch.from_numpy(values).to(logits.device, torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        scaled = gradient.to(ctx.device) * upstream[:, None, None]
        return scaled.transpose(0, 1).to(ctx.dtype), None, None


def log_denominator(logits: Tensor, trigram: Trigram, steps: Tensor) -> Tensor:
    """log Z of each utterance [B]; logits [S, B, V], token 0 is the blank; steps [B] of the S that count."""
    return _LogZ.apply(logits, trigram.probabilities, steps.numpy())  # type: ignore[no-any-return, no-untyped-call]
