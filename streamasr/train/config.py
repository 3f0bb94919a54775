"""Training configuration: TOML file + `--set section.key=value` -> frozen, checked dataclasses.

Two levels, no inheritance between files. An unknown key is an error that names the nearest known one. Paths
(which may be glob patterns) are relative to the configuration file.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import typing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataConfig:
    train: tuple[str, ...]  # manifests, or folders in LibriSpeech's layout
    dev: tuple[str, ...]  # manifests; validated after every epoch, each by itself
    noise: tuple[str, ...] = ()  # manifests of recordings without speech to mix in
    lexicon: tuple[str, ...] = ()  # word TAB phones; the model that --from names pronounces other words
    subwords: int = 0  # what the first head says: so many sub-words of the transcripts; 0: letters
    text: tuple[str, ...] = ()  # lines of words (.txt, .xz), beside the transcripts, for the denominator
    teachers: tuple[str, ...] = ()  # checkpoints whose phones the model learns beside the transcripts
    exclude: tuple[str, ...] = ()  # manifests left out of what `train` matches
    temperature: float = 1.0  # above 1: corpora of few hours are heard more often than large ones
    cache: str = "../runs/cache"  # where log-mel frames are kept
    batch_seconds: float = 120.0  # padded audio in one batch of one process
    batch_rows: int = 64  # most utterances in one batch
    longest_seconds: float = 25.0  # longer utterances are left out, and counted


@dataclass(frozen=True)
class ModelConfig:
    frames_per_step: int = 3
    # Of both convolutions. 0, for comparison: none, a step is its frames side by side.
    channels: int = 32
    cell: str = "lstm"
    norm: str = "joint"  # "joint" | "separate" | "between" layers, for comparison | "none"
    hidden: int = 384
    layers: int = 4
    residual: bool = True  # false, for comparison: layers hear the one below alone
    mean_frames: int = 0  # frames are less their running mean, begun as so many of the global one; 0: no
    mean_window: int = 0  # frames: the running mean is of about so many
    look_ahead: int = 0  # steps
    flush_steps: int = 8  # steps of digital silence after every utterance (docs/design.md, Flush)
    bidirectional: bool = False  # for teachers; cannot be exported for streaming
    dropout: float = 0.1  # on the output of every recurrent layer
    weight_dropout: float = 0.0  # on the recurrent matrices
    phone_layer: int = 0  # phone CTC on the output of this layer, counted from 1; 0: none


@dataclass(frozen=True)
class AugmentConfig:
    """Everything happens on log-mel frames, so that they can be cached (docs/training.md)."""

    tempo: float = 0.1  # duration is divided by a factor drawn from [1 - tempo, 1 + tempo]
    warp: float = 0.1  # frequencies are multiplied by a factor from [1 - warp, 1 + warp]
    room_probability: float = 0.0  # share of utterances that are heard in a made-up room (rooms.py)
    reverb_probability: float = 0.0
    reverb_shortest_seconds: float = 0.1  # in which the tail falls by 60 dB
    reverb_longest_seconds: float = 0.8
    reverb_direct_low_db: float = 0.0  # power of the direct sound over that of the tail
    reverb_direct_high_db: float = 15.0
    gain_low_db: float = -20.0
    gain_high_db: float = 6.0
    tilt_db: float = 6.0  # linear over the bands, up to this much at either end
    line_probability: float = 0.0  # share that comes over a line of 0.05-0.5 to 3-7 kHz
    noise_probability: float = 0.3
    noise_snr_low_db: float = 5.0
    noise_snr_high_db: float = 25.0
    band_masks: int = 2  # SpecAugment (Park et al. 2019)
    band_mask_width: int = 15
    time_masks_per_second: float = 0.3
    time_mask_seconds: float = 0.3


@dataclass(frozen=True)
class OptimiserConfig:
    kind: str = "adamw"  # "muon": for the matrices of the recurrent layers
    learning_rate: float = 2e-3
    warmup_updates: int = 500
    schedule: str = "cosine"  # "cosine" to zero | "plateau" (halved when dev CER stalls) | "constant"
    weight_decay: float = 0.01
    clip_norm: float = 5.0


@dataclass(frozen=True)
class TrainConfig:
    epochs: int = 20
    seed: int = 1
    precision: str = "bfloat16"  # of the matrix products: "bfloat16" | "float32"
    predict_steps: int = 0  # learn nothing but to predict the frames so many steps ahead; 0: to read
    token_weight: float = 1.0  # of the CTC loss of the characters
    phone_weight: float = 0.3  # of the phone loss
    attention_weight: float = 0.0  # of the loss of a decoder with attention; 0: none
    denominator: float = 0.0  # weight of CTC-CRF's log Z beside the phone CTC loss; 0: plain CTC
    denominator_order: int = 3  # of its n-gram of phones: 2, 3 or 4 (crf.py)
    ctc_epochs: int = 0  # first epochs without it
    consistency: float = 0.0  # weight of the disagreement of two views of every utterance; 0: one view
    peak_first: float = 0.0  # weight of how far the phones of a step are from those of the next one
    distillation: float = 0.5  # weight of what data.teachers say, if there are any
    alignment: bool = False  # the teachers say where the transcript's phones are, not what else might be
    average_decay: float = 0.999  # exponential average of the weights, what is validated and exported
    bptt_steps: int = 0  # truncate back-propagation through time to so many steps; 0: whole utterances
    carry_probability: float = 0.0  # share of rows that start from the state another utterance left
    checkpoint_layers: bool = False  # recompute layers in the backward pass: less memory, more time
    save_minutes: float = 4.0  # between checkpoints
    patience: int = 0  # stop after so many epochs without a better dev CER; 0: never


@dataclass(frozen=True)
class Config:
    name: str
    data: DataConfig
    licence: str = "not stated"  # of the model that is written: what its recordings and texts allow
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def read(path: Path, overrides: list[str] | None = None) -> Config:
    """TOML file -> Config. Raises ConfigError naming the file and key."""
    return from_dict(read_toml(path, overrides), str(path))


def read_toml(path: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """TOML file, with `--set` on top and the file's name for `name` -> its content. Raises ConfigError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for override in overrides or []:
        _override(raw, override)
    raw.setdefault("name", path.stem)
    return raw


def from_dict(raw: dict[str, Any], source: str) -> Config:
    """What `dataclasses.asdict` made of a Config, or a TOML file's content -> Config."""
    config: Config = build(Config, raw, source)
    _check(config, source)
    return config


def manifests(patterns: tuple[str, ...], base: Path) -> list[Path]:
    """Glob patterns relative to `base` -> sorted paths; a pattern that matches nothing is an error."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        parent = (base / pattern).parent.resolve()
        matches = sorted(parent.glob(Path(pattern).name))
        if not matches:
            raise ConfigError(f"no file matches {pattern!r} (looked in {parent}); correct or --set it")
        found.update(dict.fromkeys(matches))
    return list(found)


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: write section.key=value, as in train.epochs=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *sections, last = key.split(".")
    table = raw
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {section} is not a section")
    table[last] = value


def build(cls: type[Any], raw: dict[str, Any], source: str, prefix: str = "") -> Any:
    """Nested dictionaries -> dataclass `cls`, keys and types checked. Raises ConfigError naming the key."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in raw:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(fields)}"
            raise ConfigError(f"{source}: unknown key {prefix}{key}{hint}")
    values: dict[str, Any] = {}
    for name, definition in fields.items():
        if name in raw:
            values[name] = _convert(hints[name], raw[name], source, prefix + name)
        elif definition.default is dataclasses.MISSING and definition.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{source}: {prefix}{name} is missing")
    return cls(**values)


def _convert(kind: Any, value: Any, source: str, key: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{source}: {key} must be a section, not {value!r}")
        return build(kind, value, source, key + ".")
    if isinstance(typing.get_origin(kind), type) and typing.get_origin(kind) is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise ConfigError(f"{source}: {key} must be a list of strings, not {value!r}")
        return tuple(items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{source}: {key} must be {_KINDS[kind]}, not {value!r}")
    return value


_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
FEWEST_SUBWORDS = 55  # the blank, 26 letters and the apostrophe, each within a word and at its end
_CHOICES = {
    "model.cell": ("lstm", "gru", "rnn"),
    "model.norm": ("joint", "separate", "between", "none"),
    "optimiser.kind": ("adamw", "muon"),
    "optimiser.schedule": ("cosine", "plateau", "constant"),
    "train.precision": ("bfloat16", "float32"),
}
_POSITIVE = (
    "data.batch_seconds", "data.batch_rows", "data.temperature", "data.longest_seconds",
    "model.frames_per_step", "model.hidden", "model.layers",
    "optimiser.learning_rate", "optimiser.clip_norm", "train.epochs", "train.save_minutes",
)  # fmt: skip
_SHARES = (
    "model.dropout", "model.weight_dropout", "augment.tempo", "augment.warp", "augment.noise_probability",
    "augment.room_probability", "augment.line_probability", "train.carry_probability", "train.average_decay",
)  # fmt: skip


def _check(config: Config, source: str) -> None:
    def value(key: str) -> Any:
        section, name = key.split(".")
        return getattr(getattr(config, section), name)

    for key, choices in _CHOICES.items():
        if value(key) not in choices:
            raise ConfigError(f"{source}: {key} must be one of {', '.join(choices)}, not {value(key)!r}")
    for key in _POSITIVE:
        if not value(key) > 0:
            raise ConfigError(f"{source}: {key} must be positive, not {value(key)}")
    for key in _SHARES:
        if not 0 <= value(key) < 1:
            raise ConfigError(f"{source}: {key} must be at least 0 and below 1, not {value(key)}")
    for section in ("model", "augment", "optimiser", "train"):
        for name, number in asdict(getattr(config, section)).items():
            if isinstance(number, float | int) and number < 0 and not name.endswith("_db"):
                raise ConfigError(f"{source}: {section}.{name} must not be negative, not {number}")
    a = config.augment
    for name, low, high in (
        ("gain", a.gain_low_db, a.gain_high_db),
        ("noise_snr", a.noise_snr_low_db, a.noise_snr_high_db),
        ("reverb_direct", a.reverb_direct_low_db, a.reverb_direct_high_db),
        ("reverb seconds", a.reverb_shortest_seconds, a.reverb_longest_seconds),
    ):
        if low > high:
            raise ConfigError(
                f"{source}: augment: the low end of {name}, {low}, is above its high end, {high}"
            )
    if not config.name or Path(config.name).name != config.name:
        raise ConfigError(f"{source}: name must be a plain file name, not {config.name!r}")
    if config.data.subwords and config.data.subwords < FEWEST_SUBWORDS:
        raise ConfigError(
            f"{source}: data.subwords must be 0 (letters) or at least {FEWEST_SUBWORDS}, which spell any word"
        )
    if config.train.denominator_order not in (2, 3, 4):
        order = config.train.denominator_order
        raise ConfigError(f"{source}: train.denominator_order must be 2, 3 or 4, not {order}")
    if config.model.mean_window < config.model.mean_frames:
        raise ConfigError(
            f"{source}: model.mean_window must be at least mean_frames, {config.model.mean_frames}; "
            f"it is {config.model.mean_window}"
        )
    if not 0 <= config.model.phone_layer <= config.model.layers:
        raise ConfigError(f"{source}: model.phone_layer must be 0 to {config.model.layers}")
    if config.train.predict_steps and (config.model.bidirectional or config.model.look_ahead):
        raise ConfigError(
            f"{source}: train.predict_steps predicts what is to come, so nothing may hear it before: "
            "set model.look_ahead=0 and model.bidirectional=false"
        )
