from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import streamasr
from streamasr.cli.main import main
from streamasr.data.manifest import Utterance, read, sample, write
from streamasr.evaluate import wer

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    generator = np.random.default_rng(6)
    listed = []
    for i in range(5):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, 0.2 * generator.standard_normal(8000), 16000)
        listed.append(Utterance(f"u{i}", path, 0.5, "Some words." if i else "", None))
    write(tmp_path / "small.jsonl", listed)
    return tmp_path / "small.jsonl"


@pytest.fixture
def model(tiny_directory: Path) -> list[str]:
    return ["--model", str(tiny_directory)]


def test_results(
    manifest: Path, model: list[str], tmp_path: Path, capsys: Captured, tiny: streamasr.Recognizer
) -> None:
    out = tmp_path / "new" / "result.json"
    assert main(["evaluate", str(manifest), "--jobs", "2", "--json", str(out), *model]) == 0
    text = capsys.readouterr().out
    assert "small" in text
    assert "said" in text
    result = json.loads(out.read_text())
    assert result["search"] == "greedy"
    assert result["model"] == tiny.info["name"]
    expected = wer.score(
        {u.id: u.text for u in read(manifest)}, {u.id: tiny.transcribe(u.audio).text for u in read(manifest)}
    )
    corpus = result["corpora"]["small"]
    assert list(corpus) == [
        *("utterances", "words", "wer", "cer", "substitutions", "deletions", "insertions"),
        *("audio_seconds", "rtf", "failed"),
    ]
    assert corpus["utterances"] == 5
    assert corpus["words"] == 8
    assert corpus["wer"] == expected.words.rate
    assert corpus["cer"] == expected.characters.rate
    assert corpus["audio_seconds"] == 2.5
    assert corpus["failed"] == []
    assert [path.name for path in out.parent.iterdir()] == ["result.json"]


def test_sample_is_random_and_repeats() -> None:
    listed = [Utterance(f"{i}", Path("/a"), None, "", None) for i in range(20)]
    chosen = sample(listed, 5)
    assert len(chosen) == 5
    assert chosen == sample(listed, 5) != sample(listed, 5, seed=1)
    assert chosen == sorted(chosen, key=listed.index) != listed[:5]
    assert sample(listed, None) == sample(listed, 30) == listed


def test_limit(manifest: Path, model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    assert main(["evaluate", str(manifest), "--limit", "2", "--seed", "3", "--json", str(out), *model]) == 0
    assert json.loads(out.read_text())["corpora"]["small"]["utterances"] == 2


def test_broken_lines_and_recordings_do_not_stop_the_others(
    manifest: Path, model: list[str], tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "1.wav").write_text("no recording")
    soundfile.write(tmp_path / "2.wav", np.zeros(0), 16000)
    (tmp_path / "3.wav").unlink()
    with manifest.open("a") as file:
        file.write('{"id": "cut\n')
        file.write(json.dumps({"id": "two wrong", "audio": 5, "text": None}) + "\n")
    other = tmp_path / "other.jsonl"
    write(other, [])
    out = tmp_path / "result.json"
    assert main(["evaluate", str(manifest), str(other), "--json", str(out), *model]) == 1
    corpora = json.loads(out.read_text())["corpora"]
    assert corpora["small"]["utterances"] == 2
    failed = {entry["id"]: entry["error"] for entry in corpora["small"]["failed"]}
    assert set(failed) == {"u1", "u2", "u3", "line 6", "two wrong"}
    assert "not JSON" in failed["line 6"]
    assert '"audio" must be' in failed["two wrong"]
    assert '"text" must be' in failed["two wrong"]
    assert corpora["other"]["wer"] is None
    said = capsys.readouterr().err
    assert "small: u3: no audio file" in said
    assert "other: the manifest lists no utterances" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--search", "greedy", "--no-lm"], "--no-lm needs --search beam"),
        (["--search", "beam", "--hotwords", "none.txt"], "none.txt: cannot be read"),
        (["no.jsonl"], "no.jsonl: cannot read the manifest"),
        (["--json", "."], "is a folder"),
        (["--report", "small.jsonl/x"], "--report: cannot create the folder"),
        (["--json", "small.jsonl/below/x.json"], "--json: cannot create the folder"),
        (["./small.jsonl"], "the same name"),
    ],
)
def test_what_cannot_work_is_2_before_it_begins(
    manifest: Path, arguments: list[str], said: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(manifest.parent)
    assert main(["evaluate", "small.jsonl", *arguments, "--model", "none"]) == 2
    written = capsys.readouterr()
    assert said in written.err
    assert written.err.count("\n") == 1


def test_a_model_that_cannot_be_used_is_3(manifest: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["evaluate", str(manifest), "--model", str(tmp_path)]) == 3
    assert capsys.readouterr().err.startswith("streamasr: ")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_keeps_what_is_finished(manifest: Path, model: list[str], tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(16000 * 1800), 16000)
    listed = read(manifest)
    write(manifest, [listed[0], Utterance("long", long, None, "", None), *listed[1:]])
    out = tmp_path / "result.json"
    code = f"""
import os, signal, sys
from streamasr.cli.main import main
from streamasr.evaluate import runner

def run(*arguments):
    for result in original(*arguments):
        yield result
        os.killpg(0, signal.SIGINT)  # as a terminal does: to the workers too

original, runner.run = runner.run, run
if __name__ == "__main__":
    sys.exit(main(["evaluate", {str(manifest)!r}, "--json", {str(out)!r}, *{model!r}]))
"""
    (tmp_path / "run.py").write_text(code)
    process = subprocess.run(
        [sys.executable, tmp_path / "run.py"], capture_output=True, start_new_session=True, timeout=60
    )
    assert process.returncode == 130
    assert process.stderr == b"streamasr: interrupted; what was finished is reported\n"
    assert json.loads(out.read_text())["corpora"]["small"]["utterances"] == 1
    assert b"small" in process.stdout


def test_beam(manifest: Path, beam: streamasr.Recognizer, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("so be it\n\nqq\t3.5\n")
    out = tmp_path / "out.json"
    arguments = ["evaluate", str(manifest), "--model", str(beam.model.folder), "--json", str(out)]
    assert main([*arguments, "--hotwords", str(tmp_path / "words.txt"), "--nbest", "5", "--limit", "2"]) in (
        0,
        1,
    )
    results = json.loads(out.read_text())
    assert results["search"] == "beam"
    (corpus,) = results["corpora"].values()
    assert 0.0 <= corpus["ece"] <= 1.0 and corpus["oracle_wer"] <= corpus["wer"]
    assert main([*arguments, "--no-lm", "--search", "beam", "--limit", "1"]) in (0, 1)
    (corpus,) = json.loads(out.read_text())["corpora"].values()
    assert corpus["oracle_wer"] <= corpus["wer"]  # of ten texts, where no number is given


@pytest.mark.parametrize(
    ("content", "said"), [("so\tmuch\n", "line 1: 'much' is no boost"), ("\n", "no phrase"), ("é\n", "'é'")]
)
def test_hotwords_that_cannot_be(
    manifest: Path, beam: streamasr.Recognizer, tmp_path: Path, content: str, said: str, capsys: Captured
) -> None:
    (tmp_path / "words.txt").write_text(content)
    options = ["--model", str(beam.model.folder), "--hotwords", str(tmp_path / "words.txt")]
    assert main(["evaluate", str(manifest), *options]) == 2
    assert said in capsys.readouterr().err


def test_report(manifest: Path, model: list[str], tmp_path: Path, tiny: streamasr.Recognizer) -> None:
    listed = read(manifest)
    said = [replace(u, text=tiny.transcribe(u.audio).text + " more") for u in listed]
    write(manifest, said)
    folder = tmp_path / "new" / "report"
    assert main(["evaluate", str(manifest), "--report", str(folder), *model]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["reliability-small.svg", "report.md"]
    text = (folder / "report.md").read_text()
    assert "# tiny, greedy search" in text
    assert "![Reliability of small](reliability-small.svg)" in text
    assert "small  u0: 1 of" in text
    words = [word.confidence for u in said for word in tiny.transcribe(u.audio).words]
    (table,) = [line for line in text.splitlines() if line.startswith("| small")]
    assert f"| {1 - np.mean(words):.3f} | - |" in table  # every word is right
    assert (
        f"{len(words):,} words, expected calibration error" in (folder / "reliability-small.svg").read_text()
    )
