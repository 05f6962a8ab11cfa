"""Functional connectivity: how the regions of a scan move together, as features for linear models.

Shapes: T volumes, R regions, N scans, E = R (R - 1) / 2 pairs of regions, or R (R + 1) / 2 with the diagonal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurofm_ml.types import Array

#: Correlations are held this far from 1, where Fisher's z is infinite.
LARGEST = 0.999


def correlations(series: Array) -> Array:
    """(E,) Fisher's z of the correlation of every pair of regions of a scan (T, R); 0 for a region that never moves."""
    z = standardised(series)
    r = z.T @ z / len(z)
    return np.asarray(np.arctanh(np.clip(r[np.triu_indices(r.shape[0], 1)], -LARGEST, LARGEST)))


def covariance(series: Array, freedom: float | None = None) -> Array:
    """(R, R) covariance of the standardised regions of a scan (T, R), shrunk towards the identity as far as T is small
    (Ledoit and Wolf 2004), so that it can be inverted. `freedom`: how many of the T volumes are independent (default: all)."""
    z = standardised(series)
    n, r = z.shape
    sample = z.T @ z / n
    scale = np.trace(sample) / r
    spread = ((sample - scale * np.eye(r)) ** 2).sum()
    noise = ((z**2).T @ (z**2) / n - sample**2).sum() / (freedom or n)
    share = min(1.0, noise / spread) if spread > 0 else 0.0
    return np.asarray((1 - share) * sample + share * scale * np.eye(r))


def without_global_signal(series: Array) -> Array:
    """The standardised regions of a scan (T, R) less what their mean explains of each (Fox et al. 2009)."""
    z = standardised(series)
    mean = z.mean(axis=1, keepdims=True)
    return np.asarray(z - mean @ (mean.T @ z) / (mean**2).sum())


def band_passed(series: Array, sfreq: float, low: float = 0.01, high: float = 0.1) -> Array:
    """The part of a scan (T, R) between two frequencies in Hz: where resting fluctuations lie (Biswal et al. 1995)."""
    spectrum = np.fft.rfft(standardised(series), axis=0)
    hz = np.fft.rfftfreq(len(series), 1 / sfreq)
    spectrum[(hz < low) | (hz > high)] = 0
    return np.asarray(np.fft.irfft(spectrum, len(series), axis=0))


def standardised(series: Array) -> Array:
    """(T, R) float64 with mean 0 and deviation 1, or 0 throughout."""
    z = np.asarray(series, np.float64) - np.mean(series, axis=0, dtype=np.float64)
    deviation = z.std(axis=0)
    return z / np.where(deviation > 0, deviation, 1.0)


@dataclass(frozen=True, eq=False)
class TangentSpace:
    """Covariances as seen from a reference: logarithms of C, whitened (Varoquaux et al. 2010; Barachant et al. 2013).

    Around the reference, distances between these vectors are those between the covariances themselves.
    """

    whitening: Array

    @classmethod
    def around(cls, covariances: Sequence[Array] | Array) -> "TangentSpace":
        """The space around the mean of some covariances (N, R, R), of the training scans alone."""
        values, vectors = np.linalg.eigh(np.mean(covariances, axis=0))
        return cls(vectors / np.sqrt(values) @ vectors.T)

    def __call__(self, covariances: Sequence[Array] | Array) -> Array:
        """(N, E) upper triangles with the diagonal; entries off it count twice in the norm, hence the root of two."""
        rows, columns = np.triu_indices(len(self.whitening))
        weight = np.where(rows == columns, 1.0, np.sqrt(2))
        return np.stack([_log(self.whitening @ c @ self.whitening)[rows, columns] * weight for c in covariances])


def _log(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.log(values)) @ vectors.T)
