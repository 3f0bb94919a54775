"""Plans and batches: every utterance once, within the budget, the same for the same seed and epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import CHARACTERS, quick

from streamasr import running_mean
from streamasr.errors import ConfigError
from streamasr.features import FeatureConfig
from streamasr.train.augment import Augmenter
from streamasr.train.batches import Batches, statistics
from streamasr.train.cache import CachedUtterance
from streamasr.train.config import AugmentConfig, DataConfig, ModelConfig

FEATURES = FeatureConfig()
DATA = DataConfig(train=(), dev=(), batch_seconds=4.0, batch_rows=5, longest_seconds=3.0)
MODEL = ModelConfig(frames_per_step=3, flush_steps=4)
ONES = (np.zeros(80, np.float32), np.ones(80, np.float32))


def utterances(lengths: list[int]) -> list[CachedUtterance]:
    random = np.random.default_rng(0)
    return [
        CachedUtterance(f"u{i}", "ab"[: i % 3], "corpus", random.normal(-3, 2, (n, 80)).astype(np.float16))
        for i, n in enumerate(lengths)
    ]


def batches_of(
    lengths: list[int], data: DataConfig = DATA, augmenter: Augmenter | None = None, views: int = 1
) -> Batches:
    return Batches(utterances(lengths), data, MODEL, FEATURES, ONES, CHARACTERS, None, augmenter, views)


lengths = st.lists(st.integers(1, 300), min_size=1, max_size=40)


@quick
@given(lengths, st.integers(0, 3), st.integers(0, 3), st.integers(1, 6), st.integers(1, 2))
def test_a_plan_is_a_partition_within_the_budget(
    lengths: list[int], seed: int, epoch: int, rows: int, views: int
) -> None:
    batches = batches_of(lengths, replace(DATA, batch_rows=rows), views=views)
    plan = batches.plan(seed, epoch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))
    flush = MODEL.flush_steps * MODEL.frames_per_step
    for numbers in plan:
        count = len(numbers) * views
        padded = max(lengths[n] + flush for n in numbers) * count
        assert len(numbers) == 1 or (padded <= 4.0 * 100 and count <= rows)
    again = batches.plan(seed, epoch)
    assert len(plan) == len(again) and all(np.array_equal(a, b) for a, b in zip(plan, again, strict=True))


def test_plans_differ_by_epoch_and_seed() -> None:
    batches = batches_of(list(range(50, 250)))
    plans = {str([b.tolist() for b in batches.plan(seed, epoch)]) for seed in (1, 2) for epoch in (0, 1, 2)}
    assert len(plans) == 6


def test_the_first_epoch_goes_from_short_to_long() -> None:
    """Up to the jitter of 10 % that makes batches differ between epochs; later ones are shuffled."""
    batches = batches_of([int(n) for n in np.random.default_rng(0).integers(20, 290, 200)])
    longest = [max(len(batches.utterances[n].frames) for n in b) for b in batches.plan(1, 0)]
    assert all(after > 0.8 * before for before, after in zip(longest[:-1], longest[1:], strict=True))
    later = [max(len(batches.utterances[n].frames) for n in b) for b in batches.plan(1, 1)]
    assert any(after < 0.5 * before for before, after in zip(later[:-1], later[1:], strict=True))


def test_like_lengths_are_together() -> None:
    """Padding is waste: on a real spread of lengths little of it."""
    batches = batches_of([int(n) for n in np.random.default_rng(0).integers(20, 290, 400)])
    for epoch in (0, 1):
        sizes = [[len(batches.utterances[n].frames) for n in b] for b in batches.plan(1, epoch)]
        padded = sum(max(s) * len(s) for s in sizes)
        assert sum(map(sum, sizes)) / padded > 0.85


def test_processes_that_wait_for_each_other_get_like_lengths() -> None:
    batches = batches_of([int(n) for n in np.random.default_rng(0).integers(20, 290, 400)])
    plan = batches.plan(1, 1, together=2)
    alone = sum(map(len, batches.plan(1, 1)))
    assert len(plan) % 2 == 0 and 0 <= alone - sum(map(len, plan)) <= max(map(len, plan))
    longest = [max(len(batches.utterances[n].frames) for n in b) for b in plan]
    assert all(0.8 < a / b < 1.25 for a, b in zip(longest[::2], longest[1::2], strict=True))
    assert any(a < 0.5 * b for a, b in zip(longest[1:-1:2], longest[2::2], strict=True))


def test_empty_and_long_utterances_are_left_out_and_counted() -> None:
    batches = batches_of([0, 100, 300, 301, 5])
    assert batches.left_out == 2
    assert [len(u.frames) for u in batches.utterances] == [100, 300, 5]
    assert batches.seconds == pytest.approx(4.05)
    with pytest.raises(ConfigError, match="longest_seconds"):
        batches_of([0, 301])


def test_flush_silence_and_padding() -> None:
    """ceil(T / k) + flush_steps steps count; the rest of the row is digital silence, normalised."""
    mean, std = np.full(80, -2.0, np.float32), np.full(80, 4.0, np.float32)
    found = utterances([10, 7])
    batches = Batches(found, DATA, MODEL, FEATURES, (mean, std), CHARACTERS)
    batch = batches.make(np.array([1, 0]), (0,))
    assert batch.lengths.tolist() == [(3 + 4) * 3, (4 + 4) * 3]
    assert batch.frames.shape == (2, 24, 80) and batch.frames.dtype == torch.float32
    silence = (np.float32(np.log(FEATURES.floor)) - mean) / std
    for row, utterance in zip(batch.frames.numpy(), (found[1], found[0]), strict=True):
        count = len(utterance.frames)
        np.testing.assert_allclose(row[:count], (utterance.frames.astype(np.float32) - mean) / std, rtol=1e-6)
        np.testing.assert_array_equal(row[count:], np.broadcast_to(silence, row[count:].shape))
    assert [t.tolist() for t in batch.tokens] == [CHARACTERS.encode("a"), []]
    assert [u.id for u in batch.utterances] == ["u1", "u0"]
    assert batch.seconds == pytest.approx(0.17)
    assert batch.phones == [None, None]


def test_frames_less_their_running_mean() -> None:
    """As the recogniser takes it off; flush included."""
    model = ModelConfig(frames_per_step=3, flush_steps=4, mean_frames=50, mean_window=60)
    shared = (FEATURES, (np.full(80, -8, np.float32), np.ones(80, np.float32)), CHARACTERS)
    row, plain = (
        Batches(utterances([30]), DATA, m, *shared).make(np.array([0]), (0,)).frames[0].numpy()
        for m in (model, MODEL)
    )
    expected, mean = plain.copy(), np.zeros(80)
    counted, _ = running_mean.subtract(
        expected, np.full(80, 1 / 80, np.float32), mean, 50.0, running_mean.BACKGROUND, 60.0
    )
    assert counted == 60 and abs(mean).max() > 0.1
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5)


def test_a_batch_can_be_made_again() -> None:
    augmenter = Augmenter(
        AugmentConfig(noise_probability=0.5), FEATURES, [u.frames for u in utterances([40])]
    )
    batches = batches_of([90, 100, 110], augmenter=augmenter)
    first = batches.make(np.array([0, 1, 2]), (1, 2, 3))
    again = batches.make(np.array([0, 1, 2]), (1, 2, 3))
    other = batches.make(np.array([0, 1, 2]), (1, 2, 4))
    assert torch.equal(first.frames, again.frames) and torch.equal(first.lengths, again.lengths)
    assert first.frames.shape != other.frames.shape or not torch.equal(first.frames, other.frames)


def test_masked_values_are_the_mean() -> None:
    """Masks come after normalisation, so that a mask says 'nothing known', not 'silence'."""
    config = AugmentConfig(time_masks_per_second=0.0, noise_probability=0.0)
    batches = batches_of([200], augmenter=Augmenter(config, FEATURES, []))
    found = [bool((batches.make(np.array([0]), (s,)).frames[0, :150] == 0).all(0).any()) for s in range(8)]
    assert any(found)


def test_statistics_are_numpys() -> None:
    """Over all frames of all utterances, at least 1e-4 of variance for a band that never changes."""
    found = utterances([30, 1, 77])
    for u in found:
        u.frames[:, 3] = 1.5
    everything: NDArray[np.float64] = np.concatenate([u.frames.astype(np.float64) for u in found])
    mean, std = statistics(found)
    np.testing.assert_allclose(mean, everything.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, np.maximum(everything.std(0), 1e-2), rtol=1e-6)
    assert mean.dtype == std.dtype == np.float32


def test_two_views_differ_in_their_masks_alone() -> None:
    config = AugmentConfig(band_masks=1, band_mask_width=30, time_masks_per_second=2.0)
    augmenter = Augmenter(config, FEATURES, [])
    batch = batches_of([200, 150, 90], augmenter=augmenter, views=2).make(np.array([2, 0]), (1, 2))
    assert [u.id for u in batch.utterances] == ["u2", "u0", "u2", "u0"]
    assert batch.lengths.tolist()[:2] == batch.lengths.tolist()[2:]
    assert [t.tolist() for t in batch.tokens[:2]] == [t.tolist() for t in batch.tokens[2:]]
    one, other = batch.frames.numpy()[:2], batch.frames.numpy()[2:]
    assert not np.array_equal(one, other)
    different = one != other
    assert np.all((one[different] == 0) | (other[different] == 0))


def test_a_share_is_heard_in_rooms() -> None:
    nothing = AugmentConfig(
        tempo=0, warp=0, gain_low_db=0, gain_high_db=0, tilt_db=0, noise_probability=0, band_masks=0,
        time_masks_per_second=0, room_probability=0.25,
    )  # fmt: skip
    augmenter = Augmenter(nothing, FEATURES, [])
    batches = batches_of([50] * 400, replace(DATA, batch_rows=400, batch_seconds=1000.0), augmenter)
    batches.utterances = [
        replace(u, frames=np.zeros_like(u.frames), frames_in_room=np.ones_like(u.frames))
        for u in batches.utterances
    ]
    values = batches.make(np.arange(400), (3,)).frames.numpy()[:, :50]
    assert {0.0, 1.0} == set(np.unique(values))
    assert values[:, 0, 0].mean() == pytest.approx(0.25, abs=0.08)
    assert batches_of([50], augmenter=augmenter).make(np.array([0]), (1,)).frames.abs().sum() > 0


def test_temperature_shares_the_time_among_corpora() -> None:
    """Nine hours and one: 0.9 to 0.1 of the time at 1, 0.75 to 0.25 at 2; validation hears all once."""
    data = replace(DATA, temperature=2.0)
    augmenter = Augmenter(AugmentConfig(), FEATURES, [])
    many = [
        CachedUtterance(f"u{i}", "a", "large" if i < 900 else "small", np.zeros((100, 80), np.float16))
        for i in range(1000)
    ]
    heard = np.zeros(1000)
    for epoch in range(20):
        batches = Batches(many, data, MODEL, FEATURES, ONES, CHARACTERS, None, augmenter)
        heard += np.bincount(np.concatenate(batches.plan(1, epoch)), minlength=1000)
    assert heard[900:].sum() / heard.sum() == pytest.approx(0.25, abs=0.01)
    assert heard.sum() == pytest.approx(20_000, rel=0.01)
    assert set(heard[900:]) <= set(range(40, 61))  # each 2.5 times an epoch: 2 or 3
    plan = Batches(many, data, MODEL, FEATURES, ONES, CHARACTERS).plan(1, 0)
    assert sorted(np.concatenate(plan).tolist()) == list(range(1000))
