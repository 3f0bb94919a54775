"""The recurrent kernels against autograd through the readable step, and against torch's own layers.

Tolerances are relative norms, |kernel - reference| / |reference|. float64 kernels use libm and differ
from autograd in the order of sums only. float32 ones have their own tanh (4 ulp) and fast-math sums.
bfloat16 keeps 8 bits of every stored number (rounding error 2**-9 = 2e-3, several in a row).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from streamasr.errors import ConfigError
from streamasr.train import lnlstm
from streamasr.train.lnlstm import LayerNormLSTM, RecurrentLayer

FORMS = list(itertools.product(("lstm", "gru", "rnn"), ("none", "joint", "separate")))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread unless the test says otherwise, so that results do not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layer_of(
    cell: str, norm: str, inputs: int, units: int, dtype: torch.dtype = torch.float64
) -> RecurrentLayer:
    """A layer whose every parameter matters: gains and biases are not at their simple initial values."""
    torch.manual_seed(units)
    layer = RecurrentLayer(inputs, units, cell, norm).to(dtype)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if "weight" not in name:
                p += 0.3 * torch.randn_like(p)
    return layer


def run(
    layer: RecurrentLayer, loop: bool, steps: int, batch: int, dtype: torch.dtype, lengths: Tensor | None
) -> dict[str, Tensor]:
    """Outputs and gradients of everything, for a random loss over the valid outputs, h_n and c_n."""
    random = torch.Generator().manual_seed(steps * 100 + batch)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    x = draw(steps, batch, layer.input_size).requires_grad_()
    h0, c0 = (draw(batch, layer.hidden_size).requires_grad_() for _ in range(2))
    pulls = (
        draw(steps, batch, layer.hidden_size),
        draw(batch, layer.hidden_size),
        draw(batch, layer.hidden_size),
    )
    kernel = layer._kernel
    if loop:
        layer._kernel = layer._loop  # type: ignore[method-assign]
    try:
        y, (h, c) = layer(x, (h0, c0), lengths)
    finally:
        layer._kernel = kernel  # type: ignore[method-assign]
    if lengths is not None:
        y = y * (torch.arange(steps)[:, None] < lengths)[..., None].to(y.dtype)
    layer.zero_grad()
    sum(((v * w).sum() for v, w in zip((y, h, c), pulls, strict=True)), torch.zeros(())).backward()
    found = {"y": y, "h": h, "c": c, "dx": x.grad, "dh0": h0.grad, "dc0": c0.grad}
    found |= {f"d {name}": p.grad for name, p in layer.named_parameters()}
    return {name: v.detach().double() for name, v in found.items() if v is not None}


def assert_close(
    found: dict[str, Tensor], expected: dict[str, Tensor], most: float, floor: float = 1e-12
) -> None:
    assert found.keys() == expected.keys()
    for name, reference in expected.items():
        error = (found[name] - reference).norm() / max(float(reference.norm()), floor)
        assert error <= most, f"{name}: relative error {error:.1e}"


SIZES = [  # steps, batch, input, units, lengths
    (7, 4, 5, 3, [0, 1, 4, 7]),
    (1, 1, 1, 1, None),
    (6, 2, 3, 1, [6, 2]),
    (1, 3, 2, 7, [1, 0, 1]),
    (9, 1, 4, 33, [5]),
    (5, 3, 40, 33, None),
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("cell", "norm"), FORMS)
def test_gradients_are_those_of_the_readable_step(cell: str, norm: str, sizes: Any) -> None:
    steps, batch, inputs, units, lengths = sizes
    lengths = None if lengths is None else torch.tensor(lengths)
    layer = layer_of(cell, norm, inputs, units)
    arguments = (steps, batch, torch.float64, lengths)
    found, expected = run(layer, False, *arguments), run(layer, True, *arguments)
    # One unit normalised is zero, and so is its gradient: a difference of terms of size 1.
    assert_close(found, expected, 1e-12, floor=1.0 if units == 1 else 1e-12)


@pytest.mark.parametrize(("cell", "norm"), FORMS)
def test_short_types_stay_near_double_precision(cell: str, norm: str) -> None:
    lengths = torch.tensor([12, 12, 5, 1, 0, 9])
    exact = run(layer_of(cell, norm, 24, 40), True, 12, 6, torch.float64, lengths)
    single = run(layer_of(cell, norm, 24, 40).float(), False, 12, 6, torch.float32, lengths)
    assert_close(single, exact, 3e-6)
    layer = layer_of(cell, norm, 24, 40).float()
    layer.compute_dtype = torch.bfloat16
    half = run(layer, False, 12, 6, torch.float32, lengths)
    assert_close(half, exact, 3e-2)


@pytest.mark.parametrize(("cell", "norm"), FORMS)
def test_threads_do_not_change_results(cell: str, norm: str) -> None:
    """Each row is computed by itself, so outputs and row gradients agree to the bit in float64 and float32;
    sums over rows (parameters) are added in another order."""
    for dtype, most in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        layer = layer_of(cell, norm, 6, 9, dtype)
        arguments = (8, 5, dtype, torch.tensor([8, 0, 3, 7, 8]))
        torch.set_num_threads(1)
        one = run(layer, False, *arguments)
        torch.set_num_threads(2)
        two = run(layer, False, *arguments)
        again = run(layer, False, *arguments)
        assert_close(two, one, most)
        for name in two:
            assert torch.equal(two[name], again[name]), name


def test_lengths_beyond_the_steps_count_as_all_steps() -> None:
    layer = layer_of("lstm", "joint", 3, 4)
    whole = run(layer, False, 5, 2, torch.float64, None)
    beyond = run(layer, False, 5, 2, torch.float64, torch.tensor([5, 99]))
    assert_close(beyond, whole, 0.0)


def test_a_second_backward_pass_is_refused() -> None:
    layer = layer_of("lstm", "joint", 3, 4)
    loss = layer(torch.ones(2, 1, 3, dtype=torch.float64))[0].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        loss.backward()


def test_no_steps_hand_the_states_through() -> None:
    for cell, norm in FORMS:
        layer = layer_of(cell, norm, 3, 4)
        state = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
        y, (h, c) = layer(torch.zeros(0, 2, 3, dtype=torch.float64), state)
        assert y.shape == (0, 2, 4)
        assert torch.equal(h, state[0]) and torch.equal(c, state[1])


# -- foreign oracles ---------------------------------------------------------------------------------


def copy_weights(layer: RecurrentLayer, other: nn.RNNBase, bias_in: str = "ih") -> None:
    """Our weights into torch's; both call the gates i f g o, r z n. They have two biases, we have one."""
    with torch.no_grad():
        other.weight_ih_l0.copy_(layer.weight_x)
        other.weight_hh_l0.copy_(layer.weight_h)
        other.bias_ih_l0.copy_(layer.bias)
        other.bias_hh_l0.zero_()


@pytest.mark.parametrize(("cell", "kind"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN)])
def test_without_normalisation_the_cells_are_torchs(cell: str, kind: type[nn.RNNBase]) -> None:
    """For the GRU, torch's b_in is our bias of n (their b_hn would be inside r * (...), ours is not)."""
    layer = layer_of(cell, "none", 6, 5)
    other = kind(6, 5).double()
    copy_weights(layer, other)
    x = torch.randn(9, 3, 6, dtype=torch.float64)
    h0, c0 = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    y, (h, c) = layer(x, (h0, c0))
    if cell == "lstm":
        expected, (h_n, c_n) = other(x, (h0[None], c0[None]))
        torch.testing.assert_close(c, c_n[0], rtol=0, atol=1e-14)
    else:
        expected, h_n = other(x, h0[None])
        assert torch.equal(c, c0)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(h, h_n[0], rtol=0, atol=1e-14)
    y.square().sum().backward()
    expected.square().sum().backward()
    for name in ("weight_x", "weight_h", "bias"):
        theirs = getattr(
            other, {"weight_x": "weight_ih_l0", "weight_h": "weight_hh_l0", "bias": "bias_ih_l0"}[name]
        )
        torch.testing.assert_close(getattr(layer, name).grad, theirs.grad, rtol=1e-12, atol=1e-13)


def test_the_stack_is_torchs_stack() -> None:
    """Two layers, both directions, batch first, states of every layer and direction in torch's order."""
    ours = LayerNormLSTM(4, 3, num_layers=2, batch_first=True, bidirectional=True, norm="none").double()
    theirs = nn.LSTM(4, 3, num_layers=2, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for i, layer in enumerate(ours.layers):
            end = f"l{i // 2}" + "_reverse" * (i % 2)
            assert isinstance(layer, RecurrentLayer)
            getattr(theirs, f"weight_ih_{end}").copy_(layer.weight_x)
            getattr(theirs, f"weight_hh_{end}").copy_(layer.weight_h)
            getattr(theirs, f"bias_ih_{end}").copy_(layer.bias)
            getattr(theirs, f"bias_hh_{end}").zero_()
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    state = torch.randn(4, 3, 3, dtype=torch.float64), torch.randn(4, 3, 3, dtype=torch.float64)
    y, (h, c) = ours(x, state)
    expected, (h_n, c_n) = theirs(x, state)
    for found, reference in ((y, expected), (h, h_n), (c, c_n)):
        torch.testing.assert_close(found, reference, rtol=0, atol=1e-14)
    # Lengths do what a packed sequence does.
    lengths = torch.tensor([7, 4, 1])
    y, (h, c) = ours(x, state, lengths)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    packed_y, (h_n, c_n) = theirs(packed, state)
    expected, _ = nn.utils.rnn.pad_packed_sequence(packed_y, batch_first=True)
    for found, reference in ((y, expected), (h, h_n), (c, c_n)):
        torch.testing.assert_close(found, reference, rtol=0, atol=1e-14)


# -- the stacked module ------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "norm"), FORMS)
def test_carried_states_make_chunks_equal_to_the_whole(cell: str, norm: str) -> None:
    lstm = LayerNormLSTM(5, 6, num_layers=2, cell=cell, norm=norm).double()
    x = torch.randn(11, 2, 5, dtype=torch.float64)
    whole, last = lstm(x)
    state, pieces = None, []
    for first, end in ((0, 1), (1, 5), (5, 5), (5, 11)):
        y, state = lstm(x[first:end], state)
        pieces.append(y)
    # W_x x is one product over all steps, so its sums may be ordered by the number of rows.
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-14)
    assert state is not None
    torch.testing.assert_close(state, last, rtol=0, atol=1e-14)


def test_both_directions_are_two_runs() -> None:
    lengths = torch.tensor([6, 3, 0])
    both = LayerNormLSTM(4, 5, bidirectional=True).double()
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    y, (h, _) = both(x, lengths=lengths)
    ahead, _ = both.layers[0](x, None, lengths)
    back, (h_back, _) = both.layers[1](lnlstm.reverse(x, lengths), None, lengths)
    inside = (torch.arange(6)[:, None] < lengths)[..., None]
    assert torch.equal(y, torch.cat([ahead, lnlstm.reverse(back, lengths)], -1) * inside)
    assert torch.equal(h[1], h_back)


def test_reverse_turns_each_row_within_its_length() -> None:
    x = torch.arange(8).reshape(4, 2, 1)
    assert lnlstm.reverse(x, torch.tensor([3, 0]))[..., 0].tolist() == [[4, 1], [2, 3], [0, 5], [6, 7]]
    assert torch.equal(lnlstm.reverse(x, None), x.flip(0))


def test_steps_past_the_length_are_zero_and_do_not_matter() -> None:
    lstm = LayerNormLSTM(3, 4, num_layers=2, batch_first=True)
    x = torch.randn(2, 6, 3)
    lengths = torch.tensor([6, 2])
    y, (h, c) = lstm(x, lengths=lengths)
    assert torch.equal(y[1, 2:], torch.zeros(4, 4))
    other = x.clone()
    other[1, 2:] = 7.0
    y_other, (h_other, c_other) = lstm(other, lengths=lengths)
    assert torch.equal(y, y_other) and torch.equal(h, h_other) and torch.equal(c, c_other)
    assert torch.equal(h[-1, 1], y[1, 1])


def test_batch_first_only_turns_axes() -> None:
    torch.manual_seed(0)
    first = LayerNormLSTM(3, 4, batch_first=True)
    last = LayerNormLSTM(3, 4)
    last.load_state_dict(first.state_dict())
    x = torch.randn(2, 6, 3)
    assert torch.equal(first(x)[0], last(x.transpose(0, 1))[0].transpose(0, 1))
    assert first(x)[0].shape == (2, 6, 4) and first(x)[1][0].shape == (1, 2, 4)


def test_initial_weights() -> None:
    layer = RecurrentLayer(30, 20).requires_grad_(False)
    assert torch.equal(layer.bias.reshape(4, 20), torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None].expand(4, 20))
    bound = (6 / (30 + 20)) ** 0.5  # Glorot & Bengio 2010, eq. 16
    for block in layer.weight_x.chunk(4):
        assert 0.9 * bound < float(block.abs().max()) <= bound
    for block in layer.weight_h.chunk(4):
        torch.testing.assert_close(block @ block.t(), torch.eye(20), rtol=0, atol=1e-5)
    for gain in (layer.gain, layer.cell_gain):
        assert torch.equal(gain, torch.ones_like(gain))
    assert torch.equal(layer.cell_bias, torch.zeros(20))
    assert torch.equal(RecurrentLayer(3, 4, "gru").bias, torch.zeros(12))


def test_normalised_gates_have_the_gains_statistics() -> None:
    """Ba et al. 2016, eq. 3-4: before gain and bias, mean 0 and variance 1 (up to eps) over the 4H gates."""
    layer = layer_of("lstm", "joint", 6, 50)
    a = torch.randn(1, 2, 6, dtype=torch.float64) @ layer.weight_x.t()
    lnlstm.Recurrence.apply(  # writes the normalised values over `a`
        a, layer.weight_h, torch.zeros(2, 50), torch.zeros(2, 50), layer.gain, layer.bias, layer.cell_gain,
        layer.cell_bias, torch.tensor([1, 1]), "lstm", lnlstm.MODES["joint"],
    )  # fmt: skip
    torch.testing.assert_close(a.mean(-1), torch.zeros(1, 2, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(
        a.var(-1, unbiased=False), torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=1e-4
    )


def test_unknown_cells_and_norms_are_named() -> None:
    with pytest.raises(ConfigError, match="cell must be one of lstm, gru, rnn, not 'lstn'"):
        RecurrentLayer(1, 1, "lstn")
    with pytest.raises(ConfigError, match="norm must be one of none, joint, separate, not 'layer'"):
        RecurrentLayer(1, 1, norm="layer")


@pytest.mark.parametrize("norm", ["none", "joint", "separate"])
def test_products_without_the_private_packing(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packed bfloat16 product is torch's private affair: where it is missing, `mm` must do as well."""
    layer = layer_of("lstm", norm, 8, 16).float()
    layer.compute_dtype = torch.bfloat16
    packed = run(layer, False, 6, 4, torch.float32, None)
    monkeypatch.setattr(lnlstm, "_packs", lambda: False)
    plain = run(layer, False, 6, 4, torch.float32, None)
    assert_close(plain, packed, 1e-2)  # both round to bfloat16, after sums in another order


def test_weight_dropout_is_of_the_recurrent_matrix_in_training() -> None:
    layer = layer_of("lstm", "joint", 3, 8)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    plain, _ = layer(x)
    layer.weight_dropout = 0.5
    assert torch.equal(layer.eval()(x)[0], plain)
    torch.manual_seed(1)
    dropped, _ = layer.train()(x)
    dropped.sum().backward()
    assert layer.weight_h.grad is not None
    gone = layer.weight_h.grad == 0
    assert 0.3 < gone.double().mean() < 0.7
    with torch.no_grad():
        layer.weight_h.mul_((~gone) / 0.5)
    torch.testing.assert_close(layer.eval()(x)[0], dropped)
