"""Words heard where none are said: silence, made noises, and recordings of noise and music.

    python benchmarks/silence.py [MANIFEST...] [--model NAME|PATH | --server ws://ADDRESS] [--minutes 10]

Each made sound lasts `--minutes`; the recordings of each manifest are strung together, as often as it takes.
Rows: words a minute, and the first of them. Live stream in chunks of 100 ms, or through the socket of a
server, which decodes as fast as it can; default search and endpoints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import streamasr
from streamasr import audio
from streamasr.data import manifest
from streamasr.live import client
from streamasr.resample import Resampler

RATE = 16_000
Sound = NDArray[np.float32]


def made(seconds: float) -> Iterator[tuple[str, Sound]]:
    rng = np.random.default_rng(0)
    count = round(RATE * seconds)
    time = np.arange(count) / RATE
    white = rng.standard_normal(count).astype(np.float32)
    yield "digital silence", np.zeros(count, np.float32)
    yield "silence of 16 bit (one bit of noise)", np.float32(0.5 / 32768) * white
    yield "white noise, -60 dB", np.float32(1e-3) * white
    yield "white noise, -26 dB", np.float32(0.05) * white
    spectrum = np.fft.rfft(white)
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20.0))
    pink = np.fft.irfft(spectrum, count).astype(np.float32)
    yield "pink noise, -26 dB", pink * np.float32(0.05) / pink.std()
    hum = sum(np.sin(2 * np.pi * 50 * k * time) / k for k in (1, 2, 3, 5)) * 0.05
    yield "mains hum", np.asarray(hum, np.float32) + np.float32(1e-3) * white
    knocks = white * np.exp(-((time * 1.7) % 1.0) * 60).astype(np.float32)
    yield "knocks", np.float32(0.3) * knocks
    vowelless = np.sign(np.sin(2 * np.pi * 440 * 2 ** (np.floor(time * 3) % 12 / 12) * time)) * 0.1
    yield "square-wave melody", np.asarray(vowelless, np.float32)


def recorded(path: Path, seconds: float) -> Sound:
    pieces: list[Sound] = []
    for utterance in manifest.read(path):
        samples, rate = audio.read(utterance.audio)
        resampler = Resampler(rate)
        state = resampler.start()
        pieces += [resampler.advance(state, samples), resampler.finish(state)]
    sound = np.concatenate(pieces)
    return np.tile(sound, -(-round(RATE * seconds) // len(sound)))


def finals_of(recognizer: streamasr.Recognizer, sound: Sound) -> list[streamasr.Final]:
    stream = recognizer.stream()
    events = [e for i in range(0, len(sound), 1600) for e in stream.accept(sound[i : i + 1600])]
    return [e for e in [*events, *stream.finish()] if isinstance(e, streamasr.Final)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="*", type=Path, metavar="MANIFEST")
    parser.add_argument("--model", default="en")
    parser.add_argument("--server", metavar="ws://ADDRESS", help="of `streamasr serve`, instead of a model")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    recognizer = None if options.server else streamasr.load(options.model)
    print("| sound | minutes | words a minute | first words |\n| --- | --- | --- | --- |")
    sounds = [*made(60 * options.minutes)]
    sounds += [(path.stem, recorded(path, 60 * options.minutes)) for path in options.manifests]
    for name, sound in sounds:
        if recognizer is None:
            finals = list(client.transcribe(options.server, [(sound, RATE)], name=name).segments)
        else:
            finals = finals_of(recognizer, sound)
        words = " ".join(final.text for final in finals).split()
        minutes = len(sound) / RATE / 60
        print(f"| {name} | {minutes:.1f} | {len(words) / minutes:.2f} | {' '.join(words[:6])} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
