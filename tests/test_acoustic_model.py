"""The network that is trained: what its options change, and what they must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from streamasr.train import config
from streamasr.train.model import AcousticModel


def model_of(**changes: Any) -> tuple[AcousticModel, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    settings = config.ModelConfig(**{"channels": 3, "hidden": 8, "layers": 2, "dropout": 0.2, **changes})
    model = AcousticModel(settings, 80, 5, precision="float32")
    return model, torch.randn(3, 36, 80), torch.tensor([36, 21, 6])


def gradients(model: AcousticModel, *arguments: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(1)  # dropout
    out = model(*arguments)
    inside = torch.arange(len(out.logits))[:, None] < out.steps
    model.zero_grad()
    (out.logits * inside[..., None]).square().sum().backward()
    return out.logits.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_checkpointing_layers_changes_no_gradient(cell: str) -> None:
    model, frames, lengths = model_of(cell=cell)
    logits, plain = gradients(model, frames, lengths, None, 0, False)
    logits_again, recomputed = gradients(model, frames, lengths, None, 0, True)
    assert torch.equal(logits, logits_again)
    for a, b in zip(plain, recomputed, strict=True):
        assert torch.equal(a, b)


def test_layer_norm_between_layers() -> None:
    """Plain recurrences, each normalised over its units before the residual sum: by hand in NumPy."""
    model, frames, lengths = model_of(norm="between", layers=2, dropout=0.0)
    assert not any("gain" in name for name, _ in model.named_parameters())
    with torch.no_grad():
        for norm in model.norms:
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.uniform_(-1.0, 1.0)
        x = model._convolutions(frames)
        for layer, norm in zip(model.layers, model.norms, strict=True):
            y = layer(x, None, lengths // 3)[0].numpy()
            y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
            y = torch.from_numpy(y * norm.weight.numpy() + norm.bias.numpy())
            x = x + y if x.shape == y.shape else y
        expected = model.output(x)
        torch.testing.assert_close(model(frames, lengths).logits, expected, rtol=0, atol=1e-5)
    _, found = gradients(model, frames, lengths)
    assert len(found) == len(list(model.parameters()))


def test_without_convolutions_and_residuals() -> None:
    model, frames, lengths = model_of(channels=0, residual=False, layers=2, dropout=0.0)
    with torch.no_grad():
        steps = frames.unfold(1, 3, 3).transpose(2, 3).flatten(2).transpose(0, 1)  # [S, B, 3 F]
        x, _ = model.layers[0](steps.to(model.dtype), None, lengths // 3)
        x, _ = model.layers[1](x, None, lengths // 3)
        assert torch.equal(model(frames, lengths).logits, model.output(x.float()))
    _, found = gradients(model, frames, lengths)
    assert len(found) == len(list(model.parameters()))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_truncation_changes_gradients_but_not_outputs(cell: str) -> None:
    model, frames, lengths = model_of(cell=cell)
    whole, plain = gradients(model, frames, lengths, None, 0)
    long, same = gradients(model, frames, lengths, None, 100)
    short, other = gradients(model, frames, lengths, None, 5)
    # Products over other numbers of rows sum in another order: last bits of float32.
    inside = (torch.arange(12)[:, None] < lengths // 3)[..., None]
    torch.testing.assert_close(long * inside, whole * inside, rtol=0, atol=2e-6)
    torch.testing.assert_close(short * inside, whole * inside, rtol=0, atol=2e-6)
    torch.testing.assert_close(same, plain, rtol=1e-4, atol=1e-5)
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(other, plain, strict=True))


def test_states_go_on_where_the_chunk_before_ended() -> None:
    """What carry_probability relies on: the state handed out is the one after each row's last step."""
    model, frames, lengths = model_of(dropout=0.0)
    model.eval()
    with torch.no_grad():
        state = model(frames, lengths).state
        alone = model(frames[1:2, :21], lengths[1:2]).state
    for (h, c), (h_alone, c_alone) in zip(state, alone, strict=True):
        torch.testing.assert_close(h[1:2], h_alone, rtol=0, atol=2e-6)
        torch.testing.assert_close(c[1:2], c_alone, rtol=0, atol=2e-6)
