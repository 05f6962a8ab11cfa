"""Scores of numbers: R2, mean absolute error, correlation. Shapes: T samples (time bins), K target columns."""

from typing import Literal

import numpy as np

from neurofm_ml.metrics.arrays import columns
from neurofm_ml.types import Array


def r2(y_true: Array, y_pred: Array, mask: Array | None = None, average: Literal["uniform", "variance"] = "uniform") -> float:
    """Coefficient of determination of (T, K) or (T,), averaged over columns.

    "uniform" gives each column the same weight, "variance" its share of the variance.
    mask (T,) True = used. Raises ValueError for a constant column, which has nothing to explain.
    """
    y, p = columns(y_true, y_pred, mask)
    left, total = ((y - p) ** 2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
    if not total.all():
        raise ValueError(f"y_true is constant in column {int(np.argmin(total))}: R2 is not defined there; leave the column out.")
    return float(np.mean(1 - left / total)) if average == "uniform" else float(1 - left.sum() / total.sum())


def mae(y_true: Array, y_pred: Array, mask: Array | None = None) -> float:
    """Mean absolute error over all used entries of (T, K) or (T,)."""
    y, p = columns(y_true, y_pred, mask)
    return float(np.abs(y - p).mean())


def pearson(y_true: Array, y_pred: Array, mask: Array | None = None) -> float:
    """Pearson correlation of (T, K) or (T,), averaged over columns."""
    y, p = (v - v.mean(0) for v in columns(y_true, y_pred, mask))
    scale = np.sqrt((y**2).sum(0) * (p**2).sum(0))
    if not scale.all():
        raise ValueError(f"column {int(np.argmin(scale))} is constant: its correlation is not defined; leave the column out.")
    return float(np.mean((y * p).sum(0) / scale))
