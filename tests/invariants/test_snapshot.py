"""6. A snapshot continues exactly, also in another process; a wrong one is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import quick, run, seeds, sound, thorough

import streamasr
from streamasr import EndpointRule, SnapshotError, audio


@quick
@given(seeds, st.sampled_from([8_000, 16_000, 44_100]), st.floats(0, 1))
def test_resume(asr: streamasr.Recognizer, seed: int, rate: int, share: float) -> None:
    samples = sound(seed, 1.2, rate)
    cut = int(share * len(samples))
    stream = asr.stream(rate, endpointing=[EndpointRule(silence_seconds=0.3)])
    stream.accept(samples[:cut])
    data = stream.snapshot()
    resumed = asr.resume(data)
    assert resumed.snapshot() == data and resumed.time == stream.time
    assert run(resumed, samples[cut:]) == run(stream, samples[cut:])


RESUME = """
import json, sys
import numpy as np
import streamasr
model, folder = sys.argv[1:]
stream = streamasr.load(model).resume(open(folder + "/snapshot", "rb").read())
events = stream.accept(np.load(folder + "/rest.npy")) + stream.finish()
print(json.dumps([event.to_dict() for event in events]))
"""


def in_another_process(
    model: str, folder: Path, stream: streamasr.Stream, samples: NDArray[np.float32]
) -> None:
    stream.accept(samples[:17_001])
    (folder / "snapshot").write_bytes(stream.snapshot())
    np.save(folder / "rest.npy", samples[17_001:])
    out = subprocess.check_output([sys.executable, "-c", RESUME, model, str(folder)], text=True)
    expected = [event.to_dict() for event in run(stream, samples[17_001:])]
    assert json.loads(out) == expected and expected


def test_another_process(tiny: streamasr.Recognizer, tiny_directory: Path, tmp_path: Path) -> None:
    in_another_process(str(tiny_directory), tmp_path, tiny.stream(22_050), sound(5, 2.0))


def test_another_process_shipped(shipped: streamasr.Recognizer, tmp_path: Path) -> None:
    samples, rate = audio.read(Path(__file__).parents[2] / "demo" / "samples" / "water.flac")
    in_another_process("en", tmp_path, shipped.stream(rate), samples)


@thorough
@given(st.data())
def test_damage_is_noticed(tiny: streamasr.Recognizer, data: st.DataObject) -> None:
    stream = tiny.stream()
    stream.accept(sound(1, 0.5))
    content = bytearray(stream.snapshot())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SnapshotError):
        tiny.resume(bytes(content))


def test_a_snapshot_is_small(asr: streamasr.Recognizer) -> None:
    """State, not weights: what the network carries, and a kilobyte or so for every hypothesis."""
    stream = asr.stream()
    stream.accept(sound(2, 2.0))
    assert len(stream.snapshot()) < 30_000 + 1_400 * asr.model.description.search.beam
