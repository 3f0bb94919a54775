"""Fine-tuning with nothing but a model directory: weights of int8, its lexicon, g2p and language model."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_train_loop import assert_same, tone_word

import streamasr
from streamasr import modelfile
from streamasr.cli.main import main as command
from streamasr.data import g2p, ngram
from streamasr.errors import ConfigError
from streamasr.features import FeatureConfig
from streamasr.search import lexicon
from streamasr.search.confidence import Calibration, Logistic
from streamasr.search.config import BeamConfig
from streamasr.train import checkpoint, dataset, export, loop, start
from streamasr.train.config import ModelConfig
from streamasr.train.model import AcousticModel
from streamasr.vocabulary import Vocabulary

MODEL = ModelConfig(channels=2, hidden=8, layers=2, flush_steps=4, phone_layer=2)
# A phone of its own (Z) before the others: training must keep the model's order, not make one.
PHONES = Vocabulary(("<blank>", " ", "Z", "A", "B", "C", "D"), "phones")
SAID = {"".join(w): [x.upper() for x in w] for n in (1, 2, 3) for w in itertools.product("abcd", repeat=n)}
CONFIG = """
name = "mine"
[data]
train = ["mine-train.jsonl"]
dev = ["mine-dev.jsonl"]
cache = "cache"
batch_seconds = 4.0
[model]
channels = 2
hidden = 8
layers = 2
flush_steps = 4
phone_layer = 2
[optimiser]
learning_rate = 1e-3
warmup_updates = 2
schedule = "constant"
[train]
epochs = 1
denominator = 0.9
carry_probability = 0.5
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model directory as ours are: int8, two heads, lexicon, language model, g2p, settings, calibration."""
    path = tmp_path_factory.mktemp("models") / "taught"
    torch.manual_seed(0)
    model = AcousticModel(MODEL, 80, len(dataset.CHARACTERS), len(PHONES), "float32")
    weights = {**model.state_dict(), "phone_output.prior": torch.zeros(len(PHONES))}
    statistics = np.full(80, -7.5, np.float32), np.full(80, 4.5, np.float32)  # no data has such by itself
    description = modelfile.Description(
        "taught", "en", "CC0-1.0", "", FeatureConfig(), export.encoder_of(MODEL), dataset.CHARACTERS, {},
        BeamConfig(lm_weight=0.7), PHONES, Calibration(-0.1, 0.1, None, None, Logistic(1, 1, 0, 0, 0)),
    )  # fmt: skip
    modelfile.write(path, description, export.tensors(weights, statistics, True), numbers="int8")
    number = {token: i for i, token in enumerate(PHONES.tokens)}
    known = {word: phones for word, phones in SAID.items() if word != "dad"}
    pairs = [("ab", "Z A B"), *((word, " ".join(phones)) for word, phones in known.items())]  # ab: two ways
    spelt = [(word, [number[p] for p in phones.split()]) for word, phones in pairs]
    lexicon.build(spelt, len(PHONES)).write(path / "lexicon.safetensors", PHONES)
    (path / "text.txt").write_text("a b ab\nb c abc\n" * 50 + "\n".join(known))
    ngram.read(path / "text.txt").write(path / "lm.safetensors")
    (path / "text.txt").unlink()
    g2p.train([(word, tuple(phones)) for word, phones in known.items()], 100_000).write(
        path / "g2p.safetensors"
    )
    return path


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's recordings and mine.toml; "dad" is a word that the model does not know."""
    for part, texts in (("train", ["ab dad", "abc", "a b", "", "dad ab"]), ("dev", ["ab cab"])):
        lines = []
        for number, text in enumerate(texts):
            name = f"{part}{number}"
            soundfile.write(tmp_path / f"{name}.flac", tone_word(text or " "), 16_000)
            lines.append(json.dumps({"id": name, "audio": f"{name}.flac", "text": text}) + "\n")
        (tmp_path / f"mine-{part}.jsonl").write_text("".join(lines))
    (tmp_path / "mine.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "_SENTENCES", 20)
    return tmp_path


def run(mine: Path, *overrides: str, source: str = "", resume: bool = False) -> dict[str, Any]:
    assert loop.main(mine / "mine.toml", list(overrides), resume, source) == 0
    return checkpoint.read(mine / "runs" / "mine" / "last.pt")


def test_words_are_pronounced_by_the_model(taught: Path) -> None:
    begun = start.read(str(taught))
    assert begun.phones == PHONES.tokens and begun.like == str(taught)
    assert begun.phones_of("cab") == ("C", "A", "B")
    assert begun.phones_of("ab") == (
        "Z",
        "A",
        "B",
    )  # the first of two, though the other comes first in the tree
    assert begun.phones_of("dad") is None and begun.pronouncers == [taught / "g2p.safetensors"]
    sentences = list(begun.sentences(1))
    assert sentences == list(begun.sentences(1)) != list(begun.sentences(2))
    words = {word for text in sentences for word in text.split()}
    assert {"a", "b", "c", "ab", "abc"} <= words <= SAID.keys()


def test_a_model_is_fine_tuned_by_its_name_and_comes_out_complete(
    taught: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(modelfile, "PACKAGED", taught.parent)
    content = run(mine, source="taught")
    assert (
        "1 words are in no lexicon and are pronounced by their look (dad = D A D)" in capsys.readouterr().err
    )
    assert content["phones"] == list(PHONES.tokens) and content["like"] == "taught"
    assert [float(s[0]) for s in content["statistics"]] == [-7.5, 4.5]
    before, after = modelfile.read(taught), modelfile.read(mine / "runs" / "mine" / "model")
    for name, tensor in before.tensors.items():  # a few small steps from where it began
        if name != "phone_output.prior":
            np.testing.assert_allclose(after.tensors[name], tensor, atol=0.05, err_msg=name)
    assert any(not np.array_equal(t, after.tensors[name]) for name, t in before.tensors.items())
    out = mine / "out"
    assert command(["export", "runs/mine/best.pt", str(out), "--numbers", "int8"]) == 0
    assert "lexicon.safetensors, lm.safetensors, g2p.safetensors" in capsys.readouterr().out
    for folder in (mine / "runs" / "mine" / "model", out):
        for name in ("lexicon", "lm", "g2p"):
            file = f"{name}.safetensors"
            assert (folder / file).read_bytes() == (taught / file).read_bytes()
        description = modelfile.read(folder).description
        assert description.search == before.description.search
        assert description.calibration == before.description.calibration
        asr = streamasr.load(folder)
        assert asr.default_search == "beam"
        text = asr.transcribe(mine / "train0.flac").text
        assert set(text.split()) <= SAID.keys()
    assert modelfile.read(out).numbers == "int8"


def test_fine_tuning_goes_on_as_if_it_had_not_stopped(taught: Path, mine: Path) -> None:
    whole = run(mine, "train.epochs=2", source=str(taught))
    (mine / "runs").rename(mine / "whole")
    run(mine, source=str(taught))
    assert_same(run(mine, "train.epochs=2", resume=True), whole)


def test_dictionaries_of_the_user_come_first(
    taught: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "own.txt").write_text("dad\tD Z D\n")
    content = run(mine, 'data.lexicon=["own.txt"]', source=str(taught))
    assert "pronounced by their look" not in capsys.readouterr().err
    assert content["phones"] == list(PHONES.tokens)
    (mine / "own.txt").write_text("ab\tA B\ndad\tD Q D\n")
    with pytest.raises(ConfigError, match=r"own\.txt: line 2: phone 'Q' is none of the model's: Z A B C D"):
        run(mine, 'data.lexicon=["own.txt"]', "name=other", source=str(taught))


def test_phones_need_a_lexicon(mine: Path) -> None:
    with pytest.raises(ConfigError, match="needs data.lexicon, or --from a model that has a lexicon"):
        run(mine)


def test_a_lexicon_of_other_tokens_is_refused(taught: Path, mine: Path, tiny_directory: Path) -> None:
    run(mine, source=str(taught))
    checkpoint_file = str(mine / "runs" / "mine" / "best.pt")
    with pytest.raises(ConfigError, match="its tokens are not those of the model"):
        export.from_checkpoint(Path(checkpoint_file), mine / "out", "mine", like=str(tiny_directory))
    assert not (mine / "out").exists()
    # Of a run that learnt other tokens than the model it began with has, only the weights come out.
    content = checkpoint.read(Path(checkpoint_file))
    checkpoint.write(mine / "other.pt", {**content, "like": str(tiny_directory)})
    export.from_checkpoint(mine / "other.pt", mine / "out", "mine")
    assert sorted(path.name for path in (mine / "out").iterdir()) == ["model.json", "model.safetensors"]


def test_export_of_a_model_keeps_its_files(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["export", str(taught), str(tmp_path / "half"), "--numbers", "float16"]) == 0
    assert "with lexicon.safetensors" in capsys.readouterr().out
    assert streamasr.load(tmp_path / "half").default_search == "beam"
    assert command(["export", str(taught), str(tmp_path / "half.zip")]) == 0
    assert "without a lexicon" in capsys.readouterr().out
