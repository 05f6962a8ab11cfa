"""A recording put on the grid of its dataset: spikes counted, behaviour averaged, the rest kept.

Bin k of the grid covers ``[t0 + k / hz, t0 + (k + 1) / hz)``. The grid spans what every neural
series covers, so no window needs padding; behaviour that was not seen in a bin is NaN there.
"""

from typing import NamedTuple

import numpy as np

from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Recording, Samples, Series, Signal, SpikeTrain

#: Modalities that are put on the grid; other signals keep their own rate.
BEHAVIOUR = ("eye", "pose", "physio", "task")
#: Values further apart than this many sampling steps are not interpolated between.
MAX_GAP_STEPS = 3.0


class Grid(NamedTuple):
    """`n` bins of ``1 / hz`` seconds from `t0`."""

    t0: float
    hz: float
    n: int

    @property
    def end(self) -> float:
        return self.t0 + self.n / self.hz

    @property
    def edges(self) -> Array:
        """(n + 1,) seconds."""
        return self.t0 + np.arange(self.n + 1) / self.hz


def to_grid(recording: Recording, card: DatasetCard) -> Recording:
    """`recording` on ``card.grid_hz``, cut to what all of its neural series cover.

    Spike trains become counts, behaviour (and any irregular series) one value per bin, other
    signals keep their rate. Values are float32. Raises ValueError when nothing is covered by all.
    """
    grid = _grid(recording, card.grid_hz)
    signals = {name: _on_grid(series, grid, f"{recording.id}, signal {name!r}") for name, series in recording.signals.items()}
    cut = recording.slice(grid.t0, grid.end)
    return cut.with_signals(signals, f"to_grid({grid.hz:g} Hz, {grid.n} bins from {grid.t0:g} s)")


def _grid(recording: Recording, hz: float) -> Grid:
    spans = [recording.bounds, *(s.span for s in recording.signals.values() if _bounds_grid(s))]
    start, end = max(s[0] for s in spans), min(s[1] for s in spans)
    n = int(np.floor((end - start) * hz + 1e-6))
    if n < 1:
        raise ValueError(
            f"recording {recording.id!r}: its neural signals share no whole bin of {1 / hz:g} s ({start:g} to {end:g} s); "
            "drop a signal from the card or split the recording."
        )
    return Grid(float(start), hz, n)


def _bounds_grid(series: Series) -> bool:
    """Silence is data in a spike train and NaN marks it in behaviour; other series end where their samples do."""
    return not isinstance(series, SpikeTrain) and series.modality not in BEHAVIOUR


def _on_grid(series: Series, grid: Grid, where: str) -> Signal:
    if isinstance(series, SpikeTrain):
        return Signal(count_spikes(series, grid), grid.hz, series.modality, grid.t0, series.unit_ids, unit="count")
    if isinstance(series, Signal) and series.modality not in BEHAVIOUR:
        return _kept(series, grid, where)
    values = resampled(series, grid).astype(np.float32)
    return Signal(values, grid.hz, series.modality, grid.t0, series.ch_names, getattr(series, "positions", None), series.unit)


def _kept(signal: Signal, grid: Grid, where: str) -> Signal:
    cut = signal.slice(grid.t0, grid.end)
    values, sfreq = np.asarray(cut.values, np.float32), cut.sfreq
    if signal.modality == "spikes":
        values, sfreq = _summed(values, signal.sfreq, grid, where), grid.hz
    return Signal(values, sfreq, cut.modality, cut.t0, cut.ch_names, cut.positions, cut.unit)


def _summed(counts: Array, sfreq: float, grid: Grid, where: str) -> Array:
    """counts (n_times, n_units) in bins of ``1 / sfreq`` -> (n_bins, n_units) in the bins of the grid, which hold a whole
    number of them each."""
    each = round(sfreq / grid.hz)
    if not (each and np.isclose(sfreq, each * grid.hz, rtol=1e-6)):
        raise ValueError(
            f"{where}: counts were binned at {sfreq:g} Hz, which no whole number of bins brings to the grid's {grid.hz:g} Hz; set "
            f"grid_hz to {sfreq:g}, or to a half, a third, ... of it."
        )
    if len(counts) < grid.n * each:
        raise ValueError(f"{where}: its bins do not begin with those of the grid, at {grid.t0:g} s; give the signals one start (t0).")
    return counts if each == 1 else counts[: grid.n * each].reshape(grid.n, each, -1).sum(axis=1)


def count_spikes(train: SpikeTrain, grid: Grid) -> Array:
    """(n_bins, n_units) spikes per bin."""
    bins = np.searchsorted(grid.edges, train.times, side="right") - 1
    inside = (bins >= 0) & (bins < grid.n)
    flat = bins[inside] * len(train.unit_ids) + train.unit_index[inside]
    return np.bincount(flat, minlength=grid.n * len(train.unit_ids)).reshape(grid.n, -1).astype(np.float32)


def resampled(series: Signal | Samples, grid: Grid) -> Array:
    """(n_bins, n_chans) one value per bin: kept at the grid's own rate, averaged when sampled faster,
    interpolated at bin centres when slower or when a bin stayed empty; NaN where nothing is near."""
    times, values = series.times, np.asarray(series.values, np.float64)
    if isinstance(series, Signal) and np.isclose(series.sfreq, grid.hz, rtol=1e-6):
        return _placed(times, values, grid)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / grid.hz
    out = _interpolated(times, values, grid, MAX_GAP_STEPS * step)
    if step * grid.hz <= 0.5:
        means = _bin_means(times, values, grid)
        out = np.where(np.isfinite(means), means, out)
    return out


def _placed(times: Array, values: Array, grid: Grid) -> Array:
    """Each sample in the bin that holds its time: rounding would take samples at the centres of bins two by two."""
    out = np.full((grid.n, values.shape[1]), np.nan)
    bins = np.floor((times - grid.t0) * grid.hz + 1e-6).astype(int)
    inside = (bins >= 0) & (bins < grid.n)
    out[bins[inside]] = values[inside]
    return out


def _bin_means(times: Array, values: Array, grid: Grid) -> Array:
    """Mean of the finite samples of each bin, NaN in bins without one; running sums in float64."""
    finite = np.isfinite(values)
    lo = np.searchsorted(times, grid.edges, side="left")
    total, count = (np.vstack([np.zeros((1, values.shape[1])), np.cumsum(x, axis=0)]) for x in (np.where(finite, values, 0.0), finite))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.diff(total[lo], axis=0) / np.diff(count[lo], axis=0)


def _interpolated(times: Array, values: Array, grid: Grid, max_gap: float) -> Array:
    """Linear interpolation at bin centres between finite samples at most `max_gap` seconds apart."""
    centres = grid.edges[:-1] + 0.5 / grid.hz
    out = np.full((grid.n, values.shape[1]), np.nan)
    for c in range(values.shape[1]):
        good = np.isfinite(values[:, c])
        t = times[good]
        right = np.searchsorted(t, centres, side="right")
        inside = np.flatnonzero((right > 0) & (right < len(t)))
        near = inside[t[right[inside]] - t[right[inside] - 1] <= max_gap]
        if len(near):
            out[near, c] = np.interp(centres[near], t, values[good, c])
    return out
