"""Training of the language model on a made-up language of few words."""

from __future__ import annotations

import dataclasses
import json
import lzma
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import load

from streamasr.errors import ConfigError, ManifestError, ModelError
from streamasr.search import lm as ngrams
from streamasr.search import lstm_lm
from streamasr.search.subwords import LINE_END, Subwords

torch = load("torch")
from streamasr.train import checkpoint, lm, lm_text  # noqa: E402

CONFIG = """
[data]
train = ["*.txt.xz"]
held_out = 0.25
subwords = 24
[model]
embedding = 8
hidden = 12
[optimiser]
learning_rate = 2e-2
warmup_updates = 5
[train]
epochs = 6
streams = 4
steps = 16
average_decay = 0.9
validate_updates = 1000
"""
PIECES = Subwords(["\n", "a", "b", "a ", "b ", "ab "])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tiny.toml and 400 lines in which every word says which one follows."""
    random = np.random.default_rng(0)
    words = ["the", "cat", "sat", "on", "a", "mat"]
    lines = []
    for _ in range(400):
        first = int(random.integers(6))
        lines.append(" ".join(words[(first + i) % 6] for i in range(int(random.integers(2, 6)))))
    with lzma.open(tmp_path / "lines.txt.xz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    (tmp_path / "tiny.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tiny.toml"


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_learns_and_writes_a_model(config: Path) -> None:
    assert lm.main(config, [], resume=False) == 0
    folder = Path("runs/tiny")
    (found,) = [entry["perplexity"] for entry in log_of(folder) if "perplexity" in entry]
    # A uniform guess among six words and the end has 7, who knows the language 2.0: log 6 + log 4 nats a
    # line, for the first word and the length, over 4.5 words on average.
    assert found["held_out"] < 3
    model = lstm_lm.read(folder)
    assert model.line("the cat")[1] > model.line("the on")[1] + 2
    # The file's int8 says nearly what was measured, in the engine that will use it.
    _, held = lm_text.split(lm_text.read(config.parent / "lines.txt.xz"), 0.25)
    scores = np.concatenate([model.line(line) for line in held])
    assert math.exp(-scores.mean()) == pytest.approx(found["held_out"], rel=0.02)


def test_interrupted_and_resumed_is_the_same_to_the_bit(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lm.main(config, ["name=whole"], resume=False) == 0
    update = lm.Trainer.update

    def interrupted(self: lm.Trainer) -> dict[str, float]:
        self.interrupted = self.updates == 6
        return update(self)

    monkeypatch.setattr(lm.Trainer, "update", interrupted)
    assert lm.main(config, ["name=parts"], resume=False) == 130
    monkeypatch.setattr(lm.Trainer, "update", update)
    with pytest.raises(ConfigError, match="--resume"):
        lm.main(config, ["name=parts"], resume=False)
    assert lm.main(config, ["name=parts"], resume=True) == 0
    whole, parts = (checkpoint.read(Path(f"runs/{name}/last.pt")) for name in ("whole", "parts"))
    assert whole["position"]["updates"] == parts["position"]["updates"] > 7
    for part in ("model", "average"):
        assert all(torch.equal(w, parts[part][name]) for name, w in whole[part].items())
    assert (Path("runs/whole") / lstm_lm.TENSORS).read_bytes() == (
        Path("runs/parts") / lstm_lm.TENSORS
    ).read_bytes()


def test_every_sub_word_is_read_once_an_epoch_and_streams_go_on(config: Path) -> None:
    trainer = lm.Trainer(lm.read(config), config.parent, config.parent)
    pairs = []
    last: Any = None
    for _ in range(trainer.updates_of_epoch):
        tokens, targets = trainer.batch()
        assert torch.equal(tokens[1:], targets[:-1])
        if last is not None:
            assert torch.equal(tokens[0], last)
        last = targets[-1]
        pairs.append(targets.flatten())
        trainer.updates += 1
    counts = torch.bincount(torch.cat(pairs), minlength=24)
    whole = torch.bincount(trainer.tokens, minlength=24)
    assert (counts <= whole).all() and (whole - counts).sum() <= 4 * 16 + 4
    again = lm.Trainer(lm.read(config), config.parent, config.parent)
    first = again.batch()[0]
    again.updates = trainer.updates_of_epoch
    assert not torch.equal(first, again.batch()[0])


def test_perplexity_is_per_word() -> None:
    """By hand, beside an n-gram that does not know one of the words."""
    half, tenth = math.log(0.5), math.log(0.1)
    words = ["<unk>", "</s>", "a", "ab"]
    one = np.arange(4, dtype=np.int32)[:, None]
    ngram = ngrams.build(words, [(one, np.array([-9.0, half, half, tenth]), np.zeros(4))])
    lines = lm_text.measured(["a ab", "é", "b a"], PIECES, ngram)
    assert [line.tolist() for line in lines.tokens] == [[3, 5, LINE_END], [4, 3, LINE_END]]
    assert lines.known.tolist() == [True, True, True, False, True, True]
    assert lines.ngram == pytest.approx(math.exp(-(4 * half + tenth) / 5), rel=1e-6)
    # p("a ") 1/2 everywhere, "ab " in one piece 1/4, ends of lines 1; "b " is not counted.
    log_probs = [np.log([0.5, 0.25, 1.0]), np.log([1e-9, 0.5, 1.0])]
    assert lm_text.perplexity(lines, log_probs) == pytest.approx((2 * 4 * 2) ** (1 / 5))
    spelt = lm_text.measured(["bb"], PIECES, None)
    assert lm_text.perplexity(spelt, [np.log([0.5, 0.5, 1.0])]) == pytest.approx(4**0.5)  # two words: bb, end


def test_lines_are_held_out_in_runs() -> None:
    lines = [str(i) for i in range(1050)]
    kept, held = lm_text.split(lines, 0.25)
    assert held == [*map(str, range(200, 300)), *map(str, range(600, 700)), *map(str, range(1000, 1050))]
    assert sorted(kept + held, key=int) == lines


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hiden=3"], r"unknown key model\.hiden; did you mean model\.hidden"),
        (["model.dropout=1.0"], "model.dropout must be at least 0 and below 1"),
        (["data.held_out=0.0"], "held_out must be above 0"),
        (["train.steps=0"], "train.steps must be positive"),
        (["train.precision=int8"], "bfloat16 or float32"),
        (["name=a/b"], "plain file name"),
        (['data.train=["none*"]'], "no file matches"),
        (["data.subwords=5"], "5 sub-words are fewer than"),
        (["train.steps=4000"], "fewer than one update takes"),
    ],
)
def test_wrong_configurations_are_told(config: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lm.main(config, overrides, resume=False)


def test_other_wrong_files_are_told(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt: cannot be read"):
        lm_text.read(config.parent / "none.txt")
    (config.parent / "bad.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(ManifestError, match=r"bad\.jsonl: not a manifest"):
        lm_text.transcripts(config.parent / "bad.jsonl")
    with pytest.raises(ModelError, match="no such checkpoint"):
        lm.main(config, [], resume=True)
    with pytest.raises(ConfigError, match="letters that the sub-words lack: 'c'"):
        lm_text.encode(["abc"], PIECES)


def test_every_key_is_documented() -> None:
    """docs/lm.md has a row for each key, in order, with its default."""
    page = (Path(__file__).parents[1] / "docs" / "lm.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in page.splitlines() if "| `" in line]
    expected = []
    for section in ("data", "model", "optimiser", "train"):
        kind = type(getattr(lm.Config("x", lm.DataConfig(())), section))
        for f in dataclasses.fields(kind):
            default = "must be given" if f.default is dataclasses.MISSING else json.dumps(f.default)
            quoted = f"`{default}`" if default.startswith('"') else "none" if default == "[]" else default
            expected.append([f"`{section}.{f.name}`", quoted])
    assert rows == expected
