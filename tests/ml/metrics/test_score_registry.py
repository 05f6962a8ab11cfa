"""What every entry of SCORES must do: agree with the plain function, weigh samples, know its own derivative and its chance."""

import numpy as np
import pytest

from neurofm_ml import metrics
from neurofm_ml.metrics import SCORES, Score
from neurofm_ml.metrics.scores import Ranks
from neurofm_ml.types import Array


def plain(name: str, y: Array, p: Array) -> float:
    """The function of the same name, given what it takes."""
    function = getattr(metrics, name)
    if SCORES[name].of == "classes":
        return function(y[:, 0], p if isinstance(SCORES[name].statistic, Ranks) else p.argmax(1))
    return function(y, p)


CASES = [(name, n) for name in SCORES for n in ((2, 4) if SCORES[name].of == "classes" else (2,))]


def example(score: Score, n: int, rows: int = 60) -> tuple[Array, Array]:
    """Truth and a guess that knows something of it, of n columns or classes; with ties."""
    rng = np.random.default_rng(n)
    if score.of == "counts":
        rates = rng.gamma(2, 0.5, (rows, n))
        return rng.poisson(rates).astype(float), rates
    if score.of == "numbers":
        y = 3 + rng.normal(size=(rows, n))
        return y, y + rng.normal(size=(rows, n))
    y = rng.integers(0, n, (rows, 1)).astype(float)
    p = rng.normal(size=(rows, n)) + 1.2 * np.eye(n)[y[:, 0].astype(int)]
    return y, np.exp(np.round(p, 1)) / np.exp(np.round(p, 1)).sum(1, keepdims=True)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_a_score_is_its_plain_function_and_weights_are_repetitions(name: str, n: int) -> None:
    score = SCORES[name]
    y, p = example(score, n)
    times = np.random.default_rng(1).integers(0, 4, (5, len(y)))
    again = [np.repeat(np.arange(len(y)), w) for w in times]
    repeated = [plain(name, y[i], p[i]) for i in again]
    assert score.value(y, p) == pytest.approx(plain(name, y, p), rel=1e-12)
    assert score.value(y, p, times[0].astype(float)) == pytest.approx(repeated[0], rel=1e-12)
    np.testing.assert_allclose(score.statistic.weighted(y, p, times.astype(float)), repeated, rtol=1e-10)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_influence_is_the_derivative_by_a_weight(name: str, n: int) -> None:
    score = SCORES[name]
    y, p = example(score, n)
    step = 1e-5 * np.eye(len(y))
    up, down = (score.statistic.weighted(y, p, 1 + sign * step) for sign in (1, -1))
    slope = len(y) * (up - down) / 2e-5
    found = score.statistic.influence(y, p)
    np.testing.assert_allclose(found - found.mean(), slope - slope.mean(), atol=1e-4 * slope.std())


@pytest.mark.parametrize(("name", "n"), CASES)
def test_an_answer_without_knowledge_is_at_chance_and_a_perfect_one_at_the_end(name: str, n: int) -> None:
    score, rng = SCORES[name], np.random.default_rng(0)
    y, _ = example(score, n, 6000)
    flat = np.broadcast_to(np.median(y, axis=0) if name == "mae" else y.mean(0), y.shape)
    blind = rng.normal(size=(len(y), n if score.of == "classes" else y.shape[1]))
    if name == "accuracy":
        blind = np.zeros((len(y), n)) + np.eye(n)[np.bincount(y[:, 0].astype(int)).argmax()]
    guess = flat if name in ("r2", "mae", "bits_per_spike") else blind
    assert score.value(y, guess) == pytest.approx(score.at_chance(y), abs=0.03)
    perfect = np.eye(n)[y[:, 0].astype(int)] if score.of == "classes" else y
    best = score.least if score.lower_is_better else score.most
    assert score.value(y, perfect) == pytest.approx(best) if np.isfinite(best) else score.value(y, perfect) > 1


TWO = np.arange(10.0).reshape(5, 2)


@pytest.mark.parametrize(
    ("name", "y", "p", "match"),
    [
        ("r2", np.ones((5, 2)), TWO, "r2 is not defined"),
        ("auroc", np.ones((5, 1)), TWO, "only one class"),
        ("mae", np.full((5, 2), np.nan), TWO, "10 NaN"),
        ("mae", np.zeros((5, 1)), TWO, "a guess for each number"),
        ("accuracy", np.full((5, 1), 2.0), TWO, "scores of all classes"),
        ("auroc", np.zeros(5), TWO, r"y_true \(T, 1\) places"),
        ("bits_per_spike", TWO, -TWO, "cannot be negative"),
    ],
)
def test_what_has_no_score_is_refused(name: str, y: Array, p: Array, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SCORES[name].value(y, p)


def test_an_answer_that_is_always_the_same_goes_with_nothing() -> None:
    y = np.arange(5.0)[:, None]
    assert SCORES["pearson"].value(y, np.full((5, 1), 3.0)) == 0.0
    with pytest.raises(ValueError, match="a column of y_true is constant"):
        SCORES["pearson"].value(np.ones((5, 1)), y)
