"""Pointwise kernels of the GRU and of the plain RNN, beside `kernels.py` and with the same arguments.

C [T+1, B, H] holds h in full precision here: a GRU's h is an accumulator, as an LSTM's c is, and would
lose small steps if it were carried in bfloat16. H is its rounded copy, for the products. dC carries the
gradient that reaches h_{t-1} past the products (zero for the RNN).

Notation: a = W_x x and u = W_h h_{t-1} in gate order r z n; y = what u has become when it meets a (u
itself; its normalised and scaled form where norm is separate); q = the pre-activation of n.
"""

# Numba compiles these functions for the types they are called with; annotations would say nothing.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit

from .kernels import JIT, JOINT, NONE, SEPARATE, load, sigmoid, store, tanh


def gru_forward(mode: int):
    """Kernel of one forward step of the GRU. Z keeps u (separate: normalised), A the rest."""

    @njit(**JIT)
    def forward(A, U, Z, C, H, S, gain, bias, cell_gain, cell_bias, lengths, K, work, t, first, last):
        units = C.shape[2]
        two, gates = 2 * units, 3 * units
        zero, half, one, eps, per_gate, per_unit = K[0], K[1], K[2], K[3], K[4], K[5]
        for b in range(first, last):
            if t >= lengths[b]:  # past the end: the state stands still
                for k in range(units):
                    C[t + 1, b, k] = C[t, b, k]
                    H[t + 1, b, k] = H[t, b, k]
                continue
            a, u, y, c, c_new, h_new = A[t, b], U[b - first], Z[t, b], C[t, b], C[t + 1, b], H[t + 1, b]
            if mode == SEPARATE:
                total = zero
                for j in range(gates):
                    total += load(u[j])
                mean = total * per_gate
                total = zero
                for j in range(gates):
                    v = load(u[j]) - mean
                    total += v * v
                rstd = one / np.sqrt(total * per_gate + eps)
                S[t, b, 0] = rstd
                for j in range(gates):
                    v = (load(u[j]) - mean) * rstd
                    store(y, j, v)
                    work[j] = v * gain[j]
            else:
                for j in range(gates):
                    v = load(u[j])
                    store(y, j, v)
                    work[j] = v
            for j in range(two):
                work[j] += load(a[j])
            if mode == JOINT:
                total = zero
                for j in range(two):
                    total += work[j]
                mean = total * half * per_unit
                total = zero
                for j in range(two):
                    v = work[j] - mean
                    total += v * v
                rstd = one / np.sqrt(total * half * per_unit + eps)
                S[t, b, 0] = rstd
                for j in range(two):
                    v = (work[j] - mean) * rstd
                    store(a, j, v)
                    work[j] = v * gain[j]
            for j in range(two):
                work[j] += bias[j]
            total = zero
            for k in range(units):
                q = load(a[two + k]) + sigmoid(work[k], half) * work[two + k]
                work[two + k] = q
                total += q
            if mode == JOINT:
                mean = total * per_unit
                total = zero
                for k in range(units):
                    v = work[two + k] - mean
                    total += v * v
                rstd = one / np.sqrt(total * per_unit + eps)
                S[t, b, 1] = rstd
                for k in range(units):
                    v = (work[two + k] - mean) * rstd
                    store(a, two + k, v)
                    work[two + k] = v * gain[two + k]
            for k in range(units):
                n = tanh(work[two + k] + bias[two + k])
                v = n + sigmoid(work[units + k], half) * (c[k] - n)
                c_new[k] = v
                store(h_new, k, v)

    return forward


def gru_backward(mode: int):
    """Kernel of one backward step of the GRU; writes the gradient of a over A and of u over Z."""

    @njit(**JIT)
    def backward(
        A, Z, C, S, dout, R, P, dC, gain, bias, cell_gain, cell_bias, lengths, K, G, Gc, work, t, first, last
    ):
        units = C.shape[2]
        two, gates = 2 * units, 3 * units
        zero, half, one, per_gate, per_unit = K[0], K[1], K[2], K[4], K[5]
        dgain, dbias = G[0], G[1]
        p, d = work[0], work[1]  # pre-activations of r and z, then r itself; y of n | gradients
        for b in range(first, last):
            row = b - first
            a, y = A[t, b], Z[t, b]
            if t >= lengths[b]:
                for j in range(gates):
                    a[j] = 0
                    y[j] = 0
                continue
            c, dc, incoming = C[t, b], dC[row], dout[t, b]
            r_or_p = R[row] if t + 1 >= lengths[b] else P[row]
            if mode == JOINT:
                for j in range(two):
                    p[j] = load(a[j]) * gain[j] + bias[j]
                for k in range(two, gates):
                    p[k] = load(y[k])
            elif mode == SEPARATE:
                for j in range(two):
                    p[j] = load(a[j]) + load(y[j]) * gain[j] + bias[j]
                for k in range(two, gates):
                    p[k] = load(y[k]) * gain[k]
            else:
                for j in range(two):
                    p[j] = load(a[j]) + load(y[j]) + bias[j]
                for k in range(two, gates):
                    p[k] = load(y[k])
            total = zero
            dot = zero
            for k in range(units):
                r = sigmoid(p[k], half)
                z = sigmoid(p[units + k], half)
                q = load(a[two + k])
                if mode == JOINT:
                    n = tanh(q * gain[two + k] + bias[two + k])
                else:
                    n = tanh(q + r * p[two + k] + bias[two + k])
                dh = load(incoming[k]) + load(r_or_p[k]) + dc[k]
                dc[k] = dh * z
                p[k] = r
                d[units + k] = dh * (c[k] - n) * z * (one - z)
                v = dh * (one - z) * (one - n * n)
                dbias[two + k] += v
                if mode == JOINT:
                    dgain[two + k] += v * q
                    v *= gain[two + k]
                    total += v
                    dot += v * q
                d[two + k] = v
            if mode == JOINT:
                total *= per_unit
                dot *= per_unit
                rstd = S[t, b, 1]
                for k in range(two, gates):
                    d[k] = rstd * (d[k] - total - load(a[k]) * dot)
            for k in range(units):
                r = p[k]
                d[k] = d[two + k] * p[two + k] * r * (one - r)
            for j in range(two):
                dbias[j] += d[j]
            if mode == JOINT:
                total = zero
                dot = zero
                for j in range(two):
                    s = load(a[j])
                    dgain[j] += d[j] * s
                    v = d[j] * gain[j]
                    d[j] = v
                    total += v
                    dot += v * s
                total *= half * per_unit
                dot *= half * per_unit
                rstd = S[t, b, 0]
                for j in range(two):
                    d[j] = rstd * (d[j] - total - load(a[j]) * dot)
            for j in range(gates):
                store(a, j, d[j])
            for k in range(units):
                d[two + k] *= p[k]
            if mode == SEPARATE:
                total = zero
                dot = zero
                for j in range(gates):
                    s = load(y[j])
                    dgain[j] += d[j] * s
                    v = d[j] * gain[j]
                    d[j] = v
                    total += v
                    dot += v * s
                total *= per_gate
                dot *= per_gate
                rstd = S[t, b, 0]
                for j in range(gates):
                    d[j] = rstd * (d[j] - total - load(y[j]) * dot)
            for j in range(gates):
                store(y, j, d[j])

    return backward


def rnn_forward(mode: int):
    """Kernel of one forward step of h' = tanh(z). A, or Z if separate, keeps the normalised values."""

    @njit(**JIT)
    def forward(A, U, Z, C, H, S, gain, bias, cell_gain, cell_bias, lengths, K, work, t, first, last):
        units = C.shape[2]
        zero, one, eps, per_unit = K[0], K[2], K[3], K[5]
        for b in range(first, last):
            if t >= lengths[b]:
                for k in range(units):
                    C[t + 1, b, k] = C[t, b, k]
                    H[t + 1, b, k] = H[t, b, k]
                continue
            a, u, c_new, h_new = A[t, b], U[b - first], C[t + 1, b], H[t + 1, b]
            total = zero
            for k in range(units):
                v = load(u[k])
                if mode != SEPARATE:
                    v += load(a[k])
                work[k] = v
                total += v
            if mode != NONE:
                mean = total * per_unit
                total = zero
                for k in range(units):
                    v = work[k] - mean
                    total += v * v
                rstd = one / np.sqrt(total * per_unit + eps)
                S[t, b, 0] = rstd
                for k in range(units):
                    v = (work[k] - mean) * rstd
                    work[k] = v * gain[k]
                    if mode == SEPARATE:
                        work[k] += load(a[k])
                        store(Z[t, b], k, v)
                    else:
                        store(a, k, v)
            for k in range(units):
                v = tanh(work[k] + bias[k])
                c_new[k] = v
                store(h_new, k, v)

    return forward


def rnn_backward(mode: int):
    """Kernel of one backward step; writes the gradient of a over A and (separate) of u over Z."""

    @njit(**JIT)
    def backward(
        A, Z, C, S, dout, R, P, dC, gain, bias, cell_gain, cell_bias, lengths, K, G, Gc, work, t, first, last
    ):
        units = C.shape[2]
        zero, one, per_unit = K[0], K[2], K[5]
        dgain, dbias, d = G[0], G[1], work[0]
        for b in range(first, last):
            row = b - first
            a = A[t, b]
            if t >= lengths[b]:
                for k in range(units):
                    a[k] = 0
                if mode == SEPARATE:
                    for k in range(units):
                        Z[t, b, k] = 0
                continue
            normal = Z[t, b] if mode == SEPARATE else a
            r_or_p = R[row] if t + 1 >= lengths[b] else P[row]
            c_new, incoming = C[t + 1, b], dout[t, b]
            total = zero
            dot = zero
            for k in range(units):
                v = (load(incoming[k]) + load(r_or_p[k])) * (one - c_new[k] * c_new[k])
                dbias[k] += v
                if mode != NONE:
                    s = load(normal[k])
                    dgain[k] += v * s
                    if mode == SEPARATE:
                        store(a, k, v)
                    v *= gain[k]
                    total += v
                    dot += v * s
                d[k] = v
            if mode == NONE:
                for k in range(units):
                    store(a, k, d[k])
                continue
            total *= per_unit
            dot *= per_unit
            rstd = S[t, b, 0]
            for k in range(units):
                store(normal, k, rstd * (d[k] - total - load(normal[k]) * dot))

    return backward
