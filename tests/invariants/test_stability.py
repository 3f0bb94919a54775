"""7. The stable part is a prefix of every later text of its segment; `preview` changes nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import every, finals, quick, run, seeds, sound

import streamasr
from streamasr import EndpointRule, Partial


def opens(stable: str, text: str) -> bool:
    return not stable or text == stable or text.startswith(stable + " ")


@quick
@given(seeds, st.sampled_from([160, 900, 5_000]))
def test_stable_prefix(asr: streamasr.Recognizer, seed: int, size: int) -> None:
    samples = sound(seed, 2.5)
    rules = [EndpointRule(silence_seconds=0.3), EndpointRule(length_seconds=1.0)]
    stable: dict[int, str] = {}
    for event in run(asr.stream(endpointing=rules), samples, every(len(samples), size)):
        assert opens(stable.get(event.segment, ""), event.text)
        if isinstance(event, Partial):
            assert opens(stable.get(event.segment, ""), event.stable)
            stable[event.segment] = event.stable


@quick
@given(seeds, st.integers(0, 20_000))
def test_preview(asr: streamasr.Recognizer, seed: int, known: int) -> None:
    samples = sound(seed, 1.5)
    stream, undisturbed = asr.stream(), asr.stream()
    events = stream.accept(samples[:known])
    before = stream.snapshot()
    partial = stream.preview()
    assert stream.snapshot() == before
    # What it shows is what finishing here would tell, and its stable part holds whatever follows.
    stop = finals(stream.copy().finish())
    assert partial.text == (stop[0].text if stop else "")
    assert partial.words == (stop[0].words if stop else ())
    assert partial.time == stream.time
    rest = run(stream, samples[known:])
    assert events + rest == run(undisturbed, samples, [slice(known), slice(known, None)])
    later = [event for event in rest if event.segment == partial.segment]
    assert all(opens(partial.stable, event.text) for event in later)
