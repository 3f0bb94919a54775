"""8. Memory and time per chunk do not grow with the length of the stream, silence included."""

from __future__ import annotations

import time

import numpy as np
from strategies import sound

import streamasr


def sizes(stream: streamasr.Stream, chunk: np.ndarray, times: int) -> list[int]:  # type: ignore[type-arg]
    found = []
    for _ in range(times):
        stream.accept(chunk)
        found.append(len(stream.snapshot()))
    return found


# One hop and one step of waiting samples and frames come and go, and counters get longer.
SLACK = 4_000


def test_silence(asr: streamasr.Recognizer) -> None:
    found = sizes(asr.stream(44_100), np.zeros(44_100 * 2, np.float32), 12)
    assert max(found) <= min(found) + SLACK


def test_endless_talk(asr: streamasr.Recognizer) -> None:
    """Twenty-second segments: the second minute needs no more than the first."""
    found = sizes(asr.stream(), sound(1, 4.0), 24 if asr.info["parameters"] < 100_000 else 12)
    half = len(found) // 2
    assert max(found[half:]) <= max(found[:half]) + SLACK


def test_noise_without_words_stays_bounded_without_endpoints(plain: streamasr.Recognizer) -> None:
    found = sizes(plain.stream(endpointing=False), np.zeros(32_000, np.float32), 20)
    assert max(found) <= min(found) + SLACK


def test_time_per_chunk(tiny: streamasr.Recognizer) -> None:
    stream = tiny.stream()
    chunk = sound(2, 1.0)
    spent = []
    for _ in range(90):
        start = time.process_time()
        stream.accept(chunk)
        spent.append(time.process_time() - start)
    # Medians of 30 chunks, with room for a busy machine; growth with the length would triple it.
    assert np.median(spent[-30:]) < 2 * np.median(spent[:30])
