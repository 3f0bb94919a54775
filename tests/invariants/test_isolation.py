"""4. Streams interleaved in any order, or advanced in a batch, get each what they get alone."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from strategies import every, quick, run, seeds, sound

import streamasr


@quick
@given(seeds, st.randoms(use_true_random=False))
def test_interleaved(asr: streamasr.Recognizer, seed: int, chance: random.Random) -> None:
    sounds = [sound(seed + n, 0.8) for n in range(3)]
    slices = every(len(sounds[0]), 1_300)
    alone = [run(asr.stream(), samples, slices) for samples in sounds]
    streams = [asr.stream() for _ in sounds]
    events: list[list[Any]] = [[] for _ in sounds]
    turns = [n for n in range(3) for _ in slices]
    chance.shuffle(turns)
    waiting = [iter(slices) for _ in sounds]
    for n in turns:
        events[n] += streams[n].accept(sounds[n][next(waiting[n])])
    for n in (2, 0, 1):
        events[n] += streams[n].finish()
    assert events == alone


@quick
@given(seeds, st.data())
def test_batch(asr: streamasr.Recognizer, seed: int, data: st.DataObject) -> None:
    rates = (16_000, 8_000, 16_000)
    sounds = [sound(seed + n, 1.0, rate) for n, rate in enumerate(rates)]
    sizes = [data.draw(st.sampled_from([160, 999, 4_000])) for _ in rates]
    alone = [
        run(asr.stream(rate), samples, every(len(samples), size))
        for samples, rate, size in zip(sounds, rates, sizes, strict=True)
    ]
    streams = [asr.stream(rate) for rate in rates]
    events: list[list[Any]] = [[] for _ in rates]
    for turn in range(max(-(-len(s) // size) for s, size in zip(sounds, sizes, strict=True))):
        chunks = [s[turn * size : (turn + 1) * size] for s, size in zip(sounds, sizes, strict=True)]
        for told, new in zip(events, asr.accept_batch(streams, chunks), strict=True):
            told += new
    for told, stream in zip(events, streams, strict=True):
        told += stream.finish()
    assert events == alone


def test_copies_part(asr: streamasr.Recognizer) -> None:
    samples = sound(8, 1.5)
    stream = asr.stream()
    before = stream.accept(samples[:10_000])
    twin = stream.copy()
    other = run(twin, sound(9, 1.0))
    assert before + run(stream, samples[10_000:]) == run(
        asr.stream(), samples, [slice(10_000), slice(10_000, None)]
    )
    again = asr.stream()
    again.accept(samples[:10_000])
    assert run(again, sound(9, 1.0)) == other
