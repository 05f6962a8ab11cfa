"""Bootstraps of blocks and of units: slow twins, automatic block lengths in closed form, and coverage where the truth is known."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from neurofm_ml import metrics
from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.statistics.resampling import (
    Blocks,
    Units,
    block_length,
    difference,
    interval,
    resample,
    score_difference,
    score_interval,
)
from neurofm_ml.metrics import SCORES
from neurofm_ml.types import Array

Make = Callable[..., Prediction]


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
    assert [block_length(np.arange(n, dtype=float)) for n in (2, 3, 4)] == [1, 1, 1]


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


# ---------------------------------------------------------------- any score, and rows with units
def drawn_rows(drawn: Blocks | Units, n: int) -> list[Array]:
    """The rows of each resample."""
    if isinstance(drawn, Blocks):
        return [np.concatenate([(start + np.arange(drawn.block)) % n for start in starts]) for starts in drawn.starts]
    return [np.concatenate([np.flatnonzero(drawn.place == unit) for unit in units]) for units in drawn.drawn]


@pytest.mark.parametrize("metric", SCORES)
@pytest.mark.parametrize("by", ["blocks", "units"])
def test_every_resample_is_the_score_of_the_rows_drawn(make_labels: Make, metric: str, by: str) -> None:
    made = make_labels(n_units=9, rows=6, n=3, metric=metric, mixed=True)
    y, p = made.scored if SCORES[metric].of != "counts" else (made.y_true, np.abs(made.y_pred))
    units = np.repeat([5, 1, 8], [11, 20, 23])  # of different size
    drawn = Blocks(len(y), 7, 20, 3) if by == "blocks" else Units(units, 40, 3)
    expected = [SCORES[metric].value(y[rows], p[rows]) for rows in drawn_rows(drawn, len(y))]
    np.testing.assert_allclose(resample(SCORES[metric], y, p, drawn), expected, rtol=1e-9, atol=1e-12)


def test_resamples_are_the_same_however_they_are_cut(make_labels: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_labels(metric="auroc")
    found = []
    for chunk in (10**6, 400):
        monkeypatch.setattr("neurofm_ml.evaluation.statistics.resampling.CHUNK", chunk)
        found.append(interval(made, 100))
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize(("metric", "gain", "mixed"), [("auroc", 1.5, False), ("balanced_accuracy", 1.5, False), ("kappa", 0.0, True)])
def test_intervals_over_people_cover_the_truth(make_labels: Make, metric: str, gain: float, mixed: bool) -> None:
    truth = make_labels(4000, 5, gain, metric=metric, mixed=mixed).value
    found = [interval(make_labels(20, 5, gain, metric=metric, mixed=mixed, seed=seed), 200) for seed in range(200)]
    assert 0.90 <= np.mean([f.low <= truth <= f.high for f in found]) <= 0.995
    # Windows of one person are alike: taken for independent, they say too much.
    alone = [interval(make_labels(20, 5, gain, metric=metric, seed=seed, units=np.arange(100)), 200) for seed in range(50)]
    assert mixed or np.mean([f.high - f.low for f in alone]) < 0.8 * np.mean([f.high - f.low for f in found])


@pytest.mark.parametrize(("gains", "n", "least", "most"), [((1.0, 1.0), 200, 0.0, 0.09), ((3.0, 0.0), 40, 0.9, 1.0)])
def test_a_difference_between_people_is_called_when_there_is_one(
    make_labels: Make, gains: tuple[float, float], n: int, least: float, most: float
) -> None:
    def pair(seed: int) -> list[Prediction]:
        return [make_labels(30, 4, gain, metric="auroc", seed=seed, noise_seed=i) for i, gain in enumerate(gains)]

    assert least <= np.mean([difference(*pair(seed), n_boot=200).p < 0.05 for seed in range(n)]) <= most


def test_blocks_of_a_series_of_states_cover_the_truth(make_series: Callable) -> None:
    rng, covered = np.random.default_rng(0), []
    truth = 1 - np.arccos(1 / np.sqrt(1 + 0.5**2)) / np.pi  # chance that two normal variables of that correlation agree in sign
    for _ in range(200):
        state, noise = make_series(rng, 0.9, 600, 1), make_series(rng, 0.9, 600, 1)
        said = state + 0.5 * noise
        found = score_interval("accuracy", (state > 0).astype(float), np.concatenate([-said, said], axis=1), n_boot=200)
        covered.append(found.low <= truth <= found.high)
        assert found.block > 1
    assert 0.9 <= np.mean(covered) <= 0.995


def test_r2_over_few_people_covers_the_truth_and_is_not_lost_to_odd_draws() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        age = rng.gamma(2, 5, 10)
        said = 0.5 * age + 5 + rng.normal(0, 2, 10)
        found.append(score_interval("r2", age[:, None], said[:, None], np.arange(10), n_boot=300))
    truth = 1 - (0.25 * 50 + 4) / 50  # ages have mean 10 and variance 50
    assert 0.9 <= np.mean([f.low <= truth <= f.high for f in found]) <= 0.995
    assert np.median([truth - f.low for f in found]) < 1.2


def test_without_an_error_the_bound_is_that_of_a_share(make_labels: Make) -> None:
    perfect = make_labels(n_units=10, gain=1e3, metric="auroc")
    low = stats.binomtest(10, 10).proportion_ci().low
    assert interval(perfect)[:3] == pytest.approx((1, low, 1))
    assert interval(perfect).p == pytest.approx(stats.binomtest(10, 10, 0.5).pvalue)
    worst = make_labels(n_units=10, gain=-1e3, metric="auroc")
    assert interval(worst)[:3] == pytest.approx((0, 0, 1 - low))


def test_an_answer_that_is_always_the_same_is_surely_at_chance(make_labels: Make) -> None:
    same = make_labels(y_pred=np.tile([1.0, 0.0], (200, 1)))
    assert interval(same)[:4] == (0.5, 0.5, 0.5, 1.0)


@pytest.mark.parametrize("few", [{"n_units": 1, "mixed": True}, {"n_units": 12, "n": 12, "gain": 0.5}])
def test_one_unit_of_a_class_says_nothing_of_others(make_labels: Make, few: dict) -> None:
    made = make_labels(metric="auroc", **few)
    if made.y_pred.shape[1] > 2:  # one patient among twelve people
        made = dataclasses.replace(made, y_true=(made.y_true == 3).astype(float), y_pred=made.y_pred[:, [0, 3]])
    found = interval(made)
    assert 0 < found.value < 1
    assert np.isnan([found.low, found.high, found.p]).all()
