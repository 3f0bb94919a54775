"""Plays recordings into streamasr as if they were being spoken now: python demo/live.py [FILE...] [--fast]

Without files: the samples beside this script, with reference and word error rate. On a terminal the
sound is paced in real time and the text grows in place: stable words bright, the rest dim.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
from numpy.typing import NDArray

import streamasr
from streamasr import audio

SAMPLES = Path(__file__).parent / "samples" / "samples.jsonl"
CHUNK_SECONDS = 0.1
BRIGHT, DIM, PLAIN, REWRITE = "\x1b[1m", "\x1b[2m", "\x1b[0m", "\r\x1b[K"


@dataclass
class Recording:
    path: Path
    reference: str | None = None


@dataclass
class Result:
    text: str
    seconds: float  # of sound
    computing: float  # seconds of processor time in accept and finish


def samples() -> list[Recording]:
    lines = [json.loads(line) for line in SAMPLES.read_text().splitlines()]
    return [Recording(SAMPLES.parent / line["audio"], line["text"]) for line in lines]


def chunks(sound: NDArray[np.float32], rate: int, paced: bool) -> Iterator[NDArray[np.float32]]:
    """Pieces of 100 ms, each given out when its last sample would have been recorded."""
    size = round(CHUNK_SECONDS * rate)
    begun = time.monotonic()
    for first in range(0, len(sound), size):
        chunk = sound[first : first + size]
        if paced:
            time.sleep(max(begun + (first + len(chunk)) / rate - time.monotonic(), 0))
        yield chunk


class Display:
    """The segment being spoken: grows in place on a terminal, else one line for each change."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.shown = ""

    def partial(self, stable: str, volatile: str, seconds: float) -> None:
        text = f"{stable} {volatile}".strip()
        if not self.terminal:
            if text != self.shown:
                print(f"  {seconds:5.1f} s  {stable}{' ' if stable else ''}[{volatile}]", flush=True)
        else:
            stable = stable + " " if stable and volatile else stable
            room = shutil.get_terminal_size().columns - 5
            if len(stable) + len(volatile) > room:  # the end of a long line is what changes
                volatile = volatile[-room:]
                stable = stable[len(stable) - (room - len(volatile)) :]
            print(f"{REWRITE}  {BRIGHT}{stable}{PLAIN}{DIM}{volatile}{PLAIN}", end="", flush=True)
        self.shown = text

    def final(self, text: str) -> None:
        print(f"{REWRITE}  {BRIGHT}{text}{PLAIN}" if self.terminal else f"  final    {text}", flush=True)
        self.shown = ""

    def end(self) -> None:
        """Nothing more comes: wipes a guess that came to nothing."""
        if self.terminal:
            print(REWRITE, end="", flush=True)


def play(asr: streamasr.Recognizer, path: Path, display: Display, paced: bool) -> Result:
    """Streams one recording and shows what is heard."""
    sound, rate = audio.read(path)
    stream = asr.stream(sample_rate=rate)
    computing, finals = 0.0, []

    def show(events: list[streamasr.Partial | streamasr.Final]) -> None:
        for event in events:
            if isinstance(event, streamasr.Final):
                finals.append(event.text)
                display.final(event.text)
            else:
                display.partial(event.stable, event.volatile, event.time)

    for chunk in chunks(sound, rate, paced):
        begun = time.process_time()
        events = stream.accept(chunk)
        computing += time.process_time() - begun
        show(events)
    begun = time.process_time()
    events = stream.finish()
    computing += time.process_time() - begun
    show(events)
    display.end()
    return Result(" ".join(finals), len(sound) / rate, computing)


def report(result: Result, reference: str | None) -> None:
    if not result.text:
        print("  no words were heard")
    factor = f"real-time factor {result.computing / max(result.seconds, 1e-9):.3f}"
    if reference is None:
        print(f"  {factor}\n")
        return
    print(f"  reference  {reference}")
    print(f"  word error rate {100 * jiwer.wer(reference, result.text):.1f} %, {factor}\n")


def total(results: list[Result], references: list[str | None]) -> None:
    seconds = sum(result.seconds for result in results)
    computing = sum(result.computing for result in results)
    print(
        f"{len(results)} recordings, {seconds:.1f} s, real-time factor {computing / max(seconds, 1e-9):.3f}"
    )
    pairs = [
        (text, result.text) for text, result in zip(references, results, strict=True) if text is not None
    ]
    if pairs:
        words = jiwer.process_words([text for text, _ in pairs], [heard for _, heard in pairs])
        errors = words.substitutions + words.deletions + words.insertions
        count = words.hits + words.substitutions + words.deletions
        print(f"word error rate {100 * errors / count:.1f} % ({errors} errors in {count} words)")


def main() -> int:
    parser = argparse.ArgumentParser(description="Plays recordings into streamasr as a live stream.")
    parser.add_argument("files", nargs="*", metavar="FILE", type=Path, help="default: the sample recordings")
    parser.add_argument("--fast", action="store_true", help="as fast as it can be computed, not in real time")
    options = parser.parse_args()
    terminal = sys.stdout.isatty()
    recordings = [Recording(path) for path in options.files] or samples()
    try:
        asr = streamasr.load()
    except streamasr.errors.StreamASRError as error:
        print(f"the model cannot be loaded: {error}", file=sys.stderr)
        return 3
    results, references = [], []
    for recording in recordings:
        print(recording.path.name)
        try:
            results.append(play(asr, recording.path, Display(terminal), terminal and not options.fast))
        except streamasr.errors.AudioError as error:
            print(f"  {error}", file=sys.stderr)
            continue
        references.append(recording.reference)
        report(results[-1], recording.reference)
    total(results, references)
    return 0 if len(results) == len(recordings) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print()
        sys.exit(130)
