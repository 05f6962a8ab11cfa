"""Resampling: sines against their formula, what lies above Nyquist, padding, constants."""

import math

import pytest
import torch

from neurofm_ml.nn.resampling import resample


@pytest.mark.parametrize("sfreq", [100.0, 160.0, 200.0, 256.0, 300.0, 1000.0])
def test_a_sine_is_what_it_would_have_been(sfreq):
    """10 Hz at any rate, away from the ends of the window."""
    n = round(2 * sfreq)
    times = torch.arange(n) / sfreq
    values = torch.sin(2 * math.pi * 10 * times)[None, :, None]
    new, mask = resample(values, torch.ones(1, n, dtype=torch.bool), 1 / sfreq, 1 / 128)
    assert new.shape == (1, 256, 1)
    assert mask.all()
    expected = torch.sin(2 * math.pi * 10 * torch.arange(256) / 128)
    assert torch.allclose(new[0, 16:-16, 0], expected[16:-16], atol=3e-3)


def test_what_the_new_rate_cannot_hold_is_gone():
    times = torch.arange(1000) / 500
    values = torch.sin(2 * math.pi * 100 * times)[None, :, None]
    new, _ = resample(values, torch.ones(1, 1000, dtype=torch.bool), 1 / 500, 1 / 128)
    assert new[0, 16:-16].abs().max() < 0.01


@pytest.mark.parametrize("sfreq", [100.0, 250.0, 256.0])
def test_constants_stay_and_padding_changes_nothing(sfreq):
    n = round(sfreq)
    values = torch.randn(2, n, 3, generator=torch.Generator().manual_seed(0))
    values[0] = 1.0
    short, whole = resample(values, torch.ones(2, n, dtype=torch.bool), 1 / sfreq, 1 / 128)
    assert torch.allclose(short[0], torch.ones(len(short[0]), 3), atol=1e-5)
    padded = torch.cat([values, torch.full((2, 40, 3), 9.0)], 1)
    mask = torch.arange(n + 40).expand(2, -1) < n
    longer, valid = resample(padded, mask, 1 / sfreq, 1 / 128)
    assert valid.sum(1).tolist() == whole.sum(1).tolist()
    assert torch.allclose(longer[:, : short.shape[1]], short, atol=1e-5)
    assert not longer[:, short.shape[1] :].any()
