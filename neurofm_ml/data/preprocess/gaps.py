"""Missing values and irregular clocks: short gaps filled and flagged, samples put on a regular clock, a scale that all share."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.grid import BEHAVIOUR, Grid, resampled
from neurofm_ml.data.preprocess.base import CONTINUOUS, ChannelStep, Step, as_signal
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Intervals, Recording, Samples, Series, Signal


class Filled(NamedTuple):
    """values as given, with what was filled; made (same shape) True where a value was made up."""

    values: Array
    made: Array


def runs(flags: Array) -> tuple[Array, Array]:
    """First and one-past-last index of every run of True in `flags` (n,)."""
    edges = np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def fill_gaps(values: Array, sfreq: float, max_gap_s: float, margin_s: float = 0.0) -> Filled:
    """(n_times, n_chans) with gaps (NaN or Inf) up to `max_gap_s` filled by straight lines; longer gaps and the ends stay NaN.

    `margin_s` on both sides of every gap is not trusted either: lids half closed before and after a blink.
    """
    out = np.array(values, np.float64)
    made = np.zeros(out.shape, bool)
    margin = round(margin_s * sfreq)
    for c in range(out.shape[1]):
        start, end = runs(_widened(~np.isfinite(out[:, c]), margin))
        for a, b in zip(start, end, strict=True):
            inside = a > 0 and b < len(out) and b - a <= max_gap_s * sfreq + 2 * margin
            out[a:b, c] = np.linspace(out[a - 1, c], out[b, c], b - a + 2)[1:-1] if inside else np.nan
            made[a:b, c] = inside
    return Filled(out, made)


def _widened(flags: Array, by: int) -> Array:
    from scipy.ndimage import binary_dilation

    return binary_dilation(flags, iterations=by) if by else flags


def regularise(samples: Samples, sfreq: float) -> Signal:
    """An irregular series at `sfreq` from its first sample on: means where it is faster, straight lines where it is slower, NaN
    where its samples lie further apart than three of its usual steps."""
    start, end = samples.span
    n = int(np.floor((end - start) * sfreq + 1e-6)) + 1
    # Bins are centred on the samples of the new clock.
    values = resampled(samples, Grid(start - 0.5 / sfreq, sfreq, n))
    return Signal(values.astype(np.float32), sfreq, samples.modality, start, samples.ch_names, unit=samples.unit)


def zscore(values: Array) -> Array:
    """(n_times,) to mean 0 and standard deviation 1 over its finite values; a constant becomes 0."""
    scale = np.nanstd(values)
    return (values - np.nanmean(values)) / (scale if scale > 0 else 1.0)


# ---------------------------------------------------------------- steps
@config
class FillGaps(Step):
    """Short gaps filled by straight lines; where, is kept as the intervals ``<signal>_filled``."""

    modalities: ClassVar = (*CONTINUOUS, *BEHAVIOUR)
    max_gap_s: float
    margin_s: float = 0.0

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        for name in names:
            signal = as_signal(recording, name)
            filled = fill_gaps(np.asarray(signal.values), signal.sfreq, self.max_gap_s, self.margin_s)
            changed = dataclasses.replace(signal, values=filled.values.astype(np.float32))
            intervals = {**recording.intervals, f"{name}_filled": flagged(signal, filled.made)}
            note = f"{name}: {int(filled.made.sum())} values filled, {int(np.sum(~np.isfinite(filled.values)))} missing left"
            recording = dataclasses.replace(recording, intervals=intervals).with_signals({**recording.signals, name: changed}, note)
        return recording

    def reach_s(self, series: Series) -> float:
        return self.max_gap_s + 2 * self.margin_s


def flagged(signal: Signal, made: Array) -> Intervals:
    """Stretches of `made` (n_times, n_chans), labelled by channel, sorted by start."""
    found = [(a, b, name) for name, column in zip(signal.ch_names, made.T, strict=True) for a, b in zip(*runs(column), strict=True)]
    found.sort()
    start, end = (signal.t0 + np.array([row[k] for row in found], float) / signal.sfreq for k in (0, 1))
    return Intervals(start, end, tuple(row[2] for row in found))


@config
class Regularise(Step):
    """Irregular samples on a regular clock."""

    modalities: ClassVar = BEHAVIOUR
    sfreq: float

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        signals = {**recording.signals}
        for name in names:
            series = signals[name]
            if isinstance(series, Samples):
                signals[name] = regularise(series, self.sfreq)
        return dataclasses.replace(recording, signals=signals)

    def reach_s(self, series: Series) -> float:
        return 3 / self.sfreq


@config
class ZScore(ChannelStep):
    """Every channel to mean 0 and standard deviation 1 over the recording."""

    modalities: ClassVar = CONTINUOUS

    @property
    def fits(self) -> bool:
        return True

    def change(self, signal: Signal) -> Signal:
        return dataclasses.replace(super().change(signal), unit="z")

    def column(self, x: Array, sfreq: float) -> Array:
        return zscore(x)
