"""Which transcripts may be wrong: the utterances that a trained model finds least likely.

    python -m streamasr.train.suspects CHECKPOINT MANIFEST [--worst 30] [--like en]

Prints one line an utterance, the worst first: phone CTC loss of the averaged weights in nats a phone (inf:
the text is too long for the recording), id, transcript, and what the model reads letter by letter.
Frames are cached in runs/cache, as by `streamasr train`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import ConfigError, StreamASRError
from ..features import FeatureConfig
from ..vocabulary import BLANK, Vocabulary
from . import cache, checkpoint, config, start
from .batches import Batches
from .ctc import ctc_loss
from .phones import PhoneLexicon
from .units import SubwordUnits


@dataclass(frozen=True)
class Suspect:
    loss: float  # nats a phone
    id: str
    text: str
    reading: str

    def __str__(self) -> str:
        return f"{self.loss:6.2f}  {self.id}  {self.text!r} read as {self.reading!r}"


@torch.no_grad()
def suspects(source: Path, manifest: Path, like: str, folder: Path = Path("runs/cache")) -> list[Suspect]:
    """Utterances of a manifest, the worst first, without those that have a word `like` cannot pronounce.

    `like`: a model whose lexicon has the checkpoint's phones. `folder`: of cached frames. Raises ModelError,
    ConfigError, ManifestError.
    """
    content = checkpoint.read(source)
    begun = replace(start.of_checkpoint(source, content), like=like)
    settings = config.from_dict(json.loads(content["config"]), str(source))
    if start.read(like).phones != begun.phones or not begun.phones:
        raise ConfigError(f"{source}: has no phones, or others than the lexicon of {like!r}: give --like")
    lexicon = PhoneLexicon(begun.pronouncers, begun.phones, begun.phones_of)
    tokens = tuple(content["vocabulary"]["tokens"])
    vocabulary = SubwordUnits(tokens) if begun.subwords else Vocabulary(tokens)
    features = FeatureConfig()
    model = start.network_of(source, content)
    utterances = cache.load([manifest], folder, features)
    batches = Batches(
        utterances, settings.data, settings.model, features, begun.statistics, vocabulary, lexicon
    )
    found = []
    for numbers in batches.plan(0, 0):
        batch = batches.make(numbers, (0,))
        out = model(batch.frames, batch.lengths)
        assert out.phone_logits is not None
        for row, (utterance, phones) in enumerate(zip(batch.utterances, batch.phones, strict=True)):
            if phones is None:
                continue
            steps = out.steps[row : row + 1]
            loss = float(ctc_loss(out.phone_logits[:, row : row + 1], [phones], steps))
            best = out.logits[:steps, row].argmax(-1).unique_consecutive()
            reading = vocabulary.decode(best[best != BLANK].tolist())
            found.append(Suspect(loss / max(len(phones), 1), utterance.id, utterance.text, reading))
    return sorted(found, key=lambda suspect: -suspect.loss)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m streamasr.train.suspects",
        description="Utterances of a manifest whose transcripts a trained model finds least likely.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="best.pt or last.pt of a run")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument("--worst", type=int, default=30, metavar="N", help="how many to list (default: 30)")
    parser.add_argument("--like", default="en", metavar="MODEL", help="whose lexicon is used (default: en)")
    options = parser.parse_args(arguments)
    try:
        found = suspects(options.checkpoint, options.manifest, options.like)
    except StreamASRError as error:
        print(f"suspects: {error}", file=sys.stderr)
        return 1
    for suspect in found[: options.worst]:
        print(suspect)
    losses = [suspect.loss for suspect in found if math.isfinite(suspect.loss)]
    mean = sum(losses) / max(len(losses), 1)
    print(f"{len(found)} utterances, {mean:.2f} nats a phone in the mean", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
