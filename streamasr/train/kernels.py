"""Pointwise halves of the layer-normalised LSTM, one time step forward or backward (docs/lnlstm.md).

The matrix products stay with torch; what lies between them (two layer norms, four gates, the cell) is
here as numba functions that release the GIL, so that two halves of a batch run on two threads with
one BLAS thread each and no barrier per step.

Storage may be bfloat16 (as uint16 bit patterns), float32 or float64; arithmetic is float32 for the
first two and float64 for the last. The kernels are written once over `load`, `store` and `tanh`, so the
float64 gradient check runs the very code that trains in bfloat16.

Notation, per row and step: a = W_x x (or its normalised form), u = W_h h_{t-1}, both [4H] in gate
order i f g o; z-hat = the normalised pre-activation; ch = the normalised cell.
"""

# Numba compiles these functions for the types they are called with; annotations would say nothing.
# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

NONE, JOINT, SEPARATE = 0, 1, 2
EPS = 1e-5  # inside the square root, as torch.nn.LayerNorm


@intrinsic
def _float_of_bits(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def _bits_of_float(typingctx, value):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


def load(stored):
    """Stored number -> number to calculate with (bfloat16 bits -> float32)."""
    raise NotImplementedError


@overload(load, inline="always")
def _load(stored):
    if stored == types.uint16:
        return lambda stored: _float_of_bits(np.uint32(stored) << np.uint32(16))
    return lambda stored: stored


def store(array, index, value):
    """array[index] = value, rounded to nearest even where the array holds bfloat16 bits."""
    raise NotImplementedError


@overload(store, inline="always")
def _store(array, index, value):
    if array.dtype == types.uint16:

        def store_bfloat16(array, index, value):
            bits = _bits_of_float(np.float32(value))
            bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            array[index] = np.uint16(bits >> np.uint32(16))

        return store_bfloat16

    def store_plain(array, index, value):
        array[index] = value

    return store_plain


def tanh(x):
    """tanh; float32 by a clamped 13/6 rational (it vectorises, 4 ulp), float64 by libm."""
    raise NotImplementedError


@overload(tanh, inline="always")
def _tanh(x):
    if x == types.float64:
        return lambda x: math.tanh(x)

    def rational(x):
        # Coefficients of the minimax rational on [-7.9, 7.9] used by Eigen (MathFunctionsImpl.h).
        x = min(max(x, np.float32(-7.90531110763549805)), np.float32(7.90531110763549805))
        q = x * x
        p = np.float32(-2.76076847742355e-16)
        p = p * q + np.float32(2.00018790482477e-13)
        p = p * q + np.float32(-8.60467152213735e-11)
        p = p * q + np.float32(5.12229709037114e-08)
        p = p * q + np.float32(1.48572235717979e-05)
        p = p * q + np.float32(6.37261928875436e-04)
        p = p * q + np.float32(4.89352455891786e-03)
        d = np.float32(1.19825839466702e-06)
        d = d * q + np.float32(1.18534705686654e-04)
        d = d * q + np.float32(2.26843463243900e-03)
        d = d * q + np.float32(4.89352518554385e-03)
        return x * p / d

    return rational


@njit(inline="always")
def sigmoid(x, half):
    return half * tanh(half * x) + half


def constants(units: int, gates: int, dtype):
    """[0, 1/2, 1, eps, 1/gates, 1/units] in the type of calculation.

    Numba widens float32 that meets a literal or an integer to float64, which halves the speed, so
    kernels take every constant from here.
    """
    return np.array([0.0, 0.5, 1.0, EPS, 1.0 / gates, 1.0 / units], dtype)


JIT = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}


def lstm_forward(mode: int):
    """Kernel of one forward step for norm `mode`; see `lnlstm.Recurrence` for the arrays' shapes."""

    @njit(**JIT)
    def forward(A, U, Z, C, H, S, gain, bias, cell_gain, cell_bias, lengths, K, work, t, first, last):
        units = C.shape[2]
        gates = 4 * units
        zero, half, one, eps, per_gate, per_unit = K[0], K[1], K[2], K[3], K[4], K[5]
        for b in range(first, last):
            row = b - first
            if t >= lengths[b]:  # past the end: the state stands still
                for k in range(units):
                    C[t + 1, b, k] = C[t, b, k]
                    H[t + 1, b, k] = H[t, b, k]
                continue
            a, u = A[t, b], U[row]
            if mode == NONE:
                for j in range(gates):
                    v = load(a[j]) + load(u[j])
                    store(a, j, v)
                    work[j] = v + bias[j]
            else:
                total = zero
                for j in range(gates):
                    v = load(u[j])
                    if mode == JOINT:
                        v += load(a[j])
                    work[j] = v
                    total += v
                mean = total * per_gate
                total = zero
                for j in range(gates):
                    v = work[j] - mean
                    total += v * v
                rstd = one / np.sqrt(total * per_gate + eps)
                S[t, b, 0] = rstd
                if mode == JOINT:
                    for j in range(gates):
                        v = (work[j] - mean) * rstd
                        store(a, j, v)
                        work[j] = v * gain[j] + bias[j]
                else:
                    z = Z[t, b]
                    for j in range(gates):
                        v = (work[j] - mean) * rstd
                        store(z, j, v)
                        work[j] = v * gain[j] + bias[j] + load(a[j])
            c, c_new, h_new = C[t, b], C[t + 1, b], H[t + 1, b]
            total = zero
            for k in range(units):
                i = sigmoid(work[k], half)
                f = sigmoid(work[units + k], half)
                g = tanh(work[2 * units + k])
                v = f * c[k] + i * g
                c_new[k] = v
                total += v
            if mode == NONE:
                for k in range(units):
                    store(h_new, k, sigmoid(work[3 * units + k], half) * tanh(c_new[k]))
            else:
                mean = total * per_unit
                total = zero
                for k in range(units):
                    v = c_new[k] - mean
                    total += v * v
                rstd = one / np.sqrt(total * per_unit + eps)
                S[t, b, 1] = rstd
                S[t, b, 2] = mean
                for k in range(units):
                    y = (c_new[k] - mean) * rstd * cell_gain[k] + cell_bias[k]
                    store(h_new, k, sigmoid(work[3 * units + k], half) * tanh(y))

    return forward


def lstm_backward(mode: int):
    """Kernel of one backward step; writes the gradient of a over A and (separate) of u over Z."""

    @njit(**JIT)
    def backward(
        A, Z, C, S, dout, R, P, dC, gain, bias, cell_gain, cell_bias, lengths, K, G, Gc, work, t, first, last
    ):
        units = C.shape[2]
        gates = 4 * units
        zero, half, one, per_gate, per_unit = K[0], K[1], K[2], K[4], K[5]
        dgain, dbias = G[0], G[1]
        dcell_gain, dcell_bias = Gc[0], Gc[1]
        z, d = work[0], work[1]
        for b in range(first, last):
            row = b - first
            a = A[t, b]
            if t >= lengths[b]:
                for j in range(gates):
                    a[j] = 0
                if mode == SEPARATE:
                    for j in range(gates):
                        Z[t, b, j] = 0
                continue
            zh = Z[t, b] if mode == SEPARATE else a
            if mode == NONE:
                for j in range(gates):
                    z[j] = load(a[j]) + bias[j]
            elif mode == JOINT:
                for j in range(gates):
                    z[j] = load(a[j]) * gain[j] + bias[j]
            else:
                for j in range(gates):
                    z[j] = load(zh[j]) * gain[j] + bias[j] + load(a[j])
            c, c_new, dc = C[t, b], C[t + 1, b], dC[row]
            r = R[row] if t + 1 >= lengths[b] else P[row]
            incoming = dout[t, b]
            if mode == NONE:
                for k in range(units):
                    dh = load(incoming[k]) + load(r[k])
                    o = sigmoid(z[3 * units + k], half)
                    th = tanh(c_new[k])
                    d[3 * units + k] = dh * th * o * (one - o)
                    dc[k] += dh * o * (one - th * th)
            else:
                rstd, mean = S[t, b, 1], S[t, b, 2]
                total = zero
                dot = zero
                for k in range(units):
                    ch = (c_new[k] - mean) * rstd
                    th = tanh(ch * cell_gain[k] + cell_bias[k])
                    o = sigmoid(z[3 * units + k], half)
                    dh = load(incoming[k]) + load(r[k])
                    dy = dh * o * (one - th * th)
                    d[3 * units + k] = dh * th * o * (one - o)
                    dcell_gain[k] += dy * ch
                    dcell_bias[k] += dy
                    v = dy * cell_gain[k]
                    d[k] = v
                    total += v
                    dot += v * ch
                total *= per_unit
                dot *= per_unit
                for k in range(units):
                    ch = (c_new[k] - mean) * rstd
                    dc[k] += rstd * (d[k] - total - ch * dot)
            for k in range(units):
                i = sigmoid(z[k], half)
                f = sigmoid(z[units + k], half)
                g = tanh(z[2 * units + k])
                v = dc[k]
                d[k] = v * g * i * (one - i)
                d[units + k] = v * c[k] * f * (one - f)
                d[2 * units + k] = v * i * (one - g * g)
                dc[k] = v * f
            for j in range(gates):
                dbias[j] += d[j]
            if mode == NONE:
                for j in range(gates):
                    store(a, j, d[j])
                continue
            total = zero
            dot = zero
            for j in range(gates):
                zj = load(zh[j])
                dgain[j] += d[j] * zj
                if mode == SEPARATE:
                    store(a, j, d[j])
                v = d[j] * gain[j]
                d[j] = v
                total += v
                dot += v * zj
            total *= per_gate
            dot *= per_gate
            rstd = S[t, b, 0]
            for j in range(gates):
                store(zh, j, rstd * (d[j] - total - load(zh[j]) * dot))

    return backward
