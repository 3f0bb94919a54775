"""3. `finish` tells everything that was heard, also when the recording is cut dead on its last sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import finals, quick, run, seeds, sound

import streamasr
from streamasr.features import LogMel


def text_of_whole(asr: streamasr.Recognizer, samples: np.ndarray[Any, Any]) -> str:
    """By the formula of docs/design.md: pad, run the stages once over all, collapse."""
    model = asr.model.description
    k, flush = model.encoder.frames_per_step, model.encoder.flush_steps
    frames = -(-max(len(samples) - 400, 0) // 160) + 1
    frames = (-(-frames // k) + flush) * k
    padded = np.concatenate([samples, np.zeros(160 * (frames - 1) + 400 - len(samples), np.float32)])
    features = LogMel(model.features, asr.model.tensors["features.mean"], asr.model.tensors["features.std"])
    stream: Any = asr.stream()
    encoder, search = stream._encoder, stream._search
    state = encoder.start()
    log_probs = [encoder.advance(state, features.advance(features.start(), padded)), encoder.finish(state)]
    assert sum(map(len, log_probs)) == frames // k
    searching = search.start()
    for block in log_probs:
        search.advance(searching, block)
    return " ".join(word.text for word in search.commit(searching).words)


@quick
@given(seeds, st.integers(1, 20_000))
def test_exactly_the_declared_flush(asr: streamasr.Recognizer, seed: int, count: int) -> None:
    samples = sound(seed, 2.0)[:count]
    found = finals(run(asr.stream(endpointing=False), samples))
    assert " ".join(final.text for final in found) == text_of_whole(asr, samples)


def test_shortest_recordings(asr: streamasr.Recognizer) -> None:
    samples = sound(1, 0.2)
    for count in (1, 2, 159, 160, 399, 400, 401, 560, 561):
        found = finals(run(asr.stream(endpointing=False), samples[:count]))
        assert " ".join(final.text for final in found) == text_of_whole(asr, samples[:count])
        assert all(word.end <= count / 16_000 for final in found for word in final.words)


def test_other_rates_lose_no_sample(tiny: streamasr.Recognizer) -> None:
    """A click on the very last sample is heard at any rate."""
    for rate in (8_000, 16_000, 44_100):
        quiet = np.zeros(rate, np.float32)
        loud = quiet.copy()
        loud[-1] = 1.0
        assert tiny.transcribe(quiet, rate) != tiny.transcribe(loud, rate)


def test_the_last_word_of_speech(shipped: streamasr.Recognizer, recordings: list[Any]) -> None:
    """Cut dead or followed by a second of silence: the same last word (most; silence is other input)."""
    same = 0
    for samples in recordings:
        dead = shipped.transcribe(samples, 16_000)
        followed = shipped.transcribe(np.concatenate([samples, np.zeros(16_000, np.float32)]), 16_000)
        same += dead.words[-1].text == followed.words[-1].text
        assert abs(len(dead.words) - len(followed.words)) <= 1
    assert same >= len(recordings) - 1
