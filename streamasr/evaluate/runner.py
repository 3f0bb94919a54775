"""Runs a recogniser over utterances, as live: each recording in chunks through a stream.

Worker processes load the model once and compute on one thread. The parent hands each of them one
utterance at a time over a pipe, so that it knows which recording a dead worker was at: that utterance
fails, a new worker takes over, and the others are done.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.manifest import Utterance
from ..errors import StreamASRError
from ..events import Final

if TYPE_CHECKING:
    from ..recognizer import Recognizer

CHUNK_SECONDS = 0.1  # chosen: what a microphone hands over at a time
# Read by the BLAS libraries when NumPy is imported, so they must be set before a worker starts.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(frozen=True, slots=True)
class Listening:
    """How the recogniser listens; `search` None: the model's default. `nbest` 0: only the best text."""

    search: str | None = None
    language_model: bool = True
    hotwords: tuple[tuple[str, float], ...] = ()
    nbest: int = 0
    phrases: tuple[str, ...] = ()  # if any, these only
    rescore: bool | None = None  # None: where the model can

    def arguments(self) -> dict[str, Any]:
        """What `Recognizer.stream` is told."""
        return {
            "search": self.search,
            "language_model": self.language_model,
            "hotwords": self.hotwords,
            "phrases": self.phrases or None,
            "rescore": self.rescore,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one utterance."""

    id: str
    text: str = ""  # all final segments, joined by spaces
    audio_seconds: float = 0.0
    compute_seconds: float = 0.0  # processor time in the stream, without decoding of the file
    error: str | None = None  # why there is no text
    confidences: tuple[float, ...] = ()  # of the words of the text
    alternatives: tuple[str, ...] = ()  # n best texts, where asked for; of the last segment, after the others


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Utterance | None = None  # None while it loads the model


def run(
    utterances: Sequence[Utterance], model: str | None, jobs: int = 1, listening: Listening | None = None
) -> Iterator[Result]:
    """utterances -> their results, as they become ready (with one job: in order).

    `model` is what `streamasr.load` takes, None for the default. Closing the iterator, or an interrupt
    while it waits, ends the workers; the results yielded before are complete.
    Raises: ModelError if the model cannot be loaded. What goes wrong with a recording is in its result.
    """
    waiting = list(reversed(utterances))
    listening = listening or Listening()
    workers = [_start(model, listening) for _ in range(min(jobs, len(utterances)))]
    try:
        while workers:
            for pipe in wait([worker.pipe for worker in workers]):
                worker = next(w for w in workers if w.pipe is pipe)
                result = _receive(worker)
                if result is not None:
                    yield result
                if waiting and worker.process.exitcode is not None:
                    workers[workers.index(worker)] = _start(model, listening)
                elif waiting:
                    worker.task = waiting.pop()
                    with contextlib.suppress(OSError):  # a worker that has died says so when read from
                        worker.pipe.send(worker.task)
                else:
                    workers.remove(worker)
                    _stop(worker)
    finally:
        for worker in workers:
            _stop(worker)


def transcribe(recognizer: Recognizer, utterance: Utterance, listening: Listening | None = None) -> Result:
    """One utterance -> its result, in this process and on this thread; errors are in the result."""
    from ..audio import blocks

    listening = listening or Listening()
    stream, count, seconds = None, 0, 0.0
    finals: list[Final] = []
    alternatives: tuple[str, ...] = ()
    try:
        for samples, rate in blocks(utterance.audio, CHUNK_SECONDS):
            begin = time.process_time()
            if stream is None:
                stream = recognizer.stream(rate, **listening.arguments())
            events = stream.accept(samples)
            seconds += time.process_time() - begin
            finals += [event for event in events if isinstance(event, Final)]
            count += len(samples)
        if stream is None or count == 0:
            return Result(utterance.id, error=f"{utterance.audio}: holds no samples")
        if listening.nbest:
            before = " ".join(final.text for final in finals)
            alternatives = tuple(f"{before} {text}".strip() for text, _ in stream.nbest(listening.nbest))
        begin = time.process_time()
        events = stream.finish()
        seconds += time.process_time() - begin
        finals += [event for event in events if isinstance(event, Final)]
    except StreamASRError as error:
        return Result(utterance.id, error=str(error))
    except Exception as error:  # one recording must not cost the results of the others
        return Result(utterance.id, error=f"{utterance.audio}: internal error: {error!r}")
    text = " ".join(final.text for final in finals)
    confidences = tuple(word.confidence for final in finals for word in final.words)
    return Result(utterance.id, text, count / rate, seconds, None, confidences, alternatives)


def _work(pipe: Connection, model: str | None, listening: Listening) -> None:
    """A worker process: says None when the model is loaded, then answers utterances with results."""
    import streamasr

    try:
        recognizer = streamasr.load() if model is None else streamasr.load(model)
        # What is opened or compiled at the first stream belongs to no recording; and what cannot be
        # listened for is an error of the run.
        recognizer.stream(**listening.arguments()).accept(np.zeros(16_000, np.float32))
    except StreamASRError as error:
        pipe.send(error)
        return
    pipe.send(None)
    with contextlib.suppress(EOFError):  # the parent is gone
        while True:
            pipe.send(transcribe(recognizer, pipe.recv(), listening))


def _start(model: str | None, listening: Listening) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork would inherit the parent's BLAS threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, model, listening), daemon=True)
    with _environment(), _interrupts_ignored():
        process.start()
    theirs.close()  # so that the end of the worker is the end of the pipe
    return _Worker(process, ours)


def _receive(worker: _Worker) -> Result | None:
    """The result of the worker's task, or None from one that has just loaded its model."""
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError) as error:
        worker.process.join()
        if worker.task is None:
            raise StreamASRError(
                f"a worker process ended (code {worker.process.exitcode}) at its start"
            ) from error
        problem = f"{worker.task.audio}: the process reading it ended (code {worker.process.exitcode})"
        return Result(worker.task.id, error=problem)
    if isinstance(message, StreamASRError):
        raise message
    assert message is None or isinstance(message, Result)
    return message


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.terminate()
    worker.process.join()


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Processes started within compute on one thread."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started within leave Ctrl-C, which the terminal sends to all, to their parent."""
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
