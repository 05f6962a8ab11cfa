"""Calcium imaging: fluorescence relative to its own slowly moving baseline."""

import dataclasses
from typing import ClassVar

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import SignalStep, by_channel, check_finite
from neurofm_ml.types import Array, Series, Signal


def rolling_baseline(values: Array, sfreq: float, window_s: float, percentile: float) -> Array:
    """(n_times,) -> the `percentile` within `window_s` around each sample; the ends are mirrored."""
    from scipy.ndimage import percentile_filter

    width = min(round(window_s * sfreq) | 1, len(values))
    baseline: Array = percentile_filter(values, percentile, size=width, mode="reflect")
    return baseline


def delta_f_over_f(values: Array, sfreq: float, window_s: float = 60.0, percentile: float = 8.0) -> Array:
    """(n_times,) fluorescence F -> (F - F0) / F0 with F0 a rolling low percentile (Dombeck et al. 2007: 8 %)."""
    check_finite(values)
    baseline = rolling_baseline(values, sfreq, window_s, percentile)
    if (low := baseline.min()) <= 0:
        raise ValueError(
            f"the baseline falls to {low:g}: this is no raw fluorescence (background or mean were subtracted); use it as it is, or 'zscore'."
        )
    return (values - baseline) / baseline


@config
class DeltaFOverF(SignalStep):
    """Fluorescence relative to a rolling low percentile."""

    modalities: ClassVar = ("calcium",)
    window_s: float = 60.0
    percentile: float = 8.0

    def change(self, signal: Signal) -> Signal:
        values = by_channel(signal, lambda f: delta_f_over_f(f, signal.sfreq, self.window_s, self.percentile))
        return dataclasses.replace(signal, values=values, unit="dF/F")

    def reach_s(self, series: Series) -> float:
        return self.window_s / 2
