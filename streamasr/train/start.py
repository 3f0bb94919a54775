"""What `--from` and `--resume` begin with: weights of another model, and what these were trained with.

No more is needed than the model's own files: its lexicon pronounces the words of the transcripts, its model
of pronunciation those that are new, and its language model says what sequences of phones are usual.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import modelfile
from ..errors import ModelError
from ..search import lexicon, lm
from . import checkpoint, config, units
from .model import AcousticModel, network

Phones = tuple[str, ...]

_SENTENCES = 5_000  # drawn from the language model: some 70,000 words, 350,000 phones and boundaries
_LONGEST = 30  # words of one of them


@dataclass(frozen=True)
class Start:
    """`phones`: tokens of the phone head, none if there is none. `like`: name or path of the model directory
    whose lexicon and other files belong to it, "" if none do. `mean`: mean_frames and mean_window, for the
    weights have learnt from such frames."""

    source: str
    weights: dict[str, Tensor]
    statistics: tuple[NDArray[np.float32], NDArray[np.float32]]
    phones: Phones = ()
    like: str = ""
    subwords: Phones = ()  # tokens of the first head, if they are such
    mean: tuple[int, int] = (0, 0)

    def phones_of(self, word: str) -> Phones | None:
        """A word's first pronunciation in the model's lexicon, else None."""
        if self._lexicon is None or word not in self._lexicon.ids:
            return None
        return tuple(self.phones[token] for token in self._lexicon.spellings(word)[0])

    @property
    def pronouncers(self) -> list[Path]:
        """The file of the model of pronunciation, if there is one."""
        path = self._file("g2p.safetensors")
        return [path] if path else []

    def sentences(self, seed: int) -> Iterator[str]:
        """Sentences drawn from the model's language model; none if it has none."""
        path = self._file("lm.safetensors")
        if path is None:
            return
        model, random = lm.read(path), np.random.default_rng([seed, _SENTENCES])
        for _ in range(_SENTENCES):
            state = model.start
            words: list[str] = []
            while len(words) < _LONGEST:
                word = model.draw(state, random)
                if word == model.end:
                    break
                words.append(model.words[word])
                state = model.score(state, word)[1]
            yield " ".join(word for word in words if word != lm.UNKNOWN)

    def _file(self, name: str) -> Path | None:
        """One of the model directory's files, where it has it and it is for these phones."""
        if not self.like or not self.phones:
            return None
        path = modelfile.find(self.like) / name
        return path if path.exists() else None

    @cached_property
    def _lexicon(self) -> lexicon.Lexicon | None:
        path = self._file("lexicon.safetensors")
        return lexicon.read(path) if path else None


def of_checkpoint(path: Path, content: dict[str, Any]) -> Start:
    """Content of best.pt or last.pt -> what goes on from its averaged weights. Raises ModelError."""
    try:
        mean, std = (s.numpy() for s in content["statistics"])
        phones, like = tuple(content.get("phones", ())), content.get("like", "")
        vocabulary = content["vocabulary"]
        subwords = tuple(vocabulary["tokens"]) if vocabulary["kind"] == units.KIND else ()
        shape = json.loads(content["config"])["model"]
        running = shape.get("mean_frames", 0), shape.get("mean_window", 0)
        return Start(str(path), content["average"], (mean, std), phones, like, subwords, running)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not a training checkpoint ({error!r})") from error


def network_of(path: Path, content: dict[str, Any]) -> AcousticModel:
    """Content of best.pt or last.pt -> its network, averaged weights, in evaluation. Raises ModelError."""
    begun = of_checkpoint(path, content)
    settings = config.from_dict(json.loads(content["config"]), str(path))
    tokens, bands = len(content["vocabulary"]["tokens"]), len(begun.statistics[0])
    model = AcousticModel(settings.model, bands, tokens, len(begun.phones), settings.train.precision)
    try:
        model.load_state_dict(network(begun.weights))
    except RuntimeError as error:
        raise ModelError(f"{path}: its weights are not those of its configuration") from error
    return model.eval()


def read(source: str) -> Start:
    """A checkpoint (.pt), a model directory or the name of a packaged model -> what begins from it.

    Weights of int8 are as exact as int8 is: training goes on from there in float32. Raises ModelError.
    """
    if source.endswith(".pt"):
        return of_checkpoint(Path(source), checkpoint.read(Path(source)))
    content = modelfile.read(modelfile.find(source))
    weights = {name: torch.from_numpy(np.array(w, np.float32)) for name, w in content.tensors.items()}
    mean, std = (weights.pop(f"features.{name}").numpy() for name in ("mean", "std"))
    phones = content.description.phones
    like = source if source in modelfile.packaged() else str(Path(source).resolve())
    if not phones or not content.folder or not (content.folder / "lexicon.safetensors").exists():
        like = ""
    encoder = content.description.encoder
    running = encoder.mean_frames, encoder.mean_window
    return Start(source, weights, (mean, std), phones.tokens if phones else (), like, mean=running)
