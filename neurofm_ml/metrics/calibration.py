"""Whether stated probabilities can be trusted. Shapes: T samples, C classes, M members of an ensemble."""

from math import pi

import numpy as np

from neurofm_ml.metrics.arrays import finite
from neurofm_ml.types import Array


def ece(y_true: Array, probabilities: Array, n_bins: int = 15) -> float:
    """Expected calibration error: mean distance of accuracy and confidence over bins of equal width (Guo et al. 2017).

    y_true (T,) places among the classes, probabilities (T, C); confidence is that of the largest.
    """
    p = _shares(probabilities)
    confidence, right = p.max(1), p.argmax(1) == y_true
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, right - confidence, n_bins)
    return float(np.abs(gaps).sum() / len(p))


def brier(y_true: Array, probabilities: Array) -> float:
    """Mean squared distance of the probabilities (T, C) from the truth, summed over classes: 0 to 2 (Brier 1950)."""
    p = _shares(probabilities)
    return float(((p - np.eye(p.shape[1])[np.asarray(y_true, int)]) ** 2).sum(1).mean())


def _shares(probabilities: Array) -> Array:
    p = finite(probabilities, "probabilities")
    if (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-4):
        raise ValueError("probabilities need one row per sample, of numbers that are not negative and sum to 1; apply a softmax to scores.")
    return p


def crps_ensemble(y_true: Array, members: Array) -> float:
    """Mean continuous ranked probability score of ensembles (T, M) against y_true (T,), in its unit (Gneiting and Raftery 2007).

    That of the distribution the members are: mean |x - y| - mean |x - x'| / 2.
    """
    x, y = np.sort(finite(members, "members"), axis=1), finite(y_true, "y_true")
    m = x.shape[1]
    spread = x @ (2 * np.arange(m) - m + 1) / m**2
    return float((np.abs(x - y[:, None]).mean(1) - spread).mean())


def crps_gaussian(y_true: Array, mean: Array, std: Array) -> float:
    """Mean continuous ranked probability score of normal distributions, all (T,), in closed form (Gneiting et al. 2005)."""
    from scipy.special import ndtr

    if (np.asarray(std) <= 0).any():
        raise ValueError(f"std goes down to {np.min(std):g}; deviations must be positive.")
    z = (finite(y_true, "y_true") - finite(mean, "mean")) / std
    return float(np.mean(std * (z * (2 * ndtr(z) - 1) + 2 * np.exp(-(z**2) / 2) / np.sqrt(2 * pi) - 1 / np.sqrt(pi))))
