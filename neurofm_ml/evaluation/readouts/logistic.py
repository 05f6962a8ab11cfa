"""Multinomial logistic regression at every penalty of a grid, the classes weighted alike.

It is fitted along the principal directions of the training rows, where the columns are orthogonal: the same solution, in as
many unknowns as there are rows, and each can be stepped by its own curvature. Shapes: n rows, D features, r directions, K
classes.
"""

from collections.abc import Sequence

import numpy as np

from neurofm_ml.evaluation.readouts.readout import Path, Readout
from neurofm_ml.types import Array

#: Log-odds, against the least likely other class, of a class that no training row has.
UNSEEN = -30.0


def logistic_readouts(rows: Path, places: Array, n_classes: int, which: Sequence[int]) -> list[Readout]:
    """Log-odds of the classes `places` (n,), 0 to `n_classes` - 1, from the rows that `rows` has factorised, at the penalties
    `which` of its path."""
    seen, own = np.unique(places, return_inverse=True)
    z = rows.left * np.sqrt(rows.values)
    found = []
    for beta, intercept in softmax_path(z, own, len(seen), rows.penalties[list(which)]):
        weights, level = np.zeros((len(rows.mean), n_classes)), np.full(n_classes, intercept.min() + UNSEEN)
        weights[:, seen], level[seen] = rows.directions @ beta, intercept
        found.append(Readout(weights, level - rows.mean @ weights))
    return found


def softmax_path(z: Array, places: Array, n_classes: int, penalties: Sequence[float] | Array) -> list[tuple[Array, Array]]:
    """Weights (r, K) and intercepts (K,) for z (n, r), whose columns are centred and orthogonal, at each of the growing
    penalties: what half the squares of the weights are multiplied by. Each starts from the solution of the next larger one."""
    truth = places[:, None] == np.arange(n_classes)
    row_weights = (truth / truth.mean(axis=0)).sum(axis=1) / n_classes
    curvature = np.append((z**2).sum(axis=0), len(z)) / 4
    solution, solutions = np.zeros((z.shape[1] + 1, n_classes)), []
    for penalty in penalties[::-1]:
        solution = _softmax(z, truth, row_weights, penalty, curvature, solution)
        solutions.append((solution[:-1], solution[-1]))
    return solutions[::-1]


def _softmax(z: Array, truth: Array, row_weights: Array, penalty: float, curvature: Array, start: Array) -> Array:
    """(r + 1, K) weights and intercepts; they are sought in units in which the loss curves alike in all directions."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    unit = 1 / np.sqrt(curvature + np.append(np.full(z.shape[1], penalty), 0.0))[:, None]

    def loss(flat: Array) -> tuple[float, Array]:
        b = flat.reshape(start.shape) * unit
        log_p = log_softmax(z @ b[:-1] + b[-1], axis=1)
        slopes = row_weights[:, None] * (np.exp(log_p) - truth)
        gradient = np.concatenate([z.T @ slopes + penalty * b[:-1], slopes.sum(axis=0, keepdims=True)]) * unit
        return float(penalty / 2 * (b[:-1] ** 2).sum() - row_weights @ log_p[truth]), gradient.ravel()

    found = minimize(loss, (start / unit).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(found.x.reshape(start.shape) * unit)
