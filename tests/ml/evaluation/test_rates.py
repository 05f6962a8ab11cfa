"""LFADS and NDT on spikes of a Lorenz system: rates that foretell spikes nobody saw, and the latent in them."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import LinearRegression

from neurofm_ml.data.simulate import FINE_HZ, lorenz
from neurofm_ml.evaluation.baselines.factors import principal_components
from neurofm_ml.evaluation.baselines.lfads import LFADS
from neurofm_ml.evaluation.baselines.ndt import NDT
from neurofm_ml.evaluation.baselines.rates import MakeNetwork, RatesFit, fit_rates, hide
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


def smoothed(spikes: Spikes) -> list[Array]:
    """Counts smoothed as is best for the other draw of the validation block."""
    _, width = max((bits_per_spike(spikes.again[1], _smooth(spikes.counts[1], w)), w) for w in WIDTHS)
    return [_smooth(x, width) for x in spikes.counts]


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
    smooth = smoothed(spikes)
    mean = smooth[0].mean(0)
    found = principal_components(smooth[0] - mean, 3)
    centred = guesses[0].mean(0)
    ours = principal_components(guesses[0] - centred, 3)
    assert bits_per_spike(spikes.again[2], np.exp(guesses[2])) > bits_per_spike(spikes.again[2], smooth[2]) + 0.02
    assert _latent_r2([(g - centred) @ ours for g in guesses], spikes) > _latent_r2([(s - mean) @ found for s in smooth], spikes) + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("make", [LFADS, NDT])
def test_units_that_are_not_shown_are_inferred_from_the_others(make: MakeNetwork, spikes: Spikes) -> None:
    """Co-smoothing: nearly as many bits as the true rates have."""
    held = np.arange(30) < 8
    said = np.exp(_fit(make, spikes, 300).guess(spikes.counts[2], held))[:, held]
    truth = spikes.counts[2][:, held]
    assert bits_per_spike(truth, said) > 0.85 * bits_per_spike(truth, spikes.rates[2][:, held])


def test_a_short_fit_beats_smoothing_already(spikes: Spikes) -> None:
    cfg = RatesConfig(updates=100, d_model=32, segment=16, lr=0.01)
    fit = fit_rates(NDT, spikes.counts[0], spikes.counts[1], True, cfg, seed=0)
    smooth = _smooth(spikes.counts[2], 2.0)
    assert bits_per_spike(spikes.again[2], np.exp(fit.guess(spikes.counts[2]))) > bits_per_spike(spikes.again[2], smooth) + 0.02


@pytest.mark.parametrize("make", [LFADS, NDT])
@pytest.mark.parametrize("counts", [False, True])
def test_the_same_seed_gives_the_same_rates_and_before_learning_the_mean(make: MakeNetwork, counts: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.poisson(2.0, size=(60, 5)).astype(float)
    cfg = RatesConfig(updates=2, d_model=16, segment=16, batch_size=4, lr=1e-9)
    a, b = (fit_rates(make, x, x, counts, cfg, seed=1) for _ in range(2))
    np.testing.assert_array_equal(a.guess(x), b.guess(x))
    said = np.exp(a.guess(x)) if counts else a.guess(x)
    np.testing.assert_allclose(said.mean(0), x.mean(0), rtol=0.3)


def test_hidden_channels_do_not_reach_the_guess() -> None:
    rng = np.random.default_rng(0)
    x = rng.poisson(1.0, size=(80, 6)).astype(float)
    fit = fit_rates(NDT, x, x, True, RatesConfig(updates=3, d_model=16, segment=16, batch_size=4), seed=0)
    held = np.arange(6) < 2
    other = np.where(held, rng.poisson(5.0, size=x.shape), x)
    np.testing.assert_array_equal(fit.guess(x, held), fit.guess(other, held))
    assert not np.allclose(fit.guess(x), fit.guess(other))


@pytest.mark.parametrize("what", ["elements", "bins", "channels"])
def test_as_much_is_hidden_as_is_asked_for(what: str) -> None:
    nothing = RatesConfig(elements=0.0, bins=0.0, channels=0.0)
    hidden = hide((200, 20, 10), dataclasses.replace(nothing, **{what: 0.4}), torch.Generator().manual_seed(0))
    assert float(hidden.float().mean()) == pytest.approx(0.2 if what == "channels" else 0.4, abs=0.03)
    whole = {"elements": hidden, "bins": hidden.any(2) == hidden.all(2), "channels": hidden.any(1) == hidden.all(1)}[what]
    assert bool(whole.all()) == (what != "elements")
