"""Closed-form readouts against scikit-learn, and what is said of rows left out against fits without them."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neurofm_ml.evaluation.readouts.readout import PENALTIES, Path, balanced, indicators


def rows(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + 3
    return x, x[:, :2] @ rng.normal(size=(2, 3)) + rng.normal(size=(n, 3)) + 5


@pytest.mark.parametrize("shape", [(30, 7), (12, 40)])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_penalty_is_the_ridge_of_scikit_learn(shape: tuple[int, int], weighted: bool) -> None:
    x, y = rows(*shape)
    weights = np.random.default_rng(1).uniform(0.2, 2, len(x)) if weighted else np.ones(len(x))
    weights *= len(x) / weights.sum()
    path = Path.of(x, y, weights if weighted else None)
    other = rows(9, shape[1], 2)[0]
    for k in (0, 7, len(PENALTIES) - 1):
        twin = Ridge(alpha=path.penalties[k]).fit(x, y, sample_weight=weights)
        assert np.allclose(path.predictions(other)[k], twin.predict(other))
        assert np.allclose(path.readout(k)(other), twin.predict(other))


@pytest.mark.parametrize(("shape", "size"), [((30, 7), 3), ((12, 40), 3), ((120, 7), 30)])
def test_rows_left_out_are_said_by_a_fit_without_them(shape: tuple[int, int], size: int) -> None:
    x, y = rows(*shape)
    groups, weights = np.arange(len(x)) // size, np.random.default_rng(1).uniform(0.2, 2, len(x))
    weights *= len(x) / weights.sum()
    path = Path.of(x, y, weights)
    said = path.left_out(groups)
    for k, group in ((2, 0), (9, 3)):
        out = groups == group
        twin = Ridge(alpha=path.penalties[k]).fit(x[~out], y[~out], sample_weight=weights[~out])
        assert np.allclose(said[k, out], twin.predict(x[out]))
    alone = path.left_out(np.zeros(len(x)))
    assert np.allclose(alone, path.left_out(np.arange(len(x))))


def test_classes_of_any_size_count_alike() -> None:
    y = np.array([0, 0, 0, 2, 1, 1])
    assert np.array_equal(indicators(y, 4).argmax(1), y)
    assert np.allclose([balanced(y)[y == c].sum() for c in range(3)], 1)
