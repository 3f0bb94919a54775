"""LSTM language model in NumPy: what follows a line's beginning, over sub-words.

    x = embedding[token] * sqrt(E)                                      [N, E]
    L x the joint layer-normalised LSTM of engine/reference.py; where the widths agree x + y goes on, else y
    log p(next) = log_softmax(embedding (projection x) + bias)          [N, V]

All N hypotheses of a step are one product, unlike in the encoder: who asks with the same hypotheses gets
the same bits, and the chunks of a stream do not change what hypotheses there are.

    lstm_lm.json            {"format": 1, "subwords": ["\\n", "a", ...], "training": {... free summary ...}}
    lstm_lm.safetensors     int8, each with <name>.scale [rows] float32: embedding [V, E], projection [E, H],
                                layers.<l>.weight_x [4H, I], .weight_h [4H, H]
                            float32: bias [V], layers.<l>.bias, .gain [4H], .cell_gain, .cell_bias [H]
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import tensorfile
from ..errors import ModelError
from .subwords import LINE_END, Subwords

FORMAT = 1
TENSORS, DESCRIPTION = "lstm_lm.safetensors", "lstm_lm.json"
_MOST_JSON_BYTES = 4 << 20
_EPSILON = np.float32(1e-5)
_HALF = np.float32(0.5)

Array = NDArray[np.float32]


class State(NamedTuple):
    """Of N texts: h and c [L, N, H]."""

    h: Array
    c: Array

    def rows(self, rows: Sequence[int]) -> State:
        """The states of these texts, copied."""
        return State(self.h[:, rows], self.c[:, rows])


class LstmModel:
    """Weights, prepared once and shared by all streams; never changes."""

    def __init__(self, subwords: Subwords, tensors: Mapping[str, Array], where: str = "LSTM model") -> None:
        """`tensors`: by their names in the file, matrices as float32. Raises ModelError naming `where`."""
        _check(tensors, len(subwords), where)
        self.subwords = subwords
        self._layers = [_layer(tensors, f"layers.{level}.") for level in range(_depth(tensors))]
        self.hidden = tensors["projection"].shape[1]
        self._embedding = tensors["embedding"]
        # Both contiguous along what is summed over.
        self._projection = np.ascontiguousarray(tensors["projection"].T)
        self._output = np.ascontiguousarray(tensors["embedding"].T)
        self._bias = tensors["bias"]
        self._scale = np.float32(math.sqrt(self._embedding.shape[1]))

    @property
    def parameters(self) -> int:
        layers = sum(array.size for layer in self._layers for array in layer)
        return layers + self._embedding.size + self._projection.size + self._bias.size

    def start(self, count: int = 1) -> State:
        """Of `count` texts that are yet to begin: feed the end of a line first."""
        shape = (len(self._layers), count, self.hidden)
        return State(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def step(self, tokens: Sequence[int], state: State) -> Array:
        """One sub-word of each of N texts -> log p of what comes next [N, V]; the state is changed."""
        x = self._embedding[np.asarray(tokens, np.intp)] * self._scale
        for level, layer in enumerate(self._layers):
            y = layer.step(x, state.h[level], state.c[level])
            x = x + y if x.shape == y.shape else y
        z = np.asarray((x @ self._projection) @ self._output, np.float32)
        z += self._bias
        z -= z.max(axis=1, keepdims=True)
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
        return z

    def score(self, context: Sequence[int], texts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """log p of each text, sub-words, after `context` -> [len(texts)].

        The context begins with the end of a line. What beginnings texts share is computed once.
        """
        state = self.start()
        for token in context:
            known = self.step([token], state)
        scores = np.zeros(len(texts))
        at = [0] * len(texts)  # row of `known` that each text has come to
        longest = max(map(len, texts), default=0)
        for place in range(longest):
            going = [i for i, text in enumerate(texts) if len(text) > place]
            for i in going:
                scores[i] += known[at[i], texts[i][place]]
            going = [i for i in going if len(texts[i]) > place + 1]
            if not going:
                break
            steps = sorted({(at[i], texts[i][place]) for i in going})
            row = {step: number for number, step in enumerate(steps)}
            for i in going:
                at[i] = row[at[i], texts[i][place]]
            state = state.rows([parent for parent, _ in steps])
            known = self.step([token for _, token in steps], state)
        return scores

    def line(self, text: str) -> list[float]:
        """Words of a line -> natural log p of each and of its end. Raises KeyError (unknown letter)."""
        state = self.start()
        known = self.step([LINE_END], state)
        scores = []
        for subwords in (*map(self.subwords.word, text.split()), (LINE_END,)):
            scores.append(0.0)
            for token in subwords:
                scores[-1] += float(known[0, token])
                known = self.step([token], state)
        return scores


class _Layer(NamedTuple):
    weight: Array  # [I + H, 4H]
    gain: Array
    bias: Array
    cell_gain: Array
    cell_bias: Array

    def step(self, x: Array, h: Array, c: Array) -> Array:
        """x [N, I], h and c [N, H], changed in place -> h."""
        hidden = h.shape[1]
        z = np.concatenate([x, h], axis=1) @ self.weight
        _normalise(z)
        z *= self.gain
        z += self.bias
        np.tanh(z, out=z)  # of half the argument for the gates: sigmoid(v) = (1 + tanh(v / 2)) / 2
        new = z[:, 2 * hidden : 3 * hidden].copy()
        z *= _HALF
        z += _HALF
        new *= z[:, :hidden]
        c *= z[:, hidden : 2 * hidden]
        c += new
        y = c.copy()
        _normalise(y)
        y *= self.cell_gain
        y += self.cell_bias
        np.tanh(y, out=y)
        np.multiply(y, z[:, 3 * hidden :], out=h)
        return h


def _layer(tensors: Mapping[str, Array], prefix: str) -> _Layer:
    weight = np.concatenate([tensors[prefix + "weight_x"], tensors[prefix + "weight_h"]], axis=1)
    hidden = len(weight) // 4
    halves = np.full(len(weight), _HALF)  # exact, so it may stand in gain and bias
    halves[2 * hidden : 3 * hidden] = 1.0
    gain, bias = (np.asarray(tensors[prefix + name] * halves, np.float32) for name in ("gain", "bias"))
    cell = tensors[prefix + "cell_gain"], tensors[prefix + "cell_bias"]
    return _Layer(np.ascontiguousarray(weight.T), gain, bias, *cell)


def _normalise(v: Array) -> None:
    """v [N, H] := (v - mean) / sqrt(variance + eps) row by row, biased variance, in place."""
    v -= v.mean(axis=1, keepdims=True)
    v /= np.sqrt(np.einsum("nh,nh->n", v, v) / np.float32(v.shape[1]) + _EPSILON)[:, None]


def _depth(tensors: Mapping[str, Array]) -> int:
    return sum(name.endswith(".weight_h") for name in tensors)


def _shapes(tensors: Mapping[str, Array], tokens: int) -> dict[str, tuple[int, ...]]:
    """Every tensor's name and shape, from the widths that the projection has."""
    width, hidden = tensors["projection"].shape
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (tokens, width), "projection": (width, hidden), "bias": (tokens,)
    }  # fmt: skip
    for level in range(max(1, _depth(tensors))):
        prefix, gates = f"layers.{level}.", 4 * hidden
        shapes[prefix + "weight_x"] = gates, hidden if level else width
        shapes[prefix + "weight_h"] = gates, hidden
        shapes[prefix + "gain"] = shapes[prefix + "bias"] = (gates,)
        shapes[prefix + "cell_gain"] = shapes[prefix + "cell_bias"] = (hidden,)
    return shapes


def _check(tensors: Mapping[str, Array], tokens: int, where: str) -> None:
    if "projection" not in tensors or tensors["projection"].ndim != 2:
        raise ModelError(f"{where}: lacks the matrix projection; `streamasr train-lm` makes such models")
    shapes = _shapes(tensors, tokens)
    if different := shapes.keys() ^ tensors.keys():
        raise ModelError(f"{where}: {min(different)} is missing, or has no place in such a model")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ModelError(f"{where}: {name} has shape {list(tensors[name].shape)}, must be {list(shape)}")
        if not np.isfinite(tensors[name]).all():
            raise ModelError(f"{where}: {name} holds NaN or infinity")


def write(
    folder: str | os.PathLike[str],
    subwords: Subwords,
    tensors: Mapping[str, Array],
    training: dict[str, Any],
) -> None:
    """-> both files in `folder`, matrices as int8. Raises ModelError when the tensors are no such model."""
    folder = Path(folder)
    _check(tensors, len(subwords), str(folder))
    stored: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        stored |= tensorfile.quantised(name, tensor) if tensor.ndim > 1 else {name: tensor}
    description = {"format": FORMAT, "subwords": list(subwords.pieces), "training": training}
    files = {
        TENSORS: tensorfile.render(stored),
        DESCRIPTION: json.dumps(description, ensure_ascii=False).encode() + b"\n",
    }
    for name, content in files.items():  # never a half-written file under the real name
        (folder / f"{name}.part").write_bytes(content)
        os.replace(folder / f"{name}.part", folder / name)


def read(folder: str | os.PathLike[str]) -> LstmModel:
    """Folder with both files -> the model. Raises ModelError naming the file and the tensor or key."""
    path = Path(folder) / DESCRIPTION
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise ModelError(f"{path}: too large to be a description")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            f"{path}: no such file: no LSTM language model is here; train-lm makes one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ModelError(f"{path}: is not of format {FORMAT}, which this version of streamasr reads")
    pieces = found.get("subwords")
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise ModelError(f"{path}: subwords must be a list of texts")
    where = os.fspath(Path(folder) / TENSORS)
    try:
        content = Path(where).read_bytes()
    except OSError as error:
        raise ModelError(f"{where}: cannot be read: {error}") from None
    return LstmModel(Subwords(pieces, str(path)), tensorfile.parse(content, where), where)
