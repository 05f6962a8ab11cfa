"""Band powers against what is known of sines and noise; high gamma is kept where the sampling rate allows."""

import math

import pytest
import torch

from neurofm_ml.tokenizers.spectra import BANDS, FLOOR, log_band_power


def power(features: torch.Tensor) -> torch.Tensor:
    """What a feature says the power of its band is."""
    return 10 ** (features.double() * 1.5 - 3) - FLOOR


def sine(hz: float, sfreq: float, amplitude: float, phase: float) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(round(sfreq / 16)) / sfreq + phase)


@pytest.mark.parametrize("sfreq", [512.0, 1024.0, 2000.0])
@pytest.mark.parametrize(("hz", "band"), [(56.0, 2), (88.0, 3), (128.0, 4), (200.0, 5)])
@pytest.mark.parametrize("amplitude", [0.05, 1.0])
def test_a_sine_has_its_power_in_its_band(sfreq, hz, band, amplitude):
    """A^2 / 2, whatever the phase and the rate; what leaks out of so short a stretch stays with the neighbours."""
    for phase in (0.0, 0.7, 2.0):
        found = power(log_band_power(sine(hz, sfreq, amplitude, phase), 1 / sfreq))
        assert float(found[band]) == pytest.approx(amplitude**2 / 2, rel=0.15)
        assert all(found[k] < 0.02 * amplitude**2 for k in range(len(BANDS)) if abs(k - band) > 1)


def test_noise_has_power_in_proportion_to_the_width_of_a_band():
    """White noise of deviation 1 sampled at 1024 Hz has 1/32 in each bin of 16 Hz; the mean that is removed takes from the slowest."""
    noise = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    found = power(log_band_power(noise, 1 / 1024)).mean(0)
    bins = torch.tensor([sum(low <= k * 16 < high for k in range(33)) for low, high in BANDS])
    assert torch.allclose(found[1:], bins[1:].double() / 32, rtol=0.05)
    assert 0.5 / 32 < found[0] < 1 / 32


@pytest.mark.parametrize(("sfreq", "n_bands"), [(1000.0, 6), (512.0, 6), (400.0, 5), (256.0, 4), (200.0, 3), (50.0, 1), (20.0, 0)])
def test_bands_above_half_the_sampling_rate_are_nothing(sfreq, n_bands):
    noise = torch.randn(2, max(1, round(sfreq / 16)), generator=torch.Generator().manual_seed(0))
    found = log_band_power(noise, 1 / sfreq)
    assert (found[:, n_bands:] == 0).all()
    assert (found[:, :n_bands] != 0).all()


def test_silence_is_the_floor():
    assert torch.allclose(log_band_power(torch.zeros(64), 1 / 1024), torch.full((6,), -2.0))
