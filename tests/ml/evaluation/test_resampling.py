"""Block bootstrap: a slow twin, automatic block lengths in closed form, and coverage on series whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from neurofm_ml import metrics
from neurofm_ml.evaluation.resampling import Blocks, block_length, score_difference, score_interval


def test_resampled_sums_agree_with_a_loop() -> None:
    moments, block, n_boot = np.random.default_rng(0).normal(size=(53, 3)), 7, 20
    starts = np.random.default_rng(5).integers(0, 53, (n_boot, round(53 / block)))
    loop = [sum(moments[(s + i) % 53] for s in row for i in range(block)) for row in starts]
    np.testing.assert_allclose(Blocks(53, block, n_boot, 5).sums(moments), loop, rtol=1e-9, atol=1e-9)


def test_interval_agrees_with_scoring_every_resample(make_series) -> None:
    rng = np.random.default_rng(1)
    y = 3 + make_series(rng, 0.7, 200)
    p = y + 0.5 * make_series(rng, 0.7, 200)
    found = score_interval("r2", y, p, n_boot=300, seed=2)
    starts = np.random.default_rng(2).integers(0, 200, (300, round(200 / found.block)))
    bins = (starts[:, :, None] + np.arange(found.block)) % 200
    deviation = np.std([metrics.r2(y[b.ravel()], p[b.ravel()]) for b in bins])
    half = stats.t.ppf(0.975, 200 / found.block - 1) * deviation
    assert found.value == pytest.approx(metrics.r2(y, p), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-6)


@pytest.mark.parametrize("phi", [0.5, 0.8])
def test_block_length_approaches_its_closed_form(make_series, phi: float) -> None:
    # For AR(1) the best length is (1.5 (2 phi / (1 - phi^2))^2 n)^(1/3) (Politis and White 2004); twice that is used.
    n = 4000
    series = make_series(np.random.default_rng(0), phi, n, 40)
    expected = 2 * (1.5 * (2 * phi / (1 - phi**2)) ** 2 * n) ** (1 / 3)
    assert np.mean([block_length(column) for column in series.T]) == pytest.approx(expected, rel=0.25)


def test_block_length_of_noise_and_of_a_constant() -> None:
    noise = np.random.default_rng(0).normal(size=(2000, 20))
    assert np.median([block_length(column) for column in noise.T]) <= 8
    assert block_length(np.ones(100)) == 1


def _truth(gain: float, noise: float) -> float:
    """R2 of ``gain * (y + noise * e)`` for y, e of unit variance."""
    return 1 - (1 - gain) ** 2 - (gain * noise) ** 2


@pytest.mark.parametrize(("n", "phi"), [(300, 0.9), (1300, 0.97)])
def test_interval_covers_the_truth(make_series: Callable, n: int, phi: float) -> None:
    rng = np.random.default_rng(n)
    covered = []
    for _ in range(300):
        y = make_series(rng, phi, n)
        found = score_interval("r2", y, 0.7 * (y + 0.6 * make_series(rng, phi, n)), n_boot=200)
        covered.append(found.low <= _truth(0.7, 0.6) <= found.high)
    assert 0.90 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize(("other", "least", "most"), [(0.6, 0.0, 0.08), (1.2, 0.9, 1.0)])
def test_difference_is_called_when_and_only_when_there_is_one(make_series: Callable, other: float, least: float, most: float) -> None:
    rng = np.random.default_rng(0)
    called = []
    for _ in range(200):
        y, a, b = (make_series(rng, 0.8, 400) for _ in range(3))
        found = score_difference("r2", y, 0.7 * (y + 0.6 * a), 0.7 * (y + other * b), n_boot=200)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        called.append(found.low > 0 if other > 0.6 else found.p < 0.05)
    assert least <= np.mean(called) <= most


def test_predictions_that_agree_differ_by_nothing(make_series) -> None:
    y, p = make_series(np.random.default_rng(0), 0.8, 100, 4)[:, :2], make_series(np.random.default_rng(1), 0.8, 100)
    assert score_difference("r2", y, p, p)[:4] == pytest.approx((0.0, 0.0, 0.0, 1.0), abs=1e-12)
