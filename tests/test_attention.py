"""The decoder with attention against its equations, letter by letter, and what it teaches the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_export import model_of, write
from torch import Tensor

from streamasr.train.attention import EDGE, AttentionDecoder
from streamasr.train.config import ModelConfig

TOKENS, WIDTH, HIDDEN = 5, 6, 4
MODEL = ModelConfig(channels=3, hidden=8, layers=1)


def decoder(dropout: float = 0.0) -> AttentionDecoder:
    torch.manual_seed(1)
    return AttentionDecoder(WIDTH, TOKENS, dropout, HIDDEN)


def one_by_one(d: AttentionDecoder, heard: Tensor, letters: list[int]) -> Tensor:
    """heard [S, H] of one utterance -> sum of -ln p(y_u), end included; the equations of the module."""
    lstm = d.lstm
    state = c = torch.zeros(HIDDEN)
    total = torch.zeros(())
    for before, after in zip([EDGE, *letters], [*letters, EDGE], strict=True):
        gates = lstm.weight_ih_l0 @ d.embedding.weight[before] + lstm.bias_ih_l0 + lstm.bias_hh_l0
        i, f, g, o = (gates + lstm.weight_hh_l0 @ state).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        state = o.sigmoid() * c.tanh()
        scores = torch.stack([state @ (d.key.weight @ e) / HIDDEN**0.5 for e in heard])
        context = sum(weight * e for weight, e in zip(scores.softmax(0), heard, strict=True))
        total = total - d.output(d.combined(torch.cat([state, context])).tanh()).log_softmax(0)[after]
    return total


def test_it_is_the_cross_entropy_of_the_letters_one_by_one() -> None:
    """In a batch with padded steps and letters, and an utterance without any letter."""
    d = decoder()
    encoded = torch.randn(7, 3, WIDTH, requires_grad=True)
    steps, tokens = torch.tensor([7, 4, 2]), [[1, 4, 4], [2, 3, 1, 1, 2], []]
    found = d(encoded, steps, [np.array(row, np.int64) for row in tokens])
    alone = [one_by_one(d, encoded[:n, b], tokens[b]) for b, n in enumerate(steps.tolist())]
    expected = sum(alone) / (4 + 6 + 1)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, encoded, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, encoded)[0])
    assert not gradient[4:, 1].any() and gradient[:4, 1].any(-1).all()


def test_it_finds_where_a_letter_was_heard() -> None:
    """Letters drawn at random cannot be guessed from those before: it has to look where they are."""
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    d = AttentionDecoder(TOKENS + 16, TOKENS, 0.0, 32)
    places = torch.from_numpy(random.standard_normal((8, 16))).float()
    optimiser = torch.optim.Adam(d.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        tokens = list(random.integers(1, TOKENS, (16, 6)))
        encoded = torch.zeros(8, 16, TOKENS + 16)
        encoded[..., TOKENS:] = places[:, None]
        for b, row in enumerate(tokens):
            encoded[torch.arange(6), b, torch.from_numpy(row)] = 1.0
        loss = d(encoded, torch.full((16,), 8), tokens)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    guessing = 6 / 7 * np.log(TOKENS - 1)  # and the end, always the seventh, known
    assert np.mean(losses[-10:]) < 0.3 * guessing, losses[::10]


def test_a_model_is_exported_without_it(tmp_path: Path) -> None:
    model = model_of(MODEL)
    write(tmp_path / "plain", MODEL, model)
    model.auxiliary["decoder"] = AttentionDecoder(MODEL.hidden, 29, 0.1)
    assert any(name.startswith("auxiliary.decoder.") for name in model.state_dict())
    write(tmp_path / "with", MODEL, model)
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "with" / name).read_bytes()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_is_of_the_letters_it_is_told(dropout: float) -> None:
    d = decoder(dropout)
    encoded, steps, tokens = torch.randn(3, 1, WIDTH), torch.tensor([3]), [np.array([1, 2])]
    first, second = (float(d(encoded, steps, tokens).detach()) for _ in range(2))
    assert (first == second) == (dropout == 0.0)
    d.eval()
    assert float(d(encoded, steps, tokens).detach()) == float(d(encoded, steps, tokens).detach())
