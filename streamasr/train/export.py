"""Trained weights -> a model directory that the streaming engine reads (docs/design.md, Model directory)."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import modelfile
from ..encoder import EncoderConfig
from ..errors import ConfigError, ModelError
from ..features import FeatureConfig
from ..vocabulary import Vocabulary
from . import checkpoint, config
from .config import ModelConfig


def tensors(
    weights: dict[str, Tensor], statistics: tuple[NDArray[np.float32], NDArray[np.float32]], phones: bool
) -> dict[str, NDArray[np.float32]]:
    """State dict of AcousticModel -> tensors by their names in the model file, with or without phones."""
    kept = {
        name: weight.detach().cpu().float().numpy()
        for name, weight in weights.items()
        if phones or not name.startswith("phone_output.")
    }
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
    phones: Vocabulary | None = None,
    numbers: str = "float16",
) -> None:
    """Write the model directory. Raises ConfigError for a model that cannot run as a stream.

    With `phones`, `weights` have their head too, and "phone_output.prior".
    """
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
        phones=phones,
    )
    modelfile.write(path, description, tensors(weights, statistics, phones is not None), numbers=numbers)


def from_checkpoint(path: Path, folder: Path, name: str, numbers: str = "float16") -> None:
    """best.pt or last.pt of a run -> model directory with the averaged weights."""
    content = checkpoint.read(path)
    try:
        settings = config.from_dict(json.loads(content["config"]), str(path))
        mean, std = (s.numpy() for s in content["statistics"])
        vocabulary = Vocabulary(tuple(content["vocabulary"]["tokens"]), content["vocabulary"]["kind"])
        weights, summary = content["average"], content["summary"]
        phones = None
        if settings.model.phone_layer == settings.model.layers and "prior" in content:
            phones = Vocabulary(tuple(content["phones"]), "phones")
            weights["phone_output.prior"] = content["prior"]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a training checkpoint ({error!r})") from error
    write(
        folder,
        settings.model,
        weights,
        (mean, std),
        vocabulary,
        FeatureConfig(),
        name,
        summary,
        phones,
        numbers,
    )


def weights(source: str) -> dict[str, Tensor]:
    """A checkpoint (.pt), a model directory or the name of a packaged model -> its weights by name."""
    if source.endswith(".pt"):
        average: dict[str, Tensor] = checkpoint.read(Path(source))["average"]
        return average
    content = modelfile.read(modelfile.find(source))
    return {name: torch.from_numpy(np.array(w, np.float32)) for name, w in content.tensors.items()}
