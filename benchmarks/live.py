"""The server under load, over time, and its latency; as Markdown. Each starts a server of its own.

    python benchmarks/live.py load [--streams 100] [--seconds 60]      twice as many clients as streams
    python benchmarks/live.py cycles [--count 1000]                    good and bad clients come and go
    python benchmarks/live.py latency [--limit 60] [--at-once 4]       from a word's end to its appearance

Recordings are played in real time, 100 ms a message; `--manifest` names others than those of the demo.

Lag is from sending the last sample that an event needed to having the event. For `latency` the end of a
word is that of a forced alignment of the transcript by PocketSphinx, where the manifest has transcripts,
else the recogniser's own; only words that were recognised count. What the model takes, in seconds of sound,
and what the server and the way to it add, are told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import random
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from live_cycles import cycles, numbers, processor_seconds, serving
from live_socket import converse
from numpy.typing import NDArray

import streamasr
from streamasr import audio
from streamasr.data import manifest
from streamasr.errors import StreamASRError
from streamasr.events import Event, Final, Partial, Word
from streamasr.live import protocol
from streamasr.resample import Resampler

SAMPLES = Path(__file__).parents[1] / "demo" / "samples"
CHUNK_SECONDS = 0.1
Sound = NDArray[np.float32]


@dataclass
class Recording:
    samples: Sound
    rate: int
    text: str | None = None


@dataclass
class Heard:
    """One session: when each chunk was sent, when each event came (seconds on one clock)."""

    recording: Recording
    sent: list[float] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    ended: float = 0.0
    done: float = 0.0
    error: str = ""

    def sent_at(self, seconds: float) -> float:
        """When the chunk was sent that made it `seconds` of sound."""
        return self.sent[min(max(round(seconds / CHUNK_SECONDS + 0.4999) - 1, 0), len(self.sent) - 1)]


def recordings(options: argparse.Namespace) -> list[Recording]:
    if options.manifest is None:
        return [Recording(*audio.read(path)) for path in sorted(SAMPLES.glob("*.flac"))]
    listed = manifest.read(options.manifest)
    random.Random(0).shuffle(listed)
    return [Recording(*audio.read(u.audio), u.text) for u in listed[: options.limit]]


async def play(where: str, recording: Recording, seconds: float | None = None) -> Heard:
    """Plays a recording, again and again for `seconds` if given, through one session."""
    size, rate = round(CHUNK_SECONDS * recording.rate), recording.rate
    samples = recording.samples
    if seconds is not None:
        samples = np.resize(samples, int(seconds * rate))
    heard = Heard(Recording(samples, rate, recording.text))
    content = samples.astype("<f4").tobytes()
    messages = [content[first : first + 4 * size] for first in range(0, len(content), 4 * size)]
    try:
        talk = await converse(where, protocol.hello(rate, "f32le"), messages, CHUNK_SECONDS)
    except OSError as error:
        heard.error = str(error)
        return heard
    heard.sent, heard.ended = talk.sent, talk.ended
    for when, message in talk.came:
        if message["type"] in ("partial", "final"):
            heard.events.append((when, protocol.to_event(message)))
    heard.done, last = talk.came[-1]
    if last["type"] == "error":
        heard.done, heard.error = 0.0, f"{last['message']} ({last['code']})"
    return heard


def expect(recognizer: streamasr.Recognizer, recording: Recording) -> list[tuple[float, Final]]:
    """Finals of the same sound in this process, each with the seconds after which it was known."""
    stream = recognizer.stream(recording.rate)
    size = round(CHUNK_SECONDS * recording.rate)
    found: list[tuple[float, Final]] = []
    for first in range(0, len(recording.samples), size):
        events = stream.accept(recording.samples[first : first + size])
        found += [(stream.time, event) for event in events if isinstance(event, Final)]
    return found + [(stream.time, event) for event in stream.finish() if isinstance(event, Final)]


def milliseconds(values: Sequence[float]) -> str:
    if not len(values):
        return "-"
    p50, p90, p99 = 1000 * np.quantile(values, (0.5, 0.9, 0.99))
    return f"p50 {p50:.0f}, p90 {p90:.0f}, p99 {p99:.0f}, max {1000 * max(values):.0f} ms (n = {len(values)})"


def table(rows: Sequence[tuple[str, object]]) -> None:
    print("| | |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")


def lags(heard: Heard, finals: Sequence[tuple[float, Final]]) -> list[tuple[float, float]]:
    """(when it came, its lag) of the events that sound has caused."""
    known = {final.segment: seconds for seconds, final in finals}
    found = []
    for when, event in heard.events:
        if isinstance(event, Partial):
            found.append((when, when - heard.sent_at(event.time)))
        elif event.reason != "finish" and event.segment in known:
            found.append((when, when - heard.sent_at(known[event.segment])))
    return found


async def load(options: argparse.Namespace) -> int:
    recognizer = streamasr.load(options.model)
    sounds = recordings(options)
    with serving(options, options.streams) as (where, process):

        async def later(number: int, delay: float) -> Heard:
            await asyncio.sleep(delay)
            recording = sounds[number % len(sounds)]
            start = number * recording.rate % len(recording.samples)  # not all at the same words
            shifted = Recording(np.roll(recording.samples, -start), recording.rate)
            return await play(where, shifted, options.seconds)

        # The first wave comes within two seconds; the second, of as many again, in the middle.
        clients, loaded = time.process_time(), processor_seconds(process)
        first = [asyncio.create_task(later(i, 2 * i / options.streams)) for i in range(options.streams)]
        half = 2 + options.seconds / 2
        second = [asyncio.create_task(later(i, half + i / options.streams)) for i in range(options.streams)]
        served, others = await asyncio.gather(*first), await asyncio.gather(*second)
        told, cpu = numbers(where), processor_seconds(process) - loaded
        clients = time.process_time() - clients
    wrong = 0
    before: list[float] = []
    after: list[float] = []
    for heard in served:
        finals = expect(recognizer, heard.recording)
        wrong += [f for _, f in finals] != [e for _, e in heard.events if isinstance(e, Final)]
        cut = heard.sent[0] + half if heard.sent else 0
        for when, lag in lags(heard, finals):
            (before if when < cut else after).append(lag)
    refused = sum("overloaded" in heard.error for heard in others)
    table(
        [
            (
                "streams in real time",
                f"{options.streams} for {options.seconds:g} s, {CHUNK_SECONDS:g} s a message",
            ),
            ("dropped", sum(bool(heard.error) for heard in served)),
            ("texts other than in one process", wrong),
            ("event lag", milliseconds(before)),
            (f"event lag while {len(others)} more tried", milliseconds(after)),
            ("last event after the end of sound", milliseconds([h.done - h.ended for h in served if h.done])),
            (f"of those {len(others)}, refused as overloaded", refused),
            (
                "seconds a second of sound: decoding, all of the server, the clients",
                f"{told['rtf']:.4f}, {cpu / told['sound_seconds_total']:.4f}, "
                f"{clients / told['sound_seconds_total']:.4f}",
            ),
        ]
    )
    return int(bool(wrong or any(heard.error for heard in served)))


def aligned(recording: Recording) -> list[tuple[str, float]] | None:
    """Words of the transcript, each with the second at which it ends, by PocketSphinx; None if it cannot."""
    from pocketsphinx import Decoder

    stage = Resampler(recording.rate)
    state = stage.start()
    samples = np.concatenate([stage.advance(state, recording.samples), stage.finish(state)])
    content = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    decoder = Decoder(loglevel="FATAL")
    try:
        decoder.set_align_text(recording.text)
        decoder.start_utt()
        decoder.process_raw(content, full_utt=True)
        decoder.end_utt()
        segments = list(decoder.seg() or ())
    except (RuntimeError, ValueError):  # a word that its dictionary lacks
        return None
    words = [(re.sub(r"\(\d+\)$", "", s.word), (s.end_frame + 1) / 100) for s in segments]
    return [(word, end) for word, end in words if word[0] not in "<["] or None


def appearances(heard: Heard) -> list[tuple[Word, float, float]]:
    """Words of the finals, each with (seconds of sound, time on the clock) when it was first shown."""
    found = []
    for i, (when, final) in enumerate(heard.events):
        if not isinstance(final, Final):
            continue
        shown = [
            (at, e) for at, e in heard.events[:i] if isinstance(e, Partial) and e.segment == final.segment
        ]
        for number, word in enumerate(final.words):
            at, time_ = when, len(heard.recording.samples) / heard.recording.rate
            for came, partial in shown:
                if number < len(partial.words) and partial.words[number].text == word.text:
                    at, time_ = came, partial.time
                    break
            found.append((word, time_, at))
    return found


async def latency(options: argparse.Namespace) -> int:
    recognizer = streamasr.load(options.model)
    sounds = recordings(options)
    with serving(options, 2 * options.at_once) as (where, _):
        room = asyncio.Semaphore(options.at_once)

        async def one(recording: Recording) -> Heard:
            async with room:
                return await play(where, recording)

        done = await asyncio.gather(*map(one, sounds))
    whole: list[float] = []
    model: list[float] = []
    ours: list[float] = []
    ends_known: list[float] = []
    changed = with_alignment = wrong = edges = same_edges = 0
    for heard in done:
        finals = expect(recognizer, heard.recording)
        told = [(when, event) for when, event in heard.events if isinstance(event, Final)]
        wrong += [event for _, event in told] != [final for _, final in finals]
        ends_known += [
            when - heard.sent_at(seconds)
            for (when, event), (seconds, _) in zip(told, finals, strict=False)
            if event.reason != "finish"
        ]
        whole_words = recognizer.transcribe(heard.recording.samples, heard.recording.rate).words
        words = aligned(heard.recording) if heard.recording.text else None
        shown = appearances(heard)
        if whole_words:
            edges += 2
            same_edges += sum(shown[i][0] == whole_words[i] for i in (0, -1)) if shown else 0
        ends: dict[int, float] = {i: word.end for i, (word, _, _) in enumerate(shown)}
        if heard.recording.text:
            matcher = difflib.SequenceMatcher(
                None, [w.text for w, _, _ in shown], [w for w, _ in words or ()], autojunk=False
            )
            ends = {
                block.a + k: (words or [])[block.b + k][1]
                for block in matcher.get_matching_blocks()
                for k in range(block.size)
            }
        with_alignment += bool(words)
        for i, end in ends.items():
            _, seconds, at = shown[i]
            arrival = heard.sent_at(seconds)
            model.append(seconds - end)
            ours.append(at - arrival)
            whole.append(seconds - end + at - arrival)
        stable: dict[int, str] = {}
        for _, event in heard.events:
            text = event.stable if isinstance(event, Partial) else event.text
            changed += not text.startswith(stable.get(event.segment, ""))
            stable[event.segment] = text
    table(
        [
            ("utterances, of these aligned by PocketSphinx", f"{len(done)}, {with_alignment}"),
            ("from a word's end to its first appearance", milliseconds(whole)),
            ("of it the model, chunks of 100 ms included", milliseconds(model)),
            ("of it server and sockets", milliseconds(ours)),
            ("final text after what decides an endpoint", milliseconds(ends_known)),
            ("final text after the end of sound", milliseconds([h.done - h.ended for h in done if h.done])),
            ("changes of stable text", changed),
            ("texts other than in one process", wrong),
            ("first and last words as in the recording decoded whole", f"{same_edges} of {edges}"),
            ("failed", sum(bool(h.error) for h in done)),
        ]
    )
    return int(bool(changed or wrong or any(h.error for h in done)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=("load", "cycles", "latency"))
    parser.add_argument("--manifest", type=Path, help="default: demo/samples")
    parser.add_argument("--model", default="en", metavar="NAME|PATH", help="default: %(default)s")
    parser.add_argument("--limit", type=int, default=60, help="utterances of it; default: %(default)s")
    parser.add_argument("--streams", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--at-once", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=1000, help="default: %(default)s")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # the server ends with us
    if options.what == "cycles":
        return cycles(options)
    return asyncio.run(load(options) if options.what == "load" else latency(options))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
