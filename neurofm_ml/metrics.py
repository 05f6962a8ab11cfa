"""Scores as pure functions of arrays: how good is a prediction?

Nothing is left out in silence: entries to leave out are named by `mask`, and a NaN that is used
raises. Only numpy is needed, so training and evaluation share one definition of each score.

Shapes: T samples (time bins), K target columns, N units.
"""

from math import lgamma
from typing import Literal

import numpy as np

from neurofm_ml.types import Array

#: Expected counts below this are raised to it before a logarithm is taken, as NLB does.
LEAST_RATE = 1e-9


def r2(y_true: Array, y_pred: Array, mask: Array | None = None, average: Literal["uniform", "variance"] = "uniform") -> float:
    """Coefficient of determination of (T, K) or (T,), averaged over columns.

    "uniform" gives each column the same weight, "variance" its share of the variance.
    mask (T,) True = used. Raises ValueError for a constant column, which has nothing to explain.
    """
    y, p = _columns(y_true, y_pred, mask)
    left, total = ((y - p) ** 2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
    if not total.all():
        raise ValueError(f"y_true is constant in column {int(np.argmin(total))}: R2 is not defined there; leave the column out.")
    return float(np.mean(1 - left / total)) if average == "uniform" else float(1 - left.sum() / total.sum())


def mae(y_true: Array, y_pred: Array, mask: Array | None = None) -> float:
    """Mean absolute error over all used entries of (T, K) or (T,)."""
    y, p = _columns(y_true, y_pred, mask)
    return float(np.abs(y - p).mean())


def pearson(y_true: Array, y_pred: Array, mask: Array | None = None) -> float:
    """Pearson correlation of (T, K) or (T,), averaged over columns."""
    y, p = (v - v.mean(0) for v in _columns(y_true, y_pred, mask))
    scale = np.sqrt((y**2).sum(0) * (p**2).sum(0))
    if not scale.all():
        raise ValueError(f"column {int(np.argmin(scale))} is constant: its correlation is not defined; leave the column out.")
    return float(np.mean((y * p).sum(0) / scale))


def accuracy(y_true: Array, y_pred: Array) -> float:
    """Share of (T,) labels that agree."""
    return float(np.mean(y_true == y_pred))


def balanced_accuracy(y_true: Array, y_pred: Array) -> float:
    """Mean over the classes in `y_true` of the share of each that was recognised; (T,) labels."""
    return float(np.mean([np.mean(y_pred[y_true == c] == c) for c in np.unique(y_true)]))


def auroc(y_true: Array, score: Array) -> float:
    """Chance that a positive has a higher score than a negative, ties counted half (Mann and Whitney 1947).

    y_true (T,) of 0 and 1 or booleans, score (T,).
    """
    positive = np.asarray(y_true, bool)
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if not (n_pos and n_neg):
        raise ValueError(f"AUROC needs both classes, got {n_pos} positives and {n_neg} negatives.")
    _, inverse, counts = np.unique(_finite(score, "score"), return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((mean_rank[inverse][positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def bits_per_spike(counts: Array, rates: Array, mask: Array | None = None) -> float:
    """Poisson log-likelihood above that of each unit's mean rate, in bits per spike.

    counts, rates (T, N), rates in expected spikes per bin. The co-bps of the Neural Latents
    Benchmark (Pei et al. 2021, arXiv 2109.04463) when the units were held out.
    """
    n, r = _columns(counts, rates, mask)
    if (r < 0).any():
        raise ValueError(f"rates go down to {r.min():g}; expected counts cannot be negative.")
    gain = poisson_log_likelihood(n, r) - poisson_log_likelihood(n, np.broadcast_to(n.mean(0), n.shape))
    return float(gain / n.sum() / np.log(2))


def poisson_log_likelihood(counts: Array, rates: Array) -> float:
    """Sum over all entries of log P(count | rate), in nats; both of the same shape."""
    kinds, times = np.unique(counts, return_counts=True)
    log_factorials = sum(t * lgamma(k + 1) for k, t in zip(kinds, times, strict=True))
    r = np.maximum(rates, LEAST_RATE)
    return float((counts * np.log(r) - r).sum() - log_factorials)


def _columns(y_true: Array, y_pred: Array, mask: Array | None) -> tuple[Array, Array]:
    """Both as (T used, K) float64, checked."""
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_true has shape {y_true.shape} and y_pred {y_pred.shape}; they must agree.")
    used = np.ones(len(y_true), bool) if mask is None else np.asarray(mask, bool)
    if not used.any():
        raise ValueError("no entry is left to score: every one is masked; check the mask.")
    y, p = (_finite(v[used], name).reshape(used.sum(), -1) for v, name in ((y_true, "y_true"), (y_pred, "y_pred")))
    return y, p


def _finite(values: Array, name: str) -> Array:
    values = np.asarray(values, np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{name} has {bad} NaN or infinite entries among those to score; leave them out with mask=.")
    return values
