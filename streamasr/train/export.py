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
from .model import network


def tensors(
    weights: dict[str, Tensor], statistics: tuple[NDArray[np.float32], NDArray[np.float32]], phones: bool
) -> dict[str, NDArray[np.float32]]:
    """State dict of AcousticModel -> tensors by their names in the model file, with or without phones."""
    kept = {
        name: weight.detach().cpu().float().numpy()
        for name, weight in network(weights).items()
        if phones or not name.startswith("phone_output.")
    }
    kept["features.mean"], kept["features.std"] = statistics
    return kept


def encoder_of(model: ModelConfig) -> EncoderConfig:
    """What of the training configuration the engine needs to know."""
    shared = {f.name for f in fields(EncoderConfig)}
    return EncoderConfig(**{k: v for k, v in asdict(model).items() if k in shared})


def refusal(settings: config.Config, path: str = "CHECKPOINT") -> str:
    """Why what such a run has trained cannot be exported; "" if it can."""
    if settings.train.predict_steps:
        return f"predicts frames and has not learnt to read: begin a run with --from {path}"
    if settings.data.subwords:
        return "says sub-words, which are for comparison: the recogniser reads letters (data.subwords=0)"
    return _not_streaming(settings.model)


def _not_streaming(model: ModelConfig) -> str:
    if model.bidirectional:
        return "a bidirectional model hears the future: it cannot be exported for streaming"
    if model.norm == "between":
        return "layer norm between layers is for comparison: the engine has joint, separate and none"
    if not model.residual or not model.channels:
        return (
            "model.residual=false and model.channels=0 are for comparison: "
            "the engine always has residuals and convolutions"
        )
    return ""


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
    like: modelfile.Model | None = None,
    licence: str = config.Config.licence,
) -> None:
    """Write the model directory. Raises ConfigError for a model that cannot run as a stream.

    With `phones`, `weights` have their head too, and "phone_output.prior". `like`: as modelfile.write.
    """
    if reason := _not_streaming(model):
        raise ConfigError(reason)
    description = modelfile.Description(
        name=name,
        language="en",
        licence=licence,
        description="Streaming speech recogniser: convolutional front end, layer-normalised LSTM, CTC",
        features=features,
        encoder=encoder_of(model),
        vocabulary=vocabulary,
        training=training,
        phones=phones,
    )
    content = tensors(weights, statistics, phones is not None)
    modelfile.write(path, description, content, numbers=numbers, like=like)


def from_checkpoint(
    path: Path, folder: Path, name: str, numbers: str = "float16", like: str | None = None
) -> None:
    """best.pt or last.pt of a run -> model directory with the averaged weights.

    `like`: name or path of a model whose lexicon and other files go along (modelfile.write); None: that which
    the run began with, if it still has its tokens.
    """
    content = checkpoint.read(path)
    try:
        settings = config.from_dict(json.loads(content["config"]), str(path))
        if reason := refusal(settings, str(path)):
            raise ModelError(f"{path}: {reason}")
        mean, std = (s.numpy() for s in content["statistics"])
        vocabulary = Vocabulary(tuple(content["vocabulary"]["tokens"]), content["vocabulary"]["kind"])
        weights, summary = content["average"], content["summary"]
        began = content.get("like", "")
        phones = None
        if settings.model.phone_layer == settings.model.layers and "prior" in content:
            phones = Vocabulary(tuple(content["phones"]), "phones")
            weights["phone_output.prior"] = content["prior"]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a training checkpoint ({error!r})") from error
    other = modelfile.read(modelfile.find(like or began)) if like or began else None
    tokens = other and (other.description.vocabulary, other.description.phones)
    if not like and tokens != (vocabulary, phones):
        other = None  # the run began with letters, and learnt phones, or the reverse
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
        other,
        settings.licence,
    )
