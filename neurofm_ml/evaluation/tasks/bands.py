"""Fast potentials beside a slow target: how large each channel is in bands of frequency, bin by bin.

A linear readout of raw samples cannot follow the size of a rhythm, whose phase is arbitrary; band power is what field
potentials are decoded from in practice (as in Merk et al. 2022, eLife 11:e75126). Shapes: T grid bins, C channels.
"""

import numpy as np

from neurofm_ml.data.preprocess.base import check_finite
from neurofm_ml.data.preprocess.filters import band_pass
from neurofm_ml.types import Array, Signal

#: Hz, each an octave or less: narrow enough to tell theta from delta, wide enough to settle within a few bins.
BANDS = ((1.0, 4.0), (4.0, 6.0), (6.0, 10.0), (10.0, 14.0), (14.0, 24.0), (24.0, 40.0), (40.0, 70.0), (70.0, 120.0), (120.0, 200.0))
#: Share of half the sampling rate above which the anti-aliasing filter of an amplifier leaves little.
_USABLE = 0.9


def band_amplitudes(signal: Signal, hz: float) -> Array:
    """(T, C * n_bands) natural log of the mean squared amplitude of each channel in each band, in bins of ``1 / hz`` seconds.

    Bands beyond the signal's rate are left out; filters see this block alone, and have no delay.
    """
    each = round(signal.sfreq / hz)
    values = np.asarray(signal.values, np.float64)
    check_finite(values)
    values = values[: len(values) // each * each]
    bands = [band for band in BANDS if band[1] < _USABLE * signal.sfreq / 2]
    return np.concatenate([_in_bins(band_pass(values, signal.sfreq, *band), each) for band in bands], axis=1)


def _in_bins(values: Array, each: int) -> Array:
    """(T, C) log mean square of `each` samples (T * each, C); silence stands at the least that float64 tells from 0."""
    power = (values**2).reshape(-1, each, values.shape[1]).mean(axis=1)
    return np.log(np.maximum(power, np.finfo(np.float64).tiny))
