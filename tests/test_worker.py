"""Who has his sound decoded when; the rounds are taken by hand, without the thread."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from strategies import finals, run, sound

import streamasr
from streamasr.live import worker as workers
from streamasr.live.worker import AHEAD_LINES, MOST_CREDIT_SECONDS, ROUND_SECONDS, Line, Told, Worker

SECOND = np.zeros(16_000, np.float32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its first number is the time."""
    now = [100.0]
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def opened(worker: Worker, asr: streamasr.Recognizer, count: int) -> list[Line]:
    return [worker.open(asr.stream(), 16_000) for _ in range(count)]


def seconds(worker: Worker) -> dict[Line, tuple[float, bool]]:
    """What the next round takes of each line, in seconds, and whether as a live one."""
    return {p.line: (len(p.samples) / 16_000, p.arrived is not None) for p in worker._take(worker._lanes[0])}


def test_what_comes_in_real_time_is_taken_at_once(tiny: streamasr.Recognizer, clock: list[float]) -> None:
    worker = Worker(tiny, lambda told: None, threads=1)
    lines = opened(worker, tiny, 3)
    for _ in range(100):
        for line in lines:
            worker.feed(line, SECOND[:1600])
        assert seconds(worker) == dict.fromkeys(lines, (0.1, True))
        assert seconds(worker) == {}
        clock[0] += 0.1


def test_whoever_sends_faster_has_what_is_left(tiny: streamasr.Recognizer, clock: list[float]) -> None:
    worker = Worker(tiny, lambda told: None, threads=1)
    file, live = opened(worker, tiny, 2)
    for _ in range(20):
        worker.feed(file, SECOND)
    for _ in range(round(MOST_CREDIT_SECONDS / ROUND_SECONDS)):
        assert seconds(worker) == {file: (ROUND_SECONDS, True)}
    for _ in range(5):
        worker.feed(live, SECOND[:800])
        assert seconds(worker) == {live: (0.05, True), file: (ROUND_SECONDS, False)}
    assert worker.waiting_seconds(file) == 20 - MOST_CREDIT_SECONDS - 5 * ROUND_SECONDS


def test_many_files_share_one_block_in_turn(tiny: streamasr.Recognizer, clock: list[float]) -> None:
    worker = Worker(tiny, lambda told: None, threads=1)
    files = opened(worker, tiny, 2 * AHEAD_LINES)
    for line in files:
        for _ in range(10):
            worker.feed(line, SECOND)
    for _ in range(round(MOST_CREDIT_SECONDS / ROUND_SECONDS)):
        assert len(seconds(worker)) == len(files)
    first, second, third = seconds(worker), seconds(worker), seconds(worker)
    share = (ROUND_SECONDS / AHEAD_LINES, False)
    assert first == third == dict.fromkeys(files[:AHEAD_LINES], share)
    assert second == dict.fromkeys(files[AHEAD_LINES:], share)


def test_credit_is_bounded(tiny: streamasr.Recognizer, clock: list[float]) -> None:
    """An hour of silence on the line does not buy an hour of others' time."""
    worker = Worker(tiny, lambda told: None, threads=1)
    (line,) = opened(worker, tiny, 1)
    clock[0] += 3600.0
    for _ in range(10):
        worker.feed(line, SECOND)
    live = [seconds(worker)[line][1] for _ in range(20)]
    paid = round(MOST_CREDIT_SECONDS / ROUND_SECONDS)
    assert live == [True] * paid + [False] * (20 - paid)


def test_what_a_file_earns_from_round_to_round_is_not_taken_in_tiny_pieces(
    tiny: streamasr.Recognizer, clock: list[float]
) -> None:
    worker = Worker(tiny, lambda told: None, threads=1)
    (file,) = opened(worker, tiny, 1)
    for _ in range(60):
        worker.feed(file, SECOND)
    for _ in range(100):
        assert seconds(worker)[file][0] == ROUND_SECONDS
        clock[0] += 0.01


def test_a_line_that_is_dropped_is_not_decoded(tiny: streamasr.Recognizer, clock: list[float]) -> None:
    worker = Worker(tiny, lambda told: None, threads=1)
    one, two = opened(worker, tiny, 2)
    worker.feed(one, SECOND)
    worker.feed(two, SECOND)
    worker.drop(one)
    assert set(seconds(worker)) == {two}


def test_rounds_by_hand_say_what_a_stream_says(plain: streamasr.Recognizer) -> None:
    told: list[Told] = []
    worker = Worker(plain, told.extend, threads=1)
    sounds = [sound(seed, 2.0) for seed in range(6)]
    lines = opened(worker, plain, len(sounds))
    for line, samples in zip(lines, sounds, strict=True):
        worker.feed(line, samples)
        worker.end(line)
    while batch := worker._take(worker._lanes[0]):
        worker._decode(batch)
    for line, samples in zip(lines, sounds, strict=True):
        own = [result for result in told if result.line is line]
        events = [event for result in own for event in result.events]
        assert finals(events) == finals(run(plain.stream(), samples))
        assert [result.finished for result in own] == [False] * (len(own) - 1) + [True]
        assert own[-1].heard == 32_000
    assert worker.sound_seconds == pytest.approx(12.0)


def test_lines_are_shared_out_among_the_threads(tiny: streamasr.Recognizer, clock: list[float]) -> None:
    worker = Worker(tiny, lambda told: None, threads=2)
    lines = opened(worker, tiny, 6)
    for line in lines:
        worker.feed(line, SECOND[:1600])
    taken = [[piece.line for piece in worker._take(lane)] for lane in worker._lanes]
    assert taken == [lines[::2], lines[1::2]]
    worker.drop(lines[1])
    worker.drop(lines[3])
    (seventh, _) = opened(worker, tiny, 2)
    assert seventh.lane is lines[5].lane  # the thread that has fewest


def test_threads_give_what_one_gives(plain: streamasr.Recognizer) -> None:
    told: list[Told] = []
    sounds = [sound(seed, 2.0) for seed in range(8)]
    worker = Worker(plain, told.extend, threads=3)
    worker.start()
    lines = opened(worker, plain, len(sounds))
    for first in range(0, 32_000, 1600):
        for line, samples in zip(lines, sounds, strict=True):
            worker.feed(line, samples[first : first + 1600])
    for line in lines:
        worker.end(line)
    end = time.monotonic() + 60
    while sum(result.finished for result in list(told)) < len(lines):
        assert time.monotonic() < end, "not finished"
        time.sleep(0.01)
    worker.stop()
    for line, samples in zip(lines, sounds, strict=True):
        own = [result for result in told if result.line is line]
        assert [result.heard for result in own] == sorted(result.heard for result in own)
        assert finals([e for result in own for e in result.events]) == finals(run(plain.stream(), samples))
    assert worker.sound_seconds == pytest.approx(2.0 * len(sounds))
