"""p values and false discovery rates by definition, and nulls that keep what belongs together."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import stats

from neurofm_ml import metrics
from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.statistics.permutation import benjamini_hochberg, null_scores, permutation_p, swap_p, unit_orders

Make = Callable[..., Prediction]


def test_p_is_never_zero_and_even_under_the_null() -> None:
    rng = np.random.default_rng(0)
    assert permutation_p(9.0, np.zeros(99)) == 0.01
    assert permutation_p(0.0, np.zeros(99)) == 1.0
    p = [permutation_p(rng.normal(), rng.normal(size=99)) for _ in range(2000)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_q_values_agree_with_scipy_and_leave_nan_alone() -> None:
    p = np.random.default_rng(0).random((6, 5)) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p).ravel(), stats.false_discovery_control(p.ravel()))
    holes = p.copy()
    holes[0, :2] = np.nan
    found = benjamini_hochberg(holes)
    assert np.isnan(found[0, :2]).all()
    np.testing.assert_allclose(found[np.isfinite(holes)], stats.false_discovery_control(holes[np.isfinite(holes)]))


def test_orders_give_each_unit_the_course_of_another() -> None:
    units = np.array([7, 2, 7, 2, 7, 5])
    for order in unit_orders(units, 6, 50, 0):
        sources = [np.unique(units[order[units == unit]]) for unit in (7, 2, 5)]
        assert sorted(int(s[0]) for s in sources) == [2, 5, 7]
        assert max(map(len, sources)) == 1
        given = order[units == 7].tolist()
        assert (
            any(given == np.roll(np.resize(np.flatnonzero(units == units[given[0]]), 3), -k).tolist() for k in range(3))
            or len(set(given)) < 3
        )
    rolls = unit_orders(None, 40, 50, 0)
    assert (np.diff(rolls, axis=1) % 40 == 1).all()
    assert sorted(rolls[:, 0]) == list(range(4, 37)), "each roll once"


@pytest.mark.parametrize(("metric", "n"), [("auroc", 2), ("auroc", 3), ("macro_f1", 3), ("auprc", 12), ("kappa", 12), ("mae", 2)])
def test_nulls_are_scores_of_truths_in_another_order(make_labels: Make, metric: str, n: int) -> None:
    made = make_labels(n_units=n, metric=metric, n=n, mixed=True)
    orders = unit_orders(made.units, n * 10, 30, 4)
    expected = [made.score.sign * made.score.value(made.y_true[order], made.y_pred) for order in orders]
    np.testing.assert_allclose(null_scores(made, 30, seed=4), expected, rtol=1e-12)


def test_p_of_people_who_are_guessed_is_even_where_windows_share_the_label(make_labels: Make) -> None:
    found = []
    for seed in range(120):
        blind = make_labels(n_units=16, rows=8, gain=0.0, seed=seed, metric="auroc")
        found.append(permutation_p(blind.value, null_scores(blind, 40)))
    assert np.mean(np.array(found) < 0.05) < 0.1
    assert 0.4 < np.mean(found) < 0.6


@pytest.mark.parametrize("metric", ["auroc", "balanced_accuracy", "mae"])
def test_swaps_agree_with_a_loop_over_patterns(make_labels: Make, metric: str) -> None:
    a, b = (make_labels(n_units=5, gain=gain, metric=metric, seed=1, noise_seed=i) for i, gain in enumerate((2.0, 0.3)))
    ranked = [np.apply_along_axis(stats.rankdata, 0, p.y_pred) if metric == "auroc" else p.y_pred for p in (a, b)]
    found = []
    for swapped in product((False, True), repeat=5):
        rows = np.array(swapped)[a.units][:, None]
        of_a, of_b = (a.score.value(a.y_true, np.where(rows == side, *ranked)) for side in (False, True))
        found.append(abs(of_a - of_b))
    assert found[0] == pytest.approx(abs(a.value - b.value))
    assert swap_p(a, b) == pytest.approx(np.mean(np.array(found) >= found[0] - 1e-12))
    assert swap_p(a, a) == 1.0


def test_the_scale_of_scores_does_not_matter_to_swaps(make_labels: Make) -> None:
    a, b = (make_labels(n_units=8, rows=20, gain=gain, metric="auroc", noise_seed=i) for i, gain in enumerate((3.0, 0.0)))
    loud = make_labels(n_units=8, rows=20, gain=0.0, metric="auroc", noise_seed=1, y_pred=1000 * b.y_pred - 3)
    assert metrics.auroc(loud.y_true[:, 0], loud.y_pred) == pytest.approx(b.value)
    assert swap_p(a, loud) == swap_p(a, b) <= 0.05
