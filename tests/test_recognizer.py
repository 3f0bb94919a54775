from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import every, finals, run, sound

import streamasr
from streamasr import (
    AudioError,
    ConfigError,
    EndpointRule,
    Final,
    ModelError,
    Partial,
    SnapshotError,
    StreamClosedError,
)
from streamasr.search import Hypothesis, lexicon
from streamasr.state import copy

SOUND = sound(1, 3.0)


def test_the_random_models_say_something(tiny: streamasr.Recognizer, plain: streamasr.Recognizer) -> None:
    """Else the tests here would test little."""
    for asr in (tiny, plain):
        transcript = asr.transcribe(SOUND, 16_000, endpointing=False)
        assert len(transcript.text) > 15 and len(transcript.words) > 3, transcript.text


def test_events(asr: streamasr.Recognizer) -> None:
    stream = asr.stream()
    events = [event for part in every(len(SOUND), 1600) for event in stream.accept(SOUND[part])]
    assert stream.time == 3.0
    events += stream.finish()
    assert all(isinstance(event, Partial | Final) for event in events)
    for final in finals(events):
        assert final.text == " ".join(word.text for word in final.words) != ""
        assert final.start == final.words[0].start and final.end == final.words[-1].end
        assert 0.0 <= final.confidence <= 1.0
        for word in final.words:
            assert 0.0 <= word.start <= word.end <= 3.0 and 0.0 <= word.confidence <= 1.0
            assert word.text and " " not in word.text
        assert [word.start for word in final.words] == sorted(word.start for word in final.words)
    numbers = [final.segment for final in finals(events)]
    assert numbers == list(range(len(numbers)))
    json.dumps([event.to_dict() for event in events])


def test_a_partial_tells_something_new(tiny: streamasr.Recognizer) -> None:
    stream = tiny.stream(endpointing=False)
    told = [e for part in every(len(SOUND), 800) for e in stream.accept(SOUND[part])]
    assert len(told) > 10
    texts = [(event.stable, event.volatile) for event in told if isinstance(event, Partial)]
    assert all(one != two for one, two in itertools.pairwise(texts))


def test_endpoint_by_silence(plain: streamasr.Recognizer) -> None:
    gap = np.zeros(24_000, np.float32)
    events = run(plain.stream(), np.concatenate([SOUND, gap, SOUND, gap, SOUND]))
    assert [final.reason for final in finals(events)] == ["endpoint:silence", "endpoint:silence", "finish"]
    assert len(finals(run(plain.stream(endpointing=False), np.concatenate([SOUND, gap, SOUND])))) == 1
    rules = [EndpointRule(silence_seconds=2.0)]
    assert len(finals(run(plain.stream(endpointing=rules), np.concatenate([SOUND, gap, SOUND])))) == 1


def test_endpoint_by_length(tiny: streamasr.Recognizer) -> None:
    found = finals(run(tiny.stream(endpointing=[EndpointRule(length_seconds=0.5)]), SOUND))
    assert len(found) > 2 and {final.reason for final in found[:-1]} == {"endpoint:length"}
    # Ends of segments cut no word: the words are those of one long segment.
    whole = tiny.transcribe(SOUND, 16_000, endpointing=False)
    assert tuple(word for final in found for word in final.words) == whole.words


def test_silence_and_nothing_say_nothing(plain: streamasr.Recognizer) -> None:
    assert run(plain.stream(), np.zeros(50_000, np.float32)) == []
    assert plain.stream().finish() == []
    stream = plain.stream()
    assert stream.accept(np.zeros(0, np.int16)) == [] and stream.finish() == []
    assert plain.transcribe(np.zeros(1, np.float32), 16_000).text == ""
    with pytest.raises(streamasr.AudioError, match="samples: holds no samples"):
        plain.transcribe(np.zeros(0, np.float32), 16_000)


def test_a_bad_sample_is_counted_from_the_start_of_the_chunk(plain: streamasr.Recognizer) -> None:
    samples = np.zeros(200_000, np.float32)
    samples[180_000] = np.nan  # in the second of the pieces that a long chunk is cut into
    with pytest.raises(streamasr.AudioError, match="sample 180000 is nan"):
        plain.stream().accept(samples)


def test_transcribe_is_a_stream(asr: streamasr.Recognizer) -> None:
    stream = asr.stream(44_100)
    samples = sound(2, 1.5, 44_100)
    expected = finals(run(stream, samples))
    transcript = asr.transcribe(samples, 44_100)
    assert transcript.segments == tuple(expected)
    assert transcript.duration == stream.time == pytest.approx(1.5)


def test_transcribe_file(tiny: streamasr.Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    whole = (SOUND * 32767).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes(whole.astype("<i2").tobytes())
    expected = tiny.transcribe(whole, 22_050)
    assert expected.text
    assert tiny.transcribe(path) == tiny.transcribe(str(path)) == expected
    with pytest.raises(AudioError, match="brings its own sample rate"):
        tiny.transcribe(path, 16_000)
    with pytest.raises(AudioError, match="missing"):
        tiny.transcribe(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="without their rate"):
        tiny.transcribe(SOUND)


def test_dtypes_agree(tiny: streamasr.Recognizer) -> None:
    whole = (SOUND * 32767).astype(np.int16)
    expected = tiny.transcribe(whole, 16_000)
    for same in (whole / np.float32(32768), whole / 32768.0, np.repeat(whole, 2)[::2]):
        assert tiny.transcribe(same, 16_000) == expected


BAD_SAMPLES = [
    np.zeros((10, 2), np.float32),
    np.zeros((1, 1, 1), np.float32),
    np.zeros(10, np.int32),
    np.zeros(10, np.uint8),
    np.zeros(10, np.complex64),
    np.zeros(10, bool),
    np.array(["x"]),
    np.array([0.0, np.nan], np.float32),
    np.array([0.0, -np.inf]),
    np.array([1e30], np.float32),
    np.array(1.0),
    b"bytes",
    None,
    [[1.0, 2.0], [3.0]],
]


@pytest.mark.parametrize("bad", BAD_SAMPLES, ids=lambda bad: str(bad)[:20])
def test_bad_samples_leave_the_stream_as_it_was(tiny: streamasr.Recognizer, bad: Any) -> None:
    stream = tiny.stream()
    events = stream.accept(SOUND[:20_000])
    before = stream.snapshot()
    with pytest.raises(AudioError) as error:
        stream.accept(bad)
    assert "\n" not in str(error.value)
    assert stream.snapshot() == before
    assert events + run(stream, SOUND[20_000:]) == run(
        tiny.stream(), SOUND, [slice(20_000), slice(20_000, None)]
    )


def test_a_bad_sample_late_in_a_long_chunk_changes_nothing(tiny: streamasr.Recognizer) -> None:
    stream = tiny.stream()
    before = stream.snapshot()
    long = np.zeros(16_000 * 25, np.float32)
    long[-1] = np.nan
    with pytest.raises(AudioError):
        stream.accept(long)
    assert stream.snapshot() == before


@pytest.mark.parametrize("rate", [0, -1, 1, 10**9, 16_000.5, "16000", None, True])
def test_bad_rates(tiny: streamasr.Recognizer, rate: Any) -> None:
    with pytest.raises(AudioError, match="rate"):
        tiny.stream(rate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": "best"}, "best"),
        ({"hotwords": ["so"]}, "hotwords"),
        ({"search": "greedy", "hotwords": ["so"]}, "hotwords"),
        ({"endpointing": "on"}, "endpointing"),
        ({"endpointing": [3]}, "endpointing"),
        ({"endpointing": 1.0}, "endpointing"),
    ],
)
def test_bad_options(tiny: streamasr.Recognizer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.stream(**options)
    with pytest.raises(ConfigError, match=message):
        tiny.transcribe(SOUND, 16_000, **options)


def test_finished(tiny: streamasr.Recognizer) -> None:
    stream = tiny.stream()
    stream.accept(SOUND)
    stream.finish()
    twin = stream.copy()
    calls = [stream.finish, stream.preview, stream.snapshot, twin.finish, lambda: stream.accept(SOUND)]
    for call in calls:
        with pytest.raises(StreamClosedError, match="reset"):
            call()
    with pytest.raises(StreamClosedError):
        tiny.accept_batch([stream], [SOUND])
    assert stream.time == 3.0


def test_batch_is_checked_before_any_stream_moves(tiny: streamasr.Recognizer) -> None:
    one, two = tiny.stream(), tiny.stream()
    with pytest.raises(AudioError):
        tiny.accept_batch([one, two], [SOUND, np.zeros((2, 2))])
    assert one.time == 0.0
    with pytest.raises(ConfigError, match="twice"):
        tiny.accept_batch([one, one], [SOUND, SOUND])
    with pytest.raises(ConfigError, match="1 chunks"):
        tiny.accept_batch([one, two], [SOUND])
    assert tiny.accept_batch([], []) == []


def test_info(asr: streamasr.Recognizer) -> None:
    info = json.loads(json.dumps(asr.info))
    parts = info["latency_seconds"]
    assert parts.pop("total") == pytest.approx(sum(parts.values()))
    assert set(parts) == {"window", "subsampling", "look_ahead"}
    assert info["sample_rate"] == 16_000 and info["parameters"] > 0
    assert info["vocabulary"]["tokens"][0] == "<blank>"


def test_a_guess_that_comes_to_nothing_is_taken_back(
    plain: streamasr.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = plain.stream()
    shown = [event for event in stream.accept(SOUND) if isinstance(event, Partial)]
    assert shown and shown[-1].volatile
    monkeypatch.setattr(stream._search, "commit", lambda state, *_: Hypothesis((), 0))
    assert stream.finish() == [Partial(shown[-1].segment, "", "", (), 3.0)]


def test_resume_refuses(tiny: streamasr.Recognizer, plain: streamasr.Recognizer) -> None:
    data = tiny.stream().snapshot()
    with pytest.raises(SnapshotError, match="belongs to model"):
        plain.resume(data)
    for bad in (b"", data[:-5], b"x" + data[1:]):
        with pytest.raises(SnapshotError):
            tiny.resume(bad)


def test_threads_share_a_recognizer(tiny: streamasr.Recognizer) -> None:
    sounds = [sound(seed, 1.0) for seed in range(6)]
    expected = [run(tiny.stream(), samples, every(len(samples), 400)) for samples in sounds]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda samples: run(tiny.stream(), samples, every(len(samples), 400)), sounds)
        assert list(found) == expected


def test_import_is_light() -> None:
    code = (
        "import sys, time, numpy; start = time.process_time();"
        "import streamasr; print(time.process_time() - start);"
        "print([m for m in ('torch', 'numba', 'soundfile', 'scipy', 'librosa') if m in sys.modules])"
    )
    seconds, loaded = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert loaded == "[]"
    # Processor seconds beside numpy's own, whatever else the machine does: 0.05 here.
    assert float(seconds) < 0.3


def test_public_names() -> None:
    assert streamasr.__all__ == [
        *("load", "Recognizer", "Stream", "EndpointRule"),
        *("Event", "Partial", "Final", "Word", "Transcript"),
        *("StreamASRError", "AudioError", "ConfigError", "ManifestError", "MissingDependency"),
        *("ModelError", "SnapshotError", "StreamClosedError"),
    ]
    assert all(hasattr(streamasr, name) for name in streamasr.__all__)


def test_a_model_with_a_lexicon_searches_by_beam(
    beam: streamasr.Recognizer, plain: streamasr.Recognizer
) -> None:
    assert beam.info["search"] == "beam" and plain.info["search"] == "greedy"
    search: Any = beam._beam(True)
    words = set(search.lexicon.words)
    heard = beam.transcribe(SOUND, 16_000)
    assert heard == beam.transcribe(SOUND, 16_000, search="beam") and len(heard.words) > 3
    assert {word.text for word in heard.words} <= words
    greedy = beam.transcribe(SOUND, 16_000, search="greedy")  # the fixture shifts times, so texts alone
    assert greedy.text == plain.transcribe(SOUND, 16_000).text
    assert beam.transcribe(SOUND, 16_000, language_model=False) != heard


def test_files_of_the_search_that_do_not_fit(beam: streamasr.Recognizer, tmp_path: Path) -> None:
    assert beam.model.folder is not None
    folder = shutil.copytree(beam.model.folder, tmp_path / "model")
    (folder / "lexicon.safetensors").unlink()
    with pytest.raises(ModelError, match="lm.safetensors: needs a lexicon beside it.*data.lexicon"):
        streamasr.load(folder).stream(search="beam")
    assert streamasr.load(folder).stream(search="beam", language_model=False)
    words = lexicon.build([("so", [1, 2])], 5)
    words.write(folder / "lexicon.safetensors")
    with pytest.raises(ModelError, match="lexicon.safetensors: is spelt in 5 tokens, the model has 29"):
        streamasr.load(folder).stream()
    vocabulary = beam.model.description.vocabulary
    spelt = lexicon.spell(["zebra", "zebu", "zest"], vocabulary)
    lexicon.build(spelt, len(vocabulary)).write(folder / "lexicon.safetensors")
    with pytest.raises(ModelError, match="lexicon.safetensors: the language model knows 0 of .* 3 words"):
        streamasr.load(folder).stream()


def test_hotwords_of_a_stream(beam: streamasr.Recognizer) -> None:
    stream, other = beam.stream(hotwords=[("qqxv", 60.0)]), beam.stream()
    stream.accept(SOUND), other.accept(SOUND)
    resumed = beam.resume(stream.snapshot())
    assert resumed.snapshot() == stream.snapshot()
    assert finals(run(resumed, SOUND)) == finals(run(stream, SOUND))
    other.set_hotwords([("zz", 9.0)])
    other.set_hotwords([])
    with pytest.raises(ConfigError, match="'é'"):
        other.set_hotwords(["café"])
    with pytest.raises(ConfigError, match="nbest: a whole number of texts, 1 or more, not 1.5"):
        other.nbest(1.5)  # type: ignore[arg-type]
    texts = other.nbest(5)
    assert len(texts) == 5 and texts == sorted(texts, key=lambda pair: -pair[1])
    assert texts[0][0] == other.preview().text
    greedy = beam.stream(search="greedy")
    for call in (lambda: greedy.set_hotwords(["so"]), lambda: greedy.nbest(2)):
        with pytest.raises(ConfigError, match='search="beam"'):
            call()


def test_a_snapshot_of_a_beam_is_checked(beam: streamasr.Recognizer) -> None:
    stream = beam.stream()
    stream.accept(SOUND)
    search: Any = stream._search
    for column, value in (
        (1, 1 << 40),
        (2, -1),
        (3, 1 << 40),
        (4, 9),
        (6, 1 << 40),
        (8, 1 << 20),
        (11, 1 << 20),
    ):
        state: Any = copy(stream._state.search)
        ints = state.ints
        ints[0, column] = value
        with pytest.raises(SnapshotError, match="does not fit"):
            search.check(state)
    search.check(stream._state.search)


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint16])
def test_a_rate_may_be_a_number_of_numpys(kind: type, tiny: streamasr.Recognizer) -> None:
    stream = tiny.stream(kind(16_000))
    stream.accept(SOUND)
    assert tiny.resume(stream.snapshot()).time == stream.time and type(stream.time) is float


def test_options_that_are_no_yes_or_no(beam: streamasr.Recognizer) -> None:
    with pytest.raises(ConfigError, match="language_model 'no': must be True or False"):
        beam.stream(language_model="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rescore 'yes'"):
        beam.stream(rescore="yes")  # type: ignore[arg-type]
