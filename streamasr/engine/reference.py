"""The encoder's arithmetic in NumPy float32: the truth other engines are compared with.

Five functions: `centre`, `subsample`, `recur`, `look_ahead`, `output`. Every step of every stream is computed
on its own, by the same calls on the same shapes, because BLAS gives other last bits for one row than
for many. So a stream gets the same bits alone, in a batch, and in any chunks. An engine holds weights
only: no scratch memory, so threads may share it.

Cells (docs/design.md, Encoder; W_x x = a, W_h h = u, LN without its gain, eps inside the root):

    lstm, rnn   z = LN(a + u) gain + bias                            joint
                z = LN(a) gain_x + LN(u) gain + bias                 separate
                z = a + u + bias                                     none
    lstm        i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o);  g = tanh(z_g)
                c' = f c + i g;   h' = o tanh(LN(c') cell_gain + cell_bias)      (none: o tanh(c'))
    rnn         h' = tanh(z)
    gru         r, z = sigmoid(..), n = tanh(..), h' = (1 - z) n + z h, where
                joint     r, z of LN(a_rz + u_rz) gain_rz + bias_rz;  n of LN(a_n + r u_n) gain_n + bias_n
                separate  x = LN(a) gain_x, y = LN(u) gain:  r, z of x + y + bias;  n of x_n + r y_n + bias_n
                none      the same with x = a, y = u

sigmoid(v) is computed as (1 + tanh(v / 2)) / 2, which cannot overflow; the halving is put into the
gains and biases of the gates (exact, a power of two), so that one tanh serves all gates of a step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .. import running_mean

Array = NDArray[np.float32]
# Step of one layer and one stream: x [I], h [H], c [H], the last two changed in place.
Cell = Callable[[Array, Array, Array], None]

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_EPSILON = np.float32(1e-5)  # docs/design.md


class ReferenceEngine:
    """Weights, prepared once. `tensors` as in the model file; k, C, H, L, K are read off their shapes."""

    def __init__(self, cell: str, norm: str, bands: int, tensors: Mapping[str, Array]) -> None:
        kernel = tensors["conv1.weight"].shape[2]
        self._stride = kernel - 2
        self._bands = (bands, -(-bands // 2), -(-bands // 4))
        self._conv1 = _contiguous(tensors["conv1.weight"]), _contiguous(tensors["conv1.bias"])[:, None]
        self._conv2 = _contiguous(tensors["conv2.weight"]), _contiguous(tensors["conv2.bias"])[:, None]
        channels = len(self._conv1[0])
        # Where, in the padded input, each multiplicand of the product is: one `take` builds a patch.
        self._patch1 = _patch(1, kernel, bands)
        self._patch2 = _patch(channels, 3, self._bands[1])
        layers = sum(name.endswith(".weight_h") for name in tensors)
        self._cells = [_make_cell(cell, norm, tensors, f"layers.{layer}.") for layer in range(layers)]
        self._look_ahead = tensors.get("look_ahead.weight")
        self._output = _contiguous(tensors["output.weight"]), _contiguous(tensors["output.bias"])

    def with_head(self, weight: Array, bias: Array) -> ReferenceEngine:
        """The same network with another output layer, [V, H] and [V]; all else is shared."""
        twin = copy.copy(self)
        twin._output = _contiguous(weight), _contiguous(bias)
        return twin

    centre = staticmethod(running_mean.subtract)

    def subsample(self, frames: Array, columns: Array) -> Array:
        """frames [2 + S k, F], columns [2, C, F/2] (the last two of conv1, moved on) -> [S, C * F/4]."""
        bands, half, quarter = self._bands
        channels = columns.shape[1]
        y = np.empty(((len(frames) - 2) // self._stride, channels * quarter), np.float32)
        for step in range(len(y)):
            first = step * self._stride
            padded = np.zeros((self._stride + 2, bands + 2), np.float32)
            padded[:, 1:-1] = frames[first : first + self._stride + 2]
            column = np.matmul(self._conv1[0], padded.take(self._patch1))
            column += self._conv1[1]
            np.maximum(column, 0, out=column)
            stacked = np.zeros((channels, 3, half + 2), np.float32)
            stacked[:, 0, 1:-1] = columns[0]
            stacked[:, 1, 1:-1] = columns[1]
            stacked[:, 2, 1:-1] = column
            columns[0] = columns[1]
            columns[1] = column
            z = y[step].reshape(channels, quarter)
            np.matmul(self._conv2[0], stacked.take(self._patch2), out=z)
            z += self._conv2[1]
            np.maximum(z, 0, out=z)
        return y

    def recur(self, x: Array, active: Sequence[int], h: Array, c: Array) -> Array:
        """x [R, I], h and c [B, L, H] (changed in place; c is not used by gru, rnn) -> y [R, H].

        Rows are step by step; in step s are the first active[s] of the B streams, fewer and fewer.
        All steps of a layer come before the next layer, so that its weights are fetched from memory once: 2
        to 3 times as fast for long chunks.
        """
        for layer, cell in enumerate(self._cells):
            y = np.empty((len(x), h.shape[2]), np.float32)
            first = 0
            for count in active:
                for row in range(count):
                    cell(x[first + row], h[row, layer], c[row, layer])
                    y[first + row] = h[row, layer]
                first += count
            x = x + y if x.shape == y.shape else y
        return x

    def look_ahead(self, ring: Array) -> Array:
        """ring [K+1, H], oldest first -> y [1, H] for the oldest."""
        assert self._look_ahead is not None
        y: Array = np.add.reduce(ring * self._look_ahead, axis=0)[None]
        return y

    def output(self, y: Array) -> Array:
        """y [R, H] -> log_probs [R, V]."""
        weight, bias = self._output
        log_probs = np.empty((len(y), len(bias)), np.float32)
        for row in range(len(y)):
            z = np.dot(weight, y[row])
            z += bias
            z -= z.max()
            np.subtract(z, np.log(np.exp(z).sum()), out=log_probs[row])
        return log_probs


def _contiguous(tensor: Array) -> Array:
    """[a, b, c, ...] -> [a, b c ...], C order, so that a kernel is one matrix row."""
    return np.ascontiguousarray(tensor.reshape(len(tensor), -1) if tensor.ndim > 2 else tensor, np.float32)


def _patch(channels: int, times: int, bands: int) -> NDArray[np.intp]:
    """Indices [channels * times * 3, ceil(bands / 2)] into [channels, times, bands + 2]: stride 2."""
    lines = np.arange(channels * times)[:, None, None] * (bands + 2)
    offsets = np.arange(3)[None, :, None] + 2 * np.arange(-(-bands // 2))[None, None, :]
    return np.asarray((lines + offsets).reshape(channels * times * 3, -1), np.intp)


def _normalise(v: Array) -> None:
    """v [n] := (v - mean) / sqrt(variance + eps), biased variance, in place."""
    n = len(v)
    v -= np.add.reduce(v) / np.float32(n)
    v *= _ONE / np.sqrt(np.dot(v, v) / np.float32(n) + _EPSILON)


def _make_cell(cell: str, norm: str, tensors: Mapping[str, Array], prefix: str) -> Cell:
    weight_x = _contiguous(tensors[prefix + "weight_x"])
    weight_h = _contiguous(tensors[prefix + "weight_h"])
    hidden = weight_h.shape[1]
    # Rows of z that are gates: halved, see above. The others go through tanh as they are.
    gates = {"lstm": [0, 1, 3], "gru": [0, 1], "rnn": []}[cell]
    halves = np.ones(len(weight_h), np.float32)
    for gate in gates:
        halves[gate * hidden : (gate + 1) * hidden] = _HALF
    bias = np.asarray(tensors[prefix + "bias"] * halves, np.float32)
    # Without normalisation there is no gain to put the halves into; they scale the products.
    gain = np.asarray(halves if norm == "none" else tensors[prefix + "gain"] * halves, np.float32)
    gain_x = np.asarray(tensors[prefix + "gain_x"] * halves, np.float32) if norm == "separate" else gain
    if cell == "gru":
        return _gru(norm, weight_x, weight_h, gain_x, gain, bias)
    preactivate = _preactivation(norm, weight_x, weight_h, gain_x, gain, bias)
    if cell == "rnn":

        def rnn(x: Array, h: Array, c: Array) -> None:
            np.tanh(preactivate(x, h), out=h)

        return rnn
    cell_norm = norm != "none"
    cell_gain = tensors[prefix + "cell_gain"] if cell_norm else halves
    cell_bias = tensors[prefix + "cell_bias"] if cell_norm else halves

    def lstm(x: Array, h: Array, c: Array) -> None:
        z = preactivate(x, h)
        np.tanh(z, out=z)
        g = z[2 * hidden : 3 * hidden].copy()
        z *= _HALF
        z += _HALF
        g *= z[:hidden]
        c *= z[hidden : 2 * hidden]
        c += g
        if cell_norm:
            v = c.copy()
            _normalise(v)
            v *= cell_gain
            v += cell_bias
            np.tanh(v, out=h)
        else:
            np.tanh(c, out=h)
        h *= z[3 * hidden :]

    return lstm


def _preactivation(
    norm: str, weight_x: Array, weight_h: Array, gain_x: Array, gain: Array, bias: Array
) -> Callable[[Array, Array], Array]:
    """x [I], h [H] -> z, a fresh array, for the cells in which x and h meet before any gate."""
    if norm == "separate":

        def separate(x: Array, h: Array) -> Array:
            a: Array = np.dot(weight_x, x)
            u: Array = np.dot(weight_h, h)
            _normalise(a)
            _normalise(u)
            a *= gain_x
            u *= gain
            a += u
            a += bias
            return a

        return separate
    weight = np.concatenate([weight_x, weight_h], axis=1)
    joint = norm == "joint"

    def together(x: Array, h: Array) -> Array:
        z: Array = np.dot(weight, np.concatenate([x, h]))
        if joint:
            _normalise(z)
        z *= gain
        z += bias
        return z

    return together


def _gru(norm: str, weight_x: Array, weight_h: Array, gain_x: Array, gain: Array, bias: Array) -> Cell:
    hidden = weight_h.shape[1]
    rz, n = slice(0, 2 * hidden), slice(2 * hidden, None)

    def gru(x: Array, h: Array, c: Array) -> None:
        a, u = np.dot(weight_x, x), np.dot(weight_h, h)
        if norm == "joint":
            gates = a[rz] + u[rz]
            _normalise(gates)
            gates *= gain[rz]
        else:
            if norm == "separate":
                _normalise(a)
                _normalise(u)
            a *= gain_x
            u *= gain
            gates = a[rz] + u[rz]
        gates += bias[rz]
        np.tanh(gates, out=gates)
        gates *= _HALF
        gates += _HALF
        new = a[n] + gates[:hidden] * u[n]
        if norm == "joint":
            _normalise(new)
            new *= gain[n]
        new += bias[n]
        np.tanh(new, out=new)
        # (1 - z) n + z h = n + z (h - n)
        h -= new
        h *= gates[hidden:]
        h += new

    return gru
