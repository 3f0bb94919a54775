"""WER of the same recordings as they are, and as other microphones, lines and rooms would give them.

    python benchmarks/robustness.py MANIFEST [--model NAME|PATH] [--limit 60] [--rooms FILE] [--noise FILE]

What is done to the sound is done to samples, before the recogniser: nothing of it is shared with training's
perturbation of frames. An even sample of `--limit` recordings; live stream, default search and endpoints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

import streamasr
from streamasr import audio
from streamasr.data import manifest
from streamasr.evaluate import wer

RATE = 16_000
LINE_RATE = 8_000
Sound = NDArray[np.float32]
Change = Callable[[Sound, np.random.Generator], tuple[Sound, int]]


def read(path: Path) -> Sound:
    samples, rate = audio.read(path)
    return samples if rate == RATE else np.asarray(soxr.resample(samples, rate, RATE), np.float32)


def louder(decibel: float) -> Change:
    return lambda x, _: (np.clip(x * np.float32(10 ** (decibel / 20)), -1, 1), RATE)


def telephone(x: Sound, _: np.random.Generator) -> tuple[Sound, int]:
    """8 kHz, 8 bits of mu-law (G.711)."""
    y = np.clip(soxr.resample(x, RATE, LINE_RATE), -1, 1)
    code = np.round(np.sign(y) * np.log1p(255 * np.abs(y)) / np.log(256) * 127) / 127
    return (np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255).astype(np.float32), LINE_RATE


def other_rate(x: Sound, _: np.random.Generator) -> tuple[Sound, int]:
    return np.asarray(soxr.resample(x, RATE, 44_100), np.float32), 44_100


def offset(x: Sound, _: np.random.Generator) -> tuple[Sound, int]:
    return np.clip(x + np.float32(0.02), -1, 1), RATE


def in_room(room: Sound) -> Change:
    def change(x: Sound, _: np.random.Generator) -> tuple[Sound, int]:
        size = len(x) + len(room)
        heard = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(room, size), size)[: len(x)]
        return (heard * (np.std(x) / max(float(np.std(heard)), 1e-9))).astype(np.float32), RATE

    return change


def with_noise(noises: list[Sound], snr_db: float) -> Change:
    def change(x: Sound, random: np.random.Generator) -> tuple[Sound, int]:
        noise = noises[random.integers(len(noises))]
        piece = np.resize(np.roll(noise, -int(random.integers(len(noise)))), len(x))
        gain = np.std(x) / max(float(np.std(piece)), 1e-9) * 10 ** (-snr_db / 20)
        return (x + gain * piece).astype(np.float32), RATE

    return change


def changes(options: argparse.Namespace, voices: list[Sound]) -> Iterator[tuple[str, Change]]:
    yield "as recorded", louder(0)
    yield "30 dB quieter", louder(-30)
    yield "20 dB louder, clipped", louder(20)
    yield "offset of 2 % of full scale", offset
    yield "44.1 kHz", other_rate
    yield "telephone: 8 kHz, mu-law", telephone
    yield "another voice, 10 dB below", with_noise(voices, 10)
    if options.noise:
        noises = [read(u.audio) for u in manifest.read(options.noise)]
        yield "recorded noise, 10 dB below", with_noise(noises, 10)
    for room in manifest.read(options.rooms) if options.rooms else ():
        yield f"room {room.id}", in_room(read(room.audio))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument("--model", default="en")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--rooms", type=Path)
    parser.add_argument("--noise", type=Path)
    options = parser.parse_args()
    recognizer = streamasr.load(options.model)
    utterances = manifest.read(options.manifest)
    chosen = np.linspace(0, len(utterances) - 1, min(options.limit, len(utterances))).astype(int)
    utterances = [utterances[i] for i in chosen]
    sounds = [read(u.audio) for u in utterances]
    said = {u.id: u.text for u in utterances}
    print("| sound | WER % | CER % |\n| --- | --- | --- |")
    for name, change in changes(options, sounds):
        random = np.random.default_rng(0)
        heard = {}
        for utterance, sound in zip(utterances, sounds, strict=True):
            samples, rate = change(sound, random)
            heard[utterance.id] = recognizer.transcribe(samples, rate).text
        score = wer.score(said, heard)
        print(f"| {name} | {100 * score.words.rate:.1f} | {100 * score.characters.rate:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
