from __future__ import annotations

import json
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from streamasr.cli.main import COMMANDS, main

STREAMASR = [sys.executable, "-m", "streamasr.cli.main"]


def test_help_names_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert "130  interrupted" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["--loud"],
        ["transcribe"],
        ["transcribe", "a.wav", "--loud"],
        ["transcribe", "a.wav", "--format", "doc"],
        ["transcribe", "a.wav", "--form", "txt"],
        ["evaluate", "a.jsonl", "--limit", "0"],
        ["evaluate", "a.jsonl", "--jobs", "many"],
        ["evaluate", "a.jsonl", "--search", "best"],
        ["train"],
        ["info", "extra"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert "error: " in written.err


def test_info(tiny_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--model", str(tiny_directory)]) == 0
    text = capsys.readouterr().out
    assert all(
        word in text for word in ("latency", "parameters", "size", "licence", "vocabulary", "algorithmic")
    )
    assert main(["info", "--json", "--model", str(tiny_directory)]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["parameters"] > 0
    assert info["latency_seconds"]["total"] > 0


def test_a_model_that_is_not_there_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["info"], ["transcribe", "a.wav"]):
        assert main([*command, "--model", str(tmp_path / "none")]) == 3
        written = capsys.readouterr()
        assert written.err.count("\n") == 1
        assert written.err.startswith("streamasr: ")


@pytest.mark.parametrize(
    "damage", ["cut weights", "no weights", "no description", "not json", "code", "renamed tensor"]
)
def test_a_corrupt_model_is_3_and_one_line(
    tiny_directory: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = (tiny_directory / "model.safetensors").read_bytes()
    description = (tiny_directory / "model.json").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "model.json").write_bytes(description)
    match damage:
        case "cut weights":
            (tmp_path / "model.safetensors").write_bytes(weights[:-100])
        case "no weights":
            (tmp_path / "model.safetensors").unlink()
        case "no description":
            (tmp_path / "model.json").unlink()
        case "not json":
            (tmp_path / "model.json").write_bytes(b"{")
        case "code":
            (tmp_path / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
        case _:
            (tmp_path / "model.safetensors").write_bytes(weights.replace(b"output.bias", b"output.bras"))
    assert main(["info", "--model", str(tmp_path)]) == 3
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("streamasr: ")
    assert written.err.count("\n") == 1


def test_the_command_line_starts_light() -> None:
    code = "import sys, streamasr.cli.main as m; m.main(['info', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in (
        "'torch'",
        "'numba'",
        "'jiwer'",
        "'sounddevice'",
        "'soundfile'",
        "'streamasr.cli.evaluate'",
    ):
        assert heavy not in done.stdout


def test_a_reader_that_stops_is_no_traceback(tiny_directory: Path) -> None:
    command = [*STREAMASR, "info", "--model", str(tiny_directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, written = process.communicate(timeout=60)
    assert b"Traceback" not in written
    assert b"BrokenPipe" not in written


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_traceback(closed: str, tiny_directory: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m streamasr info --model {shlex.quote(str(tiny_directory))}"
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_train_calls_the_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    calls = []

    def loop(config: Path, overrides: list[str], resume: bool, source: str) -> int:
        calls.append((config, overrides, resume, source))
        return 0

    for name in ("torch", "streamasr.train.loop"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["streamasr.train.loop"], "main", loop, raising=False)
    path = minimal_config(tmp_path)
    overrides = ["optimiser.learning_rate=1e-3", "train.seed=2"]
    sets = [word for override in overrides for word in ("--set", override)]
    assert main(["train", str(path), *sets, "--resume"]) == 0
    assert calls == [(path, overrides, True, "")]
    assert main(["train", str(path), "--set", "train.sed=1"]) == 2
    assert "did you mean train.seed" in capsys.readouterr().err
    assert len(calls) == 1


def test_training_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "streamasr.train.loop", raising=False)
    assert main(["train", str(minimal_config(tmp_path))]) == 2
    assert "pip install torch" in capsys.readouterr().err


def minimal_config(folder: Path) -> Path:
    path = folder / "a.toml"
    path.write_text('[data]\ntrain = "a.jsonl"\ndev = "b.jsonl"\n')
    return path
