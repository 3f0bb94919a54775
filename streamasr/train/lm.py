"""`streamasr train-lm CONFIG`: the LSTM language model (docs/lm.md).

What happens at update n depends on the configuration and n alone: an epoch's text begins at a place drawn
from (seed, epoch), forgetting and dropout from generators seeded by (seed, n). So a run that was killed and
resumed ends in the same weights, to the bit (on the same machine and thread count).
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data import subwords as learning
from ..errors import ConfigError, ModelError
from ..search import lm, lstm_lm
from ..search.subwords import LINE_END, Subwords
from . import checkpoint, config, lm_text, optimiser
from .lm_model import LstmModel
from .model import State


@dataclass(frozen=True)
class DataConfig:
    train: tuple[str, ...]  # texts, one line a line, plain or .gz or .xz
    dev: tuple[str, ...] = ()  # manifests: perplexity of their transcripts
    held_out: float = 0.005  # share of the lines kept from training, for perplexity
    ngram: str = ""  # lm.safetensors to compare with
    subwords: int = 4000


@dataclass(frozen=True)
class ModelConfig:
    embedding: int = 256
    hidden: int = 512
    layers: int = 2
    dropout: float = 0.1  # on embeddings and on the output of every layer, one mask for all steps


@dataclass(frozen=True)
class OptimiserConfig:
    learning_rate: float = 2e-3
    warmup_updates: int = 300
    weight_decay: float = 0.01
    clip_norm: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 4  # the learning rate falls, as a cosine, to zero at their end
    streams: int = 32  # places of the text that are read side by side
    steps: int = 64  # sub-words of each in one update; the state goes on after them, the gradient does not
    forget_probability: float = 0.05  # share of the streams that lose their state before an update
    seed: int = 1
    precision: str = "bfloat16"  # of the matrix products: "bfloat16" | "float32"
    average_decay: float = 0.998  # exponential average of the weights, what is measured and written
    save_minutes: float = 5.0  # between checkpoints
    validate_updates: int = 500


@dataclass(frozen=True)
class Config:
    name: str
    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def read(path: Path, overrides: list[str] | None = None) -> Config:
    """TOML file -> Config. Raises ConfigError naming the file and key."""
    settings: Config = config.build(Config, config.read_toml(path, overrides), str(path))
    for section in ("data", "model", "optimiser", "train"):
        for name, value in asdict(getattr(settings, section)).items():
            key = f"{path}: {section}.{name}"
            if name in ("dropout", "forget_probability", "average_decay", "held_out"):
                if not 0 <= value < 1:
                    raise ConfigError(f"{key} must be at least 0 and below 1, not {value}")
            elif isinstance(value, float | int) and value <= 0 and name not in ("seed", "weight_decay"):
                raise ConfigError(f"{key} must be positive, not {value}")
    if not 0 < settings.data.held_out <= 0.5:
        raise ConfigError(f"{path}: data.held_out must be above 0 and at most 0.5")
    if settings.train.precision not in ("bfloat16", "float32"):
        raise ConfigError(f"{path}: train.precision must be bfloat16 or float32")
    if not settings.name or Path(settings.name).name != settings.name:
        raise ConfigError(f"{path}: name must be a plain file name, not {settings.name!r}")
    return settings


class Trainer:
    """One run: text, model, optimiser, averaged weights and the position in the text."""

    def __init__(self, settings: Config, base: Path, folder: Path, pieces: list[str] | None = None) -> None:
        """`pieces`: the sub-words of the run that is resumed."""
        self.config, self.folder = settings, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        data = settings.data
        texts = config.manifests(data.train, base)
        say(f"reading {', '.join(path.name for path in texts)}")
        kept, held = [], []
        for path in texts:
            train, out = lm_text.split(lm_text.read(path), data.held_out)
            kept += train
            held += out
        counts = lm_text.count(kept)
        self.subwords = Subwords(pieces) if pieces else learning.learn(counts, data.subwords)
        self.tokens = torch.from_numpy(lm_text.encode(kept, self.subwords)).long()
        ngram = lm.read(base / data.ngram) if data.ngram else None
        sets = {"held_out": held}
        sets |= {path.stem: lm_text.transcripts(path) for path in config.manifests(data.dev, base)}
        self.dev = {name: lm_text.measured(lines, self.subwords, ngram) for name, lines in sets.items()}
        c, m = settings.train, settings.model
        self.updates_of_epoch = (len(self.tokens) - 1) // c.streams // c.steps
        if not self.updates_of_epoch:
            raise ConfigError(f"{len(self.tokens)} sub-words of text are fewer than one update takes")
        torch.manual_seed(c.seed)
        self.model = LstmModel(
            len(self.subwords), m.embedding, m.hidden, m.layers, m.dropout, c.precision
        ).to(self.device)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimiser = optimiser.Optimiser(self.model, "adamw", settings.optimiser.weight_decay)
        self.updates, self.elapsed, self.best = 0, 0.0, math.inf
        self.state: State = self.model.start(c.streams)
        self.log: list[dict[str, Any]] = []
        self.interrupted = False  # by Ctrl-C: heeded between updates, so that what is saved is whole
        self._epoch = (-1, self.tokens)
        say(
            f"{sum(counts.values()):,} words, {len(self.tokens):,} sub-words of {len(self.subwords)} kinds, "
            f"{self.updates_of_epoch} updates an epoch; "
            f"{sum(p.numel() for p in self.model.parameters()):,} parameters on {self.device}"
        )
        for name, lines in self.dev.items():
            if lines.ngram is not None:
                say(f"{name}: perplexity of the n-gram {lines.ngram:.1f} on {lines.known.sum():,} words")

    def content(self) -> dict[str, Any]:
        """Of a checkpoint: everything that the next update depends on."""
        return {
            "config": json.dumps(asdict(self.config)),
            "pieces": list(self.subwords.pieces),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "carried": self.state,
            "log": json.dumps(self.log),
            "position": {"updates": self.updates, "elapsed": self.elapsed, "best": self.best},
        }

    def restore(self, content: dict[str, Any], path: Path) -> None:
        """Raises ModelError when the checkpoint is of another model."""
        try:
            self.model.load_state_dict(content["model"])
            self.average = {k: v.to(self.device) for k, v in content["average"].items()}
            self.optimiser.load_state_dict(content["optimiser"])
            self.state = [(h.to(self.device), c.to(self.device)) for h, c in content["carried"]]
            self.log = json.loads(content["log"])
            position = content["position"]
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{path}: does not fit this configuration: {reason}") from error
        if len(self.state[0][0]) != self.config.train.streams:
            say("note: another number of streams: all begin without a state")
            self.state = self.model.start(self.config.train.streams)
        self.updates, self.elapsed = position["updates"], position["elapsed"]
        self.best = position["best"]
        # What was logged after the checkpoint will be logged again.
        (self.folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in self.log))

    def save(self) -> None:
        checkpoint.write(self.folder / "last.pt", self.content())

    def learning_rate(self) -> float:
        """Linear warm-up, then cosine to zero (arXiv:1608.03983)."""
        o = self.config.optimiser
        total = self.config.train.epochs * self.updates_of_epoch
        share = optimiser.warmed_up(self.updates, o.warmup_updates)
        return o.learning_rate * share * optimiser.cosine(self.updates, o.warmup_updates, total)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Of the next update: sub-words [T, B] and, for each, the one that follows."""
        c = self.config.train
        epoch, number = divmod(self.updates, self.updates_of_epoch)
        if self._epoch[0] != epoch:  # every epoch divides the text in other places
            begin = int(np.random.default_rng([c.seed, epoch]).integers(len(self.tokens)))
            turned = torch.roll(self.tokens, -begin)
            rows = (len(turned) - 1) // c.streams
            self._epoch = epoch, turned[: rows * c.streams + 1]
        text = self._epoch[1]
        length = (len(text) - 1) // c.streams
        first, last = number * c.steps, (number + 1) * c.steps
        inputs = text[:-1].view(c.streams, length)[:, first:last].t()
        targets = text[1:].view(c.streams, length)[:, first:last].t()
        return inputs.contiguous().to(self.device), targets.contiguous().to(self.device)

    def update(self) -> dict[str, float]:
        """One optimiser step -> loss in nats per sub-word, norm of the gradient, learning rate."""
        c = self.config.train
        tokens, targets = self.batch()
        self.model.train()
        torch.manual_seed(c.seed * 1_000_003 + self.updates)
        random = np.random.default_rng([c.seed, self.updates, 7])
        keep = torch.from_numpy(random.random(c.streams) >= c.forget_probability).to(self.device)[:, None]
        initial = [(h.float() * keep, s.float() * keep) for h, s in self.state]
        self.optimiser.zero_grad()
        logits, self.state = self.model(tokens, initial)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        rate, o = self.learning_rate(), self.config.optimiser
        norm = optimiser.step(
            self.model, self.optimiser, self.average,
            rate=rate, clip_norm=o.clip_norm, average_decay=c.average_decay, updates=self.updates,
        )  # fmt: skip
        self.updates += 1
        return {"loss": float(loss.detach()), "gradient_norm": norm, "learning_rate": rate}

    def run(self) -> None:
        c = self.config.train
        total, saved, begun = c.epochs * self.updates_of_epoch, time.monotonic(), time.monotonic()
        before, first = self.elapsed, self.updates
        losses: list[float] = []
        bar = tqdm(
            range(self.updates, total),
            "updates",
            total,
            initial=self.updates,
            mininterval=1.0,
            smoothing=0.02,
        )
        for _ in bar:
            values = self.update()
            if self.interrupted:
                raise KeyboardInterrupt
            losses = [*losses[-49:], values["loss"]]
            self.elapsed = before + time.monotonic() - begun
            speed = (self.updates - first) * c.streams * c.steps / (self.elapsed - before)
            bar.set_postfix(loss=f"{np.mean(losses):.3f}", per_second=f"{speed:.0f}")
            if self.updates % 20 == 0:
                self._record({"update": self.updates, "speed": round(speed), **values})
            if self.updates % c.validate_updates == 0 or self.updates == total:
                self.validate()
            if time.monotonic() - saved > 60 * c.save_minutes or self.updates == total:
                self.save()
                saved = time.monotonic()

    def validate(self) -> None:
        """Perplexity per word of the averaged weights; the best are written as a model file."""
        found = {name: self.perplexity(lines) for name, lines in self.dev.items()}
        self._record({"update": self.updates, "perplexity": found})
        epochs = self.updates / self.updates_of_epoch
        shown = ", ".join(
            f"{name} {value:.1f}" + (f" (n-gram {n:.1f})" if (n := self.dev[name].ngram) else "")
            for name, value in found.items()
        )
        say(f"update {self.updates} (epoch {epochs:.2f}): perplexity {shown}")
        if found["held_out"] < self.best:
            self.best = found["held_out"]
            summary = {
                "texts": list(self.config.data.train), "sub-words": len(self.tokens),
                "seed": self.config.train.seed,
                "epochs": round(epochs, 2), "updates": self.updates, "hours": round(self.elapsed / 3600, 2),
                "perplexity": {name: round(value, 1) for name, value in found.items()},
            }  # fmt: skip
            lstm_lm.write(self.folder, self.subwords, weights(self.average), summary)

    def perplexity(self, lines: lm_text.Lines) -> float:
        """Per word, every line by itself, as the n-gram sees it."""
        own = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        order = sorted(range(len(lines.tokens)), key=lambda i: len(lines.tokens[i]))
        found: dict[int, np.ndarray[Any, np.dtype[np.float64]]] = {}
        with torch.no_grad():
            for first in range(0, len(order), 64):
                rows = order[first : first + 64]
                lengths = torch.tensor([len(lines.tokens[i]) for i in rows])
                targets = torch.full((int(lengths.max()), len(rows)), LINE_END)
                for column, i in enumerate(rows):
                    targets[: len(lines.tokens[i]), column] = torch.from_numpy(lines.tokens[i])
                inputs = torch.cat([targets.new_full((1, len(rows)), LINE_END), targets[:-1]])
                logits, _ = self.model(inputs.to(self.device), None, lengths)
                scores = logits.float().log_softmax(-1).cpu().gather(-1, targets[..., None])[..., 0].double()
                for column, i in enumerate(rows):
                    found[i] = scores[: int(lengths[column]), column].numpy()
        self.model.load_state_dict(own)
        return lm_text.perplexity(lines, [found[i] for i in range(len(order))])

    def _record(self, entry: dict[str, Any]) -> None:
        self.log.append(entry)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")


def weights(parameters: dict[str, Tensor]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    return {name: p.detach().cpu().float().numpy() for name, p in parameters.items()}


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def main(path: Path, overrides: list[str], resume: bool) -> int:
    """Train as the TOML file at `path` says; results in `runs/<name>/`. Returns the exit code."""
    settings = read(path, overrides)
    folder = Path("runs") / settings.name
    last = folder / "last.pt"
    if last.exists() and not resume:
        raise ConfigError(f"{last} exists: go on with --resume, or move {folder} away, or --set name=...")
    content = checkpoint.read(last) if resume else None
    if content is not None and "pieces" not in content:
        raise ModelError(f"{last}: not a checkpoint of train-lm")
    folder.mkdir(parents=True, exist_ok=True)
    pieces = content["pieces"] if content else None
    trainer = Trainer(settings, path.resolve().parent, folder, pieces)
    if content is not None:
        trainer.restore(content, last)
        say(f"going on at update {trainer.updates + 1}")
    # Time loops run on threads that take the GIL back several times a step; CPython's 5 ms would be felt.
    sys.setswitchinterval(1e-4)
    handler = signal.signal(signal.SIGINT, lambda *_: setattr(trainer, "interrupted", True))
    try:
        trainer.run()
    except KeyboardInterrupt:
        trainer.save()
        say(f"interrupted; saved to {last}, go on with --resume")
        return 130
    finally:
        signal.signal(signal.SIGINT, handler)
    say(f"the best is in {folder / lstm_lm.TENSORS} and .json: copy both into a model directory")
    return 0
