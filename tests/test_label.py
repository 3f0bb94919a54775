"""Self-training: what a model is sure of becomes a manifest of transcripts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from strategies import sound

import streamasr
from streamasr.data import manifest
from streamasr.evaluate import label, runner


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Manifest of five recordings with texts that nobody said, and one that is not sound."""
    utterances = []
    for number in range(5):
        audio = tmp_path / f"{number}.flac"
        soundfile.write(audio, sound(number, 0.5 + number / 4), 16_000)
        utterances.append(manifest.Utterance(f"u{4 - number}", audio, None, "not looked at", "somebody"))
    (tmp_path / "broken.flac").write_bytes(b"not sound")
    utterances.append(manifest.Utterance("v", tmp_path / "broken.flac", None, "", None))
    manifest.write(tmp_path / "unlabelled.jsonl", utterances)
    return tmp_path / "unlabelled.jsonl"


def label_all(recordings: Path, model: Path, confidence: float) -> list[manifest.Utterance]:
    out = recordings.with_name("labels.jsonl")
    arguments = [str(model), str(recordings), str(out), "--jobs", "1", "--confidence", str(confidence)]
    assert label.main(arguments) == 0
    return manifest.read(out)


def test_the_sure_are_kept_with_what_was_heard(
    recordings: Path, tiny_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    utterances = {u.id: u for u in manifest.read(recordings)}
    results = list(runner.run(list(utterances.values()), str(tiny_directory)))
    heard = {r.id: float(np.mean(r.confidences)) for r in results if r.error is None and r.text}
    assert len(heard) >= 3  # the model says something, or nothing is tested here
    everything = label_all(recordings, tiny_directory, 0.0)
    assert [u.id for u in everything] == sorted(heard)
    asr = streamasr.load(tiny_directory)
    for u in everything:
        assert u.text == asr.transcribe(u.audio).text and u.speaker == "somebody"
        assert u.duration == pytest.approx(soundfile.info(u.audio).duration, abs=1e-3)
        assert u.audio.samefile(utterances[u.id].audio)
    captured = capsys.readouterr()
    assert f"{len(heard)} of 6 recordings" in captured.out and "1 unreadable" in captured.out
    assert "v: " in captured.err
    threshold = sorted(heard.values())[1]  # all but the least sure
    kept = label_all(recordings, tiny_directory, threshold)
    assert {u.id for u in kept} == {name for name, sure in heard.items() if sure >= threshold}
    assert 0 < len(kept) < len(everything)
    assert label_all(recordings, tiny_directory, 1.01) == []


def test_mistakes_are_explained(
    recordings: Path, tiny_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label.main(["nowhere", str(recordings), str(recordings.with_name("x.jsonl")), "--jobs", "1"]) == 1
    assert "no model 'nowhere'" in capsys.readouterr().err
    missing = recordings.with_name("missing.jsonl")
    assert label.main([str(tiny_directory), str(missing), str(missing), "--jobs", "1"]) == 1
    assert "missing.jsonl: cannot read the manifest" in capsys.readouterr().err
