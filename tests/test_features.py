from __future__ import annotations

import numpy as np
import pytest
from contract import check_stage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import load, load_torchaudio

from streamasr.errors import ConfigError
from streamasr.features import FeatureConfig, LogMel, mel_filters

CONFIG = FeatureConfig()


def frames_of(
    stage: LogMel, samples: NDArray[np.float32], cuts: list[int] | None = None
) -> NDArray[np.float32]:
    state = stage.start()
    edges = [0, *(cuts or []), len(samples)]
    parts = [stage.advance(state, samples[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    return np.concatenate([*parts, stage.finish(state)])


def noise(length: int, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def test_filters_are_those_of_librosa_and_torchaudio() -> None:
    ours = mel_filters(CONFIG)
    assert (ours.shape, ours.dtype) == ((257, 80), np.float32)
    librosa = load("librosa.filters")
    theirs = librosa.mel(sr=16000, n_fft=512, n_mels=80, fmin=20, fmax=7600, htk=True, norm=None).T
    np.testing.assert_allclose(ours, theirs, atol=1e-6)  # both in double, rounded to float32 once
    functional = load_torchaudio().functional
    theirs = functional.melscale_fbanks(257, 20.0, 7600.0, 80, 16000, None, "htk").numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5)  # theirs: corner frequencies in float32


def test_agrees_with_torchaudio() -> None:
    transforms = load_torchaudio().transforms
    import torch

    spectrogram = transforms.MelSpectrogram(
        16000, 512, 400, 160, 20.0, 7600.0, n_mels=80, center=False, power=2.0, norm=None, mel_scale="htk"
    )
    samples = noise(16000)
    # Their window of 400 sits in the middle of the 512 samples of the FFT: 56 zeros on either side.
    padded = np.pad(samples, 56)
    theirs = spectrogram(torch.from_numpy(padded)).numpy().T
    ours = frames_of(LogMel(CONFIG), samples)
    assert ours.shape == theirs.shape == (98, 80)
    np.testing.assert_allclose(ours, np.log(theirs), atol=2e-4)  # float32 FFT and corners; measured 2.4e-5


def test_agrees_with_librosa() -> None:
    librosa = load("librosa")
    samples = noise(16000)
    theirs = librosa.feature.melspectrogram(
        y=np.pad(samples, 56), sr=16000, n_fft=512, hop_length=160, win_length=400, window="hann",
        center=False, power=2.0, n_mels=80, fmin=20.0, fmax=7600.0, htk=True, norm=None,
    ).T  # fmt: skip
    ours = frames_of(LogMel(CONFIG), samples)
    np.testing.assert_allclose(ours, np.log(theirs), atol=2e-5)  # both in float32; measured 1.4e-6


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3000), st.data())
def test_chunks_change_no_bit(length: int, data: st.DataObject) -> None:
    samples = noise(length, seed=length)
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=20)))
    stage = LogMel(CONFIG, np.full(80, -3, np.float32), np.full(80, 1.7, np.float32))
    np.testing.assert_array_equal(frames_of(stage, samples, cuts), frames_of(stage, samples))


def test_one_sample_at_a_time_and_long_inputs_change_no_bit() -> None:
    stage, samples = LogMel(CONFIG), noise(1500)
    one_by_one = frames_of(stage, samples, list(range(1, len(samples))))
    np.testing.assert_array_equal(one_by_one, frames_of(stage, samples))
    samples = noise(160 * 2500)  # several times the 1,000 frames that are computed at once
    cuts = np.arange(777, len(samples), 7777).tolist()
    np.testing.assert_array_equal(frames_of(stage, samples, cuts), frames_of(stage, samples))


def test_keeps_the_contract_of_a_stage() -> None:
    check_stage(LogMel(CONFIG), noise(5000))


@pytest.mark.parametrize("length", [0, 1, 399, 400, 401, 559, 560, 561, 16000])
def test_frames_covering_is_the_least_that_covers(length: int) -> None:
    frames = CONFIG.frames_covering(length)
    assert CONFIG.samples_of(frames) >= length
    assert frames == 0 if length == 0 else frames == 1 or CONFIG.samples_of(frames - 1) < length
    padded = np.pad(noise(length), (0, CONFIG.samples_of(frames) - length))
    assert len(frames_of(LogMel(CONFIG), padded)) == frames


def test_frame_i_sees_its_400_samples_and_no_others() -> None:
    samples = noise(160 * 9 + 400)
    before = frames_of(LogMel(CONFIG), samples)
    changed = samples.copy()
    changed[: 160 * 4] = 1
    changed[160 * 4 + 400 :] = -1
    np.testing.assert_array_equal(frames_of(LogMel(CONFIG), changed)[4], before[4])


def test_silence_is_the_floor() -> None:
    frames = frames_of(LogMel(CONFIG), np.zeros(4000, np.float32))
    np.testing.assert_array_equal(frames, np.log(np.float32(CONFIG.floor)))


def test_clipping_and_a_quiet_microphone_are_ordinary() -> None:
    for gain in (1e-4, 1000.0):
        frames = frames_of(LogMel(CONFIG), np.clip(gain * noise(4000), -1, 1).astype(np.float32))
        assert np.isfinite(frames).all()
        assert frames.min() >= np.log(np.float32(CONFIG.floor))


def test_dc_touches_only_the_lowest_bands() -> None:
    samples = noise(4000)
    plain, shifted = (frames_of(LogMel(CONFIG), samples + np.float32(dc)) for dc in (0, 0.3))
    # The main lobe of the window ends at 80 Hz; band 12 begins at 334 Hz and sees only its side lobes.
    assert np.abs(plain - shifted)[:, 12:].max() < 0.1
    assert np.isfinite(shifted).all()


def test_normalisation_is_mean_and_std() -> None:
    mean, std = noise(80) + 1, np.abs(noise(80, 1)) + 1
    samples = noise(2000)
    expected = (frames_of(LogMel(CONFIG), samples) - mean) / std
    np.testing.assert_array_equal(frames_of(LogMel(CONFIG, mean, std), samples), expected)


def test_the_state_keeps_no_view_and_stays_small() -> None:
    stage, samples = LogMel(CONFIG), noise(5000)
    state = stage.start()
    stage.advance(state, samples)
    assert not np.shares_memory(state.tail, samples)
    assert state.tail.base is None and len(state.tail) < 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"hop_samples": 0},
        {"hop_samples": 401},
        {"window_samples": 513},
        {"low_hz": -1.0},
        {"low_hz": 7600.0},
        {"high_hz": 8001.0},
        {"mel_bands": 0},
        {"floor": 0.0},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="features: "):
        FeatureConfig(**wrong)  # type: ignore[arg-type]
