"""Linear probes against scikit-learn with explicit features; the penalty against a loop; what is planted and what is not."""

import numpy as np
import pytest

from neurofm_ml import metrics
from neurofm_ml.evaluation.readouts.linear import PENALTIES, fit_linear


def planted(n: int, f: int, strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of four groups, each off by a vector of its own; labels that one direction tells apart."""
    rng = np.random.default_rng(seed)
    y, groups = rng.random(n) < 0.4, np.arange(n) % 4
    x = rng.normal(size=(n, f)) + rng.normal(size=(4, f))[groups] * 0.3
    return x + strength * np.outer(y, rng.normal(size=f) / np.sqrt(f)), y, groups


def scale_of(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Centred rows in the unit that penalties are counted in."""
    centred = x - x.mean(0)
    squares = np.linalg.svd(centred, compute_uv=False) ** 2
    squares = squares[squares > 1e-10 * squares[0]]
    return centred / np.sqrt(squares.mean()), float(np.sqrt(squares.mean()))


def fitted(x: np.ndarray, y: np.ndarray, penalty: float, logistic: bool) -> tuple[np.ndarray, float]:
    """scikit-learn's weights and intercept for centred features."""
    from sklearn.linear_model import LogisticRegression, Ridge

    z, unit = scale_of(x)
    if not logistic:
        found = Ridge(alpha=penalty, solver="svd").fit(z, y)
        return found.coef_ / unit, float(found.intercept_)
    found = LogisticRegression(C=1 / penalty, class_weight="balanced", tol=1e-6, max_iter=2000).fit(z, y)
    return found.coef_[0] / unit, float(found.intercept_[0])


@pytest.mark.parametrize("logistic", [False, True])
@pytest.mark.parametrize("shape", [(40, 6), (32, 50)])
def test_weights_and_penalty_against_scikit_learn(shape, logistic):
    x, y, groups = planted(*shape, strength=3.0)
    found = fit_linear(x, y, groups, logistic)
    weights, intercept = fitted(x, y, found.penalty, logistic)
    expected = (x - x.mean(0)) @ weights + intercept
    assert np.allclose(found(x), expected, atol=2e-2 * np.abs(expected).max())

    def held_out(penalty: float) -> float:
        scores = []
        for group in range(4):
            out = groups == group
            w, b = fitted(x[~out], y[~out], penalty, logistic)
            scores.append(metrics.auroc(y[out], (x[out] - x[~out].mean(0)) @ w + b))
        return float(np.mean(scores))

    scores = [held_out(penalty) for penalty in PENALTIES]
    assert found.score == pytest.approx(max(scores), abs=0.02)
    assert held_out(found.penalty) == pytest.approx(max(scores), abs=0.02)


def test_numbers_are_predicted_and_scored_by_r2():
    x, _, groups = planted(80, 300, 0.0)
    direction = np.random.default_rng(1).normal(size=300)
    x[:, :] += np.outer(np.random.default_rng(2).normal(size=80), direction)
    y = 20 + 3 * (x @ direction) / (direction @ direction)
    found = fit_linear(x, y, groups, logistic=False)
    assert found.score > 0.8
    assert metrics.r2(y[:, None], found(x)[:, None]) > found.score


@pytest.mark.parametrize("logistic", [False, True])
def test_what_is_planted_is_found_and_noise_is_not(logistic):
    tested = {}
    for strength in (0.0, 12.0):
        x, y, groups = planted(240, 400, strength)
        train = groups < 3
        fit = fit_linear(x[train], y[train], groups[train], logistic)
        tested[strength] = metrics.auroc(y[~train], fit(x[~train]))
    assert tested[12.0] > 0.9
    assert 0.3 < tested[0.0] < 0.7


def test_a_group_of_one_class_tells_nothing():
    x, y, groups = planted(40, 5, 3.0)
    y[groups == 3] = True
    assert fit_linear(x, y, groups, logistic=False).score < 1
