"""LSTM language model: sub-words [T, B] -> log-probabilities of the next; the twin of search/lstm_lm.py.

x = embedding[token] * sqrt(E)          [T, B, E]
L x y = lstm(x), layer-normalised; where the widths agree x + y goes on, elsewhere y
p(next) = softmax(embedding (projection x) + bias)      the same embedding: Press & Wolf 2017
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .lnlstm import RecurrentLayer
from .model import State, StepsDropout


class LstmModel(nn.Module):
    def __init__(
        self,
        tokens: int,
        embedding: int,
        hidden: int,
        layers: int,
        dropout: float = 0.0,
        precision: str = "bfloat16",
    ) -> None:
        super().__init__()
        self.hidden, self.dtype = hidden, getattr(torch, precision)
        # Rows of length 1, so that the first logits are neither flat nor sure.
        self.embedding = nn.Parameter(torch.randn(tokens, embedding) / math.sqrt(embedding))
        self.layers = nn.ModuleList(
            RecurrentLayer(hidden if level else embedding, hidden, "lstm", "joint") for level in range(layers)
        )
        for layer in self.layers:
            layer.compute_dtype = self.dtype
        self.projection = nn.Parameter(torch.empty(embedding, hidden))
        nn.init.xavier_uniform_(self.projection)
        self.bias = nn.Parameter(torch.zeros(tokens))
        self.dropout = StepsDropout(dropout)

    def start(self, rows: int) -> State:
        zero = self.bias.new_zeros(rows, self.hidden)
        return [(zero, zero) for _ in self.layers]

    def forward(
        self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens [T, B] -> logits [T, B, V] in the products' type, state after the last counted token."""
        x = self.dropout(nn.functional.embedding(tokens, self.embedding) * math.sqrt(self.embedding.shape[1]))
        final: State = []
        for level, layer in enumerate(self.layers):
            y, last = layer(x, None if state is None else state[level], lengths)
            y = self.dropout(y)
            x = x + y if x.shape == y.shape else y
            final.append((last[0].detach(), last[1].detach()))
        x = nn.functional.linear(x.to(self.dtype), self.projection.to(self.dtype))
        return nn.functional.linear(x, self.embedding.to(self.dtype), self.bias.to(self.dtype)), final
