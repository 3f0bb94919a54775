"""5. After `reset` a stream equals a fresh one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import every, quick, run, seeds, sound

import streamasr


@quick
@given(seeds, st.integers(0, 16_000), st.booleans())
def test_second_utterance(asr: streamasr.Recognizer, seed: int, heard: int, finish: bool) -> None:
    samples = sound(seed + 1, 1.0)
    slices = every(len(samples), 1_100)
    used = asr.stream()
    used.accept(sound(seed, 1.0)[:heard])
    if finish:
        used.finish()
    used.reset()
    assert used.time == 0.0
    fresh = asr.stream()
    assert used.snapshot() == fresh.snapshot()
    assert run(used, samples, slices) == run(fresh, samples, slices)


def test_options_stay(plain: streamasr.Recognizer) -> None:
    samples = sound(1, 1.0, 8_000)
    used = plain.stream(8_000, endpointing=False)
    run(used, samples)
    used.reset()
    assert run(used, samples) == run(plain.stream(8_000, endpointing=False), samples)
