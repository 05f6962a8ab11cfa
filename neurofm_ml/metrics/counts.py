"""Scores of spike counts. Shapes: T time bins, N units."""

from math import lgamma

import numpy as np

from neurofm_ml.metrics.arrays import columns
from neurofm_ml.types import Array

#: Expected counts below this are raised to it before a logarithm is taken, as NLB does.
LEAST_RATE = 1e-9


def bits_per_spike(counts: Array, rates: Array, mask: Array | None = None) -> float:
    """Poisson log-likelihood above that of each unit's mean rate, in bits per spike.

    counts, rates (T, N), rates in expected spikes per bin. The co-bps of the Neural Latents
    Benchmark (Pei et al. 2021, arXiv 2109.04463) when the units were held out.
    """
    n, r = columns(counts, rates, mask)
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
