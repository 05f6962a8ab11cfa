"""LFADS and NDT on spikes of a Lorenz system: rates that foretell spikes nobody saw, and the latent in them."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import LinearRegression

from neurofm_ml.data.simulate import FINE_HZ, lorenz
from neurofm_ml.evaluation.factors import principal_components
from neurofm_ml.evaluation.lfads import LFADS
from neurofm_ml.evaluation.ndt import NDT
from neurofm_ml.evaluation.rates import MakeNetwork, RatesFit, fit_rates
from neurofm_ml.metrics import bits_per_spike, r2
from neurofm_ml.presets import RatesConfig
from neurofm_ml.types import Array

BIN_S = 1 / 16
CUTS = (1400, 1700)
WIDTHS = (0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Spikes:
    """Latent (T, 3), rates per bin (T, N), and two independent draws of counts (T, N), each in three blocks."""

    latent: list[Array]
    rates: list[Array]
    counts: list[Array]
    again: list[Array]


@pytest.fixture(scope="module")
def spikes() -> Spikes:
    rng = np.random.default_rng(0)
    step = round(FINE_HZ * BIN_S)
    latent = lorenz(rng, 2200 * step).reshape(2200, step, 3).mean(1)
    mixing = rng.normal(size=(3, 30))
    rates = np.exp(np.log(0.3) + 0.8 * latent @ (mixing / np.linalg.norm(mixing, axis=0)))
    return Spikes(*(np.split(v, CUTS) for v in (latent, rates, rng.poisson(rates).astype(float), rng.poisson(rates).astype(float))))


def smoothed(spikes: Spikes) -> tuple[float, list[Array]]:
    """Counts smoothed as is best on the validation block, and the width."""
    score, width = max((bits_per_spike(spikes.again[1], _smooth(spikes.counts[1], w)), w) for w in WIDTHS)
    return width, [_smooth(x, width) for x in spikes.counts]


def _smooth(x: Array, width: float) -> Array:
    return gaussian_filter1d(x, width, axis=0) + 0.02


def _latent_r2(features: list[Array], spikes: Spikes) -> float:
    return r2(spikes.latent[2], LinearRegression().fit(features[0], spikes.latent[0]).predict(features[2]))


def _fit(make: MakeNetwork, spikes: Spikes, updates: int) -> RatesFit:
    return fit_rates(make, spikes.counts[0], spikes.counts[1], True, RatesConfig(updates=updates), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("make", [LFADS, NDT])
def test_rates_beat_smoothed_spikes_and_hold_the_latent(make: MakeNetwork, spikes: Spikes) -> None:
    """Bits per spike of another draw from the same rates; PCA of smoothed counts with as many components as the latent has."""
    fit = _fit(make, spikes, 300)
    guesses = [fit.guess(x) for x in spikes.counts]
    _, smooth = smoothed(spikes)
    mean = smooth[0].mean(0)
    found = principal_components(smooth[0] - mean, 3)
    centred = guesses[0].mean(0)
    ours = principal_components(guesses[0] - centred, 3)
    assert bits_per_spike(spikes.again[2], np.exp(guesses[2])) > bits_per_spike(spikes.again[2], smooth[2]) + 0.02
    assert _latent_r2([(g - centred) @ ours for g in guesses], spikes) > _latent_r2([(s - mean) @ found for s in smooth], spikes) + 0.02
