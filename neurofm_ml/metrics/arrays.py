"""What every metric asks of its arrays. Shapes: T samples, K columns, C classes."""

import numpy as np

from neurofm_ml.types import Array


def columns(y_true: Array, y_pred: Array, mask: Array | None) -> tuple[Array, Array]:
    """Both as (T used, K) float64, checked."""
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_true has shape {y_true.shape} and y_pred {y_pred.shape}; they must agree.")
    used = np.ones(len(y_true), bool) if mask is None else np.asarray(mask, bool)
    if not used.any():
        raise ValueError("no entry is left to score: every one is masked; check the mask.")
    y, p = (finite(v[used], name).reshape(used.sum(), -1) for v, name in ((y_true, "y_true"), (y_pred, "y_pred")))
    return y, p


def finite(values: Array, name: str) -> Array:
    """As float64; a NaN raises."""
    values = np.asarray(values, np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{name} has {bad} NaN or infinite entries among those to score; leave them out with mask=.")
    return values
