from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import streamasr
from streamasr.cli.main import main
from streamasr.cli.transcribe import target_paths

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A folder with recordings a.wav, b.flac, and things that are none."""
    generator = np.random.default_rng(5)
    folder = tmp_path / "sound"
    folder.mkdir()
    soundfile.write(folder / "a.wav", 0.2 * generator.standard_normal(16000), 16000)
    soundfile.write(folder / "b.flac", 0.2 * generator.standard_normal(44100), 44100)
    soundfile.write(folder / "none.wav", np.zeros(0), 16000)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("Dear diary,\n" * 100)
    return folder


@pytest.fixture
def model(tiny_directory: Path) -> list[str]:
    return ["--model", str(tiny_directory)]


def test_one_recording(sound: Path, model: list[str], capsys: Captured, tiny: streamasr.Recognizer) -> None:
    assert main(["transcribe", str(sound / "a.wav"), *model]) == 0
    transcript = tiny.transcribe(sound / "a.wav")
    assert transcript.text
    assert capsys.readouterr().out.split() == transcript.text.split()
    assert main(["transcribe", str(sound / "a.wav"), "--format", "json", *model]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(transcript.to_dict()))


def test_at_endpoint(sound: Path, model: list[str], capsys: Captured, tiny: streamasr.Recognizer) -> None:
    samples = 0.2 * np.random.default_rng(6).standard_normal(16000 * 23)  # longer than a segment may be
    soundfile.write(sound / "long.wav", samples, 16000)
    assert main(["transcribe", str(sound / "long.wav"), "--at-endpoint", "reset", *model]) == 0
    told = capsys.readouterr().out.split()
    assert told == tiny.transcribe(sound / "long.wav", at_endpoint="reset").text.split()
    assert told != tiny.transcribe(sound / "long.wav").text.split()
    assert main(["transcribe", str(sound / "a.wav"), "--at-endpoint", "forget", *model]) == 2


@pytest.mark.parametrize(("form", "begin"), [("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:00:0")])
def test_subtitles(sound: Path, model: list[str], capsys: Captured, form: str, begin: str) -> None:
    assert main(["transcribe", str(sound / "a.wav"), "--format", form, *model]) == 0
    assert capsys.readouterr().out.startswith(begin)


def test_several_recordings_are_told_apart(sound: Path, model: list[str], capsys: Captured) -> None:
    files = [str(sound / "a.wav"), str(sound / "b.flac")]
    assert main(["transcribe", *files, *model]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line for line in lines if line.startswith("==>")] == [f"==> {file} <==" for file in files]
    assert main(["transcribe", *files, "--format", "json", *model]) == 0
    assert [entry["file"] for entry in json.loads(capsys.readouterr().out)] == files


def test_standard_input(
    sound: Path, model: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["transcribe", str(sound / "a.wav"), *model])
    expected = capsys.readouterr().out
    standard = io.TextIOWrapper(io.BytesIO((sound / "a.wav").read_bytes()))
    monkeypatch.setattr(sys, "stdin", standard)
    assert main(["transcribe", "-", *model]) == 0
    assert capsys.readouterr().out == expected
    assert main(["transcribe", "-", "-", *model]) == 2
    assert "only once" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["missing.wav", "text.wav", "empty.wav", "none.wav", "", "missing\0.wav"])
def test_a_bad_recording_does_not_stop_the_others(
    sound: Path, model: list[str], capsys: Captured, bad: str
) -> None:
    assert main(["transcribe", str(sound / bad), str(sound / "a.wav"), *model]) == 1
    written = capsys.readouterr()
    assert f"==> {sound / 'a.wav'} <==" in written.out
    reason, summary = written.err.splitlines()
    assert bad in reason
    assert "1 of 2 recordings failed" in summary


def test_a_bad_recording_alone_is_one_line(sound: Path, model: list[str], capsys: Captured) -> None:
    assert main(["transcribe", str(sound / "text.wav"), *model]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1


def test_closed_standard_input(model: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["transcribe", "-", *model]) == 1
    assert "standard input: is closed" in capsys.readouterr().err


def test_output_folder(sound: Path, model: list[str], capsys: Captured, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    files = [str(sound / name) for name in ("a.wav", "missing.wav", "b.flac")]
    assert main(["transcribe", *files, "--output", str(out), "--format", "srt", *model]) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.srt", "b.srt"]
    assert capsys.readouterr().out == ""
    assert main(["transcribe", files[0], "--output", str(tmp_path), *model]) == 0
    assert main(["transcribe", files[0], *model]) == 0
    assert (tmp_path / "a.txt").read_text() == capsys.readouterr().out


def test_output_that_cannot_be_made_is_2_before_the_work(
    sound: Path, capsys: Captured, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    # The model is not loaded either: nothing is begun.
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["transcribe", str(sound / "a.wav"), "--output", str(out), "--model", "none"]) == 2
        assert "cannot create the folder" in capsys.readouterr().err


def test_targets_are_all_different(tmp_path: Path, capsys: Captured) -> None:
    files = ["x/talk.wav", "y/talk.wav", "talk.flac", "talk-2.wav", "TALK.wav", "-", "stdin.wav"]
    targets = target_paths(files, tmp_path, "txt")
    assert [path.name for path in targets] == [
        "talk.txt",
        "talk-2.txt",
        "talk-3.txt",
        "talk-2-2.txt",
        "TALK-4.txt",
        "stdin.txt",
        "stdin-2.txt",
    ]
    said = capsys.readouterr().err
    assert said.count("\n") == 5
    assert f"y/talk.wav: result goes to {tmp_path / 'talk-2.txt'}" in said


def test_a_recording_is_never_overwritten(sound: Path, model: list[str]) -> None:
    recording = (sound / "a.wav").read_bytes()
    (sound / "a.txt").write_bytes(recording)  # a recording with an odd name
    assert main(["transcribe", str(sound / "a.txt"), "--output", str(sound), *model]) == 0
    assert (sound / "a.txt").read_bytes() == recording
    assert (sound / "a-2.txt").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_keeps_what_is_finished(sound: Path, tiny_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = [str(sound / "a.wav"), "-"]  # standard input never ends here
    process = subprocess.Popen(
        [sys.executable, "-m", "streamasr.cli.main", "transcribe", *files, "--output", str(out)]
        + ["--model", str(tiny_directory)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (out / "a.txt").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, written = process.communicate(timeout=60)
    assert process.returncode == 130
    assert written == b"streamasr: interrupted; what was finished is written\n"
    assert [path.name for path in out.iterdir()] == ["a.txt"]
