"""The benchmark's figures against its written definition, in loops."""

from math import lgamma, log

import numpy as np
import pytest

from neurofm_ml.evaluation.scoring.nlb import PENALTIES, co_bps, nlb_scores, psth_r2, velocity_r2
from neurofm_ml.types import Array

RNG = np.random.default_rng(0)
LATENT = np.cumsum(RNG.normal(size=(30, 12, 2)), axis=1) * 0.4
RATES = np.exp(LATENT @ RNG.normal(0, 0.5, (2, 6)) - 1)
COUNTS = RNG.poisson(RATES).astype(float)
VELOCITY = LATENT @ RNG.normal(size=(2, 2)) + 0.3 * RNG.normal(size=(30, 12, 2))


def log_likelihood(counts: Array, rates: Array) -> float:
    return sum(n * log(r) - r - lgamma(n + 1) for n, r in zip(counts.ravel(), rates.ravel(), strict=True) if not np.isnan(n))


def test_co_smoothing_is_the_gain_over_mean_rates_per_spike() -> None:
    counts = COUNTS.copy()
    counts[3, 8:] = np.nan  # a trial that ends early
    means = np.nanmean(counts, axis=(0, 1)) * np.ones_like(counts)
    expected = (log_likelihood(counts, RATES) - log_likelihood(counts, means)) / np.nansum(counts) / log(2)
    assert co_bps(counts, RATES) == pytest.approx(expected, rel=1e-9)
    assert co_bps(counts, means) == pytest.approx(0, abs=1e-9)
    assert expected > 0.1


def ridge(x: Array, y: Array, penalty: float) -> tuple[Array, Array]:
    """Weights and intercept, which is not penalised."""
    centred = x - x.mean(0)
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (y - y.mean(0)))
    return weights, y.mean(0) - x.mean(0) @ weights


def mean_r2(y: Array, p: Array) -> float:
    return float(np.mean([1 - ((a - b) ** 2).sum() / ((a - a.mean()) ** 2).sum() for a, b in zip(y.T, p.T, strict=True)]))


def test_velocity_is_decoded_by_ridge_with_its_penalty_from_five_folds_in_order() -> None:
    velocity = VELOCITY.copy()
    velocity[2, :3], velocity[25, 5] = np.nan, np.nan
    noisy = RATES + 0.3 * RNG.normal(size=RATES.shape)
    known = ~np.isnan(velocity[:20].reshape(-1, 2)).any(1)
    x, y = noisy[:20].reshape(-1, 6)[known], velocity[:20].reshape(-1, 2)[known]
    scores = []
    for penalty in PENALTIES:
        folds = []
        for test in np.array_split(np.arange(len(x)), 5):
            train = np.setdiff1d(np.arange(len(x)), test)
            weights, intercept = ridge(x[train], y[train], penalty)
            folds.append(mean_r2(y[test], x[test] @ weights + intercept))
        scores.append(np.mean(folds))
    weights, intercept = ridge(x, y, PENALTIES[int(np.argmax(scores))])
    late, truth = noisy[20:].reshape(-1, 6), velocity[20:].reshape(-1, 2)
    known = ~np.isnan(truth).any(1)
    expected = mean_r2(truth[known], late[known] @ weights + intercept)
    assert velocity_r2(noisy[:20], velocity[:20], noisy[20:], velocity[20:]) == pytest.approx(expected, rel=1e-8)
    assert expected > 0.1


def test_responses_to_conditions_are_compared_after_averaging_trials() -> None:
    trials = [np.array([0, 4, 5]), np.array([], int), np.array([1, 2])]
    psth = RNG.normal(1, 0.3, (3, 12, 6))
    psth[0, 9:] = np.nan
    true, said = [], []
    for condition, places in enumerate(trials):
        for t in range(12):
            if len(places) and not np.isnan(psth[condition, t, 0]):
                true.append(psth[condition, t])
                said.append(sum(RATES[place, t] for place in places) / len(places))
    assert psth_r2(psth, RATES, trials) == pytest.approx(mean_r2(np.array(true), np.array(said)), rel=1e-9)
    exact = np.stack([RATES[places].mean(0) if len(places) else np.zeros((12, 6)) for places in trials])
    assert psth_r2(exact, RATES, trials) == 1


def test_the_figures_have_the_benchmark_s_names() -> None:
    test, psth = (RATES[20:], VELOCITY[20:]), (RATES[20:22], [np.array([0]), np.array([1])])
    scores = nlb_scores((COUNTS[20:, :, 4:], RATES[20:, :, 4:]), (RATES[:20], VELOCITY[:20]), test, (COUNTS[20:], RATES[20:]), psth)
    assert list(scores) == ["co-bps", "vel R2", "psth R2", "fp-bps"]
    assert scores["fp-bps"] == co_bps(COUNTS[20:], RATES[20:])
    assert scores["psth R2"] == 1
