"""Predictive coding: the error frame by frame, what is left out of it, and that the future is not heard."""

from __future__ import annotations

import numpy as np
import torch

from streamasr.train.config import ModelConfig
from streamasr.train.model import AcousticModel
from streamasr.train.prediction import FramePredictor

BANDS = 80
MODEL = ModelConfig(channels=2, hidden=8, layers=2, flush_steps=4, frames_per_step=3)


def test_it_is_the_error_of_every_frame_that_is_so_many_steps_ahead() -> None:
    torch.manual_seed(0)
    predictor = FramePredictor(MODEL, BANDS, 2)
    encoded, frames = torch.randn(12, 3, 8), torch.randn(3, 36, BANDS)
    steps = torch.tensor([12, 9, 5])  # four of each are the silence of the flush
    found, numbers = predictor(encoded, frames, steps)
    expected, count = 0.0, 0
    for b, n in enumerate(steps.tolist()):
        for s in range(n - 4 - 2):
            predicted = predictor.output(encoded[s, b]).detach().reshape(3, BANDS)
            expected += float((frames[b, 3 * (s + 2) : 3 * (s + 3)] - predicted).abs().sum())
            count += 3 * BANDS
    assert numbers == count == (6 + 3 + 0) * 3 * BANDS
    np.testing.assert_allclose(float(found.detach()), expected, rtol=1e-5)


def test_utterances_too_short_to_predict_anything_are_no_mistake() -> None:
    predictor = FramePredictor(MODEL, BANDS, 9)
    encoded = torch.randn(6, 1, 8, requires_grad=True)
    found, numbers = predictor(encoded, torch.randn(1, 18, BANDS), torch.tensor([6]))
    found.backward()
    assert numbers == 0 and float(found.detach()) == 0.0
    assert encoded.grad is not None and not encoded.grad.any()


def test_what_is_predicted_has_not_been_heard() -> None:
    """Frames from step s + 1 on change nothing of what is predicted at step s; those up to s do."""
    torch.manual_seed(0)
    model = AcousticModel(MODEL, BANDS, 5, precision="float32").eval()
    frames = torch.randn(1, 36, BANDS, requires_grad=True)
    for s in (0, 5, 10):
        encoded = model(frames, torch.tensor([36])).encoded
        (heard,) = torch.autograd.grad(encoded[s].sum(), frames)
        assert heard[0, 3 * s + 2].any() and not heard[0, 3 * s + 3 :].any()
