"""Trained weights in torch against the same weights in the streaming engine.

The largest difference allowed, 2e-5 in log_probs, is of float32 sums in other orders: about 500 terms a
product, some 30 products one after the other, and log_probs of size 10 whose own last bit is 1e-6.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import streamasr
from streamasr import modelfile
from streamasr.encoder import Encoder
from streamasr.errors import ConfigError
from streamasr.features import FeatureConfig
from streamasr.search import lexicon
from streamasr.train import export
from streamasr.train.config import ModelConfig
from streamasr.train.model import AcousticModel
from streamasr.vocabulary import Vocabulary

LETTERS = Vocabulary(("<blank>", " ", *"abcdefghijklmnopqrstuvwxyz", "'"))
FEATURES = FeatureConfig()
MEAN = np.linspace(-6, -3, 80).astype(np.float32)
STD = np.linspace(2, 4, 80).astype(np.float32)


def model_of(config: ModelConfig) -> AcousticModel:
    """Random, with gains and biases away from 1 and 0, and weights that float16 holds exactly."""
    torch.manual_seed(2)
    model = AcousticModel(config, 80, len(LETTERS), phones=5, precision="float32").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += 0.1 * torch.randn_like(p)
            if name.startswith("output"):
                p *= 4  # log_probs as peaked as those of a trained model
            p.copy_(p.half().float())
    return model


def write(path: Path, config: ModelConfig, model: AcousticModel) -> modelfile.Model:
    weights = model.state_dict()
    export.write(path, config, weights, (MEAN, STD), LETTERS, FEATURES, "tiny", {"epochs": 3})
    return modelfile.read(path)


def engine(model: modelfile.Model, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    encoder = Encoder(model.description.encoder, 80, model.tensors)
    state = encoder.start()
    pieces = [encoder.advance(state, piece) for piece in np.array_split(frames, 5)]
    return np.concatenate([*pieces, encoder.finish(state)])


CASES = [
    ("lstm", "joint", 3, 0),
    ("lstm", "joint", 4, 3),
    ("lstm", "separate", 3, 3),
    ("lstm", "none", 4, 0),
    ("gru", "joint", 3, 0),
    ("gru", "separate", 3, 0),
    ("gru", "none", 4, 3),
    ("rnn", "joint", 3, 3),
    ("rnn", "separate", 4, 0),
    ("rnn", "none", 3, 0),
]


@pytest.mark.parametrize(("cell", "norm", "frames_per_step", "look_ahead"), CASES)
def test_the_engine_computes_what_was_trained(
    cell: str, norm: str, frames_per_step: int, look_ahead: int, tmp_path: Path
) -> None:
    config = ModelConfig(
        frames_per_step=frames_per_step, channels=5, cell=cell, norm=norm, hidden=24, layers=3,
        look_ahead=look_ahead, flush_steps=4, phone_layer=2,
    )  # fmt: skip
    model = model_of(config)
    if model.look_ahead is not None:
        assert model.look_ahead.weight.abs().min() > 0
    steps = 40 + config.flush_steps
    # Noise, then what flush silence looks like normalised; a longer row beside it.
    frames = (
        np.random.default_rng(0).standard_normal((2, (steps + 3) * frames_per_step, 80)).astype(np.float32)
    )
    frames[0, 40 * frames_per_step :] = -2.5
    lengths = torch.tensor([steps, steps + 3]) * frames_per_step
    with torch.no_grad():
        out = model(torch.from_numpy(frames), lengths)
    expected = out.logits.log_softmax(-1).numpy()
    read = write(tmp_path / "m", config, model)
    for row, count in enumerate(out.steps.tolist()):
        found = engine(read, frames[row, : count * frames_per_step])
        assert found.shape == (count, len(LETTERS))
        np.testing.assert_allclose(found, expected[:count, row], rtol=0, atol=2e-5)
    assert expected.std() > 1.0  # the comparison is not of flat distributions


def test_what_is_written(tmp_path: Path) -> None:
    config = ModelConfig(channels=3, hidden=8, layers=2, phone_layer=1, dropout=0.3)
    model = model_of(config)
    read = write(tmp_path / "m", config, model)
    assert read.description.licence == "not stated"
    assert read.description.name == "tiny" and read.description.training == {"epochs": 3}
    assert read.description.vocabulary == LETTERS and read.description.features == FEATURES
    assert not any("phone" in name for name in read.tensors)
    for name, tensor in read.tensors.items():
        if not name.startswith("features."):
            np.testing.assert_array_equal(tensor, model.state_dict()[name].numpy())
    # Two bytes a number; the statistics too, at a relative error of 2**-11.
    count = sum(t.size for t in read.tensors.values())
    assert 2 * count < (tmp_path / "m" / "model.safetensors").stat().st_size < 2 * count + 10_000
    np.testing.assert_allclose(read.tensors["features.mean"], MEAN, rtol=5e-4)
    np.testing.assert_allclose(read.tensors["features.std"], STD, rtol=5e-4)


def test_a_model_that_hears_the_future_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(channels=3, hidden=8, layers=1, bidirectional=True)
    with pytest.raises(ConfigError, match="bidirectional"):
        write(tmp_path / "m", config, model_of(config))
    assert not (tmp_path / "m").exists()


def test_layer_norm_between_layers_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(channels=3, hidden=8, layers=1, norm="between")
    with pytest.raises(ConfigError, match="between layers is for comparison"):
        write(tmp_path / "m", config, model_of(config))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("other", [{"residual": False}, {"channels": 0}])
def test_what_is_for_comparison_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    config = replace(ModelConfig(channels=3, hidden=8, layers=1), **other)
    with pytest.raises(ConfigError, match="are for comparison"):
        write(tmp_path / "m", config, model_of(config))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("look_ahead", [0, 3])
def test_the_phone_head_is_exported_and_computes_what_was_trained(look_ahead: int, tmp_path: Path) -> None:
    config = ModelConfig(channels=3, hidden=16, layers=2, look_ahead=look_ahead, phone_layer=2, flush_steps=4)
    model = model_of(config)
    phones = Vocabulary(("<blank>", " ", "AH", "K", "TS"), "phones")
    prior = torch.log_softmax(torch.arange(5.0), 0)
    weights = {**model.state_dict(), "phone_output.prior": prior}
    path = tmp_path / "m"
    export.write(path, config, weights, (MEAN, STD), LETTERS, FEATURES, "two", {}, phones)
    read = modelfile.read(path)
    assert read.description.phones == phones and read.description.vocabulary == LETTERS
    np.testing.assert_allclose(read.tensors["phone_output.prior"], prior.numpy(), rtol=1e-3)
    frames = np.random.default_rng(1).standard_normal((90, 80)).astype(np.float32)
    with torch.no_grad():
        out = model(torch.from_numpy(frames)[None], torch.tensor([90]))
    assert out.phone_logits is not None
    weight, bias = (read.tensors[f"phone_output.{name}"] for name in ("weight", "bias"))
    encoder = Encoder(read.description.encoder, 80, read.tensors).with_head(weight, bias)
    state = encoder.start()
    found = np.concatenate([encoder.advance(state, frames), encoder.finish(state)])
    np.testing.assert_allclose(found, out.phone_logits[:, 0].log_softmax(-1).numpy(), rtol=0, atol=2e-5)


def test_with_a_lexicon_the_phone_head_is_searched(tmp_path: Path) -> None:
    config = ModelConfig(channels=3, hidden=16, layers=2, phone_layer=2, flush_steps=4)
    model = model_of(config)
    phones = Vocabulary(("<blank>", " ", "AH", "K", "TS"), "phones")
    weights = {**model.state_dict(), "phone_output.prior": torch.zeros(5)}
    path = tmp_path / "m"
    export.write(path, config, weights, (MEAN, STD), LETTERS, FEATURES, "two", {}, phones)
    recognizer = streamasr.load(path)
    assert recognizer.default_search == "greedy"  # without a lexicon nobody knows how phones are written
    lexicon.build([("cuts", (3, 2, 4)), ("a", (2,))], 5).write(path / "lexicon.safetensors")
    sound = np.random.default_rng(2).uniform(-0.5, 0.5, 32000).astype(np.float32)
    found = streamasr.load(path).transcribe(sound, 16_000)
    assert set(found.text.split()) <= {"cuts", "a"}
    whole = streamasr.load(path).stream(endpointing=False)
    parts = streamasr.load(path).stream(endpointing=False)
    whole.accept(sound)
    for chunk in np.array_split(sound, 7):
        parts.accept(chunk)
    assert whole.nbest(5) == parts.nbest(5)
    resumed = streamasr.load(path).resume(parts.snapshot())
    assert resumed.finish() == whole.finish()
