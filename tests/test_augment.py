"""Perturbations of log-mel frames: exact small cases, and sound itself where there is an equivalent.

The masks are SpecAugment's (Park et al. 2019) but not torchaudio's `FrequencyMasking` and `TimeMasking`:
widths are whole numbers drawn from 0 to the width inclusive (torchaudio: real numbers below it, rounded
down, so the full width never comes); there is one draw for an utterance, not for a batch; the number
of time masks is Poisson in the length; the fill is the mean of normalised frames, 0.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from strategies import sound

from streamasr.features import FeatureConfig, LogMel
from streamasr.train.augment import Augmenter, add_noise, add_reverb, centres_hz, line_db, stretch, warp
from streamasr.train.config import AugmentConfig

FEATURES = FeatureConfig()
FLOOR = np.float32(np.log(FEATURES.floor))
_ZEROS = {f.name: 0 if f.type == "int" else 0.0 for f in fields(AugmentConfig)}
NOTHING = AugmentConfig(**_ZEROS)  # type: ignore[arg-type]


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    stage = LogMel(FEATURES)
    return stage.advance(stage.start(), samples)


def perturbed(
    config: AugmentConfig, frames: NDArray[np.floating], seed: int = 0, noises: object = ()
) -> NDArray[np.float32]:
    augmenter = Augmenter(config, FEATURES, list(noises))  # type: ignore[call-overload]
    return augmenter.perturb(frames.astype(np.float16), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def frames() -> NDArray[np.float16]:
    """The cache holds float16, so what perturbations get is rounded to it."""
    return log_mel(sound(3, 1.5)).astype(np.float16)


def test_nothing_asked_nothing_changed(frames: NDArray[np.float16]) -> None:
    found = perturbed(NOTHING, frames)
    np.testing.assert_allclose(found, np.maximum(frames.astype(np.float32), FLOOR), rtol=0, atol=1e-6)
    assert found.dtype == np.float32


def test_the_cache_is_not_written_to(frames: NDArray[np.float16]) -> None:
    before = frames.copy()
    Augmenter(AugmentConfig(), FEATURES, [frames]).perturb(frames, np.random.default_rng(0))
    np.testing.assert_array_equal(frames, before)


def test_gain_is_scaling_the_samples() -> None:
    samples = sound(1, 1.0) + 1e-3 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    for decibel in (-20.0, 6.0):
        config = replace(NOTHING, gain_low_db=decibel, gain_high_db=decibel)
        scaled = log_mel((samples * 10 ** (decibel / 20)).astype(np.float32))
        plain = log_mel(samples)
        found = Augmenter(config, FEATURES, []).perturb(plain, np.random.default_rng(0))  # type: ignore[arg-type]
        # Where the floor hid something before the gain it is still hidden. Elsewhere: float32 spectra, whose
        # quiet bands carry the rounding of loud ones.
        heard = plain > FLOOR
        np.testing.assert_allclose(found[heard], scaled[heard], rtol=0, atol=1e-4)


def test_gain_stays_above_the_floor(frames: NDArray[np.float16]) -> None:
    found = perturbed(replace(NOTHING, gain_low_db=-90.0, gain_high_db=-90.0), frames)
    assert found.min() == FLOOR


def test_tilt_is_a_ramp_in_decibel(frames: NDArray[np.float16]) -> None:
    loud = np.maximum(frames, np.float16(-5))  # away from the floor
    difference = perturbed(replace(NOTHING, tilt_db=6.0), loud) - loud.astype(np.float32)
    slopes = np.diff(difference, axis=1)
    np.testing.assert_allclose(slopes, slopes[0, 0], rtol=0, atol=1e-5)
    assert difference[0, 0] == pytest.approx(-difference[0, -1], abs=1e-5)
    assert abs(difference[0, -1]) <= 6.0 * np.log(10) / 10


def test_stretch_interpolates() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    np.testing.assert_array_equal(stretch(x, 1.0), x)
    np.testing.assert_allclose(stretch(x, 0.5)[:, 0], np.linspace(0, 3, 8), rtol=0, atol=1e-6)
    np.testing.assert_allclose(stretch(x, 2.0)[:, 0], [0.0, 3.0], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(stretch(x[:1], 0.5), x[:1])
    assert stretch(x[:0], 0.9).shape == (0, 1)
    for factor in (0.9, 1.1):
        assert len(stretch(np.zeros((100, 2), np.float32), factor)) == round(100 / factor)


def test_warp_moves_a_tone() -> None:
    """The band a tone peaks in is that of the tone at `factor` times its frequency."""
    seconds = np.arange(8000, dtype=np.float32) / 16000
    for hertz, factor in ((700.0, 1.1), (1500.0, 0.9), (3000.0, 1.05)):
        low, high = (
            log_mel(np.sin(2 * np.pi * f * seconds).astype(np.float32)) for f in (hertz, hertz * factor)
        )
        moved = warp(low, factor, FEATURES)
        assert abs(int(moved[5].argmax()) - int(high[5].argmax())) <= 1
        assert int(low[5].argmax()) != int(high[5].argmax())
    np.testing.assert_array_equal(warp(low, 1.0, FEATURES), low)


def test_noise_has_the_ratio_asked_for() -> None:
    """Of mean powers over all frames and bands; and powers add up."""
    random = np.random.default_rng(0)
    frames = random.normal(-2, 1, (50, 80)).astype(np.float32)
    noise = random.normal(3, 1, (70, 80)).astype(np.float16)
    for snr in (0.0, 10.0):
        noisy = add_noise(frames, noise, snr, np.random.default_rng(4))
        added = np.exp(noisy.astype(np.float64)) - np.exp(frames.astype(np.float64))
        ratio = 10 * np.log10(np.exp(frames).mean() / added.mean())
        assert ratio == pytest.approx(snr, abs=0.01)
        assert (noisy > frames).all()


def test_short_noise_is_repeated() -> None:
    noise = np.arange(3, dtype=np.float16)[:, None]
    noisy = add_noise(np.full((7, 1), -50.0, np.float32), noise, -300.0, np.random.default_rng(0))
    steps = np.diff(noisy[:, 0])
    np.testing.assert_allclose(steps[:3], steps[3:], rtol=0, atol=1e-4)


def test_noise_comes_as_often_as_asked(frames: NDArray[np.float16]) -> None:
    config = replace(NOTHING, noise_probability=0.3, noise_snr_low_db=0.0, noise_snr_high_db=0.0)
    plain = perturbed(NOTHING, frames)
    noisy = [not np.array_equal(perturbed(config, frames, s, [frames]), plain) for s in range(200)]
    assert 0.2 < np.mean(noisy) < 0.4  # three standard deviations of 200 draws
    assert np.array_equal(perturbed(config, frames, 0, []), plain)
    assert np.array_equal(perturbed(config, frames, 0, [frames[:0]]), plain)


def test_masks_zero_whole_bands_and_whole_frames() -> None:
    augmenter = Augmenter(AugmentConfig(), FEATURES, [])
    bands_hit, frames_hit = [], []
    for seed in range(100):
        x = np.ones((400, 80), np.float32)
        augmenter.mask(x, np.random.default_rng(seed))
        bands, times = (x == 0).all(0), (x == 0).all(1)
        np.testing.assert_array_equal(x == 0, bands[None, :] | times[:, None])
        bands_hit.append(bands.sum())
        frames_hit.append(times.sum())
    assert max(bands_hit) <= 2 * 15 and np.mean(bands_hit) == pytest.approx(15, abs=3)
    # 0.3 masks a second * 4 s * mean width 15 frames; overlaps take a little away.
    assert 10 < np.mean(frames_hit) < 20


def test_a_single_word_is_not_masked_away() -> None:
    """At most a tenth of the utterance at a time."""
    config = replace(NOTHING, time_masks_per_second=3.0, time_mask_seconds=5.0)
    for seed in range(50):
        x = np.ones((50, 80), np.float32)
        Augmenter(config, FEATURES, []).mask(x, np.random.default_rng(seed))
        runs = "".join("x" if gone else " " for gone in (x == 0).all(1)).split()
        assert (x == 0).mean() <= 0.6 and all(len(run) <= 25 for run in runs)
    tiny = np.ones((1, 80), np.float32)
    Augmenter(AugmentConfig(), FEATURES, []).mask(tiny, np.random.default_rng(0))


def test_a_draw_depends_on_the_generator_alone(frames: NDArray[np.float16]) -> None:
    augmenter = Augmenter(AugmentConfig(), FEATURES, [frames])
    first = augmenter.perturb(frames, np.random.default_rng(5))
    np.testing.assert_array_equal(augmenter.perturb(frames, np.random.default_rng(5)), first)
    assert not np.array_equal(augmenter.perturb(frames, np.random.default_rng(6)), first)


def test_everything_at_once_is_finite(frames: NDArray[np.float16]) -> None:
    augmenter = Augmenter(AugmentConfig(noise_probability=0.9), FEATURES, [frames])
    for seed in range(20):
        for count in (1, 2, 9, len(frames)):
            x = augmenter.perturb(frames[:count], np.random.default_rng(seed))
            assert x.dtype == np.float32 and np.isfinite(x).all() and x.min() >= FLOOR and len(x) >= 1


def test_reverb_of_one_frame_is_a_tail_of_the_power_asked_for() -> None:
    hop = 0.01
    powers = np.full((400, 3), 1e-12, np.float32)
    powers[5] = 1.0
    tail = np.exp(add_reverb(np.log(powers), 0.5, 6.0, hop))[6:]
    np.testing.assert_allclose(tail.sum(0), 10**-0.6, rtol=1e-3)
    for band, seconds in enumerate((0.5, 0.375, 0.25)):
        fall_db = -10 * np.log10(tail[10, band] / tail[0, band])
        assert fall_db == pytest.approx(60 * 10 * hop / seconds, rel=1e-3)


def test_reverb_is_that_of_a_room_made_of_sound(frames: NDArray[np.float16]) -> None:
    """Against convolution with decaying noise (Polack's room): mean powers of the tail within 1.5 dB."""
    random = np.random.default_rng(7)
    rate, seconds, direct_db = FEATURES.sample_rate, 0.4, 3.0
    dry = np.zeros(2 * rate, np.float32)
    dry[rate // 2 : rate] = 0.1 * random.standard_normal(rate // 2)
    time = np.arange(1, rate // 2) / rate
    wet = np.zeros((24, 2 * rate), np.float32)
    for row in wet:
        room = random.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
        room *= np.sqrt(10 ** (-direct_db / 10) / np.sum(room**2))
        row[:] = np.convolve(dry, np.concatenate([[1.0], room]))[: len(row)]
    lowest = slice(0, 8)  # where a tail of Augmenter's falls as slowly as asked for
    measured = np.mean([np.exp(log_mel(row))[:, lowest] for row in wet], 0)
    made = np.exp(add_reverb(log_mel(dry), seconds, direct_db, 0.01))[:, lowest]
    after = slice(105, 130)  # the burst ends at frame 100
    powers = [x[after].reshape(5, -1).mean(1) for x in (made, measured)]
    difference_db = 10 * np.log10(powers[0] / powers[1])
    assert np.abs(difference_db).max() < 1.5


def test_reverb_is_heard_only_where_asked(frames: NDArray[np.float16]) -> None:
    always = replace(NOTHING, reverb_probability=1.0, reverb_shortest_seconds=0.3, reverb_longest_seconds=0.3)
    expected = add_reverb(frames.astype(np.float32), 0.3, 0.0, 0.01)
    np.testing.assert_allclose(perturbed(always, frames), expected, rtol=0, atol=1e-5)


def test_a_line_passes_its_band_and_falls_off_outside(frames: NDArray[np.float16]) -> None:
    hz = centres_hz(FEATURES)
    gain_db = line_db(200.0, 4000.0, 24.0, FEATURES)
    inside = (hz >= 200) & (hz <= 4000)
    assert np.all(gain_db[inside] == 0) and np.all(gain_db[~inside] < 0)
    assert gain_db[-1] == pytest.approx(-24 * np.log2(hz[-1] / 4000), rel=1e-5)
    assert gain_db[0] == pytest.approx(-24 * np.log2(200 / hz[0]), rel=1e-5)
    found = perturbed(replace(NOTHING, line_probability=1.0), frames)
    difference = found - np.maximum(frames.astype(np.float32), FLOOR)
    middle = (hz >= 500) & (hz <= 3000)
    np.testing.assert_allclose(difference[:, middle], 0, atol=1e-5)
    assert np.all(difference <= 1e-5) and difference.min() < -0.1
