"""`streamasr train CONFIG`: the training loop (docs/training.md).

What happens at update n depends on the configuration and n alone: batches and their perturbations come
from generators seeded by (seed, epoch, batch), dropout from one seeded by (seed, n). So a run that was
killed and resumed ends in the same weights, to the bit (on the same machine and thread count).
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import ConfigError, ModelError
from . import checkpoint, config, curves, dataset, export, optimiser, start
from .batches import Batch
from .model import AcousticModel, State
from .objective import auxiliaries, objective
from .processes import Processes
from .teachers import Teachers
from .validation import error_rates, evaluating, prediction_errors


class Trainer:
    """One run: data, model, optimiser, averaged weights and the position in the data.

    `begun`: what it begins from or goes on with; its statistics, running mean, phones and pronunciations are
    this run's.
    """

    def __init__(
        self, settings: config.Config, base: Path, folder: Path, begun: start.Start | None = None
    ) -> None:
        if begun:
            frames, window = begun.mean
            model = replace(settings.model, mean_frames=frames, mean_window=window)
            settings = replace(settings, model=model)
        self.config, self.folder = settings, folder
        self.processes = Processes()
        self.rank, self.world = self.processes.rank, self.processes.world
        self.device = self.processes.device
        if self.rank > 0:
            self.processes.wait()  # the first process computes the cache, the others read it
        self.data = dataset.read(settings, base, begun, self._say)
        if self.rank == 0:
            self.processes.wait()
        self.like = begun.like if begun else ""  # whose lexicon and language model this model can use
        torch.manual_seed(settings.train.seed)
        names = self.data.lexicon.names if self.data.lexicon else ()
        precision = settings.train.precision
        bands, tokens = self.data.features.mel_bands, len(self.data.vocabulary)
        self.model = AcousticModel(settings.model, bands, tokens, len(names), precision)
        self.model.auxiliary = auxiliaries(settings, self.model, bands)
        self.model.to(self.device)
        paths = [] if settings.train.predict_steps else config.manifests(settings.data.teachers, base)
        taught = (self.data.statistics, names, settings.model, self.device)
        self.teachers = Teachers(paths, *taught) if paths else None
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        o = settings.optimiser
        self.optimiser = optimiser.Optimiser(self.model, o.kind, o.weight_decay, self.processes)
        self.prior = torch.zeros(len(names))  # log of the phone head's mean output on the dev sets
        self.updates = 0  # done so far
        self.heard = self.elapsed = 0.0  # seconds of speech trained on, seconds of training
        self.epoch, self.batch = 0, 0  # of the next update
        self.scale = 1.0  # of the learning rate, lowered by the plateau schedule
        self.best = {"epoch": -1, "cer": math.inf}
        self.carried: State | None = None
        self.interrupted = False  # by Ctrl-C: heeded between updates, so that what is saved is whole
        self.log: list[dict[str, Any]] = []
        heard = self.data.batches
        self._say(
            f"{heard.seconds / 3600:.1f} h of speech, {len(heard.utterances)} utterances "
            f"({heard.left_out} left out as empty or too long); "
            f"{sum(p.numel() for p in self.model.parameters()):,} parameters on {self.device}"
        )

    # -- position and checkpoints ----------------------------------------------------------------

    def exportable(self) -> dict[str, Any]:
        """What `export` needs: the averaged weights and all that says what they are."""
        vocabulary, batches = self.data.vocabulary, self.data.batches
        return {
            "config": json.dumps(asdict(self.config)),
            "average": self.average,
            "statistics": [torch.from_numpy(s) for s in self.data.statistics],
            **({"phones": self.data.lexicon.names, "prior": self.prior} if self.data.lexicon else {}),
            "like": self.like,
            "vocabulary": {"tokens": list(vocabulary.tokens), "kind": vocabulary.kind},
            "summary": {
                "corpora": sorted({u.corpus for u in batches.utterances}),
                "hours": round(batches.seconds / 3600, 2),
                "utterances": len(batches.utterances),
                "epochs": self.epoch,
                "updates": self.updates,
                "hours_heard": round(self.heard / 3600, 1),
                "hours_of_training": round(self.elapsed / 3600, 2),
                "processes": self.world,
                "device": str(self.device.type),
                "seed": self.config.train.seed,
            },
        }

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds; to be asked for in every process at once."""
        carried = self.carried and [(h.cpu(), c.cpu()) for h, c in self.carried]
        return {
            **self.exportable(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "carried_states": self.processes.gather(carried),
            "log": json.dumps(self.log),
            "position": {
                "updates": self.updates, "epoch": self.epoch, "batch": self.batch, "scale": self.scale,
                "heard": self.heard, "elapsed": self.elapsed,
                "best_epoch": self.best["epoch"], "best_cer": self.best["cer"],
            },
        }  # fmt: skip

    def restore(self, content: dict[str, Any], path: Path) -> None:
        try:
            self.model.load_state_dict(content["model"])
            self.average = {k: v.to(self.device) for k, v in content["average"].items()}
            self.optimiser.load_state_dict(content["optimiser"])
            position = content["position"]
            states = content["carried_states"] if "carried_states" in content else [content["carried"]]
            carried = states[self.rank] if self.rank < len(states) else None
            self.carried = carried and [(h.to(self.device), c.to(self.device)) for h, c in carried]
            self.log = json.loads(content["log"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{path}: does not fit this configuration: {reason}") from error
        self.updates, self.epoch, self.batch = position["updates"], position["epoch"], position["batch"]
        self.scale, self.heard, self.elapsed = position["scale"], position["heard"], position["elapsed"]
        self.best = {"epoch": position["best_epoch"], "cer": position["best_cer"]}
        for key, (then, now) in _changes(json.loads(content["config"]), asdict(self.config)).items():
            self._say(f"note: {key} was {then}, is {now} from here on")
        if self.rank == 0:  # what was logged after the checkpoint will be logged again
            lines = "".join(json.dumps(entry) + "\n" for entry in self.log)
            (self.folder / "log.jsonl").write_text(lines)

    def start_from(self, weights: dict[str, Tensor], source: str) -> None:
        """Take the initial weights from another model, wherever names and shapes agree."""
        own = dict(self.model.named_parameters())
        fits = {n for n, w in weights.items() if n in own and own[n].shape == w.shape}
        if not fits:
            raise ModelError(f"{source}: no weight fits this configuration's model; compare [model] with it")
        for name, p in own.items():
            if name in fits:
                p.data.copy_(weights[name])
            else:
                self._say(f"note: {name} is not in {source} in this shape: it starts at random")
            self.average[name].copy_(p.data)

    def save(self) -> None:
        """To be called in every process at the same update; the first one writes."""
        content = self.state()
        if self.rank == 0:
            checkpoint.write(self.folder / "last.pt", content)

    # -- one update --------------------------------------------------------------------------------

    def learning_rate(self, total: int) -> float:
        """Linear warm-up; then cosine to zero (arXiv:1608.03983), halvings on plateaus, or constant."""
        o = self.config.optimiser
        rate = o.learning_rate * self.scale * optimiser.warmed_up(self.updates, o.warmup_updates)
        if o.schedule == "cosine":
            rate *= optimiser.cosine(self.updates, o.warmup_updates, total)
        return rate

    def update(self, batch: Batch, rate: float) -> dict[str, float]:
        """One optimiser step on one batch (one in each process). Returns losses per token, in nats."""
        c = self.config.train
        self.model.train()
        torch.manual_seed(c.seed * 1_000_003 + self.updates * 997 + self.rank)
        self.optimiser.zero_grad()
        out = self.model(
            batch.frames.to(self.device), batch.lengths, self._initial(len(batch.tokens)),
            c.bptt_steps, c.checkpoint_layers,
        )  # fmt: skip
        if c.carry_probability:
            self.carried = out.state
        ngram = self.data.ngram if self.epoch >= c.ctc_epochs else None
        taught = None
        if self.teachers:
            taught = self.teachers(batch.unmasked.to(self.device), batch.lengths)
        loss, values = objective(out, batch, c, ngram, self.model.auxiliary, taught)
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average_gradients(self.model)
        values["gradient_norm"] = optimiser.step(
            self.model, self.optimiser, self.average,
            rate=rate, clip_norm=self.config.optimiser.clip_norm, average_decay=c.average_decay,
            updates=self.updates,
        )  # fmt: skip
        self.updates += 1
        return values

    def _initial(self, rows: int) -> State | None:
        """Zero states, some rows replaced by what earlier utterances left (truncated BPTT over sessions)."""
        if self.carried is None:
            return None
        random = np.random.default_rng([self.config.train.seed, self.updates, 7])
        states: State = []
        use = torch.from_numpy(random.random(rows) < self.config.train.carry_probability).to(self.device)
        for h, c in self.carried:
            pair = []
            for s in (h, c):
                s = s[:rows]
                s = torch.cat([s, s.new_zeros(rows - len(s), s.shape[1])])
                pair.append(s.float() * use[:, None])
            states.append((pair[0], pair[1]))
        return states

    # -- the run -----------------------------------------------------------------------------------

    def run(self) -> None:
        c = self.config.train
        saved = time.monotonic()
        total = sum(len(self._plan(e)) for e in range(min(c.epochs, 3))) * c.epochs // min(c.epochs, 3)
        while self.epoch < c.epochs:
            plan = self._plan(self.epoch)
            losses: list[float] = []
            before, started = (self.heard, self.elapsed), time.monotonic()
            with ThreadPoolExecutor(1) as ahead:
                pending = ahead.submit(self._make, plan, self.batch)
                bar = tqdm(
                    range(self.batch, len(plan)), f"epoch {self.epoch + 1}/{c.epochs}", len(plan),
                    initial=self.batch, unit="update", disable=self.rank > 0, mininterval=1.0, smoothing=0.02,
                )  # fmt: skip
                for number in bar:
                    batch = pending.result()
                    if number + 1 < len(plan):
                        pending = ahead.submit(self._make, plan, number + 1)
                    rate = self.learning_rate(total)
                    values = self.update(batch, rate)
                    self.batch = number + 1
                    due = time.monotonic() - saved > 60 * c.save_minutes
                    due, interrupted = self.processes.agree(due, self.interrupted)
                    if interrupted:
                        raise KeyboardInterrupt
                    losses.append(values["loss"])
                    self.heard += batch.seconds * self.world
                    self.elapsed = before[1] + time.monotonic() - started
                    speed = (self.heard - before[0]) / (self.elapsed - before[1])
                    bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", lr=f"{rate:.1e}", x=f"{speed:.0f}")
                    if self.updates % 20 == 0:
                        entry = {"update": self.updates, "learning_rate": rate, "speed": speed}
                        self._record(entry | values)
                    if due:
                        self.save()
                        saved = time.monotonic()
            self.epoch, self.batch = self.epoch + 1, 0
            stop = self._end_of_epoch(float(np.mean(losses)) if losses else math.nan)
            self.save()
            saved = time.monotonic()
            if stop:
                self._say(f"no better dev CER for {c.patience} epochs: stopping early")
                break

    def _plan(self, epoch: int) -> list[list[np.ndarray[Any, Any]]]:
        """For every update of an epoch, the utterance numbers of each process's batch."""
        batches = self.data.batches.plan(self.config.train.seed, epoch, self.world)
        return [batches[i : i + self.world] for i in range(0, len(batches), self.world)]

    def _make(self, plan: list[list[np.ndarray[Any, Any]]], number: int) -> Batch:
        seed = (self.config.train.seed, self.epoch, number, self.rank)
        return self.data.batches.make(plan[number][self.rank], seed)

    def _end_of_epoch(self, loss: float) -> bool:
        """Validate, remember the best weights, draw the curves; True if it is time to stop."""
        scores = self.validate()
        # With CTC-CRF the phones read without a language model say nothing about those read with one.
        exact = not self.config.train.denominator
        phones = exact and self.config.model.phone_layer == self.config.model.layers
        judged = "l1" if self.config.train.predict_steps else "per" if phones else "cer"
        cer = float(np.mean([s[judged] for s in scores.values()])) if scores else math.nan
        entry = {"epoch": self.epoch, "update": self.updates, "train_loss": loss, "dev": scores, "cer": cer}
        self._record(entry)
        for name, score in scores.items():
            rates = ", ".join(f"{key.upper()} {100 * rate:.1f} %" for key, rate in score.items())
            self._say(f"epoch {self.epoch}: {name}: {rates}")
        if cer < self.best["cer"]:
            self.best = {"epoch": self.epoch, "cer": cer}
            if self.rank == 0:
                checkpoint.write(self.folder / "best.pt", {**self.exportable(), "cer": cer})
        stalled = self.epoch - self.best["epoch"]
        if scores and self.config.optimiser.schedule == "plateau" and stalled >= 2:
            self.scale *= 0.5
        if self.rank == 0:
            curves.draw(self.log, self.folder / "curves.png")
        return bool(scores) and 0 < self.config.train.patience <= stalled

    def validate(self) -> dict[str, dict[str, float]]:
        """Errors of the averaged weights on each dev manifest: greedy CER and WER, or L1 of frames."""
        with evaluating(self.model, self.average):
            if self.config.train.predict_steps:
                return prediction_errors(self.model, self.data.dev, self.device)
            scores, self.prior = error_rates(self.model, self.data.dev, self.data.vocabulary, self.device)
        return scores

    def _record(self, entry: dict[str, Any]) -> None:
        self.log.append(entry)
        if self.rank == 0:
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def _say(self, text: str) -> None:
        if self.rank == 0:
            tqdm.write(text, file=sys.stderr)


def _changes(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys, dotted, at which two configurations differ, with both values."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in now:
        if isinstance(now[key], dict):
            changed |= _changes(then.get(key, {}), now[key], f"{prefix}{key}.")
        elif then.get(key) != json.loads(json.dumps(now[key])):  # JSON has lists for tuples
            changed[prefix + key] = (then.get(key), now[key])
    return changed


def main(path: Path, overrides: list[str], resume: bool, source: str = "") -> int:
    """Train as the TOML file at `path` says; results in `runs/<name>/`. Returns the exit code.

    `source`: a model's name, its directory or a checkpoint, whose weights are the initial ones.
    """
    settings = config.read(path, overrides)
    folder = Path("runs") / settings.name
    last = folder / "last.pt"
    if last.exists() and not resume:
        raise ConfigError(f"{last} exists: go on with --resume, or move {folder} away, or --set name=...")
    if source and resume:
        raise ConfigError("--from begins a run and --resume goes on with one: give one of them")
    content = checkpoint.read(last) if resume else None
    begun = start.of_checkpoint(last, content) if content else start.read(source) if source else None
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings, path.resolve().parent, folder, begun)
    if content is not None:
        trainer.restore(content, last)
        trainer._say(f"going on at epoch {trainer.epoch + 1}, update {trainer.updates + 1}")
    elif begun is not None:
        trainer.start_from(begun.weights, source)
    if trainer.rank == 0:
        (folder / "config.json").write_text(json.dumps(asdict(trainer.config), indent=1))
    # Time loops run on threads that take the GIL back several times a step; CPython's 5 ms would be felt.
    sys.setswitchinterval(1e-4)
    handler = signal.signal(signal.SIGINT, lambda *_: setattr(trainer, "interrupted", True))
    try:
        trainer.run()
    except KeyboardInterrupt:
        trainer.save()
        trainer._say(f"interrupted; saved to {last}, go on with --resume")
        return 130
    finally:
        signal.signal(signal.SIGINT, handler)
    if trainer.rank == 0 and not export.refusal(settings):
        best = folder / "best.pt"
        export.from_checkpoint(best if best.exists() else last, folder / "model", settings.name)
        trainer._say(f"model written to {folder / 'model'}")
    return 0
