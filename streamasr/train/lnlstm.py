"""Layer-normalised recurrent layers with a training path that is fast on CPUs (docs/lnlstm.md).

    input [B, T, I] (batch_first) or [T, B, I]  ->  output, (h_n, c_n)

`LayerNormLSTM` has the call shape of `torch.nn.LSTM`: stacked layers, initial states, variable
lengths, both directions. One layer and direction is `RecurrentLayer`, which works time-major and is what
the acoustic model stacks.

Ba, Kiros, Hinton, "Layer Normalization" (2016), arXiv:1607.06450, eq. 20-22 for `norm="separate"`;
`norm="joint"` normalises the sum W_x x + W_h h once (Zeineldeen et al., ICASSP 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import ConfigError
from . import gru, kernels

MODES = {"none": kernels.NONE, "joint": kernels.JOINT, "separate": kernels.SEPARATE}
_MAKERS = {
    "lstm": (kernels.lstm_forward, kernels.lstm_backward),
    "gru": (gru.gru_forward, gru.gru_backward),
    "rnn": (gru.rnn_forward, gru.rnn_backward),
}
# (cell, mode) -> (forward, backward); compiled when first called.
KERNELS = {(cell, mode): (f(mode), b(mode)) for cell, (f, b) in _MAKERS.items() for mode in MODES.values()}


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    # One BLAS thread inside each worker: the batch is what is split, so steps need no barrier.
    return ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1))


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The tensor's memory as a NumPy array; bfloat16 as its uint16 bit patterns."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    return tensor.numpy()


def halves(batch: int) -> list[tuple[int, int]]:
    """Row ranges, one for each thread."""
    threads = max(1, min(torch.get_num_threads(), batch))
    edges = [batch * i // threads for i in range(threads + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def run_split(work: Any, ranges: list[tuple[int, int]]) -> None:
    if len(ranges) == 1:
        work(*ranges[0])
        return
    for future in [_pool(len(ranges)).submit(work, *r) for r in ranges]:
        future.result()


@lru_cache(maxsize=1)
def _packs() -> bool:
    """Whether oneDNN's packed bfloat16 product, which torch keeps private, is there and right."""
    try:
        weight = torch.arange(6.0).reshape(3, 2).bfloat16()
        x = torch.ones(2, 2).bfloat16()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        y = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
        return bool(torch.equal(y, x @ weight.t()))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def _product(weight: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """x [rows, K] -> x weight^T, for a weight [N, K] used at every step.

    `mm` re-orders the weight at every call; packed once, a step is 1.2 (32 rows) to 1.7 times (4 rows)
    faster (benchmarks/training.py).
    """
    if weight.dtype == torch.bfloat16 and _packs():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        linear = torch.ops.mkldnn._linear_pointwise.default
        return lambda x: linear(x, packed, None, "none", [], "")
    transposed = weight.t()
    return lambda x: torch.mm(x, transposed)


class Recurrence(torch.autograd.Function):
    """The recurrence of one layer over all steps, on the CPU.

    A [T, B, G H] = W_x x for all steps (normalised and scaled already if separate); A is overwritten.
    Returns output [T, B, H] in A's type, h_n [B, H], c_n [B, H] (h_n again for gru and rnn). Rows past
    their length repeat their last state; the caller masks them, so their gradient is taken to be zero.
    """

    @staticmethod
    def forward(
        ctx: Any, A: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, gain: Tensor, bias: Tensor,
        cell_gain: Tensor, cell_bias: Tensor, lengths: Tensor, cell: str, mode: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        steps, batch, gates = A.shape
        units = weight.shape[1]
        wide = torch.float64 if A.dtype == torch.float64 else torch.float32
        H = torch.empty(steps + 1, batch, units, dtype=A.dtype)
        C = torch.empty(steps + 1, batch, units, dtype=wide)
        H[0], C[0] = h0, c0 if cell == "lstm" else h0
        Z = torch.empty_like(A) if mode == kernels.SEPARATE or cell == "gru" else A.new_empty(1, 1, 1)
        S = torch.empty(steps, batch, 3, dtype=wide)
        weight = weight.to(A.dtype)
        norms = [p.detach().to(wide) for p in (gain, bias, cell_gain, cell_bias)]
        arrays = [_array(x) for x in (A, Z, C, H, S, *norms, lengths)]
        a, z, c, h, s, *rest = arrays
        constants = kernels.constants(units, gates, c.dtype)
        step = KERNELS[cell, mode][0]

        def work(first: int, last: int) -> None:
            with torch.no_grad():  # grad mode is per thread
                product = _product(weight, last - first)
                scratch = np.empty(gates, c.dtype)
                for t in range(steps):
                    u = _array(product(H[t, first:last]))
                    step(a, u, z, c, h, s, *rest, constants, scratch, t, first, last)

        run_split(work, halves(batch))
        ctx.save_for_backward(A, Z, C, H, S, weight, lengths, *norms)
        ctx.cell, ctx.mode, ctx.spent = cell, mode, False
        return H[1:], (H if cell == "lstm" else C)[steps].clone(), C[steps].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor, dh_n: Tensor, dc_n: Tensor) -> Any:
        if ctx.spent:
            raise RuntimeError("the backward pass overwrote what it had saved: run the forward pass again")
        ctx.spent = True
        A, Z, C, H, S, weight, lengths, *norms = ctx.saved_tensors
        cell, mode = ctx.cell, ctx.mode
        steps, batch, gates = A.shape
        units = weight.shape[1]
        wide = C.dtype
        dout = dout.to(A.dtype).contiguous()
        R = dh_n.to(A.dtype).contiguous()  # gradient of h after a row's last step
        dC = dc_n.to(wide).clone() if cell == "lstm" else torch.zeros(batch, units, dtype=wide)
        ranges = halves(batch)
        G = torch.zeros(len(ranges), 2, gates, dtype=wide)
        Gc = torch.zeros(len(ranges), 2, units, dtype=wide)
        dh0 = torch.zeros(batch, units, dtype=A.dtype)
        dU = Z if mode == kernels.SEPARATE or cell == "gru" else A
        a, z, c, s, d, r, dc, g, gc = (_array(x) for x in (A, Z, C, S, dout, R, dC, G, Gc))
        transposed = weight.t().contiguous()
        rest = [_array(x) for x in (*norms, lengths)]
        constants = kernels.constants(units, gates, c.dtype)
        step = KERNELS[cell, mode][1]

        def work(first: int, last: int) -> None:
            with torch.no_grad():
                thread = ranges.index((first, last))
                product = _product(transposed, last - first)
                scratch = np.empty((2, gates), c.dtype)
                later = dh0[first:last]  # gradient of h from the step after
                for t in range(steps - 1, -1, -1):
                    step(a, z, c, s, d, r[first:last], _array(later), dc[first:last], *rest, constants,
                         g[thread], gc[thread], scratch, t, first, last)  # fmt: skip
                    later = product(dU[t, first:last])
                dh0[first:last] = later

        run_split(work, ranges)
        dW = torch.mm(dU.reshape(-1, gates).t(), H[:steps].reshape(-1, units))
        dh0 = torch.where((lengths <= 0)[:, None], R, dh0)
        dc0: Tensor | None = dC
        if cell != "lstm":  # there dC is the gradient of h that passed the products by
            dh0, dc0 = dh0 + dC, None
        G, Gc = G.sum(0), Gc.sum(0)
        return A, dW.to(weight.dtype), dh0, dc0, G[0], G[1], Gc[0], Gc[1], None, None, None


def reference_step(
    cell: str, norm: str, a: Tensor, h: Tensor, c: Tensor, p: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """One step of any cell in plain torch: a = W_x x [B, G H], h, c [B, H] -> h', c' (docs/lnlstm.md).

    The readable form: the oracle of the kernels, and the path for other devices. With
    `norm="separate"` a is normalised and scaled already.
    """
    u = h @ p["weight_h"].t()

    def ln(x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], eps=kernels.EPS)

    bias = p["bias"]
    gain = bias if norm == "none" else p["gain"]  # not used if none
    if cell == "gru":
        units = h.shape[-1]
        if norm == "joint":
            rz = ln(a[:, : 2 * units] + u[:, : 2 * units]) * gain[: 2 * units] + bias[: 2 * units]
            r, z = rz.sigmoid().chunk(2, -1)
            n = ln(a[:, 2 * units :] + r * u[:, 2 * units :]) * gain[2 * units :] + bias[2 * units :]
        else:
            if norm == "separate":
                u = ln(u) * gain
            r, z = (a[:, : 2 * units] + u[:, : 2 * units] + bias[: 2 * units]).sigmoid().chunk(2, -1)
            n = a[:, 2 * units :] + r * u[:, 2 * units :] + bias[2 * units :]
        n = n.tanh()
        return (1 - z) * n + z * h, c
    if norm == "joint":
        z = ln(a + u) * gain + bias
    elif norm == "separate":
        z = a + ln(u) * gain + bias
    else:
        z = a + u + bias
    if cell == "rnn":
        return z.tanh(), c
    i, f, g, o = z.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    y = c if norm == "none" else ln(c) * p["cell_gain"] + p["cell_bias"]
    return o.sigmoid() * y.tanh(), c


GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class RecurrentLayer(nn.Module):
    """One layer, one direction, time-major: x [T, B, I] -> y [T, B, H], (h_n, c_n) [B, H].

    bfloat16 products (`compute_dtype`) with float32 statistics, cell and parameters. Forget bias 1, W_x
    Xavier, each gate of W_h orthogonal. `lengths` [B] (int64): steps that count in each row; h_n, c_n are the
    states at them, outputs past them repeat h_n, and their gradient is taken to be zero.
    """

    def __init__(self, input_size: int, hidden_size: int, cell: str = "lstm", norm: str = "joint") -> None:
        super().__init__()
        if cell not in GATES:
            raise ConfigError(f"cell must be one of {', '.join(GATES)}, not {cell!r}")
        if norm not in MODES:
            raise ConfigError(f"norm must be one of {', '.join(MODES)}, not {norm!r}")
        self.input_size, self.hidden_size, self.cell, self.norm = input_size, hidden_size, cell, norm
        self.compute_dtype: torch.dtype | None = None  # None: the input's own
        self.weight_dropout = 0.0  # of W_h in training: DropConnect (arXiv:1708.02182, section 3)
        gates = GATES[cell] * hidden_size
        self.weight_x = nn.Parameter(torch.empty(gates, input_size))
        self.weight_h = nn.Parameter(torch.empty(gates, hidden_size))
        self.bias = nn.Parameter(torch.zeros(gates))
        if norm != "none":
            self.gain = nn.Parameter(torch.ones(gates))
            if cell == "lstm":
                self.cell_gain = nn.Parameter(torch.ones(hidden_size))
                self.cell_bias = nn.Parameter(torch.zeros(hidden_size))
        if norm == "separate":
            self.gain_x = nn.Parameter(torch.ones(gates))
        with torch.no_grad():
            for block in self.weight_x.chunk(GATES[cell]):
                nn.init.xavier_uniform_(block)
            for block in self.weight_h.chunk(GATES[cell]):
                nn.init.orthogonal_(block)
            if cell == "lstm":
                self.bias[hidden_size : 2 * hidden_size] = 1.0

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch = x.shape[1]
        dtype = self.compute_dtype or x.dtype
        if state is None:
            zero = x.new_zeros(batch, self.hidden_size)
            state = (zero, zero)
        A = nn.functional.linear(x.to(dtype), self.weight_x.to(dtype))
        if self.norm == "separate":
            wide = torch.promote_types(dtype, torch.float32)
            A = nn.functional.layer_norm(A.to(wide), A.shape[-1:], eps=kernels.EPS) * self.gain_x.to(wide)
            A = A.to(dtype)
        weight_h = nn.functional.dropout(self.weight_h, self.weight_dropout, self.training)
        return (self._kernel if x.device.type == "cpu" else self._loop)(A, weight_h, state, lengths)

    def _kernel(
        self, A: Tensor, weight_h: Tensor, state: tuple[Tensor, Tensor], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        steps, batch, _ = A.shape
        # Within the steps there are: the last that counts is where the gradient of h_n comes in.
        lengths = torch.full((batch,), steps) if lengths is None else lengths.clamp(0, steps)
        empty = self.bias.new_empty(0)
        gain = empty if self.norm == "none" else self.gain
        cell_norm = self.norm != "none" and self.cell == "lstm"
        cell_gain, cell_bias = (self.cell_gain, self.cell_bias) if cell_norm else (empty, empty)
        weights = (gain, self.bias, cell_gain, cell_bias)
        y, h, c = Recurrence.apply(  # type: ignore[no-untyped-call]
            A, weight_h, *state, *weights, lengths, self.cell, MODES[self.norm]
        )
        return y, (h, c if self.cell == "lstm" else state[1])

    def _loop(
        self, A: Tensor, weight_h: Tensor, state: tuple[Tensor, Tensor], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        wide = torch.promote_types(A.dtype, torch.float32)
        p = {name: value.to(wide) for name, value in (*self.named_parameters(), ("weight_h", weight_h))}
        h, c = (s.to(wide) for s in state)
        outputs = []
        for t in range(A.shape[0]):
            h_new, c_new = reference_step(self.cell, self.norm, A[t].to(wide), h, c, p)
            if lengths is not None:
                inside = (t < lengths.to(A.device))[:, None]
                h_new, c_new = torch.where(inside, h_new, h), torch.where(inside, c_new, c)
            h, c = h_new, c_new
            outputs.append(h)
        y = torch.stack(outputs) if outputs else A.new_zeros(0, A.shape[1], self.hidden_size)
        return y.to(A.dtype), (h, c)


class LayerNormLSTM(nn.Module):
    """Stacked layers with the call shape of `torch.nn.LSTM`; `cell="gru" | "rnn"` are there to compare.

    input [B, T, I] if batch_first else [T, B, I]; h_0, c_0 [L * D, B, H], D = 2 if bidirectional.
    Returns output [B, T, D H] (or [T, B, D H]) and (h_n, c_n). `lengths` [B] counts the valid steps of
    each row, in place of a packed sequence. For gru and rnn c_n stays what c_0 was.

        >>> lstm = LayerNormLSTM(80, 32, num_layers=2, batch_first=True)
        >>> y, (h, c) = lstm(torch.zeros(4, 10, 80))
        >>> tuple(y.shape), tuple(h.shape)
        ((4, 10, 32), (2, 4, 32))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        cell: str = "lstm",
        norm: str = "joint",
    ) -> None:
        super().__init__()
        self.batch_first, self.bidirectional, self.num_layers = batch_first, bidirectional, num_layers
        self.directions = 2 if bidirectional else 1
        self.dropout = nn.Dropout(dropout)
        widths = [input_size] + [self.directions * hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(
            RecurrentLayer(width, hidden_size, cell, norm) for width in widths for _ in range(self.directions)
        )

    def forward(
        self, input: Tensor, state: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x = input.transpose(0, 1) if self.batch_first else input
        finals: list[tuple[Tensor, Tensor]] = []
        for level in range(self.num_layers):
            outputs = []
            for direction in range(self.directions):
                i = level * self.directions + direction
                initial = None if state is None else (state[0][i], state[1][i])
                inputs = reverse(x, lengths) if direction else x
                y, final = self.layers[i](inputs, initial, lengths)
                outputs.append(reverse(y, lengths) if direction else y)
                finals.append(final)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if lengths is not None:
                inside = torch.arange(len(x), device=x.device)[:, None] < lengths[None, :].to(x.device)
                x = x * inside[..., None].to(x.dtype)
            if level + 1 < self.num_layers:
                x = self.dropout(x)
        h, c = (torch.stack([final[k] for final in finals]) for k in (0, 1))
        return (x.transpose(0, 1) if self.batch_first else x), (h, c)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [T, B, ...] with the first lengths[b] steps of each row in reverse order, the rest untouched."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    n = lengths.to(x.device)[None, :]
    index = torch.where(t < n, n - 1 - t, t)
    return x.gather(0, index[..., None].expand_as(x))
