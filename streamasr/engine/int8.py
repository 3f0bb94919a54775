"""The encoder's arithmetic with int8 weights, compiled by numba: for layer-normalised LSTMs (norm "joint").

The same five functions as reference.py. A weight is an int8 number times its row's scale; activations
stay float32, so nothing is rounded that the file had not rounded already. A quarter of the bytes is what
makes one stream faster (its products wait for memory); many streams gain by sharing what is loaded.

Bits: every number of a product is one chain of fused multiply-adds in the order of the inputs, whatever rows
lie beside it, so a stream gets the same bits alone, in a batch, and in any chunks. No scratch memory
is kept: threads may share an engine.
"""

# Numba compiles these functions for the types they are called with; annotations would say nothing.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, no-any-return"

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .. import running_mean

Array = NDArray[np.float32]

# Columns of a panel: sums of four rows and four rows of int8 weights stay in the first-level cache.
_PANEL = 256
# Between sums of two rows: at multiples of 4 KB a processor takes what is loaded for what was just stored.
_APART = 16
_EPSILON = np.float32(1e-5)  # docs/design.md
_HALF = np.float32(0.5)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
# The minimax rational on [-7.9, 7.9] of Eigen (MathFunctionsImpl.h): p / q of tanh(x), within 4 ulp.
_LIMIT = np.float32(7.90531110763549805)
_P = tuple(
    np.float32(v)
    for v in (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
              1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03)
)  # fmt: skip
_Q = tuple(
    np.float32(v)
    for v in (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
)


@njit(inline="always")
def _tanh(x):
    x = min(max(x, -_LIMIT), _LIMIT)
    s = x * x
    p = (((((_P[0] * s + _P[1]) * s + _P[2]) * s + _P[3]) * s + _P[4]) * s + _P[5]) * s + _P[6]
    q = ((_Q[0] * s + _Q[1]) * s + _Q[2]) * s + _Q[3]
    return x * p / q


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _product(x, panels, y):
    """y [R, P W] += x [R, K] times panels [P, K, W] of int8. Four rows share what is loaded of them."""
    rows, depth = x.shape
    width = panels.shape[2]
    sums = np.empty((4, width + _APART), np.float32)
    a, b, c, d = sums[0, :width], sums[1, :width], sums[2, :width], sums[3, :width]
    for p in range(len(panels)):
        panel = panels[p]
        columns = p * width
        for first in range(0, rows, 4):
            if rows - first < 3:
                for r in range(first, rows):
                    _row_product(x[r], panel, y[r, columns : columns + width])
                continue
            q, r, s, t = first, first + 1, first + 2, min(first + 3, rows - 1)  # of three the last one twice
            for n in range(width):
                m = columns + n
                a[n], b[n], c[n], d[n] = y[q, m], y[r, m], y[s, m], y[t, m]
            whole = depth // 4 * 4
            for k in range(0, whole, 4):
                w0, w1, w2, w3 = panel[k], panel[k + 1], panel[k + 2], panel[k + 3]
                a0, a1, a2, a3 = x[q, k], x[q, k + 1], x[q, k + 2], x[q, k + 3]
                b0, b1, b2, b3 = x[r, k], x[r, k + 1], x[r, k + 2], x[r, k + 3]
                c0, c1, c2, c3 = x[s, k], x[s, k + 1], x[s, k + 2], x[s, k + 3]
                d0, d1, d2, d3 = x[t, k], x[t, k + 1], x[t, k + 2], x[t, k + 3]
                for n in range(width):
                    v0, v1, v2, v3 = _f(w0[n]), _f(w1[n]), _f(w2[n]), _f(w3[n])
                    a[n] = a[n] + a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
                    b[n] = b[n] + b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3
                    c[n] = c[n] + c0 * v0 + c1 * v1 + c2 * v2 + c3 * v3
                    d[n] = d[n] + d0 * v0 + d1 * v1 + d2 * v2 + d3 * v3
            for k in range(whole, depth):
                w0, a0, b0, c0, d0 = panel[k], x[q, k], x[r, k], x[s, k], x[t, k]
                for n in range(width):
                    v0 = _f(w0[n])
                    a[n], b[n], c[n], d[n] = a[n] + a0 * v0, b[n] + b0 * v0, c[n] + c0 * v0, d[n] + d0 * v0
            for n in range(width):
                m = columns + n
                y[q, m], y[r, m], y[s, m], y[t, m] = a[n], b[n], c[n], d[n]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _row_product(x, panel, y):
    """y [W] += x [K] times panel [K, W]."""
    depth, width = panel.shape
    whole = depth // 8 * 8
    for k in range(0, whole, 8):
        w0, w1, w2, w3 = panel[k], panel[k + 1], panel[k + 2], panel[k + 3]
        w4, w5, w6, w7 = panel[k + 4], panel[k + 5], panel[k + 6], panel[k + 7]
        x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        x4, x5, x6, x7 = x[k + 4], x[k + 5], x[k + 6], x[k + 7]
        for n in range(width):
            v0, v1, v2, v3 = _f(w0[n]), _f(w1[n]), _f(w2[n]), _f(w3[n])
            v4, v5, v6, v7 = _f(w4[n]), _f(w5[n]), _f(w6[n]), _f(w7[n])
            y[n] = y[n] + x0 * v0 + x1 * v1 + x2 * v2 + x3 * v3 + x4 * v4 + x5 * v5 + x6 * v6 + x7 * v7
    for k in range(whole, depth):
        w0, x0 = panel[k], x[k]
        for n in range(width):
            y[n] = y[n] + x0 * _f(w0[n])


@njit(inline="always")
def _f(weight):
    return np.float32(weight)


# Sums may be taken in another order here, but for one length it is always the same one.
@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def _moments(v):
    """v [n] -> mean, 1 / sqrt(biased variance + eps)."""
    total, square = _ZERO, _ZERO
    for i in range(len(v)):
        total += v[i]
    mean = total / np.float32(len(v))
    for i in range(len(v)):
        square += (v[i] - mean) * (v[i] - mean)
    return mean, _ONE / np.sqrt(square / np.float32(len(v)) + _EPSILON)


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _layer(x, active, h, c, wx, wh, scale_x, scale_h, gain, bias, cell_gain, cell_bias, y):
    """x [R, I], h and c [B, H] (changed) -> y [R, H]; rows as reference.py's `recur` has them."""
    units = h.shape[1]
    a = np.zeros((len(x), 4 * units), np.float32)
    _product(x, wx, a)
    u = np.empty((len(h), 4 * units), np.float32)
    first = 0
    for count in active:
        u[:count] = _ZERO
        _product(h[:count], wh, u[:count])
        for row in range(count):
            z, hidden, cell, recurrent = a[first + row], h[row], c[row], u[row]
            for n in range(4 * units):
                z[n] = z[n] * scale_x[n] + recurrent[n] * scale_h[n]
            mean, inverse = _moments(z)
            for n in range(4 * units):
                z[n] = _tanh((z[n] - mean) * inverse * gain[n] + bias[n])
            for n in range(units):  # gates are (1 + z) / 2: see reference.py
                keep = (z[units + n] * _HALF + _HALF) * cell[n]
                cell[n] = (z[n] * _HALF + _HALF) * z[2 * units + n] + keep
            mean, inverse = _moments(cell)
            out = y[first + row]
            for n in range(units):
                squashed = _tanh((cell[n] - mean) * inverse * cell_gain[n] + cell_bias[n])
                hidden[n] = (z[3 * units + n] * _HALF + _HALF) * squashed
                out[n] = hidden[n]
        first += count


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _convolve(frames, steps, stride, history, weight1, scale1, bias1, weight2, scale2, bias2, y):
    """frames [2 + S k, F], history [2 + S, F/2 + 2, C] (two columns of before; zero edges) -> y [S, I]."""
    bands, half, channels = frames.shape[1], history.shape[1] - 2, history.shape[2]
    quarter = y.shape[1] // channels
    taps = stride + 2
    patch1 = np.zeros((half, taps * 3), np.float32)
    patch2 = np.empty((quarter, 9 * channels), np.float32)
    z1, z2 = np.empty((half, channels), np.float32), np.empty((quarter, channels), np.float32)
    for s in range(steps):
        for j in range(half):
            for t in range(taps):
                for d in range(3):
                    band = 2 * j + d - 1
                    patch1[j, 3 * t + d] = frames[s * stride + t, band] if 0 <= band < bands else _ZERO
        z1[:] = _ZERO
        _product(patch1, weight1, z1)
        column = history[2 + s]
        for j in range(half):
            for n in range(channels):
                column[j + 1, n] = max(z1[j, n] * scale1[n] + bias1[n], _ZERO)
        for j in range(quarter):
            for t in range(3):
                for d in range(3):
                    for n in range(channels):
                        # The last band of an odd half has no right neighbour.
                        inside = 2 * j + d < half + 2
                        patch2[j, (3 * t + d) * channels + n] = (
                            history[s + t, 2 * j + d, n] if inside else _ZERO
                        )
        z2[:] = _ZERO
        _product(patch2, weight2, z2)
        for j in range(quarter):
            for n in range(channels):
                y[s, n * quarter + j] = max(z2[j, n] * scale2[n] + bias2[n], _ZERO)


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _log_softmax(y, weight, scale, bias):
    z = np.zeros((len(y), len(bias)), np.float32)
    _product(y, weight, z)
    for r in range(len(z)):
        row = z[r]
        top, total = np.float32(-np.inf), _ZERO
        for n in range(len(row)):
            row[n] = row[n] * scale[n] + bias[n]
            top = max(top, row[n])
        for n in range(len(row)):
            total += np.exp(row[n] - top)
        for n in range(len(row)):
            row[n] = row[n] - top - np.log(total)
    return z


_centre = njit(nogil=True, cache=True)(running_mean.subtract)


class Int8Engine:
    """Weights, prepared once. `tensors` as in the model file, the dequantised ones; shapes are read off."""

    def __init__(self, bands: int, tensors: Mapping[str, Array]) -> None:
        self._stride = tensors["conv1.weight"].shape[2] - 2
        self._half, self._quarter = -(-bands // 2), -(-bands // 4)
        conv1, conv2 = tensors["conv1.weight"], tensors["conv2.weight"]
        # Inputs of a patch in the order time, band, channel: three bands then lie side by side.
        self._conv = (
            *_panels(conv1.reshape(len(conv1), -1)), tensors["conv1.bias"],
            *_panels(conv2.transpose(0, 2, 3, 1).reshape(len(conv2), -1)), tensors["conv2.bias"],
        )  # fmt: skip
        self._layers = []
        for layer in range(sum(name.endswith(".weight_h") for name in tensors)):
            own = {name: tensors[f"layers.{layer}.{name}"] for name in ("weight_x", "weight_h")}
            (wx, scale_x), (wh, scale_h) = _panels(own["weight_x"]), _panels(own["weight_h"])
            halves = np.ones(len(own["weight_h"]), np.float32)
            units = len(halves) // 4
            halves[: 2 * units] = halves[3 * units :] = _HALF
            gain, bias, cell_gain, cell_bias = (
                tensors[f"layers.{layer}.{name}"] for name in ("gain", "bias", "cell_gain", "cell_bias")
            )
            self._layers.append(
                (wx, wh, scale_x, scale_h, gain * halves, bias * halves, cell_gain, cell_bias)
            )
        self._look_ahead = tensors.get("look_ahead.weight")
        self._output = (*_panels(tensors["output.weight"]), tensors["output.bias"])

    def with_head(self, weight: Array, bias: Array) -> Int8Engine:
        """The same network with another output layer, [V, H] and [V]; all else is shared."""
        twin = copy.copy(self)
        twin._output = (*_panels(weight), bias)
        return twin

    centre = staticmethod(_centre)

    def subsample(self, frames: Array, columns: Array) -> Array:
        steps = (len(frames) - 2) // self._stride
        channels = columns.shape[1]
        history = np.zeros((2 + steps, self._half + 2, channels), np.float32)
        history[:2, 1:-1] = columns.transpose(0, 2, 1)
        y = np.empty((steps, channels * self._quarter), np.float32)
        _convolve(np.ascontiguousarray(frames), steps, self._stride, history, *self._conv, y)
        columns[:] = history[steps:, 1:-1].transpose(0, 2, 1)
        return y

    def recur(self, x: Array, active: Sequence[int], h: Array, c: Array) -> Array:
        counts = np.array(active, np.int64)
        x = np.ascontiguousarray(x)
        for layer, weights in enumerate(self._layers):
            own_h, own_c = np.ascontiguousarray(h[:, layer]), np.ascontiguousarray(c[:, layer])
            y = np.empty((len(x), h.shape[2]), np.float32)
            _layer(x, counts, own_h, own_c, *weights, y)
            h[:, layer], c[:, layer] = own_h, own_c
            x = x + y if x.shape == y.shape else y
        return x

    def look_ahead(self, ring: Array) -> Array:
        assert self._look_ahead is not None
        y: Array = np.add.reduce(ring * self._look_ahead, axis=0)[None]
        return y

    def output(self, y: Array) -> Array:
        return _log_softmax(np.ascontiguousarray(y), *self._output)


def _panels(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Weight [N, K] -> panels [P, K, W] of whole numbers -127..127, scale [N] of each row.

    What was stored as int8 (tensorfile.quantised) becomes those very numbers again.
    """
    scale = np.abs(weight).max(1, initial=0.0) / np.float32(127)
    numbers = np.rint(weight / np.where(scale > 0, scale, _ONE)[:, None]).astype(np.int8)
    rows, depth = numbers.shape
    width = next(w for w in range(min(rows, _PANEL), 0, -1) if rows % w == 0)
    panels = numbers.T.reshape(depth, rows // width, width).transpose(1, 0, 2)
    return np.ascontiguousarray(panels), scale.astype(np.float32)
