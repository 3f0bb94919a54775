"""Recognisers for the tests: tiny random ones, made here, and the shipped one where there is one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from strategies import JOINT, PLAIN, random_lstm, random_model

import streamasr
from streamasr import audio, modelfile
from streamasr.search import lexicon, lm, lstm_lm
from streamasr.search.confidence import Calibration, Logistic
from streamasr.search.config import BeamConfig
from streamasr.search.subwords import Subwords

DATA = Path(__file__).parents[2] / "shared" / "data"


# The seeds are those, of 25, whose models say most.


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random model: LSTM, joint normalisation, 30 ms steps."""
    path = tmp_path_factory.mktemp("models") / "joint"
    modelfile.write(path, *random_model(JOINT, seed=7))
    return path


@pytest.fixture(scope="session")
def plain_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random model: LSTM, no normalisation, 40 ms steps, look-ahead of 2."""
    path = tmp_path_factory.mktemp("models") / "plain"
    modelfile.write(path, *random_model(PLAIN, seed=0))
    return path


@pytest.fixture(scope="session")
def tiny(tiny_directory: Path) -> streamasr.Recognizer:
    return streamasr.load(tiny_directory)


@pytest.fixture(scope="session")
def plain(plain_directory: Path) -> streamasr.Recognizer:
    """Says nothing in silence, so its streams meet endpoints."""
    return streamasr.load(plain_directory)


@pytest.fixture(scope="session")
def shipped() -> streamasr.Recognizer:
    return streamasr.load()


@pytest.fixture(scope="session")
def shipped_tiny() -> streamasr.Recognizer:
    return streamasr.load("en-tiny")


@pytest.fixture(scope="session")
def beam(tmp_path_factory: pytest.TempPathFactory) -> streamasr.Recognizer:
    """The plain model with a lexicon and language models of random words, all letters among them."""
    path = tmp_path_factory.mktemp("models") / "beam"
    description, tensors = random_model(PLAIN, seed=0)
    search = BeamConfig(beam=12, lm_weight=0.3, word_bonus=1.0, rescore_weight=0.5)
    calibration = Calibration(-0.07, 0.03, None, None, Logistic(0.3, 0.4, 0.1, -0.5, 0.2))
    description = replace(description, search=search, calibration=calibration)
    modelfile.write(path, description, tensors)
    rng = np.random.default_rng(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz'"]
    words = list(
        dict.fromkeys(letters + ["".join(rng.choice(letters, rng.integers(2, 5))) for _ in range(900)])
    )
    spelt = lexicon.spell(words, description.vocabulary)
    lexicon.build(spelt, len(description.vocabulary)).write(path / "lexicon.safetensors")
    known = ["<unk>", "<s>", *words]
    pairs = np.unique(rng.integers(1, len(known), (3000, 2)).astype(np.int32), axis=0)
    one = np.arange(len(known), dtype=np.int32)[:, None]
    orders = [
        (one, -rng.uniform(1, 8, len(one)), -rng.uniform(0, 1, len(one))),
        (pairs, -rng.uniform(0, 4, len(pairs)), np.zeros(len(pairs))),
    ]
    lm.build(known, orders).write(path / "lm.safetensors")
    pieces = ["\n", *letters, *(f"{letter} " for letter in letters), "th", "the ", "qu"]
    lstm_lm.write(path, Subwords(pieces), random_lstm(len(pieces), seed=1), {})
    return streamasr.load(path)


@pytest.fixture(scope="session", params=["tiny", "plain", "beam", "shipped", "shipped_tiny"])
def asr(request: pytest.FixtureRequest) -> streamasr.Recognizer:
    """Each recogniser in turn: what must hold for every model."""
    recognizer: streamasr.Recognizer = request.getfixturevalue(request.param)
    return recognizer


@pytest.fixture(scope="session")
def recordings() -> list[NDArray[np.float32]]:
    """A few short recordings of speech, 16 kHz, cut dead as they are."""
    listing = DATA / "librispeech-dev.jsonl"
    if not listing.exists():
        pytest.skip("no recordings beside the repository")
    found = []
    with listing.open() as lines:
        for line in lines:
            utterance = json.loads(line)
            if utterance["duration"] < 3.5 and (DATA / utterance["audio"]).exists():
                samples, sample_rate = audio.read(DATA / utterance["audio"])
                if sample_rate == 16_000:
                    found.append(samples)
            if len(found) == 3:
                return found
    pytest.skip("no short recordings at 16 kHz beside the repository")
