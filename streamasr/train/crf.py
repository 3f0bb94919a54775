"""logits [S, B, V] -> log of the sum over all token sequences, weighted with an n-gram: CTC-CRF.

Xiang & Ou, "CRF-based single-stage acoustic modeling with CTC topology" (ICASSP 2019), eq. 4-6:

    loss = -log p(target | sound)
         = ctc_loss(target) - log_lm(target) + log Z,   Z = sum over all l:  p_ctc(l | sound) p_lm(l)

The states of log Z are the last tokens of l, as many as the n-gram looks at, and whether its alignment ends
in the blank or in the last token; alpha and beta of the forward-backward algorithm are scaled to sum 1 at
every step. The gradient of log Z towards the logits is (posterior under Z) - softmax; added to that of the
CTC loss, softmax - (posterior under the target), the softmax vanishes, as it must: a constant added to all
logits changes nothing.

A dense trigram of V tokens costs 2 V^3 products a step forward and backward: for 40 phones about a
twentieth of what the recurrent layers cost. Each context of three tokens that a 4-gram keeps costs 2 V more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from .lnlstm import halves, run_split

EDGE = 0  # before the first token and after the last: the blank's number, which no sequence contains
MOST_CONTEXTS = 1_500  # of three tokens that a 4-gram keeps: the more, the slower
_LEAST = 1e-20  # shares below it are left out: their products would be denormal numbers, and slow


class Ngram:
    """n-gram over tokens 1..V-1, EDGE at either end, of order 2, 3 or 4, as a network of states and arcs.

    A state is what was said last: one token for order 2, two for order 3. Order 4 has, beside those of order
    3, the K contexts of three tokens that were seen most often (`contexts` [K, 3]): its other contexts back
    off to the trigram, and share the state of their last two tokens.

    Interpolated with Witten & Bell's weights: a context seen n times with d different successors keeps
    n / (n + d) for itself and leaves the rest to the shorter one.

    `probabilities` [N, V]: of the token after each of N states. The dense ones come first, V or V^2 of them,
    a V + b for a, b. `next` [N, V]: the state after that token.
    """

    def __init__(
        self, sequences: Iterable[NDArray[np.int64]], tokens: int, order: int = 3, most: int = MOST_CONTEXTS
    ) -> None:
        counts = np.zeros((tokens,) * order)
        for sequence in sequences:
            np.add.at(counts, tuple(_windows(sequence, order)), 1)
        lower = np.full(tokens, 1 / tokens)
        for n in range(1, min(order, 3) + 1):
            lower = _interpolated(counts.sum(tuple(range(order - n))), lower)
        self.probabilities = lower.reshape(-1, tokens).astype(np.float32)
        self.contexts = np.zeros((0, 3), np.int64)
        if order == 4:
            seen = counts.sum(-1)
            seen[:, EDGE] = 0  # EDGE, EDGE, b says no more than EDGE, b
            often = np.argsort(-seen, axis=None, kind="stable")[: min(most, np.count_nonzero(seen))]
            self.contexts = np.stack(np.unravel_index(often, seen.shape), -1)
            x, a, b = self.contexts.T
            kept = _interpolated(counts[x, a, b], lower[a, b]).astype(np.float32)
            self.probabilities = np.concatenate([self.probabilities, kept])
        self._wire(tokens)

    def _wire(self, tokens: int) -> None:
        """Sets `next` and the network that the kernels work on.

        All arcs of a state lead to one junction, and from junction r token c leads on to state r V + c. Two
        tokens that kept contexts begin with have a junction of their own for the states that end in them: it
        leads to those contexts, and with any other token where the junction `to` of it leads. `out_of` [K] is
        the junction of each kept context.
        """
        dense = len(self.probabilities) - len(self.contexts)
        x, a, b = self.contexts.T
        states = np.arange(dense)
        last = np.concatenate([states % tokens, b])
        junction = last if dense > tokens else np.zeros_like(last)
        self.next = junction[:, None] * tokens + np.arange(tokens)
        pair = np.concatenate([states, a * tokens + b])  # last two tokens of a state
        pairs, out_of = np.unique(x * tokens + a, return_inverse=True)
        out_of += dense // tokens
        for number, busy in enumerate(pairs):
            inside = pair == busy
            junction = np.where(inside, dense // tokens + number, junction)
            after = np.flatnonzero(out_of == dense // tokens + number)
            self.next[np.ix_(inside, b[after])] = dense + after
        arcs = self.probabilities.copy()
        arcs[:, EDGE] = 0
        arcs[np.arange(len(last)), last] = 0  # a token said again takes a blank
        # Loops over whole vectors of 16 numbers are a third faster.
        arcs = np.pad(arcs, [(0, 0), (0, -tokens % 16)])
        again = self.probabilities[np.arange(len(last)), last] * (last != EDGE)
        numbers = (i.astype(np.int32) for i in (junction, last, pairs % tokens, out_of))
        self.network = (arcs, again, self.probabilities[:, EDGE].copy(), *numbers)

    def log_probability(self, sequence: NDArray[np.int64]) -> float:
        state, total = EDGE, 0.0
        for token in (*sequence.tolist(), EDGE):
            total += math.log(self.probabilities[state, token])
            state = self.next[state, token]
        return total


def _windows(sequence: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """All neighbours [width, n + 1] of a sequence of n tokens: each and the end, after what was before."""
    padded = np.concatenate([np.full(width - 1, EDGE), sequence, [EDGE]])
    return np.lib.stride_tricks.sliding_window_view(padded, width).T


def _interpolated(counts: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts [..., V] of successors, probabilities by the shorter context -> those by this one."""
    n, d = counts.sum(-1, keepdims=True), (counts > 0).sum(-1, keepdims=True)
    found: NDArray[np.float64] = (counts + d * lower) / np.maximum(n + d, 1) + (n + d == 0) * lower
    return found


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _forward(probs, network, steps, alpha):  # type: ignore[no-untyped-def]
    """probs [S, V] -> log Z; alpha [S, 2, N]: shares of the states, ending in blank or token."""
    arcs, again, final, junction, last, to, out_of = network
    tokens, states = probs.shape[1], len(last)
    dense = states - len(out_of)
    rows = dense // tokens
    said = np.empty((rows + len(to), arcs.shape[1]), np.float32)
    before = np.zeros((2, states), np.float32)
    before[0, EDGE] = 1.0  # nothing said, and as after a blank: anything may come
    log_z = 0.0
    for t in range(steps):
        now = alpha[t]
        said[:] = 0.0
        for s in range(states):
            share = before[0, s] + before[1, s]
            now[0, s] = share * probs[t, 0]
            now[1, s] = before[1, s] * probs[t, last[s]]
            if share > _LEAST:
                into = said[junction[s]]
                for c in range(len(into)):
                    into[c] += share * arcs[s, c]
                into[last[s]] += before[0, s] * again[s]
        for k in range(len(out_of)):
            into, c = said[out_of[k]], last[dense + k]
            now[1, dense + k] += into[c] * probs[t, c]
            into[c] = 0.0
        for i in range(len(to)):
            into = said[to[i]]
            for c in range(len(into)):
                into[c] += said[rows + i, c]
        for r in range(rows):
            for c in range(tokens):
                now[1, r * tokens + c] += said[r, c] * probs[t, c]
        total = now.sum()
        log_z += np.log(total)
        now *= np.float32(1.0) / total
        before = now
    end = 0.0
    for s in range(states):
        end += (before[0, s] + before[1, s]) * final[s]
    return log_z + np.log(end)


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _backward(probs, network, steps, alpha, gradient):  # type: ignore[no-untyped-def]
    """Overwrites gradient [S, V] with (posterior - probs); beta goes backward and is not kept."""
    arcs, again, final, junction, last, to, out_of = network
    tokens, states = probs.shape[1], len(last)
    dense = states - len(out_of)
    rows = dense // tokens
    beta = np.empty((2, states), np.float32)
    beta[:] = final
    ahead = np.zeros((rows + len(to), arcs.shape[1]), np.float32)
    for t in range(steps - 1, -1, -1):
        total = np.float32(0.0)
        gradient[t] = 0.0
        for s in range(states):
            gradient[t, last[s]] += alpha[t, 1, s] * beta[1, s]
            total += alpha[t, 0, s] * beta[0, s]
        gradient[t, 0] = total
        for v in range(1, tokens):
            total += gradient[t, v]
        for v in range(tokens):
            gradient[t, v] = gradient[t, v] / total - probs[t, v]
        if t == 0:
            break
        for s in range(states):
            beta[0, s] *= probs[t, 0]
            beta[1, s] *= probs[t, last[s]]
        for r in range(rows):
            for c in range(tokens):
                ahead[r, c] = beta[1, r * tokens + c]
        for i in range(len(to)):
            ahead[rows + i] = ahead[to[i]]
        for k in range(len(out_of)):
            ahead[out_of[k], last[dense + k]] = beta[1, dense + k]
        largest = np.float32(0.0)
        for s in range(states):
            onto = ahead[junction[s]]
            every = np.float32(0.0)
            for c in range(len(onto)):
                every += arcs[s, c] * onto[c]
            every += beta[0, s]  # the blank next
            beta[1, s] += every
            beta[0, s] = every + again[s] * onto[last[s]]
            largest = max(largest, beta[0, s])
        beta *= np.float32(1.0) / largest


class _LogZ(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ngram: Ngram, steps: NDArray[np.int64]) -> Tensor:
        probs = logits.detach().float().softmax(-1).transpose(0, 1).cpu().contiguous().numpy()
        gradient = np.zeros_like(probs)
        values = np.zeros(len(probs))

        def work(first: int, last: int) -> None:
            alpha = np.empty((int(steps[first:last].max(initial=1)), 2, len(ngram.next)), np.float32)
            for b in range(first, last):
                if steps[b] > 0:
                    values[b] = _forward(probs[b], ngram.network, int(steps[b]), alpha)
                    _backward(probs[b], ngram.network, int(steps[b]), alpha, gradient[b])

        run_split(work, halves(len(probs)))
        ctx.save_for_backward(torch.from_numpy(gradient))
        ctx.device, ctx.dtype = logits.device, logits.dtype
        return torch.from_numpy(values).to(logits.device, torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        scaled = gradient.to(ctx.device) * upstream[:, None, None]
        return scaled.transpose(0, 1).to(ctx.dtype), None, None


def log_denominator(logits: Tensor, ngram: Ngram, steps: Tensor) -> Tensor:
    """log Z of each utterance [B]; logits [S, B, V], token 0 is the blank; steps [B] of the S that count."""
    return _LogZ.apply(logits, ngram, steps.numpy())  # type: ignore[no-any-return, no-untyped-call]
