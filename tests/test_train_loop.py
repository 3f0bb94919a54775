"""The training loop on a made-up language: every letter is a tone, words are letters one after the other."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import streamasr
from streamasr.errors import ConfigError, ModelError
from streamasr.features import FeatureConfig
from streamasr.search import lexicon
from streamasr.train import cache, checkpoint, config, dataset, export, loop, objective, start, suspects
from streamasr.train.model import AcousticModel

CONFIG = """
[data]
train = ["tones-train.jsonl"]
dev = ["tones-dev.jsonl"]
lexicon = ["lexicon.txt"]
cache = "cache"
batch_seconds = 15.0
[model]
channels = 4
hidden = 16
layers = 2
flush_steps = 4
phone_layer = 1
[optimiser]
learning_rate = 1e-2
warmup_updates = 4
[train]
epochs = 2
denominator = 0.5
"""
# Nothing random but the order: what a tiny model can learn in seconds.
CLEAN = [
    "augment.tempo=0.0", "augment.warp=0.0", "augment.gain_low_db=0.0", "augment.gain_high_db=0.0",
    "augment.tilt_db=0.0", "augment.band_masks=0", "augment.time_masks_per_second=0.0", "model.dropout=0.0",
]  # fmt: skip


def tone_word(text: str) -> np.ndarray[Any, Any]:
    """0.12 s of tone for each letter, 0.12 s of silence for a space, 20 ms of silence between."""
    pieces = [np.zeros(800)]
    for letter in text:
        hertz = 300.0 * 1.4 ** "abcd".find(letter)
        level = 0.0 if letter == " " else 0.3
        pieces += [level * np.sin(2 * np.pi * hertz * np.arange(1920) / 16000), np.zeros(320)]
    return np.concatenate(pieces)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with tiny.toml, manifests, 44 utterances of half a second to two, a lexicon."""
    folder = tmp_path_factory.mktemp("tones")
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("dev", 4)):
        lines = []
        for i in range(count):
            words = ["".join(random.choice(list("abcd"), random.integers(1, 4))) for _ in range(1 + i % 3)]
            name = f"{part}{i}"
            with wave.open(str(folder / f"{name}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16_000)
                file.writeframes((tone_word(" ".join(words)) * 32767).astype("<i2").tobytes())
            lines.append(json.dumps({"id": name, "audio": f"{name}.wav", "text": " ".join(words)}) + "\n")
        (folder / f"tones-{part}.jsonl").write_text("".join(lines))
    texts = [json.loads(line)["text"] for line in (folder / "tones-train.jsonl").read_text().splitlines()]
    words_once = sorted({word for text in texts for word in text.split()})[1:]  # one word is unknown
    (folder / "lexicon.txt").write_text("".join(f"{w}\t{' '.join(w.upper())}1\n" for w in words_once))
    (folder / "tiny.toml").write_text(CONFIG)
    return folder


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """One thread, and what training changes in the interpreter put back."""
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    sys.setswitchinterval(interval)


@pytest.fixture
def train(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """train("--set ...", resume=False) -> folder of the run."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, resume: bool = False) -> Path:
        assert loop.main(corpus / "tiny.toml", list(overrides), resume) == 0
        return tmp_path / "runs" / "tiny"

    return call


@pytest.fixture
def trainer(corpus: Path, tmp_path: Path) -> loop.Trainer:
    return loop.Trainer(config.read(corpus / "tiny.toml"), corpus, tmp_path)


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def command(corpus: Path, *overrides: str) -> list[str]:
    program = "import sys; from pathlib import Path; from streamasr.train.loop import main; "
    program += "sys.exit(main(Path(sys.argv[1]), sys.argv[2:], False))"
    return [sys.executable, "-c", program, str(corpus / "tiny.toml"), *overrides]


def environment() -> dict[str, str]:
    package = str(Path(streamasr.__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package}


def assert_same(a: Any, b: Any, where: str = "checkpoint") -> None:
    """To the bit, through lists and dictionaries; times of day excepted."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ("elapsed", "log", "hours_of_training"):
                assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}")
    else:
        assert a == b or a != a, where


# -- whole runs --------------------------------------------------------------------------------------


def test_the_loss_falls_and_a_model_comes_out(train: Any) -> None:
    learning = (
        "model.hidden=32",
        "model.layers=1",
        "optimiser.learning_rate=3e-3",
        "optimiser.schedule=constant",
    )
    folder = train(*CLEAN, *learning, "train.epochs=14", "data.batch_seconds=3.0", "train.average_decay=0.9")
    losses = [entry["train_loss"] for entry in log_of(folder) if "dev" in entry]
    assert len(losses) == 14
    # Silence and the frequencies of the letters alone give 1.9 nats a letter: tones have been heard.
    assert losses[-1] < 1.0, losses
    entries = [entry for entry in log_of(folder) if "gradient_norm" in entry]
    assert entries and all(math.isfinite(e["loss"]) and "phone_loss" in e for e in entries)
    assert json.loads((folder / "config.json").read_text())["train"]["epochs"] == 14
    recognizer = streamasr.load(folder / "model")
    assert recognizer is not None
    pytest.importorskip("matplotlib")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_killed_and_resumed_is_as_if_nothing_had_happened(corpus: Path, tmp_path: Path, train: Any) -> None:
    overrides = (
        "train.epochs=6",
        "train.save_minutes=1e-6",
        "train.carry_probability=0.5",
        "train.attention_weight=0.3",
        "data.batch_seconds=3.0",
    )
    killed = tmp_path / "killed"
    killed.mkdir()
    process = subprocess.Popen(
        command(corpus, *overrides),
        cwd=killed,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    last = killed / "runs" / "tiny" / "last.pt"
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        position = checkpoint.read(last)["position"] if last.exists() else {"epoch": 0, "batch": 0}
        if position["epoch"] >= 1 and position["batch"] >= 2:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    stopped_at = checkpoint.read(last)["position"]

    whole = train(*overrides)  # the same process cannot do both: main() refuses an existing run
    os.chdir(killed)
    assert loop.main(corpus / "tiny.toml", list(overrides), True) == 0
    expected, found = checkpoint.read(whole / "last.pt"), checkpoint.read(last)
    assert stopped_at["updates"] < found["position"]["updates"]
    assert_same(found, expected)
    ours, theirs = (f / "model" / "model.safetensors" for f in (whole, last.parent))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_is_not_overwritten(train: Any) -> None:
    folder = train("train.epochs=1")
    before = (folder / "last.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"last\.pt exists: go on with --resume"):
        train("train.epochs=1")
    assert (folder / "last.pt").read_bytes() == before
    # A finished run can be made longer, but not with another model.
    train("train.epochs=2", resume=True)
    assert checkpoint.read(folder / "last.pt")["position"]["epoch"] == 2
    with pytest.raises(ModelError, match=r"last\.pt: does not fit this configuration"):
        train("train.epochs=3", "model.hidden=17", resume=True)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.cell=gru", "model.norm=separate", "model.look_ahead=2"),
        ("model.cell=rnn", "model.norm=none", "train.precision=float32"),
        (
            "model.norm=separate",
            "train.bptt_steps=5",
            "train.carry_probability=0.9",
            "train.checkpoint_layers=true",
        ),
        ("model.bidirectional=true", "model.phone_layer=0", "optimiser.schedule=plateau"),
        ("train.consistency=0.2", "train.denominator=0.9", "train.attention_weight=0.3"),
    ],
    ids=lambda o: " ".join(o),
)
def test_every_kind_of_model_trains(overrides: tuple[str, ...], train: Any) -> None:
    folder = train(*overrides)
    losses = [entry["train_loss"] for entry in log_of(folder) if "dev" in entry]
    assert len(losses) == 2 and all(map(math.isfinite, losses)) and losses[1] < losses[0]
    assert (folder / "model" / "model.json").exists() == ("model.bidirectional=true" not in overrides)
    for name, tensor in checkpoint.read(folder / "last.pt")["model"].items():
        assert torch.isfinite(tensor).all(), name


def test_the_attention_of_a_decoder_is_learnt_beside_ctc(train: Any) -> None:
    folder = train(*CLEAN, "train.attention_weight=0.5", "train.epochs=4", "data.batch_seconds=1.0")
    losses = [entry["attention_loss"] for entry in log_of(folder) if "attention_loss" in entry]
    assert len(losses) > 3 and losses[-1] < losses[0]
    content = checkpoint.read(folder / "last.pt")
    for part in ("model", "average"):
        assert any(name.startswith("auxiliary.decoder.") for name in content[part])
    assert not any("decoder" in name for name in streamasr.load(folder / "model").model.tensors)


def test_pre_training_without_a_word_and_reading_from_there(
    train: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        json.loads(line) | {"text": ""} for line in (corpus / "tones-train.jsonl").read_text().splitlines()
    ]
    (corpus / "tones-untold.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    untold = ('data.train=["tones-untold.jsonl"]', "train.predict_steps=2", "name=untold", "data.lexicon=[]")
    folder = train(*CLEAN, *untold, "train.epochs=3", "data.batch_seconds=3.0").parent / "untold"
    errors = [entry["dev"]["tones-dev"]["l1"] for entry in log_of(folder) if "dev" in entry]
    assert 0 < errors[2] < errors[0] < 2
    assert checkpoint.read(folder / "best.pt")["cer"] == min(errors)
    content = checkpoint.read(folder / "last.pt")
    assert not (folder / "model").exists()
    with pytest.raises(ModelError, match=r"last\.pt: predicts frames .* --from .*last\.pt"):
        export.from_checkpoint(folder / "last.pt", folder / "model", "untold")
    source = str(folder / "last.pt")
    assert loop.main(corpus / "tiny.toml", ["optimiser.learning_rate=1e-9"], False, source) == 0
    assert "note: phone_output.weight is not in" in capsys.readouterr().err
    reader = checkpoint.read(folder.parent / "tiny" / "last.pt")["average"]
    assert not any(name.startswith("auxiliary.") for name in reader)
    for name, weight in reader.items():
        if not name.startswith("phone_output."):
            torch.testing.assert_close(weight, content["average"][name], atol=1e-6, rtol=0)


def test_precisions_agree(train: Any) -> None:
    """bfloat16 products, 8 bits each: the loss of the first epoch is the same to a few per cent."""
    losses = []
    for name in ("bfloat16", "float32"):
        folder = train("train.epochs=1", f"train.precision={name}", f"name={name}").parent / name
        losses.append(log_of(folder)[-1]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    """torchrun over gloo: each process has batches of its own, gradients are averaged."""
    script = tmp_path / "both.py"
    script.write_text(
        "import sys, torch\nfrom pathlib import Path\nfrom streamasr.train import loop\n"
        "run, heard = loop.Trainer.run, []\n"
        "def both(self):\n"
        "    batches = self.data.batches\n"
        "    make = batches.make\n"
        "    batches.make = lambda n, s: heard.extend([s[1], i] for i in n.tolist()) or make(n, s)\n"
        "    run(self)\n"
        "    torch.save({'model': self.model.state_dict(), 'heard': heard}, f'rank{self.rank}.pt')\n"
        "loop.Trainer.run = both\n"
        "if __name__ == '__main__':\n"  # the processes that compute features import this file
        f"    sys.exit(loop.main(Path({str(corpus / 'tiny.toml')!r}), sys.argv[1:], False))\n"
    )
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        [sys.executable, *arguments, "data.batch_seconds=3.0"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(first["model"], second["model"])
    assert_same(checkpoint.read(tmp_path / "runs" / "tiny" / "last.pt")["model"], first["model"])
    # Pairs (epoch, utterance): nobody hears what the other does; an odd batch at the end may be left out.
    ours, theirs = ([tuple(pair) for pair in rank["heard"]] for rank in (first, second))
    assert len({*ours, *theirs}) == len(ours) + len(theirs) > 60


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    """A folder with the repository's configs/ in repository/, and a slice of tones beside it as openslr.org
    packs LibriSpeech: subsets, speakers, chapters, FLAC, texts and a lexicon in capitals."""
    random = np.random.default_rng(3)
    for subset, speakers in (("train-clean-100", (103, 19, 26)), ("dev-clean", (84,)), ("dev-other", (116,))):
        for speaker, chapter in itertools.product(speakers, (7, 123)):
            folder = tmp_path / "LibriSpeech" / subset / str(speaker) / str(chapter)
            folder.mkdir(parents=True)
            lines = []
            for number in range(4 if subset.startswith("train") else 1):
                words = [
                    "".join(random.choice(list("abcd"), random.integers(1, 4))) for _ in range(number + 1)
                ]
                name = f"{speaker}-{chapter}-{number:04}"
                soundfile.write(folder / f"{name}.flac", tone_word(" ".join(words)), 16_000)
                lines.append(f"{name} {' '.join(words).upper()}\n")
            (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    words = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("ABCD", repeat=n)]
    gaps = itertools.cycle(["  ", "\t"])
    lines = [f"{word}{next(gaps)}{' '.join(word)}1\n" for word in words]
    (tmp_path / "LibriSpeech" / "librispeech-lexicon.txt").write_text("".join(lines))
    shutil.copytree(Path(__file__).parents[1] / "configs", tmp_path / "repository" / "configs")
    return tmp_path


@pytest.mark.slow
def test_librispeech_with_two_processes_stopped_and_resumed(librispeech: Path) -> None:
    """The recipe of 100 hours by torchrun on a made slice: to the bit the same with and without a stop."""
    script = librispeech / "recipe.py"
    script.write_text(
        "import os, sys, torch.distributed\nfrom pathlib import Path\nfrom streamasr.train import loop\n"
        "def run(folder, *overrides, resume=False):\n"
        "    os.makedirs(folder, exist_ok=True)\n"
        "    os.chdir(folder)\n"
        "    path = Path('../repository/configs/librispeech-100.toml')\n"
        "    assert loop.main(path, [*sys.argv[1:], *overrides], resume) == 0\n"
        "    torch.distributed.barrier()\n"
        "    os.chdir('..')\n"
        "if __name__ == '__main__':\n"
        "    run('whole', 'train.epochs=2')\n"
        "    run('parts', 'train.epochs=1')\n"
        "    run('parts', 'train.epochs=2', resume=True)\n"
    )
    small = [
        "data.batch_seconds=3.0", "model.channels=2", "model.hidden=8", "model.layers=2",
        "model.phone_layer=2", "train.ctc_epochs=1", "train.carry_probability=0.9",
        "optimiser.kind=muon", "optimiser.schedule=constant", "optimiser.warmup_updates=2",
    ]  # fmt: skip
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script), *small]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=librispeech, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, parts = (librispeech / name / "runs" / "librispeech-100" for name in ("whole", "parts"))
    expected, found = (checkpoint.read(run / "last.pt") for run in (whole, parts))
    assert_same(found, expected)
    summary = found["summary"]
    assert (summary["processes"], summary["utterances"]) == (2, 24) and found["position"]["epoch"] == 2
    assert summary["corpora"] == ["train-clean-100"]
    one, other = found["carried_states"]  # each process left a state of its own, and takes it up
    assert not torch.equal(one[0][0], other[0][0])
    assert {*log_of(parts)[-1]["dev"]} == {"dev-clean", "dev-other"}
    assert json.loads((parts / "model" / "model.json").read_text())["phones"]["tokens"][2:] == [*"ABCD"]


# -- checkpoints -------------------------------------------------------------------------------------


def test_a_missing_checkpoint_is_explained(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such checkpoint; start without --resume"):
        loop.main(corpus / "tiny.toml", [], True)


# -- parts -------------------------------------------------------------------------------------------


def test_schedules(trainer: loop.Trainer) -> None:
    def rates(schedule: str) -> list[float]:
        optimiser = replace(trainer.config.optimiser, schedule=schedule, learning_rate=1.0, warmup_updates=4)
        trainer.config = replace(trainer.config, optimiser=optimiser)
        found = []
        for trainer.updates in range(12):
            found.append(trainer.learning_rate(12))
        return found

    warm = [0.25, 0.5, 0.75, 1.0]
    assert rates("constant") == warm + [1.0] * 8
    cosine = [0.5 * (1 + math.cos(math.pi * n / 8)) for n in range(8)]
    assert rates("cosine") == pytest.approx(warm + cosine)
    trainer.scale = 0.5
    assert rates("plateau") == pytest.approx([0.5 * r for r in warm] + [0.5] * 8)


def test_plateaus_halve_the_rate_and_patience_ends_the_run(
    trainer: loop.Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.config = replace(
        trainer.config,
        optimiser=replace(trainer.config.optimiser, schedule="plateau"),
        train=replace(trainer.config.train, patience=3),
    )
    scales, stops = [], []
    for trainer.epoch, cer in enumerate([0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7], 1):
        monkeypatch.setattr(trainer, "validate", lambda cer=cer: {"dev": {"cer": cer, "wer": 1.0}})
        stops.append(trainer._end_of_epoch(1.0))
        scales.append(trainer.scale)
    assert scales == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.125]
    assert stops == [False] * 7 + [True]
    assert trainer.best == {"epoch": 5, "cer": 0.7}


def test_validation_uses_the_average_and_gives_the_weights_back(trainer: loop.Trainer) -> None:
    for average in trainer.average.values():
        average.zero_()
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    scores = trainer.validate()
    # All weights zero: every token is as likely, the first (blank) wins, nothing is said: all deleted.
    assert scores == {"tones-dev": {"cer": 1.0, "wer": 1.0, "per": 1.0}}
    for name, p in trainer.model.named_parameters():
        assert torch.equal(p, before[name]), name


def test_carried_states_reach_their_share_of_rows(trainer: loop.Trainer) -> None:
    trainer.config = replace(trainer.config, train=replace(trainer.config.train, carry_probability=0.3))
    assert trainer._initial(4) is None
    trainer.carried = [(torch.ones(50, 16), 2 * torch.ones(50, 16))] * 2
    shares = []
    for trainer.updates in range(20):
        states = trainer._initial(40)
        assert states is not None
        for h, c in states:
            assert h.shape == (40, 16) and torch.equal(c, 2 * h)
            assert ((h == 0).all(1) | (h == 1).all(1)).all()
        shares.append(float(states[0][0][:, 0].mean()))
    assert np.mean(shares) == pytest.approx(0.3, abs=0.06)  # 800 draws, four standard deviations
    more = trainer._initial(60)  # rows that no utterance left a state for start from zero
    assert more is not None and not more[0][0][50:].any()


def test_a_student_agrees_with_its_teacher(train: Any) -> None:
    """A run taught by another: they agree better than one that was not taught does with it."""
    teacher = train(*CLEAN, "train.epochs=3", "name=teacher").parent / "teacher" / "last.pt"
    apart = []
    for weight in (0.0, 2.0):
        name = f"student{weight}"
        folder = train(
            *CLEAN, f'data.teachers=["{teacher}"]', f"train.distillation={weight}", "train.seed=2",
            "train.epochs=3", f"name={name}", "data.batch_seconds=3.0",
        ).parent / name  # fmt: skip
        apart.append([entry["distillation"] for entry in log_of(folder) if "distillation" in entry][-1])
    assert apart[1] < 0.7 * apart[0]


def test_utterances_without_an_alignment_are_left_out_of_the_loss() -> None:
    losses = torch.tensor([4.0, math.inf, 2.0], requires_grad=True)
    loss, value = objective.mean_loss(losses, [np.zeros(2), np.zeros(50), np.zeros(1)])
    assert value == pytest.approx(2.0)
    loss.backward()
    assert losses.grad is not None and losses.grad.tolist() == pytest.approx([1 / 3, 0.0, 1 / 3])
    loss, value = objective.mean_loss(torch.tensor([math.inf]), [np.zeros(2)])
    assert value == 0.0


# --- beginning with another model's weights


def test_begins_with_the_weights_of_a_checkpoint_or_a_model(
    train: Any, trainer: loop.Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train("train.epochs=1")
    for source, tolerance in ((folder / "best.pt", 0.0), (folder / "model", 1e-3)):  # the model is of float16
        weights = start.read(str(source)).weights
        trainer.start_from(weights, str(source))
        for name, p in trainer.model.named_parameters():
            if name in weights:
                torch.testing.assert_close(p.detach(), weights[name], atol=0.0, rtol=0.0)
                torch.testing.assert_close(trainer.average[name], weights[name], atol=0.0, rtol=0.0)
        best = checkpoint.read(folder / "best.pt")["average"]
        for name in set(best) & set(weights):
            torch.testing.assert_close(weights[name], best[name], atol=tolerance, rtol=tolerance)
    # The phones of this run are on another layer than the last: only training knows them.
    assert "phone_output.weight is not in" in capsys.readouterr().err


def test_frames_stay_as_those_that_the_weights_have_learnt_from(train: Any, corpus: Path) -> None:
    folder = train("train.epochs=1", "model.mean_frames=40", "model.mean_window=90", "name=centred")
    for source in ("centred/best.pt", "centred/model"):
        overrides = ["train.epochs=1", f"name=from-{source[8:]}"]
        assert loop.main(corpus / "tiny.toml", overrides, False, str(folder.parent / source)) == 0
        encoder = streamasr.load(folder.parent / f"from-{source[8:]}" / "model").model.description.encoder
        assert (encoder.mean_frames, encoder.mean_window) == (40, 90)


def test_a_run_begins_anew_or_goes_on(train: Any, corpus: Path, trainer: loop.Trainer) -> None:
    folder = train("train.epochs=1")
    with pytest.raises(ConfigError, match="--from begins a run and --resume goes on"):
        loop.main(corpus / "tiny.toml", [], True, str(folder / "best.pt"))
    with pytest.raises(ModelError, match="other: no weight fits"):
        trainer.start_from({"output.weight": torch.zeros(2, 2)}, "other")


def test_the_first_epochs_may_be_without_the_denominator(trainer: loop.Trainer) -> None:
    batch = trainer.data.batches.make(trainer._plan(0)[0][0], (0,))
    trainer.config = replace(trainer.config, train=replace(trainer.config.train, ctc_epochs=1))
    early = trainer.update(batch, 0.0)
    assert early["phone_objective"] == early["phone_loss"]
    trainer.epoch = 1
    late = trainer.update(batch, 0.0)
    assert late["phone_objective"] != late["phone_loss"]


def test_sub_words_are_learnt_said_kept_and_not_exported(
    train: Any, corpus: Path, tmp_path: Path, trainer: loop.Trainer
) -> None:
    folder = train("data.subwords=70", "train.epochs=1")
    content = checkpoint.read(folder / "last.pt")
    tokens = content["vocabulary"]["tokens"]
    assert 55 < len(tokens) <= 70 and content["average"]["output.weight"].shape[0] == len(tokens)
    assert any(len(token.strip()) > 1 for token in tokens[1:]) and not (folder / "model").exists()
    assert {"cer", "wer"} <= log_of(folder)[-1]["dev"]["tones-dev"].keys()
    with pytest.raises(ModelError, match=r"last\.pt: says sub-words"):
        export.from_checkpoint(folder / "last.pt", tmp_path / "m", "m")
    train("data.subwords=70", "train.epochs=2", resume=True)
    assert checkpoint.read(folder / "last.pt")["vocabulary"]["tokens"] == tokens
    settings = config.read(corpus / "tiny.toml", ["data.subwords=60"])  # other transcripts would give others
    begun = loop.Trainer(settings, corpus, tmp_path, start.read(str(folder / "last.pt")))
    assert list(begun.data.vocabulary.tokens) == tokens
    for text in ("abc d", "zebra o'clock"):
        assert begun.data.vocabulary.decode(begun.data.vocabulary.encode(text)) == text
    with pytest.raises(ModelError, match="does not fit this configuration"):
        trainer.restore(checkpoint.read(folder / "last.pt"), folder / "last.pt")


def test_suspects_are_told_by_their_loss(
    train: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train("train.epochs=1", "model.phone_layer=2", "train.denominator=0.0")
    spelt = [line.split("\t") for line in (corpus / "lexicon.txt").read_text().splitlines()]
    numbers = {letter: i for i, letter in enumerate("ABCD", 2)}
    words = [(word, tuple(numbers[phone.rstrip("1")] for phone in phones.split())) for word, phones in spelt]
    lexicon.build(words, 6).write(folder / "model" / "lexicon.safetensors")
    lines = (corpus / "tones-train.jsonl").read_text().splitlines()[:12]
    listed = [json.loads(line) for line in lines]
    listed[5]["text"] = " ".join(word for word, _ in words)  # more than can be said in two seconds
    listed[7]["text"] = "unknown"
    for entry in listed:
        entry["audio"] = str(corpus / entry["audio"])
    manifest = tmp_path / "listed.jsonl"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in listed))
    given = [str(folder / "last.pt"), str(manifest), "--like", str(folder / "model"), "--worst", "3"]
    assert suspects.main(given) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 3 and told.out.startswith(f"   inf  {listed[5]['id']}  'a")
    known = [entry for entry in listed if dict(words).keys() >= set(entry["text"].split())]
    assert f"{len(known)} utterances" in told.err and 5 < len(known) < 12  # a word that nobody can pronounce
    found = suspects.suspects(folder / "last.pt", manifest, str(folder / "model"))
    losses = [suspect.loss for suspect in found]
    assert losses == sorted(losses, reverse=True) and all(map(math.isfinite, losses[1:]))
    # Against torch's own loss on the last of them, alone.
    (u,) = (u for u in cache.load([manifest], Path("runs/cache"), FeatureConfig()) if u.id == found[-1].id)
    begun = start.read(str(folder / "last.pt"))
    frames = (u.frames.astype(np.float32) - begun.statistics[0]) / begun.statistics[1]
    silence = (np.log(FeatureConfig().floor) - begun.statistics[0]) / begun.statistics[1]
    steps = -(-len(frames) // 3) + 4
    frames = np.concatenate([frames, np.tile(silence, (3 * steps - len(frames), 1))]).astype(np.float32)
    settings = config.read(corpus / "tiny.toml", ["model.phone_layer=2"]).model
    model = AcousticModel(settings, 80, len(dataset.CHARACTERS), 6).eval()
    model.load_state_dict(begun.weights)
    logits = model(torch.from_numpy(frames)[None], torch.tensor([3 * steps])).phone_logits
    phones = [number for word in u.text.split() for number in (1, *dict(words)[word])][1:]
    expected = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1), torch.tensor([phones]), [steps], [len(phones)], reduction="sum"
    )
    assert found[-1].loss == pytest.approx(float(expected.detach()) / len(phones), rel=0.02)  # bfloat16
    assert suspects.main([*given[:2], "--like", "en"]) == 1
    assert "last.pt: has no phones, or others than the lexicon of 'en'" in capsys.readouterr().err
