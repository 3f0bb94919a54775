"""What becomes of the encoder's memory at an endpoint: carry, reset, overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import cuts, every, finals, quick, run, seeds, sound

import streamasr
from streamasr import ConfigError, EndpointRule
from streamasr.stream import AT_ENDPOINT

RULES = [EndpointRule(silence_seconds=0.2), EndpointRule(length_seconds=0.5)]
NEVER = [EndpointRule(silence_seconds=1000.0)]


@pytest.fixture(scope="module", params=["tiny", "plain", "beam"])
def asr(request: pytest.FixtureRequest) -> streamasr.Recognizer:
    """The plain model, also under the beam, has a look-ahead: its steps are told later than computed."""
    recognizer: streamasr.Recognizer = request.getfixturevalue(request.param)
    return recognizer


@pytest.fixture(params=AT_ENDPOINT)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_policies_differ(asr: streamasr.Recognizer) -> None:
    """Else the tests here would test nothing."""
    told = [
        asr.transcribe(sound(1, 6.0), 16_000, endpointing=RULES, at_endpoint=each) for each in AT_ENDPOINT
    ]
    assert all(len(transcript.segments) > 3 for transcript in told)
    assert told[0] != told[1] != told[2] != told[0]


@quick
@given(seeds, st.sampled_from([16_000, 44_100]), st.sampled_from(AT_ENDPOINT), st.data())
def test_any_chunks(
    asr: streamasr.Recognizer, seed: int, rate: int, policy: str, data: st.DataObject
) -> None:
    samples = sound(seed, 3.0, rate)
    slices = data.draw(cuts(len(samples)))

    def told(slices: list[slice] | None) -> list[Any]:
        return finals(run(asr.stream(rate, endpointing=RULES, at_endpoint=policy), samples, slices))

    assert told(slices) == told(None) == told(every(len(samples), 1_111))


@quick
@given(seeds, st.floats(0, 1), st.sampled_from(AT_ENDPOINT))
def test_snapshot_midway(asr: streamasr.Recognizer, seed: int, share: float, policy: str) -> None:
    samples = sound(seed, 3.0)
    cut = int(share * len(samples))
    stream = asr.stream(endpointing=RULES, at_endpoint=policy)
    stream.accept(samples[:cut])
    data = stream.snapshot()
    resumed, twin = asr.resume(data), stream.copy()
    assert resumed.snapshot() == data
    expected = run(stream, samples[cut:])
    assert run(resumed, samples[cut:]) == run(twin, samples[cut:]) == expected
    stream.reset()
    assert run(stream, samples) == run(asr.stream(endpointing=RULES, at_endpoint=policy), samples)


def test_the_state_is_bounded(asr: streamasr.Recognizer, policy: str) -> None:
    stream = asr.stream(endpointing=RULES, at_endpoint=policy)
    sizes = []
    for _ in range(8):
        stream.accept(sound(1, 4.0))
        sizes.append(len(stream.snapshot()))
    assert max(sizes[4:]) <= max(sizes[:4]) + 4_000


def test_without_an_endpoint_all_are_the_same(asr: streamasr.Recognizer, policy: str) -> None:
    samples = sound(2, 3.0)
    expected = run(asr.stream(endpointing=NEVER), samples)
    assert run(asr.stream(endpointing=NEVER, at_endpoint=policy), samples) == expected


def test_an_overlap_over_all_that_was_heard_is_the_memory_itself(asr: streamasr.Recognizer) -> None:
    """Two seconds: endpoints before that lose nothing."""
    samples = sound(3, 1.9)
    expected = run(asr.stream(endpointing=RULES), samples)
    assert len(finals(expected)) > 1
    assert run(asr.stream(endpointing=RULES, at_endpoint="overlap"), samples) == expected


def log_probs(asr: streamasr.Recognizer, frames: NDArray[np.float32], policy: str, at: int) -> Any:
    """Rows [S, V] of the encoder whose memory is changed after row `at` has come out."""
    encoder, k = asr._encoder, asr._encoder.frames_per_step
    state, rows = encoder.start(), []
    for begin in range(0, len(frames) // k * k, k):
        rows += list(encoder.advance(state, frames[begin : begin + k]))
        if len(rows) == at + 1 and policy == "reset":
            state.h, state.c = np.zeros_like(state.h), np.zeros_like(state.c)
            at = -1
        elif len(rows) == at + 1 and policy == "overlap":
            state, overlap = encoder.start(), round(2.0 / 0.01 / k) * k
            encoder.advance(state, frames[max(begin + k - overlap, 0) : begin + k])
            at = -1
    return np.stack(rows)


def test_what_the_search_hears(tiny: streamasr.Recognizer, plain: streamasr.Recognizer, policy: str) -> None:
    samples, at = sound(5, 6.0), 90
    for asr in (tiny, plain):
        stream = asr.stream(at_endpoint=policy)
        heard: list[NDArray[np.float32]] = []
        for part in every(len(samples), 1_700):
            frames = asr._features.advance(stream._state.features, samples[part])
            for rows, _ in stream._steps(frames):
                heard += list(rows)
                if len(rows) and len(heard) == at + 1:
                    stream._restart(stream._state)
        frames = asr._features.advance(asr._features.start(), samples)
        np.testing.assert_array_equal(np.stack(heard), log_probs(asr, frames, policy, at))


def test_an_unknown_policy(tiny: streamasr.Recognizer) -> None:
    with pytest.raises(ConfigError, match="at_endpoint 'forget' is unknown; there are carry, reset, overlap"):
        tiny.stream(at_endpoint="forget")
