"""Trained weights -> a model directory that the streaming engine reads (docs/design.md, Model directory)."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .. import modelfile
from ..encoder import EncoderConfig
from ..errors import ConfigError, ModelError
from ..features import FeatureConfig
from ..vocabulary import Vocabulary
from . import checkpoint, config
from .config import ModelConfig

# Only training needs these.
_LEFT_OUT = ("phone_output.",)


def tensors(
    weights: dict[str, Tensor], statistics: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """State dict of AcousticModel -> tensors by their names in the model file."""
    kept = {n: w.detach().cpu().float().numpy() for n, w in weights.items() if not n.startswith(_LEFT_OUT)}
    kept["features.mean"], kept["features.std"] = statistics
    return kept


def write(
    path: Path,
    model: ModelConfig,
    weights: dict[str, Tensor],
    statistics: tuple[NDArray[np.float32], NDArray[np.float32]],
    vocabulary: Vocabulary,
    features: FeatureConfig,
    name: str,
    training: dict[str, Any],
) -> None:
    """Write the model directory. Raises ConfigError for a model that cannot run as a stream."""
    if model.bidirectional:
        raise ConfigError("a bidirectional model hears the future: it cannot be exported for streaming")
    shared = {f.name for f in fields(EncoderConfig)}
    description = modelfile.Description(
        name=name,
        language="en",
        licence="CC-BY-SA-4.0",
        description="Streaming speech recogniser: convolutional front end, layer-normalised LSTM, CTC",
        features=features,
        encoder=EncoderConfig(**{k: v for k, v in asdict(model).items() if k in shared}),
        vocabulary=vocabulary,
        training=training,
    )
    modelfile.write(path, description, tensors(weights, statistics), float16=True)


def from_checkpoint(path: Path, folder: Path, name: str) -> None:
    """best.pt or last.pt of a run -> model directory with the averaged weights."""
    content = checkpoint.read(path)
    try:
        settings = config.from_dict(json.loads(content["config"]), str(path))
        mean, std = (s.numpy() for s in content["statistics"])
        vocabulary = Vocabulary(tuple(content["vocabulary"]["tokens"]), content["vocabulary"]["kind"])
        weights, summary = content["average"], content["summary"]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a training checkpoint ({error!r})") from error
    write(folder, settings.model, weights, (mean, std), vocabulary, FeatureConfig(), name, summary)
