"""2. What is emitted after t seconds depends on nothing after t, and comes as late as declared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import every, finals, quick, run, seeds, sound

import streamasr
from streamasr import Partial


@quick
@given(seeds, seeds, st.integers(1, 20_000))
def test_the_future_changes_nothing(asr: streamasr.Recognizer, seed: int, other: int, known: int) -> None:
    """Complete words after `known` samples open the final text, whatever follows."""
    past = sound(seed, 2.0)[:known]
    stream = asr.stream(endpointing=False)
    stable = ""
    for event in stream.accept(past):
        assert isinstance(event, Partial)
        stable = event.stable
    for future in (sound(other, 0.5), np.zeros(0, np.float32)):
        samples = np.concatenate([past, future])
        text = " ".join(final.text for final in finals(run(asr.stream(endpointing=False), samples)))
        assert text == stable or not stable or text.startswith(stable + " ")


@quick
@given(seeds, st.integers(1, 20_000))
def test_events_up_to_a_point_are_those_of_the_longer_recording(
    asr: streamasr.Recognizer, seed: int, known: int
) -> None:
    samples = sound(seed, 2.0)
    short, long = asr.stream(), asr.stream()
    slices = every(known, 700)
    early = [event for part in slices for event in short.accept(samples[:known][part])]
    assert [event for part in slices for event in long.accept(samples[:known][part])] == early
    assert long.accept(samples[known:]) is not None


def test_declared_latency_is_the_measured_one(
    tiny: streamasr.Recognizer, plain: streamasr.Recognizer
) -> None:
    """A letter of step s is told exactly `latency_seconds.total` after the step's first sample."""
    chunk = 10
    samples = sound(1, 2.0)
    for asr in (tiny, plain):
        declared = asr.info["latency_seconds"]["total"] * 16_000
        step = round(asr.info["step_seconds"] * 16_000)
        stream = asr.stream(endpointing=False)
        late = []
        for part in every(len(samples), chunk):
            for event in stream.accept(samples[part]):
                assert isinstance(event, Partial)
                if event.volatile:  # its last letter is new
                    first = round(event.words[-1].end * 16_000) - step
                    late.append(event.time * 16_000 - first)
        assert len(late) > 5
        assert min(late) == pytest.approx(declared, abs=chunk)
        assert max(late) == pytest.approx(declared, abs=chunk)
