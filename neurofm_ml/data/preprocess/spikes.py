"""Spikes as smooth rates: counted on the card's grid, then spread by a Gaussian."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.grid import Grid, count_spikes
from neurofm_ml.data.preprocess.base import Step
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Recording, Series, Signal, SpikeTrain

#: Standard deviations at which the Gaussian is cut off.
_TRUNCATE = 4.0


def smooth_counts(counts: Array, sfreq: float, sigma_s: float) -> Array:
    """(n_bins, n_units) counts spread by a Gaussian of `sigma_s`; the ends are mirrored, so no spike is lost."""
    from scipy.ndimage import gaussian_filter1d

    smoothed: Array = gaussian_filter1d(np.asarray(counts, np.float64), sigma_s * sfreq, axis=0, mode="reflect", truncate=_TRUNCATE)
    return smoothed


def bin_spikes(train: SpikeTrain, start: float, end: float, hz: float) -> Signal:
    """Counts in the whole bins of ``1 / hz`` seconds between `start` and `end`."""
    grid = Grid(start, hz, int(np.floor((end - start) * hz + 1e-6)))
    return Signal(count_spikes(train, grid), hz, train.modality, start, train.unit_ids, unit="count")


@config
class SmoothSpikes(Step):
    """Spike trains, or counts, as smooth counts per bin of the card's grid."""

    modalities: ClassVar = ("spikes",)
    sigma_s: float

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        changed = {name: self._smoothed(recording.signals[name], recording.bounds, card.grid_hz) for name in names}
        return dataclasses.replace(recording, signals={**recording.signals, **changed})

    def _smoothed(self, series: Series, bounds: tuple[float, float], hz: float) -> Signal:
        counts = bin_spikes(series, *bounds, hz) if isinstance(series, SpikeTrain) else series
        assert isinstance(counts, Signal)
        return dataclasses.replace(counts, values=smooth_counts(counts.values, counts.sfreq, self.sigma_s).astype(np.float32))

    def reach_s(self, series: Series) -> float:
        return _TRUNCATE * self.sigma_s
