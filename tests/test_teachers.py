"""Distillation: what is taught, and that a student learns it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from streamasr.errors import ConfigError
from streamasr.train import checkpoint, config
from streamasr.train.batches import Batch
from streamasr.train.config import ModelConfig, TrainConfig
from streamasr.train.consistency import divergence
from streamasr.train.ctc import best_path
from streamasr.train.model import AcousticModel, Output
from streamasr.train.objective import objective
from streamasr.train.teachers import Teachers, aligned

BANDS, PHONES = 12, ("<blank>", " ", "AA", "B")
MODEL = ModelConfig(channels=2, hidden=8, layers=2, phone_layer=2, dropout=0.5)
STUDENT = config.Config(
    "student", config.DataConfig((), ()), model=MODEL, train=TrainConfig(precision="float32")
)
STATISTICS = (np.zeros(BANDS, np.float32), np.ones(BANDS, np.float32))


def teacher(path: Path, seed: int, mean: float, std: float, model: ModelConfig = MODEL) -> AcousticModel:
    """Writes a checkpoint of random weights -> its model, which stays in training mode."""
    torch.manual_seed(seed)
    network = AcousticModel(model, BANDS, 3, len(PHONES), "float32")
    content = {
        "config": json.dumps(asdict(replace(STUDENT, model=model))),
        "average": dict(network.named_parameters()),
        "statistics": [torch.full((BANDS,), mean), torch.full((BANDS,), std)],
        "phones": PHONES,
        "vocabulary": {"tokens": ["<blank>", " ", "a"], "kind": "characters"},
    }
    checkpoint.write(path, content)
    return network


def test_the_mean_of_all_teachers_is_taught_each_hearing_its_own_normalisation(tmp_path: Path) -> None:
    paths = [tmp_path / "one.pt", tmp_path / "two.pt"]
    members = [teacher(path, i, 0.3 * i, 1.0 + i) for i, path in enumerate(paths)]
    frames, lengths = torch.randn(3, 30, BANDS), torch.tensor([30, 21, 9])
    taught = Teachers(paths, STATISTICS, PHONES, MODEL, torch.device("cpu"))(frames, lengths)
    expected = torch.zeros(())
    for i, member in enumerate(members):
        out = member.eval()((frames - 0.3 * i) / (1.0 + i), lengths)
        assert out.phone_logits is not None
        expected = expected + 0.5 * out.phone_logits.softmax(-1)
    torch.testing.assert_close(taught.exp(), expected.detach(), atol=1e-5, rtol=1e-5)
    assert not taught.requires_grad


def test_other_phones_and_other_steps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    teacher(path, 0, 0.0, 1.0)
    with pytest.raises(ConfigError, match=r"one\.pt: a teacher must have the phones"):
        Teachers([path], STATISTICS, PHONES[:-1], MODEL, torch.device("cpu"))
    teacher(path, 0, 0.0, 1.0, replace(MODEL, frames_per_step=4))
    with pytest.raises(ConfigError, match=r"one\.pt: .* 4 frames, not 3"):
        Teachers([path], STATISTICS, PHONES, MODEL, torch.device("cpu"))
    teacher(path, 0, 0.0, 1.0, replace(MODEL, mean_frames=100, mean_window=500))
    with pytest.raises(ConfigError, match=r"one\.pt: .* 100 and 500, must be the student's"):
        Teachers([path], STATISTICS, PHONES, MODEL, torch.device("cpu"))


def test_an_alignment_is_taught_in_place_of_probabilities() -> None:
    """One token a step, the transcript's, in the steps that count; cross-entropy with it."""
    torch.manual_seed(2)
    taught = torch.randn(7, 2, len(PHONES)).log_softmax(-1)
    targets = [np.array([2, 3]), np.array([3, 3, 3, 3, 3])]  # the second does not fit into 7 steps
    found = aligned(taught, targets, torch.tensor([6, 7]))
    path = best_path(taught[:6, 0].numpy(), targets[0])
    assert path is not None and torch.equal(found[:6, 0].argmax(-1), torch.from_numpy(path))
    torch.testing.assert_close(found[:6, 0].exp().sum(-1), torch.ones(6))
    assert torch.equal(found[6:, 0], taught[6:, 0]) and torch.equal(found[:, 1], taught[:, 1])
    logits = torch.randn(6, len(PHONES)).log_softmax(-1)
    expected = -logits[torch.arange(6), torch.from_numpy(path)]
    torch.testing.assert_close(divergence(found[:6, 0], logits), expected)


def test_the_objective_adds_the_divergence_per_phone() -> None:
    """Of the steps that count, of utterances whose phones are known."""
    torch.manual_seed(0)
    logits = torch.randn(9, 3, len(PHONES), requires_grad=True)
    taught = torch.randn(9, 3, len(PHONES)).log_softmax(-1)
    steps = torch.tensor([9, 5, 7])
    tokens = [np.array([2]), np.array([1, 2]), np.array([2])]
    frames = torch.zeros(3, 27, BANDS)
    batch = Batch(frames, frames, 3 * steps, tokens, [np.array([2, 3]), None, np.array([2])], [], 0.8)
    out = Output(torch.randn(9, 3, 3), torch.zeros(9, 3, 8), steps, logits, [])
    settings = TrainConfig(distillation=0.7, phone_weight=0.5)
    without, _ = objective(out, batch, settings, None, nn.ModuleDict())
    loss, values = objective(out, batch, settings, None, nn.ModuleDict(), taught)
    said = logits.detach().log_softmax(-1)
    expected = sum(divergence(taught[: steps[b], b], said[: steps[b], b]).sum() for b in (0, 2))
    torch.testing.assert_close(loss - without, 0.5 * 0.7 * expected / 3)
    assert values["distillation"] == pytest.approx(float(expected) / 3)
