"""Linear probes of labels: ridge for numbers, logistic regression for classes, the penalty chosen on whole held-out groups.

There are far more features than people, so everything is fitted in the space that the training rows span: the same
solution, at the price of one product of the features. Shapes: N rows (people), F features, D <= N directions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from neurofm_ml import metrics
from neurofm_ml.evaluation.readouts.logistic import softmax_path
from neurofm_ml.types import Array

#: Penalties that are tried, in units of the mean variance of a direction times the number of rows.
PENALTIES = tuple(10.0 ** np.arange(-3, 3.1))
#: Directions with less than this share of the largest variance are rounding.
LEAST = 1e-10

Path = Callable[[Array, Array], Iterator[tuple[Array, float]]]


@dataclass(frozen=True, eq=False)
class LinearFit:
    """scores = (x - mean) @ weights + intercept: numbers, or log odds of True. weights, mean (F,); `score` is what the chosen
    penalty reached on held-out groups."""

    weights: Array
    mean: Array
    intercept: float
    penalty: float
    score: float

    def __call__(self, x: Array) -> Array:
        """x (N, F) -> (N,)"""
        return np.asarray((x - self.mean) @ self.weights + self.intercept)


def fit_linear(x: Array, y: Array, groups: Array, logistic: bool) -> LinearFit:
    """Fit x (N, F) to y (N,), booleans or numbers; each group (N,) is held out in turn to choose the penalty.

    Chosen is what has the highest mean over groups, weighted by rows, of AUROC for booleans, which ridge takes as 0 and 1,
    or of R2 for numbers.
    """
    gram, path = x @ x.T, _logistic if logistic else _ridge
    scores = _held_out_scores(gram, y, groups, path)
    k, everyone = int(np.argmax(scores)), np.ones(len(y), bool)
    z, _, back = _directions(gram, everyone, everyone)
    beta, intercept = list(path(z, y))[k]
    mean = x.mean(axis=0)
    return LinearFit((x - mean).T @ (back @ beta), mean, intercept, float(PENALTIES[k]), float(scores[k]))


def _held_out_scores(gram: Array, y: Array, groups: Array, path: Path) -> Array:
    """(n_penalties,)"""
    total = np.zeros(len(PENALTIES))
    for group in np.unique(groups):
        out = groups == group
        z, held_out, _ = _directions(gram, ~out, out)
        guesses = [held_out @ beta + intercept for beta, intercept in path(z, y[~out])]
        total += out.mean() * np.array([_score(y[out], guess, y[~out]) for guess in guesses])
    return total


def _score(y: Array, guess: Array, seen: Array) -> float:
    """AUROC; for numbers 1 - error / error of the mean of those `seen`, which is defined for a single row too."""
    if y.dtype == bool:
        return metrics.auroc(y, guess) if 0 < y.sum() < len(y) else 0.5
    return float(1 - np.mean((y - guess) ** 2) / np.var(seen))


def _directions(gram: Array, train: Array, other: Array) -> tuple[Array, Array, Array]:
    """Training rows (n, D) and other rows (m, D) along the principal directions, in units of their mean deviation, and the
    matrix (n, D) that takes weights of directions to weights of centred training rows."""
    own, cross = gram[np.ix_(train, train)], gram[np.ix_(other, train)]
    mean = own.mean(axis=0)
    variances, vectors = np.linalg.eigh(own - mean - mean[:, None] + mean.mean())
    kept = variances > LEAST * variances[-1]
    variances, vectors = variances[kept], vectors[:, kept]
    back = vectors / np.sqrt(variances * variances.mean())
    return vectors * np.sqrt(variances / variances.mean()), (cross - cross.mean(axis=1, keepdims=True) - mean + mean.mean()) @ back, back


def _ridge(z: Array, y: Array) -> Iterator[tuple[Array, float]]:
    """Weights (D,) and intercept at each penalty; the columns of z are orthogonal."""
    mean, variances, products = float(y.mean()), (z**2).sum(axis=0), z.T @ (y - y.mean())
    for penalty in PENALTIES:
        yield products / (variances + penalty), mean


def _logistic(z: Array, y: Array) -> Iterator[tuple[Array, float]]:
    """As `_ridge`, the classes weighted alike. Of two classes each has half the weights, with its sign: a sum of squares half as
    large, so twice the penalty."""
    for beta, intercept in softmax_path(z, y.astype(int), 2, [2 * penalty for penalty in PENALTIES]):
        yield beta[:, 1] - beta[:, 0], float(intercept[1] - intercept[0])
