from __future__ import annotations

from pathlib import Path

import pytest

import streamasr
from streamasr.cli.main import MODEL, USAGE, main


def test_generate(beam: streamasr.Recognizer, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(beam.model.folder)
    texts = []
    for seed in ("1", "1", "2"):
        assert main(["generate", "--model", folder, "--words", "5", "--seed", seed, "The End"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("the end ") and text.endswith("\n") for text in texts)
    likeliest = ["generate", "--model", folder, "--words", "5", "--temperature", "0"]
    assert main(likeliest) == 0
    told = capsys.readouterr().out
    assert main(["generate", "--model", folder, "--words", "5", "--top-k", "1", "--seed", "9"]) == 0
    assert capsys.readouterr().out == told


def test_what_cannot_be_generated(
    beam: streamasr.Recognizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--model", str(tmp_path)]) == MODEL
    assert "no LSTM language model is here" in capsys.readouterr().err
    folder = str(beam.model.folder)
    assert main(["generate", "--model", folder, "--top-p", "1.5"]) == USAGE
    assert main(["generate", "--model", folder, "привет"]) == USAGE
    assert "letters 'веипрт'" in capsys.readouterr().err


def test_rescoring_is_asked_for(
    beam: streamasr.Recognizer,
    plain: streamasr.Recognizer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "none.jsonl").write_text("")
    manifest = str(tmp_path / "none.jsonl")
    assert main(["evaluate", manifest, "--search", "greedy", "--rescore"]) == USAGE
    assert "--rescore needs --search beam" in capsys.readouterr().err
    model = ["--model", str(plain.model.folder), "--search", "beam"]
    assert main(["evaluate", manifest, *model, "--rescore"]) == USAGE
    assert "no LSTM language model" in capsys.readouterr().err
