"""The threads that decode: the live streams of each advanced together, round after round.

A stream stays with the thread it was given at its start, that which had fewest. A round takes the sound that
waits in every `Line` of the thread, at most `ROUND_SECONDS` of each and no more than it has earned: a line
earns a little more than a second of sound each second, so what comes in real time is decoded at once. Whoever
sends faster, such as a file, has earned nothing; some of those lines, in turn, share one block a round. So
files cost the live ones the time of one block, however many they are, and have all the time that is left.
Many live ones wait a moment for each other, some milliseconds: decoded together they take less time.

Threads decode at the same time because the compiled loops, most of the work, run without Python's lock.
Our own is held to move sound in and out, never while decoding.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..events import Event
from ..recognizer import Recognizer
from ..stream import Stream

ROUND_SECONDS = 0.5  # chosen: a block of a file delays live streams by some 20 ms
AHEAD_LINES = 4  # chosen: streams are decoded faster together, in smaller pieces more slowly
# Before a round, for each line: the chunks of eight together take half the time of eight alone.
GATHER_SECONDS = 0.0002
MOST_GATHER_SECONDS = 0.03
EARN_RATE = 1.5  # who was held up catches up while there is time; sound cards' clocks differ by far less
MOST_CREDIT_SECONDS = 4.0  # what a network may hold up and deliver at once
# With two, what Python does one after the other (a quarter of decoding, all of the sockets) fills a core.
MOST_THREADS = 2
_WARM_UP_SECONDS = 2.0
_WARM_UP_STREAMS = 4  # one alone takes longer than its share of many
_LAG_COUNTS_SECONDS = 2.0
_SMOOTHING = 0.02  # of the measured speed, a round: the last hundred or so count

Samples = NDArray[np.float32]


@dataclass(eq=False, slots=True)
class Line:
    """One stream's place in the worker. Only the worker's methods touch it."""

    stream: Stream
    sample_rate: int
    lane: _Lane
    waiting: deque[tuple[Samples, float]] = field(default_factory=deque)  # and when each arrived
    waiting_samples: int = 0
    decoded: int = 0  # samples
    credit: float = MOST_CREDIT_SECONDS
    counted: float = 0.0  # when the credit was last added to
    ended: bool = False


class _Lane:
    """The lines of one thread."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lines: dict[Line, None] = {}  # in order; a set would not be
        self.ahead: deque[Line] = deque()  # of them those that send faster than real time, in turn
        self.ready = threading.Condition(lock)

    def has_sound(self) -> bool:
        """Whether a round would find something. The lock is held."""
        return any(line.waiting or line.ended for line in self.lines)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Sound of one line for one round, and when the last of it arrived (None: sent ahead of time)."""

    line: Line
    samples: Samples
    arrived: float | None


@dataclass(frozen=True, slots=True)
class Told:
    """What a round gave for one line, after `heard` samples in all.

    `lag` is how long the last of them waited; None for a line that sends faster than real time.
    """

    line: Line
    heard: int
    events: Sequence[Event]
    finished: bool
    lag: float | None
    error: Exception | None = None


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """`tell` is called on the worker's threads, once a round, with what the round gave."""

    def __init__(
        self, recognizer: Recognizer, tell: Callable[[list[Told]], None], threads: int | None = None
    ) -> None:
        self.threads = threads or min(processors(), MOST_THREADS)
        self._recognizer = recognizer
        self._tell = tell
        self._lock = threading.Lock()
        self._lanes = [_Lane(self._lock) for _ in range(self.threads)]
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"decoder {number}", daemon=True)
            for number, lane in enumerate(self._lanes)
        ]
        self._cpu, self._sound = 0.0, 0.0  # seconds of decoding and of the sound decoded, of late
        self._lag, self._lag_at = 0.0, 0.0  # of live streams, seconds, smoothed, and when that was
        self.sound_seconds = 0.0
        self.busy_seconds = 0.0

    def start(self) -> None:
        """Measures the speed, so that all that is loaded late is loaded now, and begins."""
        noise = np.random.default_rng(0).normal(0, 0.05, 1600).astype(np.float32)
        streams = [self._recognizer.stream() for _ in range(_WARM_UP_STREAMS)]
        for seconds in (_WARM_UP_SECONDS / 2, _WARM_UP_SECONDS):  # the second half counts
            begin = time.thread_time()
            while streams[0].time < seconds:
                self._recognizer.accept_batch(streams, [noise] * len(streams))
        self._cpu, self._sound = time.thread_time() - begin, _WARM_UP_SECONDS / 2 * len(streams)
        for stream in streams:
            stream.finish()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads; what still waits is not decoded."""
        with self._lock:
            self._stopped = True
            for lane in self._lanes:
                lane.ready.notify()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def open(self, stream: Stream, sample_rate: int) -> Line:
        """A place for a fresh stream of this rate."""
        with self._lock:
            lane = min(self._lanes, key=lambda lane: len(lane.lines))
            line = Line(stream, sample_rate, lane, counted=time.monotonic())
            lane.lines[line] = None
        return line

    def feed(self, line: Line, samples: Samples) -> None:
        """Sound in [-1, 1] for a line; checked before."""
        if len(samples):
            with self._lock:
                line.waiting.append((samples, time.monotonic()))
                line.waiting_samples += len(samples)
                line.lane.ready.notify()

    def end(self, line: Line) -> None:
        """No more sound: what waits is decoded, then the stream is finished."""
        with self._lock:
            line.ended = True
            line.lane.ready.notify()

    def drop(self, line: Line) -> None:
        """Nobody wants to know any more."""
        with self._lock:
            line.lane.lines.pop(line, None)
            line.waiting.clear()

    def waiting_seconds(self, line: Line) -> float:
        """Sound that has arrived for this line and is not decoded."""
        return line.waiting_samples / line.sample_rate

    @property
    def rtf(self) -> float:
        """Seconds of decoding (the threads' own) per second of sound, of late."""
        return self._cpu / self._sound if self._sound else 0.0

    @property
    def lag(self) -> float:
        """How long the sound of live streams waits of late, in seconds; 0 if none came."""
        return self._lag if time.monotonic() - self._lag_at < _LAG_COUNTS_SECONDS else 0.0

    def _run(self, lane: _Lane) -> None:
        while True:
            with self._lock:
                while not self._stopped and not lane.has_sound():
                    lane.ready.wait()
                if self._stopped:
                    return
                # Where files wait there is enough to do.
                pause = 0.0 if lane.ahead else min(GATHER_SECONDS * len(lane.lines), MOST_GATHER_SECONDS)
            time.sleep(pause)
            with self._lock:
                batch = self._take(lane)
            if batch:
                self._decode(batch)

    def _take(self, lane: _Lane) -> list[_Piece]:
        """Sound for one round of a thread. The lock is held."""
        now = time.monotonic()
        batch: list[_Piece] = []
        for line in lane.lines:
            earned = line.credit + EARN_RATE * (now - line.counted)
            line.credit, line.counted = min(earned, MOST_CREDIT_SECONDS), now
            if not (line.waiting or line.ended):
                continue
            most = round(ROUND_SECONDS * line.sample_rate)
            count = min(int(line.credit * line.sample_rate), most, line.waiting_samples)
            # All that waits, be it nothing of an ended line that is to be finished, or a full round: what a
            # file earns from round to round is little, and decoding it in tiny pieces takes much longer.
            if count in (line.waiting_samples, most):
                line.credit -= count / line.sample_rate
                batch.append(_cut(line, count, now))
            elif line not in lane.ahead:
                lane.ahead.append(line)
        taken = {piece.line for piece in batch}
        ahead = [line for line in lane.ahead if line in lane.lines and line not in taken and line.waiting]
        turn = ahead[:AHEAD_LINES]
        lane.ahead = deque(ahead[AHEAD_LINES:])
        for line in turn:
            count = min(int(ROUND_SECONDS / len(turn) * line.sample_rate), line.waiting_samples)
            batch.append(_cut(line, max(count, 1), None))
        return batch

    def _decode(self, batch: list[_Piece]) -> None:
        begin, cpu = time.perf_counter(), time.thread_time()
        told: list[Told] = []
        try:
            events = self._recognizer.accept_batch(
                [piece.line.stream for piece in batch], [piece.samples for piece in batch]
            )
            ends = [piece.line for piece in batch if piece.line.ended and not piece.line.waiting]
            last = {line: line.stream.finish() for line in ends}
            now = time.monotonic()
            for piece, given in zip(batch, events, strict=True):
                line = piece.line
                line.decoded += len(piece.samples)
                lag = None if piece.arrived is None else now - piece.arrived
                told.append(Told(line, line.decoded, [*given, *last.get(line, ())], line in last, lag))
        except Exception as error:  # a fault of ours must end these sessions, not the thread
            told = [Told(piece.line, piece.line.decoded, (), True, None, error) for piece in batch]
        self._tell(told)
        with self._lock:
            for result in told:
                if result.finished:
                    result.line.lane.lines.pop(result.line, None)
            self.busy_seconds += time.perf_counter() - begin
            self._count(batch, told, time.thread_time() - cpu)

    def _count(self, batch: list[_Piece], told: list[Told], cpu: float) -> None:
        """Lag and speed, after a round that took `cpu` seconds. The lock is held."""
        for result in told:
            if result.lag is not None:
                self._lag += _SMOOTHING * (result.lag - self._lag)
                self._lag_at = time.monotonic()
        sound = sum(len(piece.samples) / piece.line.sample_rate for piece in batch)
        self.sound_seconds += sound
        self._cpu += cpu - _SMOOTHING * self._cpu
        self._sound += sound - _SMOOTHING * self._sound


def _cut(line: Line, count: int, now: float | None) -> _Piece:
    """Takes `count` samples from the front of what waits; `now` is when none of none arrived."""
    parts: list[Samples] = []
    arrived, left = now, count
    while left:
        samples, came = line.waiting.popleft()
        if len(samples) > left:
            line.waiting.appendleft((samples[left:], came))
            samples = samples[:left]
        arrived = None if now is None else came
        parts.append(samples)
        left -= len(samples)
    line.waiting_samples -= count
    return _Piece(line, np.concatenate(parts) if parts else np.zeros(0, np.float32), arrived)
