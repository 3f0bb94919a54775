"""The benchmark of long sessions: what it plays, and whom a word counts for."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from strategies import sound

from streamasr.data import manifest
from streamasr.data.manifest import Utterance


@pytest.fixture(scope="module")
def sessions() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "sessions.py"
    spec = importlib.util.spec_from_file_location("sessions", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sessions"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """A manifest of four recordings of two speakers, one at 8 kHz."""
    lines = []
    for number, rate in enumerate((16_000, 16_000, 8_000, 16_000)):
        soundfile.write(tmp_path / f"{number}.wav", 0.5 * sound(number, 1.0, rate), rate)
        line = {"id": str(number), "audio": f"{number}.wav", "text": "so it is", "speaker": str(number // 3)}
        lines.append(json.dumps(line) + "\n")
    (tmp_path / "some.jsonl").write_text("".join(lines))
    return tmp_path / "some.jsonl"


def test_a_session(sessions: ModuleType, listing: Path) -> None:
    utterances = manifest.read(listing)
    played = list(sessions.session(utterances, 8.0, "silence"))
    pieces = [piece for piece, _ in played]
    assert {piece.utterance.id for piece in pieces[:4]} == set("0123")  # each before any comes again
    for (piece, samples), following in zip(played, [*pieces[1:], None], strict=True):
        assert 0.3 <= piece.until - piece.end <= 2.0
        assert len(samples) == pytest.approx((piece.until - piece.begin) * 16_000, abs=1)
        assert not samples[round((piece.end - piece.begin) * 16_000) :].any()
        assert following is None or following.begin == piece.until
    assert pieces[-1].begin < 8.0 <= pieces[-1].until


def test_a_room_is_the_quietest_part(sessions: ModuleType) -> None:
    samples = np.concatenate([np.ones(9_000), np.full(6_000, 0.01), np.ones(5_000)]).astype(np.float32)
    assert (sessions.room(samples, 30_000) == np.float32(0.01)).all()


def test_words_count_where_their_middle_lies(sessions: ModuleType) -> None:
    pieces = [
        sessions.Piece(Utterance(name, Path(name), None, text, None), begin, begin + 2.0, begin + 3.5)
        for name, text, begin in (("a", "so it is", 0.0), ("b", "it was so", 3.5), ("c", "and is", 7.0))
    ]
    words = [(0.4, "so"), (1.9, "is"), (3.6, "it"), (5.0, "so"), (7.1, "end"), (8.0, "is"), (10.8, "uh")]
    heard = sessions.Heard(pieces, words, endpoints=[1.0, 3.2, 6.5])
    assert heard.texts() == ["so is", "it so", "end is uh"]
    told = sessions.row(heard, {"a": "so it is", "b": "it was", "c": "and"}, 1.0)
    # 4 errors in 8 words, 2 when alone; the endpoint at 1.0 is within an utterance that goes on.
    assert told == ["50.00", "25.00", "+100.0", "50.0 / 100.0", "100.0 / 50.0", "2 / 2", "1 / 3"]


def test_both_forms_run(
    sessions: ModuleType,
    listing: Path,
    tiny_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["sessions.py", str(tiny_directory), str(listing), "--minutes", "0.05"])
    assert sessions.main() == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + 2 * 2 * 3 and all(row.count("|") == rows[0].count("|") for row in rows)
    monkeypatch.setattr(sessions, "BLOCK_SECONDS", 2.0)
    monkeypatch.setattr(sys, "argv", ["sessions.py", str(tiny_directory), str(listing), "--hours", "0.002"])
    assert sessions.main() == 0
    rows = capsys.readouterr().out.splitlines()
    assert 2 + 3 <= len(rows) <= 2 + 5 and rows[2].startswith("| 0 |")
