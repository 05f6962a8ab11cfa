"""Augmentation: a function of the seed, of the stated strength, and silent where there is nothing."""

import dataclasses

import pytest
import torch

from neurofm_ml.data.augment import (
    add_drift,
    add_noise,
    augment,
    drop_channels,
    drop_modalities,
    hide,
    hide_blocks,
    hide_strong,
    mask_channels,
    shift_time,
)
from neurofm_ml.presets import AugmentConfig
from neurofm_ml.types import Batch, StreamBatch

STRONG = AugmentConfig(unit_dropout=0.6, time_mask=0.2, channel_mask=0.3, noise=0.5, drift=1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def stream(make_stream) -> StreamBatch:
    """64 windows of 60 bins and 20 units, all z-scores 2; the last 10 bins and 4 units are padding."""
    plain = make_stream("spikes", batch=64, channels=20)
    mask, channel_mask = torch.arange(60).expand(64, -1) < 50, torch.arange(20).expand(64, -1) < 16
    return dataclasses.replace(plain, values=2.0 * (mask[..., None] & channel_mask[:, None]), mask=mask, channel_mask=channel_mask)


@pytest.fixture
def batch(make_batch, stream) -> Batch:
    return dataclasses.replace(make_batch("spikes", batch=64), streams={"spikes": stream})


def test_a_function_of_the_seed(batch):
    values = [augment(batch, STRONG, seeded(seed)).streams["spikes"].values for seed in (0, 0, 1)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_zero_settings_change_nothing(batch):
    nothing = AugmentConfig(unit_dropout=0.0, time_mask=0.0, noise=0.0, drift=0.0)
    assert torch.equal(augment(batch, nothing, seeded()).streams["spikes"].values, batch.streams["spikes"].values)
    assert shift_time(batch, 0.0, seeded()) is batch
    assert not hide((8, 60), 0.0, seeded()).any()
    assert not hide_blocks((8, 60), 0.0, 4, seeded()).any()
    assert not hide_strong(torch.ones(8, 60), 0.0, 0.5, seeded()).any()


def test_what_is_off_draws_nothing(batch):
    """So that a run without it is the run from before there was such a thing."""
    generator = seeded()
    before = generator.get_state()
    mask_channels(shift_time(batch, 0.0, generator).streams["spikes"], 0.0, 0.5, generator)
    assert torch.equal(generator.get_state(), before)


def test_padding_stays_zero_and_counts_stay_as_measured(batch):
    before, after = batch.streams["spikes"], augment(batch, STRONG, seeded()).streams["spikes"]
    assert (after.values[~before.valid] == 0).all()
    assert after.counts is before.counts
    assert torch.equal(after.mask, before.mask)


def test_modalities_are_dropped_at_their_share_and_never_all(make_batch):
    batch = make_batch("spikes", "calcium", "fmri")
    generator = seeded()
    kept = [tuple(drop_modalities(batch, 0.5, generator).streams) for _ in range(2000)]
    assert all(kept)
    for name in batch.streams:
        # one in eight draws would lose all three and keeps one of them instead
        assert sum(name in names for names in kept) / len(kept) == pytest.approx(0.5 + 0.125 / 3, abs=0.04)
    assert drop_modalities(batch, 0.0, generator).streams.keys() == batch.streams.keys()
    single = make_batch("spikes")
    assert drop_modalities(single, 0.99, generator) is single


def test_drift_is_an_offset_per_channel_and_window(stream):
    offset = (add_drift(stream, 0.8, seeded()).values - stream.values)[:, :50, :16]
    assert torch.allclose(offset, offset[:, :1].expand_as(offset), atol=1e-6)
    strength = offset[:, 0].std(1)
    assert strength.max() < 0.8 * 1.6
    assert strength.min() < 0.1
    assert float(offset[:, 0].square().mean()) == pytest.approx(0.8**2 / 3, rel=0.25)


def test_dropped_share_and_growth_of_the_rest(stream):
    out = drop_channels(stream, 0.6, seeded()).values[:, 0, :16]
    dropped = (out == 0).float()
    assert float(dropped.mean()) == pytest.approx(0.3, abs=0.05)
    assert float(out.mean()) == pytest.approx(2.0, abs=0.15)
    kept = out.amax(1)
    assert torch.equal(out, torch.where(out == 0, 0.0, kept[:, None]))
    assert (kept >= 2.0).all()
    assert (kept < 2.0 / 0.4 + 1e-4).all()


def test_dropped_channels_stay_silent_through_the_noise(stream):
    dropped = drop_channels(stream, 0.6, seeded())
    noisy = add_noise(dropped, 0.5, seeded(1))
    assert torch.equal(noisy.values == 0, dropped.values == 0)
    noise = (noisy.values - dropped.values)[dropped.values != 0]
    assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)


def test_hidden_share():
    hidden = hide((64, 60), 0.1, seeded())
    assert float(hidden.float().mean()) == pytest.approx(0.1, abs=0.015)


# ---------------------------------------------------------------- where time is hidden
@pytest.mark.parametrize("length", [1, 4, 9])
def test_blocks_hide_their_share_everywhere_in_the_window_and_are_long_enough(length):
    hidden = hide_blocks((20_000, 12), 0.3, length, seeded())
    assert torch.allclose(hidden.float().mean(0), torch.full((12,), 0.3), atol=0.02)
    for row in hide_blocks((200, 60), 0.1, length, seeded(1)).int().tolist():
        inside = "".join(map(str, row)).strip("1")  # stretches at the edges are cut
        assert all(len(run) >= length for run in inside.split("0") if run)


def test_strong_patches_are_hidden_more_often_as_training_goes_on():
    energy = torch.tensor([1.0, 1.0, 2.0, 4.0, 0.0]).expand(40_000, 5)
    for focus in (0.0, 0.5, 1.0):
        hidden = hide_strong(energy, 0.2, focus, seeded())
        assert (hidden.sum(1) == 1).all()
        # One of five is drawn, with these odds in closed form.
        odds = 1 - focus + focus * energy[0] / energy[0].mean()
        assert torch.allclose(hidden.float().mean(0), odds / odds.sum(), atol=0.01)


def test_the_strongest_are_hidden_together():
    energy = torch.tensor([[1e6, 1.0, 1e6, 1.0, 1.0], [1.0, 1.0, 1.0, 1e6, 1e6]])
    assert hide_strong(energy, 0.4, 1.0, seeded()).tolist() == [[True, False, True, False, False], [False, False, False, True, True]]


# ---------------------------------------------------------------- silence and shifts
def test_a_masked_channel_is_silent_for_one_stretch(stream):
    silent = mask_channels(stream, 0.25, 2.0, seeded()).values == 0
    inside = silent[:, :50, :16]
    runs = inside.sum(1)
    assert set(runs.unique().tolist()) <= set(range(11))  # 2 s of 5 Hz, or less where it runs into the padding
    assert float((runs > 0).float().mean()) == pytest.approx(0.25, abs=0.04)
    edges = (inside[:, 1:] & ~inside[:, :-1]).sum(1) + inside[:, 0]
    assert edges.max() == 1
    untouched = ~silent[..., :16]
    assert (mask_channels(stream, 0.25, 2.0, seeded()).values[..., :16][untouched] == 2.0).all()


def test_a_masked_channel_stays_silent_through_the_noise(batch):
    cfg = AugmentConfig(unit_dropout=0.0, channel_mask=0.5, channel_mask_s=4.0, noise=0.5, drift=0.5)
    values = augment(batch, cfg, seeded()).streams["spikes"].values[:, :50, :16]
    assert 0.1 < float((values == 0).float().mean()) < 0.25  # half of the channels for 4 of 12 s


def test_a_shift_moves_values_counts_and_mask_and_leaves_targets(make_batch):
    batch = make_batch("spikes", batch=200)
    late = shift_time(batch, 0.4, seeded())
    before, after = batch.streams["spikes"], late.streams["spikes"]
    lags = []
    for row in range(200):
        lags.append(next(k for k in range(-2, 3) if torch.equal(after.values[row], moved(before.values[row], k))))
        assert torch.equal(after.counts[row], moved(before.counts[row], lags[-1]))
        assert torch.equal(after.mask[row], moved(before.mask[row], lags[-1]))
    assert [lags.count(k) for k in range(-2, 3)] == pytest.approx([40] * 5, abs=20)
    assert late.targets is batch.targets
    assert torch.equal(late.times, batch.times)
    assert torch.equal(after.times, before.times)


def moved(values: torch.Tensor, lag: int) -> torch.Tensor:
    """values (T, ...) later by `lag` samples, nothing coming in."""
    out = torch.zeros_like(values)
    n = len(values)
    out[max(0, lag) : n + min(0, lag)] = values[max(0, -lag) : n - max(0, lag)]
    return out
