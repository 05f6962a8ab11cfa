"""Features of one window: how its channels vary together, as covariances that can be inverted and as correlations.

Shapes: T samples, C channels, M bands, E pairs of channels.
"""

import numpy as np

from neurofm_ml.evaluation.label_baselines.spectra import bands_of
from neurofm_ml.evaluation.readouts.connectivity import band_passed, correlations, covariance
from neurofm_ml.types import Array, Signal

#: Hz, where resting fluctuations of blood oxygen lie (Biswal et al. 1995).
SLOW = (0.01, 0.1)


def broad(signal: Signal) -> Array:
    """(1, C, C) covariance."""
    return _covariance(signal.values, len(signal.values))[None]


def bank(signal: Signal) -> Array:
    """(M, C, C) covariance in each of the customary bands (Ang et al. 2008; Barachant et al. 2013)."""
    return np.stack([_covariance(_within(signal, band), _freedom(signal, band)) for band in bands_of(signal)])


def connectivity(signal: Signal) -> Array:
    """(1, C, C) covariance of standardised regions."""
    return _unit(broad(signal))


def slow_connectivity(signal: Signal) -> Array:
    """(1, C, C) the same of slow fluctuations."""
    return _unit(_covariance(_within(signal, SLOW), _freedom(signal, SLOW))[None])


def pairs(signal: Signal) -> Array:
    """(E,) Fisher's z of all correlations; NaN for pairs with a region that never moves."""
    return _correlations(signal.values, signal)


def slow_pairs(signal: Signal) -> Array:
    """(E,) the same of slow fluctuations."""
    return _correlations(_within(signal, SLOW), signal)


def _correlations(values: Array, signal: Signal) -> Array:
    moving = signal.values.std(axis=0) > 0
    rows, columns = np.triu_indices(len(moving), 1)
    return np.where(moving[rows] & moving[columns], correlations(values), np.nan)


def _within(signal: Signal, band: tuple[float, float]) -> Array:
    """The part of a signal (T, C) in a band, in its own unit."""
    return band_passed(signal.values, signal.sfreq, *band) * signal.values.std(axis=0)


def _freedom(signal: Signal, band: tuple[float, float]) -> float:
    """How many independent samples (T,) have in a band: two for each frequency."""
    return max(2.0, 2 * (min(band[1], signal.sfreq / 2) - band[0]) * len(signal.values) / signal.sfreq)


def _covariance(values: Array, freedom: float) -> Array:
    """(C, C) shrunk covariance in the channels' own units; one that never moves goes with no other, and is as wide as they are in
    the (geometric) mean."""
    deviation = values.std(axis=0)
    moving = np.flatnonzero(deviation > 0)
    found = np.diag(np.full(len(deviation), np.exp(2 * np.log(deviation[moving]).mean()) if len(moving) else 1.0))
    if len(moving):
        found[np.ix_(moving, moving)] = covariance(values[:, moving], freedom) * np.outer(deviation[moving], deviation[moving])
    return found


def _unit(covariances: Array) -> Array:
    """Covariances (M, C, C) of channels whose deviation is set to 1."""
    deviation = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    return np.asarray(covariances / (deviation[:, :, None] * deviation[:, None]))
