"""Cached log-mel frames: what they are, when they are reused, and every problem said at once."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from strategies import sound

from streamasr.errors import ManifestError
from streamasr.features import FeatureConfig, LogMel
from streamasr.train import cache

FEATURES = FeatureConfig()


def write_wav(path: Path, samples: NDArray[np.float32], rate: int = 16_000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Manifest of three recordings: 0.5 s, none at all, 0.3 s at 8 kHz."""
    write_wav(tmp_path / "a.wav", sound(1, 0.5))
    write_wav(tmp_path / "b.wav", np.zeros(0, np.float32))
    write_wav(tmp_path / "c.wav", sound(2, 0.3, 8_000), 8_000)
    lines = [{"id": n, "audio": f"{n}.wav", "text": f"The “{n}”."} for n in "abc"]
    path = tmp_path / "tiny-train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_frames_are_those_of_the_feature_stage(corpus: Path) -> None:
    found = cache.load([corpus], corpus.parent / "cache", FEATURES)
    assert [(u.id, u.text, u.corpus) for u in found] == [(n, f"the {n}", "tiny-train") for n in "abc"]
    samples = (sound(1, 0.5) * 32767).astype(np.int16).astype(np.float32) / 32768
    padding = np.zeros(FEATURES.samples_of(FEATURES.frames_covering(8000)) - 8000, np.float32)
    stage = LogMel(FEATURES)
    expected = stage.advance(stage.start(), np.concatenate([samples, padding]))
    # Kept as float16: 11 bits of numbers up to 16.
    np.testing.assert_allclose(found[0].frames.astype(np.float32), expected, rtol=0, atol=0.01)
    assert found[0].frames.dtype == np.float16
    assert len(found[1].frames) == 0
    assert len(found[2].frames) == pytest.approx(FEATURES.frames_covering(4800), abs=1)


def test_in_rooms_beside_the_recordings_as_they_are(corpus: Path) -> None:
    folder = corpus.parent / "cache"
    plain = cache.load([corpus], folder, FEATURES)
    found = cache.load([corpus], folder, FEATURES, in_rooms=True)
    for number, (a, b) in enumerate(zip(plain, found, strict=True)):
        assert a.frames_in_room is None and b.frames_in_room is not None
        np.testing.assert_array_equal(a.frames, b.frames)
        expected = cache.log_mel(corpus.parent / f"{a.id}.wav", FEATURES, room=number).astype(np.float16)
        np.testing.assert_array_equal(b.frames_in_room, expected)
        assert b.frames_in_room.shape == a.frames.shape
    assert any(not np.array_equal(u.frames_in_room, u.frames) for u in found if u.frames_in_room is not None)
    assert len(list(folder.glob("*.npy"))) == 2


def test_is_computed_once_and_again_when_the_manifest_changes(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    compute = cache._compute

    def counting(*arguments: object) -> None:
        computed.append(1)
        compute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "_compute", counting)
    folder = corpus.parent / "cache"
    first = cache.load([corpus], folder, FEATURES)
    again = cache.load([corpus], folder, FEATURES)
    assert len(computed) == 1
    for a, b in zip(first, again, strict=True):
        assert (a.id, a.text) == (b.id, b.text)
        np.testing.assert_array_equal(a.frames, b.frames)
    lines = corpus.read_text().splitlines()
    corpus.write_text("\n".join(lines[1:]) + "\n")
    assert [u.id for u in cache.load([corpus], folder, FEATURES)] == ["b", "c"]
    assert len(computed) == 2
    cache.load([corpus], folder, replace(FEATURES, floor=1e-5))
    assert len(computed) == 3


def test_an_unfinished_cache_is_computed_anew(corpus: Path) -> None:
    """The index is written last: frames without one, from a run that was killed, are not believed."""
    folder = corpus.parent / "cache"
    expected = cache.load([corpus], folder, FEATURES)[0].frames.copy()
    (index,) = folder.glob("*.json")
    (frames,) = folder.glob("*.npy")
    index.unlink()
    frames.unlink()
    frames.write_bytes(b"half")
    np.testing.assert_array_equal(cache.load([corpus], folder, FEATURES)[0].frames, expected)


def test_two_runs_that_begin_together(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process computes the same from beginning to end while this one is at it."""
    folder = corpus.parent / "cache"
    command = (
        "import sys; from pathlib import Path;"
        "from streamasr.features import FeatureConfig; from streamasr.train import cache;"
        "cache.load([Path(sys.argv[1])], Path(sys.argv[2]), FeatureConfig())"
    )
    write_header = cache._write_header

    def beside_another(*arguments: Any) -> None:
        monkeypatch.setattr(cache, "_write_header", write_header)
        write_header(*arguments)
        subprocess.run([sys.executable, "-c", command, corpus, folder], check=True)

    monkeypatch.setattr(cache, "_write_header", beside_another)
    found = cache.load([corpus], folder, FEATURES)
    assert [u.id for u in found] == ["a", "b", "c"]
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npy"]


def test_problems_of_all_manifests_are_said_together(corpus: Path) -> None:
    other = corpus.with_name("other-train.jsonl")
    corpus.with_name("broken.wav").write_bytes(b"RIFF of nothing")
    lines = [
        {"id": "digits", "audio": "a.wav", "text": "room 101"},
        {"id": "broken", "audio": "broken.wav", "text": "fine"},
    ]
    other.write_text("".join(json.dumps(line) + "\n" for line in lines))
    third = corpus.with_name("third-train.jsonl")
    third.write_text('{"id": "x", "text": ""}\n')
    folder = corpus.parent / "cache"
    with pytest.raises(ManifestError) as caught:
        cache.load([other, corpus, third], folder, FEATURES)
    message = str(caught.value)
    for part in (
        "other-train.jsonl: 2 problems",
        "digits: ",
        "101",
        "broken: ",
        "third-train.jsonl: 1 problem",
        '"audio"',
    ):
        assert part in message, message
    assert not list(folder.glob("other-*")) and not list(folder.glob("third-*"))


def test_missing_manifests_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nowhere"):
        cache.load([tmp_path / "nowhere.jsonl"], tmp_path / "cache", FEATURES)
