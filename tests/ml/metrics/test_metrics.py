"""Scores of numbers, classes, orders and counts against scikit-learn, scipy or their closed form."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from neurofm_ml import metrics


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_regression_scores_agree_with_references(rng: np.random.Generator) -> None:
    y = rng.normal(3, [1.0, 5.0], (200, 2))
    p = y + rng.normal(0, 1, (200, 2))
    assert metrics.r2(y, p) == pytest.approx(reference.r2_score(y, p), rel=1e-12)
    assert metrics.r2(y, p, average="variance") == pytest.approx(reference.r2_score(y, p, multioutput="variance_weighted"), rel=1e-12)
    assert metrics.mae(y, p) == pytest.approx(reference.mean_absolute_error(y, p), rel=1e-12)
    assert metrics.pearson(y, p) == pytest.approx(np.mean([stats.pearsonr(y[:, k], p[:, k])[0] for k in range(2)]), rel=1e-12)


def test_masked_bins_do_not_count(rng: np.random.Generator) -> None:
    y, p = rng.normal(size=(2, 50, 2))
    mask = rng.random(50) < 0.7
    holes = np.where(mask[:, None], y, np.nan)
    for metric in (metrics.r2, metrics.mae, metrics.pearson):
        assert metric(holes, p, mask=mask) == metric(y[mask], p[mask])


def test_classification_scores_agree_with_references(rng: np.random.Generator) -> None:
    y, p = rng.integers(0, 4, (2, 300))
    p[:150] = y[:150]
    p[p == 1] = 7  # a class that is never true
    assert metrics.accuracy(y, p) == reference.accuracy_score(y, p)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert metrics.balanced_accuracy(y, p) == pytest.approx(reference.balanced_accuracy_score(y, p), rel=1e-12)
    assert metrics.macro_f1(y, p) == pytest.approx(reference.f1_score(y, p, average="macro"), rel=1e-12)
    assert metrics.kappa(y, p) == pytest.approx(reference.cohen_kappa_score(y, p), rel=1e-12)


@pytest.mark.parametrize("n_levels", [2, 5, 10_000])
def test_areas_agree_with_references_whatever_the_ties(rng: np.random.Generator, n_levels: int) -> None:
    y = rng.random(300) < 0.2
    score = rng.integers(0, n_levels, 300) + y * n_levels / 8
    pairs = score[y][:, None] - score[~y][None]
    assert metrics.auroc(y, score) == pytest.approx(reference.roc_auc_score(y, score), rel=1e-12)
    assert metrics.auroc(y, score) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)), rel=1e-12)
    assert metrics.auprc(y, score) == pytest.approx(reference.average_precision_score(y, score), rel=1e-12)


def test_areas_of_several_classes_are_means_of_one_against_the_rest(rng: np.random.Generator) -> None:
    y, score = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    score[np.arange(200), y] += 0.2
    score /= score.sum(1, keepdims=True)
    assert metrics.auroc(y, score) == pytest.approx(reference.roc_auc_score(y, score, multi_class="ovr"), rel=1e-12)
    assert metrics.auprc(y, score) == pytest.approx(reference.average_precision_score(y, score), rel=1e-12)
    two = np.stack([1 - score[:, 0], score[:, 0]], 1)
    assert metrics.auroc(y == 0, two) == metrics.auroc(y == 0, score[:, 0])


def test_bits_per_spike_agrees_with_scipy_and_its_closed_form(rng: np.random.Generator) -> None:
    rates = rng.gamma(2, 1, (400, 5))
    counts = rng.poisson(rates)
    model, flat = (stats.poisson.logpmf(counts, r).sum() for r in (rates, np.broadcast_to(counts.mean(0), counts.shape)))
    assert metrics.bits_per_spike(counts, rates) == pytest.approx((model - flat) / counts.sum() / np.log(2), rel=1e-9)
    assert metrics.bits_per_spike(counts, np.broadcast_to(counts.mean(0), counts.shape)) == pytest.approx(0, abs=1e-12)
    # One unit fires once in every other bin and the model knows which: log2(2) = 1 bit per spike.
    alternating = np.tile([1.0, 0.0], 50)[:, None]
    assert metrics.bits_per_spike(alternating, alternating) == pytest.approx(1, abs=1e-6)


LINE = np.arange(4.0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.r2(np.array([1, np.nan]), np.zeros(2)), "y_true has 1 NaN"),
        (lambda: metrics.r2(LINE, np.full(4, np.nan)), "y_pred has 4 NaN"),
        (lambda: metrics.r2(LINE, LINE[:3]), r"shape \(4,\) and y_pred \(3,\)"),
        (lambda: metrics.r2(LINE, LINE, mask=np.zeros(4, bool)), "every one is masked"),
        (lambda: metrics.r2(np.ones((4, 1)), LINE[:, None]), "constant in column 0"),
        (lambda: metrics.pearson(LINE, np.ones(4)), "column 0 is constant"),
        (lambda: metrics.auroc(np.ones(4), LINE), "4 positives and 0 negatives"),
        (lambda: metrics.auprc(np.zeros(4), LINE), "0 positives and 4 negatives"),
        (lambda: metrics.kappa(np.ones(4), np.ones(4)), "kappa is not defined"),
        (lambda: metrics.bits_per_spike(LINE, -LINE), "cannot be negative"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
