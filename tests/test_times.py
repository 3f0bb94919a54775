"""benchmarks/times.py: what it counts, on events written by hand; its reference, on a recording."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from streamasr import Final, Partial, Word

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "times.py"


@pytest.fixture(scope="module")
def times() -> ModuleType:
    spec = importlib.util.spec_from_file_location("times", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["times"] = module  # dataclasses look there for their module
    spec.loader.exec_module(module)
    return module


def partial(stable: str, volatile: str, time: float) -> tuple[float, Partial]:
    return time, Partial(0, stable, volatile, (), time)


def final(text: str, time: float) -> tuple[float, Final]:
    words = tuple(Word(word, 0.0, 0.0, 1.0) for word in text.split())
    return time, Final(0, text, words, 0.0, 0.0, 1.0, "finish")


def test_what_is_shown_and_taken_back(times: ModuleType) -> None:
    corpus = times._Corpus()
    events = [
        partial("", "i", 0.1),
        partial("", "i can", 0.2),
        partial("i", "cannot", 0.3),  # "can" is taken back
        partial("i", "cannot see", 0.4),
        partial("i cannot", "sea", 0.5),  # "see" is taken back
        final("i cannot sea it", 0.6),
        partial("", "no", 0.9),
        final("yes", 1.0),  # "no" is taken back
    ]
    found = times.follow(events, corpus)
    # Stable, first shown, shown for good.
    assert found == [(0.3, 0.1, 0.1), (0.5, 0.3, 0.3), (0.6, 0.5, 0.5), (0.6, 0.6, 0.6), (1.0, 1.0, 1.0)]
    assert (corpus.volatile, corpus.taken_back, corpus.broken) == (6, 3, 0)
    back = [partial("", "no", 0.1), partial("", "so", 0.2), partial("", "no", 0.3), final("no", 0.4)]
    assert times.follow(back, times._Corpus()) == [(0.4, 0.1, 0.3)]
    times.follow([partial("so", "", 0.1), partial("", "no", 0.2), final("no", 0.3)], corpus)
    assert corpus.broken == 1


def test_offsets_are_medians(times: ModuleType) -> None:
    errors = [(0, 0.1, -0.2), (1, 0.3, 0.0), (2, 0.2, 0.5)]
    assert times.offsets(errors).tolist() == [-0.2, 0.0]
    assert times.offsets([]).tolist() == [0.0, 0.0]
    rows = times.row(np.array([[0.1, -0.02], [-0.3, 0.04]]))
    assert rows == ["200", "280", "30", "38"]


def test_pocketsphinx_aligns_a_sample_in_order(times: ModuleType) -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    from streamasr import audio

    sample = BENCHMARK.parents[1] / "demo" / "samples" / "garden.flac"
    samples, rate = audio.read(sample)
    assert rate == 16_000
    text = "all the children played in the garden until it was dark"
    decoder = pocketsphinx.Decoder(loglevel="FATAL", lm=None)
    spans = times.pocketsphinx(decoder, samples, text)
    assert spans is not None and len(spans) == len(text.split())
    flat = [time for span in spans for time in span]
    assert flat == sorted(flat) and 0 <= flat[0] and flat[-1] <= len(samples) / rate
    assert times.pocketsphinx(decoder, samples, "qqzzqq") is None
