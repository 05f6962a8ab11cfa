"""Features of one window: the course of each channel in a few bins of time, and what a population does whoever is in it.

Shapes: T samples, C channels.
"""

from functools import partial

import numpy as np

from neurofm_ml.data.preprocess.base import ELECTRIC
from neurofm_ml.types import Array, Signal

#: Least deviation and rate that a logarithm is taken of, relative to the population's largest.
_LEAST = 1e-3


def course(signal: Signal, n_bins: int) -> Array:
    """(C, n_bins) mean of each channel in stretches of equal length; NaN where nothing is known.

    Counts are square-rooted, which makes their noise alike; potentials lose the mean of the window, which drifts.
    """
    known = np.isfinite(signal.values)
    stretch, first = np.unique(np.arange(len(known)) * n_bins // len(known), return_index=True)
    total, n = np.zeros((2, n_bins, known.shape[1]))
    total[stretch] = np.add.reduceat(np.where(known, signal.values, 0.0), first)
    n[stretch] = np.add.reduceat(known, first, dtype=float)
    means = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    if signal.modality == "spikes":
        means = np.sqrt(means)
    elif signal.modality in ELECTRIC:
        means = means - signal.values.mean(axis=0)
    return np.asarray(means.T)


mean = partial(course, n_bins=1)
quarters = partial(course, n_bins=4)
eighths = partial(course, n_bins=8)
response = partial(course, n_bins=20)


def population(signal: Signal) -> Array:
    """(12,) of a population of any size: quantiles over its channels of log mean size, log deviation and their difference; share
    of silent channels; how far all move together; how slowly they do."""
    x, (size, deviation) = signal.values, (np.abs(signal.values).mean(axis=0), signal.values.std(axis=0))
    moving = deviation > 0
    if not moving.any():
        return np.full(12, np.nan)
    large, wide = (np.log(np.maximum(v, _LEAST * v.max())) for v in (size, deviation))
    z = (x - x.mean(axis=0))[:, moving] / deviation[moving]
    together = np.log((z.mean(axis=1) ** 2).mean() * z.shape[1])
    slow = (z[1:] * z[:-1]).mean()
    return np.append(np.quantile([large, wide, wide - large], (0.1, 0.5, 0.9), axis=1), [1 - moving.mean(), together, slow])
