"""Calibration against loops, scikit-learn and integrals."""

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn import metrics as reference

from neurofm_ml import metrics

RNG = np.random.default_rng(0)


def test_calibration_error_agrees_with_a_loop_and_vanishes_where_probabilities_are_true() -> None:
    p = RNG.dirichlet(np.ones(3), 40_000)
    y = (p.cumsum(1) > RNG.random((40_000, 1))).argmax(1)
    assert metrics.ece(y, p) < 0.01
    sharper = p**3 / (p**3).sum(1, keepdims=True)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (sharper.max(1) > low) & (sharper.max(1) <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs((sharper.argmax(1) == y)[inside].mean() - sharper.max(1)[inside].mean())
    assert metrics.ece(y, sharper) == pytest.approx(expected, rel=1e-9)
    assert expected > 0.1
    # Always sure and right in half of the cases.
    assert metrics.ece(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]])) == 0.5


def test_brier_agrees_with_its_reference() -> None:
    y, p = RNG.integers(0, 2, 100), RNG.random(100)
    assert metrics.brier(y, np.stack([1 - p, p], 1)) == pytest.approx(2 * reference.brier_score_loss(y, p), rel=1e-12)
    assert metrics.brier(np.array([2]), np.full((1, 4), 0.25)) == pytest.approx(0.75**2 + 3 * 0.25**2)


def test_crps_of_an_ensemble_is_the_integral_of_its_definition() -> None:
    members, y = RNG.normal(size=(6, 5)), RNG.normal(size=6)
    grid = np.linspace(-6, 6, 200_001)
    steps = [((m[:, None] <= grid).mean(0) - (grid >= truth)) ** 2 for m, truth in zip(members, y, strict=True)]
    assert metrics.crps_ensemble(y, members) == pytest.approx(np.mean([integrate.trapezoid(s, grid) for s in steps]), abs=1e-3)
    assert metrics.crps_ensemble(y, members[:, :1]) == pytest.approx(metrics.mae(y, members[:, 0]))


def test_crps_of_a_normal_is_its_integral_and_the_limit_of_its_ensembles() -> None:
    y, mean, std = np.array([0.3, -2.0]), np.array([0.0, 1.0]), np.array([1.0, 0.5])
    parts = [
        integrate.quad(lambda x, i=i: (stats.norm.cdf(x, mean[i], std[i]) - (x >= y[i])) ** 2, -10, 10, points=[y[i]], limit=200)[0]
        for i in range(2)
    ]
    assert metrics.crps_gaussian(y, mean, std) == pytest.approx(np.mean(parts), rel=1e-6)
    members = mean[:, None] + std[:, None] * stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    assert metrics.crps_ensemble(y, members) == pytest.approx(np.mean(parts), rel=1e-3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.ece(np.zeros(2), np.array([[2.0, 3.0], [1.0, 1.0]])), "apply a softmax"),
        (lambda: metrics.brier(np.zeros(1, int), np.array([[1.5, -0.5]])), "apply a softmax"),
        (lambda: metrics.crps_gaussian(np.zeros(2), np.zeros(2), np.array([1.0, 0.0])), "deviations must be positive"),
    ],
)
def test_what_is_no_distribution_is_refused(call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
