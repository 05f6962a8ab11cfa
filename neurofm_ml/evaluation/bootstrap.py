"""How sure is an R2? Intervals and paired differences for series whose neighbouring bins are alike.

Bins are resampled in contiguous blocks (the circular block bootstrap: Politis and Romano 1992).
R2 is a function of sums over bins, so a resample is a sum of block sums, drawn for all resamples
at once. Blocks are twice as long as the automatic choice of Politis and White
(2004, corrected by Patton, Politis and White 2009), made on the bins' influence on the score.

The interval is ``value +- t * SE`` with as many degrees of freedom as there are blocks, less one.
On simulated AR(1) series of 300 to 1800 bins percentile intervals cover the truth in 57-89 % of
cases, these in 93-97 %.

Shapes: T bins, K target columns, M moments.
"""

from typing import NamedTuple

import numpy as np

from neurofm_ml.types import Array

LEVEL = 0.95
ROUNDING = 1e-12


class Interval(NamedTuple):
    """A value with its 95 % interval, the two-sided p of its being zero, and the block length in bins."""

    value: float
    low: float
    high: float
    p: float
    block: int


def r2_interval(y_true: Array, y_pred: Array, n_boot: int = 1000, seed: int = 0) -> Interval:
    """R2 of (T, K), averaged over columns; it cannot exceed 1, so neither does its interval."""
    found = _interval(y_true, [y_pred], np.array([1.0]), n_boot, seed)
    return found._replace(high=min(found.high, 1.0))


def r2_difference(y_true: Array, a: Array, b: Array, n_boot: int = 1000, seed: int = 0) -> Interval:
    """R2 of `a` less R2 of `b`, both (T, K), on the same resampled bins."""
    return _interval(y_true, [a, b], np.array([1.0, -1.0]), n_boot, seed)


def _interval(y_true: Array, predictions: list[Array], signs: Array, n_boot: int, seed: int) -> Interval:
    from scipy import stats

    y = np.asarray(y_true, np.float64) - np.mean(y_true, 0)
    errors = np.stack([(np.asarray(p - np.mean(y_true, 0), np.float64) - y) ** 2 for p in predictions])
    block = block_length(signs @ _influence(y, errors))
    moments = np.concatenate([np.ones((len(y), 1)), y, y**2, *errors], axis=1)
    n_columns = y.shape[1]
    value = float(signs @ _r2(moments.sum(0)[None], n_columns)[0])
    resampled = _r2(resample_sums(moments, block, n_boot, seed), n_columns) @ signs
    error, freedom = float(resampled.std()), len(y) / block - 1
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    # Predictions that agree differ by rounding alone.
    p = float(2 * stats.t.sf(abs(value) / error, freedom)) if error > ROUNDING else 1.0
    return Interval(value, value - half, value + half, p, block)


def _r2(sums: Array, n_columns: int) -> Array:
    """(n, P) mean R2 of P predictions from sums (n, 1 + 2K + P K) of 1, y, y^2 and squared errors."""
    n, y, yy, errors = np.split(sums, [1, 1 + n_columns, 1 + 2 * n_columns], axis=1)
    left = errors.reshape(len(sums), -1, n_columns)
    return (1 - left / (yy - y**2 / n)[:, None]).mean(2)


def _influence(y: Array, errors: Array) -> Array:
    """(P, T) how much each bin moves the mean R2; y (T, K) centred, errors (P, T, K) squared."""
    variance = (y**2).mean(0)
    unexplained = errors.mean(1) / variance
    return ((unexplained[:, None] * y**2 - errors) / variance).mean(2)


def resample_sums(moments: Array, block: int, n_boot: int, seed: int) -> Array:
    """(n_boot, M) sums of `moments` (T, M) over resampled blocks, which may run round the end."""
    n = len(moments)
    running = np.cumsum(np.concatenate([np.zeros((1, moments.shape[1])), moments, moments[: block - 1]]), axis=0)
    starts = np.random.default_rng(seed).integers(0, n, (n_boot, round(n / block)))
    return np.stack([sums[starts].sum(1) for sums in (running[block:] - running[:-block]).T], axis=1)


def block_length(series: Array) -> int:
    """Bins per block for a series (T,): twice the length that Politis and White choose, at most T / 4."""
    n = len(series)
    covariance = _autocovariance(series)
    if covariance[0] <= 0:
        return 1
    reach = min(2 * _last_correlated(covariance / covariance[0]), n - 1)
    lags = np.arange(-reach, reach + 1)
    window = np.clip(2 * (1 - np.abs(lags) / reach), 0, 1)
    weighted = window * covariance[np.abs(lags)]
    bias, spectrum = (np.abs(lags) * weighted).sum(), weighted.sum()
    best = (1.5 * (bias / spectrum) ** 2 * n) ** (1 / 3) if spectrum > 0 else np.inf
    return int(np.clip(2 * np.ceil(min(best, n)), 1, n // 4))


def _autocovariance(series: Array) -> Array:
    """(T,) biased autocovariance at lags 0..T-1."""
    n = len(series)
    spectrum = np.abs(np.fft.rfft(series - series.mean(), 2 * n)) ** 2
    covariance: Array = np.fft.irfft(spectrum)[:n] / n
    return covariance


def _last_correlated(correlation: Array) -> int:
    """Last lag before a run of lags whose correlations all stay below noise; at least 1, at most about sqrt(T)."""
    n = len(correlation)
    run, noise = max(5, int(np.ceil(np.sqrt(np.log10(n))))), 2 * np.sqrt(np.log10(n) / n)
    largest = int(np.ceil(np.sqrt(n))) + run
    quiet = (k for k in range(1, largest) if (np.abs(correlation[k : k + run]) < noise).all())
    return max(next(quiet, largest) - 1, 1)
