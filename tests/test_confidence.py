"""What a word's confidence is made of: the evidence against brute force, the map, its fit, the file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import PLAIN, quick, random_model
from test_beam import VOCABULARY, bigram, lexicon_of, random_log_probs

import streamasr
from streamasr import modelfile
from streamasr.data.manifest import Utterance, write
from streamasr.errors import ConfigError, ModelError
from streamasr.evaluate import calibrate, calibration
from streamasr.search.beam import BeamSearch
from streamasr.search.confidence import RAW, Calibration, Evidence, Logistic
from streamasr.search.config import BeamConfig
from streamasr.search.greedy import GreedySearch

CALIBRATION = Calibration(-0.05, 0.02, Logistic(0.1, 0.5, 0.2), None, Logistic(0.3, 0.4, 0.1, -0.5, 0.2))


def heard(log_probs: NDArray[np.float32], sizes: list[int]) -> tuple[list[str], list[Evidence]]:
    """log_probs in chunks of those sizes -> words, and the evidence for each."""
    recorder = calibrate.Recorder()
    search = BeamSearch(VOCABULARY, BeamConfig(beam=8), lexicon_of(VOCABULARY), bigram(), confidence=recorder)
    s, done = search.start(), 0
    for size in [*sizes, len(log_probs)]:
        search.advance(s, log_probs[done : done + size])
        search.best(s)
        done += size
    words = search.commit(s).words
    return [word.text for word in words], [recorder.noted[int(word.confidence)] for word in words]


@pytest.mark.parametrize("seed", range(5))
def test_evidence_is_that_of_the_best_alignment(seed: int) -> None:
    """With one alignment far likelier than any other, every sum can be written down."""
    rng = np.random.default_rng(seed)
    texts = [str(rng.choice(["ab", "ba", "bb", "abab"])) for _ in range(12)]
    path = [token for text in texts for letter in VOCABULARY.encode(text + " ") for token in (letter, 0)]
    log_probs = np.full((len(path), 4), -12.0, np.float32)
    said = np.log(rng.uniform(0.3, 0.4, len(path)))
    log_probs[np.arange(len(path)), path] = said
    # A rival that no word can be made of: a space or a blank at its place would be heard.
    doubted = [i for i, token in enumerate(path) if token == 0 and i % 3 == 0 and path[i - 1] > 1]
    for i in doubted:
        log_probs[i, 1] = said[i] - 5.0
    words, evidence = heard(log_probs, [7, 1, 30])
    assert words == texts
    model, at, place = bigram(), bigram().start, 0
    for text, found in zip(texts, evidence, strict=True):
        letters = np.arange(place, place + 2 * len(text), 2)
        log_prob, at = model.score(at, model.id_of(text))
        assert found.tokens == len(text)
        assert found.sound == pytest.approx(math.exp(said[letters].mean()), rel=1e-5)
        assert found.language == pytest.approx(log_prob, abs=1e-5)
        assert found.loss == pytest.approx(0.0, abs=1e-5)  # the best path is the likeliest of every step
        place += 2 * len(text) + 2


def test_loss_is_what_the_likeliest_tokens_would_have_had() -> None:
    """The lexicon has no word "aa": its sound costs the difference to the likeliest tokens."""
    steps = np.log(np.array([[0.05, 0.05, 0.8, 0.1], [0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]], np.float32))
    words, (found,) = heard(steps, [])
    assert words in (["a"], ["ab"], ["ah"], ["ba"])
    spelt = {"a": [[2, 0, 0], [2, 2, 2], [2, 2, 0], [0, 0, 2]], "ab": [[2, 0, 3], [2, 3, 3], [2, 2, 3]]}
    losses = [float(steps.max(1).sum() - steps[range(3), p].sum()) for p in spelt.get(words[0], spelt["a"])]
    assert found.loss == pytest.approx(min(losses), abs=1e-5)


@quick
@given(st.integers(0, 50), st.lists(st.integers(1, 9), max_size=8))
def test_evidence_does_not_depend_on_chunks(seed: int, sizes: list[int]) -> None:
    log_probs = random_log_probs(60, 4, seed)
    assert heard(log_probs, sizes) == heard(log_probs, [])


def test_a_word_that_is_listened_for_is_likelier() -> None:
    found = []
    for phrases in ([], [("bb", 1e-6)], [("bb", 0.5)]):
        recorder = calibrate.Recorder()
        search = BeamSearch(
            VOCABULARY,
            BeamConfig(beam=8, lm_weight=0.5),
            lexicon_of(VOCABULARY),
            bigram(),
            phrases=phrases,
            confidence=recorder,
        )
        s = search.start()
        search.advance(s, np.repeat(np.log(np.eye(4, dtype=np.float32)[[3, 0, 3]] * 0.96 + 0.01), 2, 0))
        (word,) = search.commit(s).words
        assert word.text == "bb"
        found.append(recorder.noted[int(word.confidence)].language)
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert found[2] == pytest.approx(min(found[0] + 1.0, 0.0))


def test_weights() -> None:
    evidence = Evidence(0.8, 5, 4.0, -3.0)
    x = 0.3 + 0.4 * math.log(4.0) + 0.1 * 5 - 0.5 * 2.0 + 0.2 * -3.0
    assert CALIBRATION.beam is not None
    assert CALIBRATION.beam.of(evidence) == pytest.approx(1 / (1 + math.exp(-x)))
    assert RAW.of(evidence) == 0.8
    assert 0.0 <= Logistic(-1e6, 0.0, 0.0).of(evidence) < 1e-300
    assert 0.0 < Logistic(0.0, 1.0, 0.0).of(Evidence(1.0, 1)) < 1.0  # a sure word has a logarithm too


def test_fit_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(1)
    truth = Logistic(0.5, 0.7, 0.2, -0.6, 0.3)
    evidence = [
        Evidence(rng.uniform(0.05, 0.99), int(rng.integers(1, 9)), rng.gamma(2.0), -rng.gamma(2.0))
        for _ in range(20_000)
    ]
    right = [bool(rng.random() < truth.of(each)) for each in evidence]
    found = calibrate.fit(evidence, right)
    assert list(vars(found).values()) == pytest.approx(list(vars(truth).values()), abs=0.08)
    assert calibrate.fit([each._replace(language=0.0) for each in evidence], right).language == 0.0
    with pytest.raises(ConfigError, match="all are right"):
        calibrate.fit(evidence[:3], [True, True, True])


def test_area_under_the_curve_counts_pairs() -> None:
    sure, right = np.array([0.1, 0.4, 0.4, 0.9, 0.2]), np.array([False, True, False, True, True])
    pairs = [(a > b) + (a == b) / 2 for a in sure[right] for b in sure[~right]]
    words = list(zip(sure.tolist(), right.tolist(), strict=True))
    assert calibration.area(words) == pytest.approx(np.mean(pairs))
    assert calibration.area(words[:1]) is calibration.area([]) is None


def test_greedy_search_tells_calibrated_words() -> None:
    log_probs = random_log_probs(40, 4, 3)
    weights = Logistic(0.2, 0.9, -0.1)
    told = []
    for confidence in (RAW, weights):
        search = GreedySearch(VOCABULARY, confidence)
        s = search.start()
        search.advance(s, log_probs)
        told.append(search.commit(s).words)
    for raw, word in zip(*told, strict=True):
        assert word == replace(raw, confidence=weights.of(Evidence(raw.confidence, len(raw.text))))


def test_calibration_is_part_of_the_model(tmp_path: Path) -> None:
    description, tensors = random_model(PLAIN)
    modelfile.write(tmp_path / "m", description, tensors)
    assert "calibration" not in json.loads((tmp_path / "m" / "model.json").read_text())
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    modelfile.write_description(tmp_path / "m", replace(description, calibration=CALIBRATION))
    assert modelfile.read(tmp_path / "m").description.calibration == CALIBRATION
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beem": {}}, "calibration: unknown key 'beem'; did you mean 'beam'?"),
        ({"start_seconds": 3}, "calibration.start_seconds: must be -1 to 1"),
        ({"beam": {"bias": 1.0}}, "calibration.beam: lacks"),
        ({"beam": dict(vars(CALIBRATION.beam), bias="x")}, "calibration.beam.bias: must be a finite number"),  # type: ignore[arg-type]
        ([], "calibration: must be dict"),
    ],
)
def test_wrong_calibrations_are_named(wrong: object, message: str) -> None:
    found = random_model(PLAIN)[0].to_dict() | {"calibration": wrong}
    with pytest.raises(ModelError, match=message.replace("?", r"\?")):
        modelfile.parse_description(json.dumps(found).encode(), "m")


def test_calibrating_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    description, tensors = random_model(PLAIN)
    modelfile.write(tmp_path / "m", description, tensors)
    rng = np.random.default_rng(6)
    recognizer = streamasr.load(tmp_path / "m")
    listed = []
    for i in range(8):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, 0.2 * rng.standard_normal(16_000), 16_000)
        words = recognizer.transcribe(path).text.split()
        text = " ".join(word if k % 2 else "qqqq" for k, word in enumerate(words))
        listed.append(Utterance(f"u{i}", path, 1.0, text, None))
    write(tmp_path / "dev.jsonl", listed)
    monkeypatch.setattr("sys.argv", ["calibrate", str(tmp_path / "m"), str(tmp_path / "dev.jsonl")])
    assert calibrate.main() == 0
    assert "greedy dev" in capsys.readouterr().out
    fitted = modelfile.read(tmp_path / "m").description.calibration
    assert fitted.greedy is not None and fitted.beam is None
    again = streamasr.load(tmp_path / "m")
    for utterance in listed:
        raw, told = recognizer.transcribe(utterance.audio), again.transcribe(utterance.audio)
        assert raw.text == told.text
        for a, b in zip(raw.words, told.words, strict=True):
            assert b.confidence == fitted.greedy.of(Evidence(a.confidence, len(a.text)))
