"""1. Any way of cutting the samples gives the same finals, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cuts, every, finals, quick, run, seeds, sound

import streamasr
from streamasr import EndpointRule

RATES = (8_000, 11_025, 16_000, 48_000)


@quick
@given(seeds, st.sampled_from(RATES), st.data())
def test_ragged(asr: streamasr.Recognizer, seed: int, rate: int, data: st.DataObject) -> None:
    samples = sound(seed, 1.5, rate)
    slices = data.draw(cuts(len(samples)))
    assert finals(run(asr.stream(rate), samples, slices)) == finals(run(asr.stream(rate), samples))


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_one_sample_at_a_time(asr: streamasr.Recognizer, rate: int) -> None:
    samples = sound(3, 0.4, rate)
    one_by_one = run(asr.stream(rate), samples, every(len(samples), 1))
    assert finals(one_by_one) == finals(run(asr.stream(rate), samples))


@pytest.mark.parametrize("size", [160, 479, 1_600, 7_777])
def test_endpoints_do_not_move(asr: streamasr.Recognizer, size: int) -> None:
    """Segments, reasons and numbers too, with silences and a short length rule."""
    gap = np.zeros(9_000, np.float32)
    samples = np.concatenate([sound(4, 1.5), gap, sound(5, 0.5), gap, sound(6, 1.0)])
    rules = [EndpointRule(silence_seconds=0.4), EndpointRule(length_seconds=0.6)]

    def stream() -> streamasr.Stream:
        return asr.stream(endpointing=rules)

    assert finals(run(stream(), samples, every(len(samples), size))) == finals(run(stream(), samples))


def test_a_chunk_longer_than_the_inner_block(tiny: streamasr.Recognizer) -> None:
    samples = sound(7, 23.0)
    whole = finals(run(tiny.stream(), samples))
    assert finals(run(tiny.stream(), samples, every(len(samples), 16_000))) == whole
    assert len(whole) >= 2


def test_speech(asr: streamasr.Recognizer, recordings: list[Any]) -> None:
    for samples in recordings:
        whole = finals(run(asr.stream(), samples))
        for size in (320, 1_000, 4_096):
            assert finals(run(asr.stream(), samples, every(len(samples), size))) == whole
