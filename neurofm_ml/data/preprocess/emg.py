"""Muscle activity from surface EMG: the envelope of the rectified signal, and its root mean square."""

from typing import ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import ChannelStep, check_finite
from neurofm_ml.data.preprocess.filters import band_pass, butterworth, settling_s
from neurofm_ml.types import Array, Series, Signal


def envelope(values: Array, sfreq: float, high_pass_hz: float = 20.0, low_pass_hz: float = 5.0) -> Array:
    """`values` without movement (high-pass), rectified, smoothed (low-pass), all without delay (SENIAM's linear envelope)."""
    return band_pass(np.abs(band_pass(values, sfreq, high_pass_hz, None)), sfreq, None, low_pass_hz)


def moving_rms(values: Array, sfreq: float, window_s: float = 0.1) -> Array:
    """Root mean square of `values` in `window_s` around each sample, of what there is of the window at the ends."""
    from scipy.ndimage import uniform_filter1d

    check_finite(values)
    width = round(window_s * sfreq) | 1
    power, there = (
        uniform_filter1d(x, width, axis=0, mode="constant") for x in (np.square(values, dtype=float), np.ones(np.shape(values)))
    )
    # Running sums leave a rounding error below zero in silence.
    return np.sqrt(np.maximum(power, 0) / there)


@config
class EmgEnvelope(ChannelStep):
    """High-pass, rectify, low-pass."""

    modalities: ClassVar = ("emg",)
    high_pass_hz: float = 20.0
    low_pass_hz: float = 5.0

    def column(self, x: Array, sfreq: float) -> Array:
        return envelope(x, sfreq, self.high_pass_hz, self.low_pass_hz)

    def reach_s(self, series: Series) -> float:
        assert isinstance(series, Signal)
        filters = (butterworth(series.sfreq, self.high_pass_hz, None), butterworth(series.sfreq, None, self.low_pass_hz))
        return sum(settling_s(sos, series.sfreq) for sos in filters)


@config
class MovingRms(ChannelStep):
    """Root mean square in a moving window."""

    modalities: ClassVar = ("emg",)
    window_s: float = 0.1

    def column(self, x: Array, sfreq: float) -> Array:
        return moving_rms(x, sfreq, self.window_s)

    def reach_s(self, series: Series) -> float:
        return self.window_s / 2
