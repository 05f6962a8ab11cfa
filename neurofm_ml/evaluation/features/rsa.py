"""Representational similarity (Kriegeskorte et al. 2008): are conditions that a model takes for alike alike in behaviour too?

Dissimilarities between all pairs of conditions are compared by their rank correlation. Conditions are exchanged to find its
chance (Nili et al. 2014); those that follow each other in time are rolled instead, since neighbours are alike anyway.

Shapes: C conditions, D width, K columns, E = C (C - 1) / 2 pairs.
"""

from typing import NamedTuple

import numpy as np

from neurofm_ml.evaluation.statistics.permutation import permutation_p
from neurofm_ml.types import Array

#: A correlation of dissimilarities needs at least so many conditions.
LEAST = 6
#: Conditions that a block of time is cut into at most, and bins of each at least.
MOST, BINS = 60, 5


class Similarity(NamedTuple):
    """Spearman's rho of two sets of dissimilarities, its p, and the number of conditions."""

    rho: float
    p: float
    n: int


def correlation_distance(x: Array) -> Array:
    """(C, C) one less the correlation of the patterns x (C, D), their mean over conditions taken out."""
    z = x - x.mean(0)
    z = z - z.mean(1, keepdims=True)
    size = np.linalg.norm(z, axis=1)
    z = z / np.where(size > 0, size, 1.0)[:, None]
    return np.asarray(1 - z @ z.T)


def distance(y: Array) -> Array:
    """(C, C) Euclidean distance between rows of y (C, K), each column in its deviations."""
    std = y.std(0)
    z = (y - y.mean(0)) / np.where(std > 0, std, 1.0)
    return np.asarray(np.sqrt(np.maximum(((z[:, None] - z[None]) ** 2).sum(2), 0.0)))


def similarity(a: Array, b: Array, n_perm: int, seed: int, in_time: bool = False) -> Similarity:
    """How alike two dissimilarities (C, C) are; conditions of `b` are exchanged, or rolled where they stand in order of time."""
    n = len(a)
    rows, columns = np.triu_indices(n, 1)
    ranks = _ranked(a[rows, columns]), _ranked(b[rows, columns])
    of_b = np.zeros((n, n))
    of_b[rows, columns] = of_b[columns, rows] = ranks[1]
    rng = np.random.default_rng(seed)
    orders = [np.roll(np.arange(n), k) for k in range(1, n)] if in_time else [rng.permutation(n) for _ in range(n_perm)]
    null = np.array([ranks[0] @ of_b[np.ix_(order, order)][rows, columns] for order in orders])
    found = float(ranks[0] @ ranks[1])
    return Similarity(found, permutation_p(found, null), n)


def _ranked(values: Array) -> Array:
    """Ranks of values (E,), centred and of length one; 0 throughout where all are the same."""
    from scipy.stats import rankdata

    ranks = rankdata(values)
    ranks = ranks - ranks.mean()
    size = np.linalg.norm(ranks)
    return np.asarray(ranks / size if size > 0 else ranks)


def stretches(values: Array) -> Array:
    """(C, K) means of equal stretches of a block (T, K), BINS bins or more each; NaN in a stretch with an unknown bin."""
    n = min(MOST, len(values) // BINS)
    return np.stack([part.mean(0) for part in np.array_split(values, n)]) if n else np.empty((0, values.shape[1]))
