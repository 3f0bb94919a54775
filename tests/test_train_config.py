"""Training configuration: strict, typed, and errors that say which key and what to write instead."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import streamasr
from streamasr.errors import ConfigError
from streamasr.train import config, export, lm

MINIMAL = '[data]\ntrain = ["a.jsonl"]\ndev = "b.jsonl"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def test_defaults_come_from_the_dataclasses_alone(tmp_path: Path) -> None:
    found = config.read(write(tmp_path, MINIMAL))
    assert found == config.Config("tiny", config.DataConfig(train=("a.jsonl",), dev=("b.jsonl",)))


def test_survives_json(tmp_path: Path) -> None:
    """As it travels with checkpoints."""
    found = config.read(write(tmp_path, MINIMAL), ["model.hidden=7", "train.epochs=3"])
    assert config.from_dict(json.loads(json.dumps(asdict(found))), "x") == found


def test_overrides_are_typed_by_the_field(tmp_path: Path) -> None:
    overrides = [
        "name=other", "model.cell=gru", 'model.norm="none"', "model.bidirectional=true",
        "data.batch_seconds=30", "optimiser.learning_rate=1e-4", 'data.train=["x*.jsonl", "y.jsonl"]',
        "data.noise=n.jsonl", "augment.gain_low_db=-3",
    ]  # fmt: skip
    found = config.read(write(tmp_path, MINIMAL + "[model]\ncell = 'rnn'\n"), overrides)
    assert (found.name, found.model.cell, found.model.norm, found.model.bidirectional) == (
        "other",
        "gru",
        "none",
        True,
    )
    assert found.data.batch_seconds == 30.0 and type(found.data.batch_seconds) is float
    assert found.optimiser.learning_rate == 1e-4 and found.augment.gain_low_db == -3.0
    assert found.data.train == ("x*.jsonl", "y.jsonl") and found.data.noise == ("n.jsonl",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nhiden = 3", r"tiny\.toml: unknown key model\.hiden; did you mean model\.hidden\?"),
        ("[modl]\nhidden = 3", r"unknown key modl; did you mean model\?"),
        ("[model]\nzzz = 3", r"unknown key model\.zzz; known: frames_per_step, channels"),
        ("[model]\nhidden = 3.0", r"model\.hidden must be a whole number, not 3\.0"),
        ("[model]\nhidden = true", r"model\.hidden must be a whole number, not True"),
        ("[model]\nbidirectional = 1", r"model\.bidirectional must be true or false, not 1"),
        ("[model]\ncell = 'lstn'", r"model\.cell must be one of lstm, gru, rnn, not 'lstn'"),
        ("[model]\nnorm = 3", r"model\.norm must be a string, not 3"),
        ("[model]\nhidden = 0", r"model\.hidden must be positive, not 0"),
        ("[model]\nlook_ahead = -1", r"model\.look_ahead must not be negative, not -1"),
        ("[model]\ndropout = 1.0", r"model\.dropout must be at least 0 and below 1, not 1\.0"),
        ("[model]\nphone_layer = 9", r"model\.phone_layer must be 0 to 4"),
        ("[optimiser]\nlearning_rate = 'fast'", r"optimiser\.learning_rate must be a number, not 'fast'"),
        ("[optimiser]\nlearning_rate = true", r"optimiser\.learning_rate must be a number, not True"),
        ("[optimiser]\nschedule = 'linear'", r"optimiser\.schedule must be one of cosine, plateau, constant"),
        ("[train]\nprecision = 'float16'", r"train\.precision must be one of bfloat16, float32"),
        ("[train]\npredict_steps = 2\n[model]\nlook_ahead = 1", r"predicts what is to come.*look_ahead=0"),
        ("[train]\npredict_steps = 2\n[model]\nbidirectional = true", r"bidirectional=false"),
        ("[train]\npredict_steps = -2", r"train\.predict_steps must not be negative, not -2"),
        ("[train]\nattention_weight = -0.1", r"train\.attention_weight must not be negative, not -0\.1"),
        ("[train]\ndenominator_order = 5", r"train\.denominator_order must be 2, 3 or 4, not 5"),
        ("subwords = 30", r"data\.subwords must be 0 \(letters\) or at least 55, which spell any word"),
        ("[train]\nepochs = nan", r"train\.epochs must be a whole number"),
        ("model = 3", r"unknown key data\.model"),
        ("[", r"tiny\.toml: not valid TOML"),
    ],
)
def test_mistakes_are_explained(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config.read(write(tmp_path, MINIMAL + text + "\n"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", r"--set epochs: write section\.key=value"),
        ("=3", r"--set =3: write section\.key=value"),
        ("train.epochs=many", r"train\.epochs must be a whole number, not 'many'"),
        ("train.epochs=", r"train\.epochs must be a whole number, not ''"),
        ("train.epoch=3", r"unknown key train\.epoch; did you mean train\.epochs\?"),
        ("name.x=3", r"--set name\.x=3: name is not a section"),
        ("model=3", r"model must be a section, not 3"),
        ("data.train=[1]", r"data\.train must be a list of strings, not \[1\]"),
    ],
)
def test_wrong_overrides_are_explained(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config.read(write(tmp_path, 'name = "n"\n' + MINIMAL), [override])


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read the configuration: No such file"):
        config.read(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"tiny\.toml: data is missing"):
        config.read(write(tmp_path, ""))
    with pytest.raises(ConfigError, match=r"tiny\.toml: data\.dev is missing"):
        config.read(write(tmp_path, "[data]\ntrain = []\n"))
    path = tmp_path / "latin.toml"
    path.write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigError, match="not valid TOML"):
        config.read(path)


def test_manifest_patterns(tmp_path: Path) -> None:
    """Relative to the configuration file; each file once, however many patterns match it."""
    for name in ("b-train.jsonl", "a-train.jsonl", "a-dev.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "configs").mkdir()
    found = config.manifests(("../*-train.jsonl", "../a-*.jsonl"), tmp_path / "configs")
    assert [p.name for p in found] == ["a-train.jsonl", "b-train.jsonl", "a-dev.jsonl"]
    assert config.manifests((), tmp_path) == []
    with pytest.raises(ConfigError, match=r"no file matches 'c\*\.jsonl' \(looked in .*\)"):
        config.manifests(("c*.jsonl",), tmp_path)


def test_the_repositorys_configurations_are_valid() -> None:
    folder = Path(__file__).parents[1] / "configs"
    names = sorted(path.name for path in folder.glob("*.toml"))
    assert "en.toml" in names
    for name in names:
        (lm if name == "lm.toml" else config).read(folder / name)


def test_the_levers_are_valid() -> None:
    """Every row of benchmarks/levers.toml, on top of the recipe that it changes."""
    root = Path(__file__).parents[1]
    tried = config.read_toml(root / "benchmarks" / "levers.toml")
    groups = {"going on", "from scratch", "by CTC-CRF", "pre-trained"}
    assert tried.pop("name") == "levers" and tried.keys() == groups
    for settings in (settings for group in tried.values() for settings in group.values()):
        config.read(root / "configs" / "trainclean5.toml", settings)


def test_every_key_is_documented() -> None:
    """docs/training.md has a row for each key, in order, with its default."""
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    for section in dataclasses.fields(config.Config):
        if section.name in ("name", "licence"):
            continue
        text = page.split(f"### [{section.name}]")[1].split("\n## ")[0].split("\n### ")[0]
        rows = [
            [cell.strip() for cell in line.split("|")[1:3]] for line in text.splitlines() if "| `" in line
        ]
        expected = []
        kind = type(getattr(config.Config("x", config.DataConfig((), ())), section.name))
        for f in dataclasses.fields(kind):
            default = "must be given" if f.default is dataclasses.MISSING else json.dumps(f.default)
            quoted = f"`{default}`" if default.startswith('"') else "none" if default == "[]" else default
            expected.append([f"`{f.name}`", quoted])
        assert rows == expected


def test_the_fine_tuning_of_the_docs_is_the_one_in_configs(shipped: streamasr.Recognizer) -> None:
    """And its model is the packaged one but for the running mean, which comes with what a run begins from."""
    root = Path(__file__).parents[1]
    assert (root / "configs" / "finetune.toml").read_text() in (root / "docs" / "training.md").read_text()
    found = config.read(root / "configs" / "finetune.toml").model
    expected = replace(shipped.model.description.encoder, mean_frames=0, mean_window=0)
    assert export.encoder_of(found) == expected
    assert found.phone_layer == found.layers and shipped.model.description.phones
