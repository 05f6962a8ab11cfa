"""Scores of clouds of points: embeddings and samples of generative models. Shapes: N, M points, D dimensions; distances are Euclidean."""

import numpy as np

from neurofm_ml.metrics.arrays import finite
from neurofm_ml.types import Array


def retrieval_top_k(similarity: Array, k: int) -> float:
    """Share of the N rows whose partner, the column of the same place, is among the `k` most similar of (N, N); ties are broken
    by lot, so that equal similarities give chance: k / N."""
    s = finite(similarity, "similarity")
    if s.shape[0] != s.shape[1] or not 1 <= k <= len(s):
        raise ValueError(f"similarity has shape {s.shape} and k is {k}; it needs a column for each row, and k from 1 to their number.")
    own = np.diagonal(s)[:, None]
    above, tied = (s > own).sum(1), (s == own).sum(1)
    return float(np.clip((k - above) / tied, 0, 1).mean())


def silhouette(x: Array, labels: Array) -> float:
    """Mean over points (N, D) of (b - a) / max(a, b): a the mean distance to the others of its label, b to those of the nearest
    other label; 0 for a point alone (Rousseeuw 1987)."""
    names, place = np.unique(labels, return_inverse=True)
    if not 1 < len(names) < len(x):
        raise ValueError(f"{len(names)} labels of {len(x)} points; the silhouette needs two labels at least, and one shared by two points.")
    member = np.eye(len(names))[place]
    sizes = member.sum(0)
    total = distances(x, x) @ member
    own = sizes[place]
    a = total[np.arange(len(x)), place] / np.maximum(own - 1, 1)
    b = np.where(member > 0, np.inf, total / sizes).min(1)
    return float(np.mean(np.where(own > 1, (b - a) / np.maximum(np.maximum(a, b), np.finfo(float).tiny), 0)))


def participation_ratio(x: Array) -> float:
    """How many directions share the variance of (N, D): (sum of eigenvalues)^2 / sum of their squares, 1 to min(N - 1, D)
    (Gao et al. 2017)."""
    centred = finite(x, "x") - np.mean(x, axis=0)
    gram = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    if not (total := (gram**2).sum()):
        raise ValueError("all points are the same, so no direction has variance; leave them out.")
    return float(np.trace(gram) ** 2 / total)


def frechet_distance(x: Array, y: Array) -> float:
    """Squared Wasserstein-2 distance of the normal distributions with the means and covariances of x (N, D) and y (M, D): what FID
    is of images (Heusel et al. 2017)."""
    a, b = finite(x, "x"), finite(y, "y")
    cov_a, cov_b = (np.atleast_2d(np.cov(v, rowvar=False)) for v in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * shared)


def precision_recall(real: Array, made: Array, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall of samples `made` (M, D) of `real` (N, D) (Kynkaanniemi et al. 2019).

    Precision: share of the made that lie in a ball about a real point out to its k-th neighbour among the real. Recall: the same
    with the two exchanged.
    """
    if k >= min(len(real), len(made)):
        raise ValueError(f"k is {k} for {len(real)} real and {len(made)} made points; it must be smaller than both.")
    between = distances(real, made)
    reach_real, reach_made = (np.partition(distances(v, v), k, axis=1)[:, k] for v in (real, made))
    return float((between <= reach_real[:, None]).any(0).mean()), float((between <= reach_made).any(1).mean())


def distances(x: Array, y: Array) -> Array:
    """(N, M) distances of x (N, D) and y (M, D)."""
    a, b = finite(x, "x"), finite(y, "y")
    centre = a.mean(0)
    a, b = a - centre, b - centre
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    if x is y:
        np.fill_diagonal(squared, 0)
    return np.asarray(np.sqrt(np.maximum(squared, 0)))
