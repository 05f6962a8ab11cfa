"""Breathing from a chest belt, thermistor or nasal pressure: breaths, their rate and depth."""

from itertools import pairwise
from typing import ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import DerivedStep, one_channel
from neurofm_ml.data.preprocess.filters import band_pass, butterworth, settling_s
from neurofm_ml.types import Array, Series, Signal

#: Hz that breathing of adults at rest and in exercise spans (6 to 48 breaths per minute; Charlton et al. 2018).
BREATHS_HZ = (0.05, 0.8)
#: A breath rises at least this share of the spread of the signal around it.
_DEPTH = 0.5
_AROUND_S = 30.0


def find_breaths(values: Array, sfreq: float) -> Array:
    """(n_times,) -> (n_breaths,) samples at which inspiration ends: peaks that stand out of half a minute around them."""
    from scipy.signal import find_peaks

    wave = _breathing(values, sfreq)
    peaks, found = find_peaks(wave, distance=max(sfreq / BREATHS_HZ[1] / 2, 1), prominence=0, wlen=round(_AROUND_S * sfreq) | 1)
    deep = found["prominences"] > _DEPTH * _spread(wave, sfreq)[peaks]
    return peaks[deep]


def _breathing(values: Array, sfreq: float) -> Array:
    return band_pass(np.asarray(values, np.float64), sfreq, *BREATHS_HZ, order=2)


def _spread(wave: Array, sfreq: float) -> Array:
    """Standard deviation around each sample; the wave has no mean."""
    from scipy.ndimage import uniform_filter1d

    spread: Array = np.sqrt(np.maximum(uniform_filter1d(wave**2, round(_AROUND_S * sfreq) | 1, mode="nearest"), 0))
    return spread


def breathing_series(values: Array, sfreq: float) -> Array:
    """(n_times,) -> (n_times, 2): breaths per minute of the breath that holds the sample, and its depth (trough to peak). NaN before
    the first and after the last breath."""
    breaths, wave = find_breaths(values, sfreq), _breathing(values, sfreq)
    out = np.full((len(values), 2), np.nan)
    for a, b in pairwise(breaths):
        out[a:b] = 60 * sfreq / (b - a), wave[b] - wave[a:b].min()
    return out


@config
class Breathing(DerivedStep):
    """Breaths per minute and depth of breath."""

    modalities: ClassVar = ("physio",)
    channel: str = ""

    def derive(self, signal: Signal) -> Signal:
        values = breathing_series(one_channel(signal, self.channel), signal.sfreq).astype(np.float32)
        return Signal(values, signal.sfreq, signal.modality, signal.t0, ("breath_rate", "breath_depth"), unit=f"1/min, {signal.unit}")

    def reach_s(self, series: Series) -> float:
        assert isinstance(series, Signal)
        return settling_s(butterworth(series.sfreq, *BREATHS_HZ, order=2), series.sfreq) + _AROUND_S / 2
