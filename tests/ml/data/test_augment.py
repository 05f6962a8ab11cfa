"""Augmentation: a function of the seed, of the stated strength, and silent where there is nothing."""

import dataclasses

import pytest
import torch

from neurofm_ml.data.augment import add_drift, add_noise, augment, drop_channels, drop_modalities, hide
from neurofm_ml.presets import AugmentConfig
from neurofm_ml.types import Batch, StreamBatch

STRONG = AugmentConfig(unit_dropout=0.6, time_mask=0.2, noise=0.5, drift=1.0)


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
    assert not hide((8, 60), 0.0, seeded()).any()


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
