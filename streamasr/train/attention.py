"""Encoder outputs and letters -> cross-entropy of a decoder with attention: joint CTC/attention training.

Kim, Hori and Watanabe, "Joint CTC-attention based end-to-end speech recognition using multi-task learning"
(arXiv:1609.06773): beside CTC, a decoder that is told the letters so far has to say the next one from what
the encoder heard. Only the encoder is kept. With e_s the encoder's output at step s, y_1 .. y_U the letters
and y_0 = y_{U+1} their edge,

    d_u = LSTM(d_{u-1}, embedding(y_{u-1}))
    a_us = softmax over s of  d_u . (W_k e_s) / sqrt(hidden)
    c_u = sum over s of  a_us e_s
    p(y_u) = softmax(V tanh(W_c [d_u; c_u]))

This is the global attention of Luong et al. (arXiv:1508.04025, eq. 5-8) without feeding c_u back into the
LSTM: so attention need not wait for the letter before, and all of it is a few products.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

EDGE = 0  # before the first letter and after the last: CTC's blank, which is never said
_PADDING = -1


class AttentionDecoder(nn.Module):
    """`width`: of the encoder's outputs. `dropout`: of what it is told of the letters, so that it listens."""

    def __init__(self, width: int, tokens: int, dropout: float, hidden: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, hidden)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(hidden, hidden)
        self.key = nn.Linear(width, hidden, bias=False)
        self.combined = nn.Linear(hidden + width, hidden)
        self.output = nn.Linear(hidden, tokens)

    def forward(self, encoded: Tensor, steps: Tensor, tokens: list[NDArray[np.int64]]) -> Tensor:
        """encoded [S, B, H], steps [B] that count, letters of each row -> nats per letter, ends included."""
        rows = [torch.from_numpy(np.append(row, EDGE)) for row in tokens]
        after = nn.utils.rnn.pad_sequence(rows, padding_value=_PADDING).to(encoded.device)  # [U + 1, B]
        before = nn.functional.pad(after[:-1].clamp_min(EDGE), (0, 0, 1, 0), value=EDGE)
        states = self.lstm(self.dropout(self.embedding(before)))[0].transpose(0, 1)
        heard = encoded.float().transpose(0, 1)
        scores = states @ self.key(heard).transpose(1, 2) / states.shape[-1] ** 0.5  # [B, U + 1, S]
        outside = torch.arange(len(encoded)) >= steps[:, None]
        scores = scores.masked_fill(outside[:, None].to(scores.device), -torch.inf)
        context = scores.softmax(-1) @ heard
        logits = self.output(self.combined(torch.cat([states, context], -1)).tanh())
        return nn.functional.cross_entropy(logits.transpose(1, 2), after.T, ignore_index=_PADDING)
