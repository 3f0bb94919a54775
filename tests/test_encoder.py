"""The encoder against torch (convolutions, cells without normalisation) and against its own formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract import check_stage
from numpy.typing import NDArray
from strategies import TINY, random_model

from streamasr import tensorfile
from streamasr.encoder import CELLS, NORMS, Encoder, EncoderConfig
from streamasr.engine import int8
from streamasr.engine.reference import ReferenceEngine

Wide = NDArray[np.float64]
BANDS = 80
FRAMES = np.random.default_rng(5).standard_normal((61, BANDS)).astype(np.float32)


def make(**changes: Any) -> tuple[EncoderConfig, dict[str, NDArray[np.float32]]]:
    config = EncoderConfig(**{**TINY, **changes})
    tensors = random_model(config, seed=1)[1]
    rng = np.random.default_rng(2)
    for name in ("conv1.bias", "conv2.bias"):  # silent in the fixture
        tensors[name][:] = rng.standard_normal(len(tensors[name]))
    return config, {name: tensor for name, tensor in tensors.items() if not name.startswith("features.")}


def encode(encoder: Encoder, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    state = encoder.start()
    return np.concatenate([encoder.advance(state, frames), encoder.finish(state)])


# --- the formulas of docs/design.md, written down once more in float64


def layer_norm(v: Wide) -> Wide:
    return (v - v.mean()) / np.sqrt(v.var() + 1e-5)


def sigmoid(v: Wide) -> Wide:
    return 1.0 / (1.0 + np.exp(-v))


def cell_step(config: EncoderConfig, t: dict[str, Wide], x: Wide, h: Wide, c: Wide) -> tuple[Wide, Wide]:
    a, u, bias = t["weight_x"] @ x, t["weight_h"] @ h, t["bias"]
    n = len(h)
    if config.cell == "gru":
        if config.norm == "joint":
            r, z = np.split(sigmoid(layer_norm((a + u)[: 2 * n]) * t["gain"][: 2 * n] + bias[: 2 * n]), 2)
            new = np.tanh(layer_norm(a[2 * n :] + r * u[2 * n :]) * t["gain"][2 * n :] + bias[2 * n :])
        else:
            if config.norm == "separate":
                a, u = layer_norm(a) * t["gain_x"], layer_norm(u) * t["gain"]
            r, z = np.split(sigmoid((a + u + bias)[: 2 * n]), 2)
            new = np.tanh(a[2 * n :] + r * u[2 * n :] + bias[2 * n :])
        return (1 - z) * new + z * h, c
    if config.norm == "joint":
        v = layer_norm(a + u) * t["gain"] + bias
    elif config.norm == "separate":
        v = layer_norm(a) * t["gain_x"] + layer_norm(u) * t["gain"] + bias
    else:
        v = a + u + bias
    if config.cell == "rnn":
        return np.tanh(v), c
    i, f, g, o = np.split(v, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    m = c if config.norm == "none" else layer_norm(c) * t["cell_gain"] + t["cell_bias"]
    return sigmoid(o) * np.tanh(m), c


def by_formula(config: EncoderConfig, tensors: dict[str, Any], frames: NDArray[np.float32]) -> Wide:
    """log_probs [S, V] of whole frames [T, F], T a multiple of k; convolutions by torch."""
    torch = pytest.importorskip("torch")
    pad = torch.nn.functional.pad
    t = {name: torch.from_numpy(tensor).double() for name, tensor in tensors.items()}
    x = torch.from_numpy(frames).double()[None, None]
    x = torch.nn.functional.conv2d(
        pad(x, (1, 1, 2, 0)), t["conv1.weight"], t["conv1.bias"], stride=(config.frames_per_step, 2)
    ).relu()
    x = torch.nn.functional.conv2d(pad(x, (1, 1, 2, 0)), t["conv2.weight"], t["conv2.bias"], stride=(1, 2))
    y = x.relu()[0].permute(1, 0, 2).flatten(1).numpy()
    for layer in range(config.layers):
        prefix = f"layers.{layer}."
        own = {n.removeprefix(prefix): v.numpy() for n, v in t.items() if n.startswith(prefix)}
        h = c = np.zeros(config.hidden)
        rows = []
        for row in y:
            h, c = cell_step(config, own, row, h, c)
            rows.append(h)
        out = np.array(rows)
        y = y + out if y.shape == out.shape else out
    if config.look_ahead:
        padded = np.concatenate([y, np.zeros((config.look_ahead, config.hidden))])
        weight = t["look_ahead.weight"].numpy()
        y = sum(weight[j] * padded[j : j + len(y)] for j in range(config.look_ahead + 1))
    logits = y @ t["output.weight"].numpy().T + t["output.bias"].numpy()
    top = logits.max(axis=1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("cell", CELLS)
def test_formulas(cell: str, norm: str) -> None:
    config, tensors = make(cell=cell, norm=norm, look_ahead=len(norm) % 3, frames_per_step=4)
    found = encode(Encoder(config, BANDS, tensors), FRAMES[:60])
    assert found.shape == (15, 29) and found.dtype == np.float32
    # float32 against float64 over a few dozen steps; log_probs are of the order of 10.
    np.testing.assert_allclose(found, by_formula(config, tensors, FRAMES[:60]), rtol=0, atol=2e-3)


@pytest.mark.parametrize("bands", [1, 3, 7, 40])
def test_odd_numbers_of_bands(bands: int) -> None:
    config = EncoderConfig(**TINY, norm="none")  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    shapes = config.shapes(bands, 5)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    frames = np.ascontiguousarray(FRAMES[:30, :bands])
    found = encode(Encoder(config, bands, tensors), frames)
    np.testing.assert_allclose(found, by_formula(config, tensors, frames), rtol=0, atol=1e-4)  # as above


@pytest.mark.parametrize("cell", CELLS)
def test_torch_layers(cell: str) -> None:
    """Without normalisation the recurrent layers are torch's."""
    torch = pytest.importorskip("torch")
    _config, tensors = make(cell=cell, norm="none", layers=1)
    layer = getattr(torch.nn, cell.upper())(80, 16, batch_first=True)
    with torch.no_grad():
        layer.weight_ih_l0[:] = torch.from_numpy(tensors["layers.0.weight_x"])
        layer.weight_hh_l0[:] = torch.from_numpy(tensors["layers.0.weight_h"])
        layer.bias_ih_l0[:] = torch.from_numpy(tensors["layers.0.bias"])
        layer.bias_hh_l0[:] = 0.0
        x = np.random.default_rng(3).standard_normal((9, 80)).astype(np.float32)
        expected = layer(torch.from_numpy(x)[None])[0][0].numpy()
    engine = ReferenceEngine(cell, "none", BANDS, tensors)
    h, c = np.zeros((1, 1, 16), np.float32), np.zeros((1, 1, 16), np.float32)
    # float32 both; sigmoid by tanh.
    np.testing.assert_allclose(engine.recur(x, [1] * 9, h, c), expected, rtol=0, atol=2e-6)


ENGINES = [(cell, norm, "float32") for cell in CELLS for norm in NORMS] + [("lstm", "joint", "int8")]


@pytest.mark.parametrize(("cell", "norm", "numbers"), ENGINES)
def test_batch_rows_are_bit_equal_to_single_streams(cell: str, norm: str, numbers: str) -> None:
    """Streams that wait with other numbers of frames get chunks of other sizes, some none at all."""
    config, tensors = make(cell=cell, norm=norm, look_ahead=1)
    encoder = Encoder(config, BANDS, tensors, numbers)
    rng = np.random.default_rng(4)
    alone, together = ([encoder.start() for _ in range(5)] for _ in range(2))
    for _ in range(4):
        chunks = [rng.standard_normal((n, BANDS)).astype(np.float32) for n in rng.integers(0, 12, 5)]
        expected = [encoder.advance(state, chunk) for state, chunk in zip(alone, chunks, strict=True)]
        found = encoder.advance_batch(together, chunks)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one.h, other.h)
            np.testing.assert_array_equal(one.columns, other.columns)


# --- int8


@pytest.mark.parametrize(
    ("bands", "changes"), [(80, {}), (7, {"look_ahead": 2}), (80, {"frames_per_step": 4})]
)
def test_int8_agrees_with_the_reference_on_the_same_weights(bands: int, changes: dict[str, Any]) -> None:
    config = EncoderConfig(**{**TINY, "hidden": 24, "channels": 5, **changes})
    rng = np.random.default_rng(6)
    tensors = {}
    for name, shape in config.shapes(bands, 29).items():
        tensor = rng.standard_normal(shape).astype(np.float32) * 0.5
        stored = tensorfile.quantised(name, tensor) if tensor.ndim > 1 else {name: tensor}
        tensors |= tensorfile.parse(tensorfile.render(stored), "here")
    frames = np.ascontiguousarray(FRAMES[:, :bands])
    found = encode(Encoder(config, bands, tensors, "int8"), frames)
    expected = encode(Encoder(config, bands, tensors), frames)
    # Sums in another order, tanh within 4 ulp, over some dozen steps; log_probs are of the order of 10.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)


def test_int8_engine_finds_the_stored_numbers_again() -> None:
    weight = np.random.default_rng(7).standard_normal((48, 33)).astype(np.float32)
    stored = tensorfile.quantised("w", weight)
    panels, scale = int8._panels(tensorfile.parse(tensorfile.render(stored), "here")["w"])
    np.testing.assert_array_equal(panels.transpose(1, 0, 2).reshape(33, 48).T, stored["w"])
    np.testing.assert_allclose(scale, stored["w.scale"], rtol=2e-7)


@pytest.mark.parametrize("look_ahead", [0, 2])
@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("mean", [0, 20])
def test_contract(k: int, look_ahead: int, mean: int) -> None:
    config, tensors = make(frames_per_step=k, look_ahead=look_ahead, mean_frames=mean, mean_window=2 * mean)
    tensors["features.std"] = np.full(BANDS, 4, np.float32)
    for numbers in ("float32", "int8"):
        check_stage(Encoder(config, BANDS, tensors, numbers), FRAMES)


def test_contract_at_real_size() -> None:
    """BLAS chooses its routine by size: the bits must not depend on chunks there either."""
    config, tensors = make(hidden=384, layers=2, channels=32, look_ahead=1)
    check_stage(Encoder(config, BANDS, tensors), FRAMES)


@pytest.mark.parametrize("look_ahead", [0, 3])
def test_declared_look_ahead_is_the_measured_one(look_ahead: int) -> None:
    config, tensors = make(look_ahead=look_ahead)
    encoder = Encoder(config, BANDS, tensors)
    for frames in range(25):
        steps = len(encoder.advance(encoder.start(), FRAMES[:frames]))
        assert steps == max(frames // 3 - look_ahead, 0)
        assert len(encode(encoder, FRAMES[:frames])) == frames // 3


def test_log_probs_are_normalised_and_finite_for_any_frames() -> None:
    config, tensors = make()
    encoder = Encoder(config, BANDS, tensors)
    for scale in (0.0, 1e-20, 1.0, 1e4):
        log_probs = encode(encoder, FRAMES * np.float32(scale))
        np.testing.assert_allclose(np.exp(log_probs.astype(np.float64)).sum(1), 1.0, atol=1e-5)  # float32


def test_frames_to_finish() -> None:
    config = EncoderConfig(frames_per_step=4, flush_steps=2)
    assert [config.frames_to_finish(frames) for frames in (0, 1, 4, 5)] == [0, 12, 12, 16]
