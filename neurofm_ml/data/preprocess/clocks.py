"""Clocks of several systems made one: offset and drift from pulses that both saw, and series put onto the reference's clock.

Times are seconds. A pulse may be missing on either side, or seen by one side alone.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import Step, by_channel
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import MODALITIES, Array, Intervals, Recording, Series, Signal

#: Clocks of recording systems run within a thousandth of each other (crystals within a ten-thousandth).
MAX_DRIFT = 1e-3
#: A pulse belongs to the line when it lies this close to it, seconds.
TOLERANCE_S = 0.005
#: Share of the fewer pulses that must lie on the line.
_MATCHED = 0.8
#: Another offset under which this share as many pulses agree leaves the first in doubt.
_RIVAL = 0.9
#: Pulses that a first line is found from, and lines that are tried; more bring no more.
_PULSES, _LINES = 1000, 2000
#: Pulses to either side that a pulse might be mistaken for.
_NEIGHBOURS = 100
#: Drift that moves no sample by more than this share of a step is none.
_NEGLIGIBLE = 0.01
#: Samples on each side that an interpolated one is made of.
_TAPS = 8


@dataclass(frozen=True, eq=False)
class Clock:
    """``reference = offset + rate * own``; pairs (n, 2): rows of the own and the reference pulses that it rests on; residuals (n,)
    seconds by which the reference pulses lie behind the line."""

    offset: float
    rate: float
    pairs: Array
    residuals: Array

    def __call__(self, times: Array | float) -> Array:
        """Times of the own clock on the reference clock."""
        return self.offset + self.rate * np.asarray(times, np.float64)

    def __repr__(self) -> str:
        rms = 1000 * np.sqrt(np.mean(self.residuals**2))
        return f"Clock(offset {self.offset:.6f} s, drift {1e6 * (self.rate - 1):.2f} ppm, {len(self.pairs)} pulses, residual {rms:.3f} ms)"


# ---------------------------------------------------------------- fit
def fit_clock(own: Array, reference: Array, tolerance_s: float = TOLERANCE_S, max_offset_s: float | None = None) -> Clock:
    """The line that takes pulse times `own` (n,) to `reference` (m,), whichever pulses are missing or extra; both sorted.

    Pulses are paired by the intervals between them, a line through the pairs is found by consensus (Fischler & Bolles 1981), and
    fitted by least squares to all pulses within `tolerance_s` of it. `max_offset_s` bounds how far the clocks are apart (drift
    included). Raises ValueError for pulses that agree as well under another offset (evenly spaced ones), and for clocks that no
    one line joins: a jump.
    """
    own, reference = np.asarray(own, np.float64), np.asarray(reference, np.float64)
    if min(len(own), len(reference)) < 3:
        raise ValueError(f"{len(own)} and {len(reference)} pulses; a clock needs at least 3 on both sides.")
    offset, rate = _first_line(own, reference, tolerance_s, max_offset_s)
    pairs = _pairs(own, reference, offset, rate, tolerance_s)
    while len(pairs) >= 3:
        before = pairs
        rate, offset = np.polyfit(own[pairs[:, 0]], reference[pairs[:, 1]], 1)
        pairs = _pairs(own, reference, offset, rate, tolerance_s)
        if len(pairs) <= len(before):
            break
    _check_matched(own, reference, pairs)
    _check_rivals(own, reference, offset, rate, tolerance_s, max_offset_s)
    return Clock(float(offset), float(rate), pairs, reference[pairs[:, 1]] - offset - rate * own[pairs[:, 0]])


def _first_line(own: Array, reference: Array, tolerance_s: float, max_offset_s: float | None) -> tuple[float, float]:
    """Offset and rate on which most of the candidate pairs agree."""
    times, delays = _candidates(own, reference, tolerance_s, max_offset_s)
    rng = np.random.default_rng(0)
    a, b = rng.integers(len(times), size=(2, _LINES))
    apart = times[b] - times[a]
    long = np.abs(apart) >= 0.1 * np.ptp(times)
    slope = np.where(long, delays[b] - delays[a], np.inf) / np.where(apart == 0, 1.0, apart)
    intercept = delays[a] - np.where(np.isfinite(slope), slope, 0.0) * times[a]
    votes = [
        np.sum(np.abs(delays - i - s * times) <= tolerance_s) if abs(s) <= MAX_DRIFT else 0 for s, i in zip(slope, intercept, strict=True)
    ]
    best = int(np.argmax(votes))
    if votes[best] < 2:
        raise ValueError("no two intervals between pulses agree; these are not the same pulses, or times are not in seconds.")
    return float(intercept[best]), 1 + float(slope[best])


def _candidates(own: Array, reference: Array, tolerance_s: float, max_offset_s: float | None) -> tuple[Array, Array]:
    """Times of own pulses, and delays to reference pulses that are followed by the same interval; those of the most common delay."""
    mine, theirs = np.diff(own), np.diff(reference)
    order = np.argsort(theirs)
    slack = tolerance_s + MAX_DRIFT * mine
    low, high = np.searchsorted(theirs[order], mine - slack), np.searchsorted(theirs[order], mine + slack)
    like = [order[low[i] : high[i]] for i in _spread(len(mine))]
    i = np.repeat(_spread(len(mine)), [len(found) for found in like])
    delay = reference[np.concatenate(like)] - own[i]
    if max_offset_s is not None:
        near = np.abs(delay) <= max_offset_s
        i, delay = i[near], delay[near]
    if not len(i):
        raise ValueError(
            "no interval between pulses is the same on both clocks; these are not the same pulses, or times are not in seconds."
        )
    # Drift spreads the delay of one pair of clocks over this much.
    first, last = _densest(delay, 2 * tolerance_s + MAX_DRIFT * (own[-1] - own[0]))
    chosen = np.flatnonzero((delay >= first) & (delay <= last))
    chosen = chosen[_spread(len(chosen))]
    return own[i[chosen]], delay[chosen]


def _spread(n: int) -> Array:
    """Up to `_PULSES` of n rows, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, _PULSES)).astype(int))


def _densest(values: Array, width: float) -> tuple[float, float]:
    """The stretch of `width` that holds most of `values`."""
    ordered = np.sort(values)
    first = int(np.argmax(np.searchsorted(ordered, ordered + width, side="right") - np.arange(len(ordered))))
    return float(ordered[first]), float(ordered[first] + width)


def _pairs(own: Array, reference: Array, offset: float, rate: float, tolerance_s: float) -> Array:
    """(n, 2) rows of pulses that are each other's nearest, at most `tolerance_s` apart."""
    expected = offset + rate * own
    theirs, mine = _nearest(expected, reference), _nearest(reference, expected)
    rows = np.flatnonzero((mine[theirs] == np.arange(len(own))) & (np.abs(reference[theirs] - expected) <= tolerance_s))
    return np.stack([rows, theirs[rows]], axis=1)


def _nearest(times: Array, among: Array) -> Array:
    """Row of the entry of sorted `among` that is nearest to each of `times`."""
    right = np.clip(np.searchsorted(among, times), 1, len(among) - 1)
    return right - (times - among[right - 1] < among[right] - times)


def _check_matched(own: Array, reference: Array, pairs: Array) -> None:
    fewer = min(len(own), len(reference))
    if len(pairs) >= max(_MATCHED * fewer, 3):
        return
    on_line = np.zeros(len(own))
    on_line[pairs[:, 0]] = 1
    change = int(np.argmax(np.abs(np.cumsum(on_line - on_line.mean()))))
    raise ValueError(
        f"only {len(pairs)} of {fewer} pulses lie on one line; the clock breaks at about {own[change]:g} s. Split the recording there "
        "(the card's recordings: span), or widen tolerance_s if pulses are that imprecise."
    )


def _check_rivals(own: Array, reference: Array, offset: float, rate: float, tolerance_s: float, max_offset_s: float | None) -> None:
    """Raises ValueError when the line, shifted by some pulses, joins nearly as many of them."""
    some = own[_spread(len(own))][:, None]
    expected = offset + rate * some
    rows = np.searchsorted(reference, expected) + np.arange(-_NEIGHBOURS, _NEIGHBOURS)
    around = np.where((rows >= 0) & (rows < len(reference)), reference[np.clip(rows, 0, len(reference) - 1)], np.inf)
    away = around - expected
    votes = np.sum(np.abs(away) <= tolerance_s)
    elsewhere = np.isfinite(away) & (np.abs(away) > 2 * tolerance_s)
    if max_offset_s is not None:
        elsewhere &= np.abs(around - some) <= max_offset_s
    if not elsewhere.any():
        return
    low, high = _densest(away[elsewhere], 2 * tolerance_s)
    if np.sum((away >= low) & (away <= high)) >= _RIVAL * votes:
        raise ValueError(
            f"offsets of {offset:.3f} s and {offset + (low + high) / 2:.3f} s fit the pulses alike, which are too evenly spaced to tell; "
            "set max_offset_s below half their interval, or send pulses at irregular intervals."
        )


# ---------------------------------------------------------------- apply
def apply_clock(series: Series, clock: Clock) -> Series:
    """A series on the reference clock. A regular one keeps its rate: it is interpolated (task variables: nearest sample) unless the
    clocks only differ by an offset. Raises ValueError for binned spikes, which cannot be moved by parts of a bin."""
    if not isinstance(series, Signal):
        return dataclasses.replace(series, times=clock(series.times))
    t0, n = float(clock(series.t0)), len(series.values)
    if abs(clock.rate - 1) * n <= _NEGLIGIBLE:
        return dataclasses.replace(series, t0=t0)
    if series.modality == "spikes":
        raise ValueError("binned spikes cannot be put on a drifting clock; align the spike times before binning.")
    places = np.arange(int((n - 1) * clock.rate + 1e-9) + 1) / clock.rate
    if series.modality == "task":
        return dataclasses.replace(series, t0=t0, values=np.asarray(series.values)[np.round(places).astype(int)])
    return dataclasses.replace(series, t0=t0, values=by_channel(series, lambda x: interpolate(x, places)))


def interpolate(values: Array, places: Array) -> Array:
    """(n,) samples at fractional `places` (m,), by a sinc that a second sinc cuts off after eight samples (Lanczos; Duchon 1979)."""
    base = np.floor(places).astype(int)
    total, weights = np.zeros(len(places)), np.zeros(len(places))
    for tap in range(1 - _TAPS, _TAPS + 1):
        at = base + tap
        distance = places - at
        weight = np.where((at >= 0) & (at < len(values)), np.sinc(distance) * np.sinc(distance / _TAPS), 0.0)
        seen = values[np.clip(at, 0, len(values) - 1)]
        # A missing sample matters only where it carries weight.
        total += np.where(np.abs(weight) > 1e-12, seen * weight, 0.0)
        weights += weight
    return total / weights


def shift_intervals(intervals: Intervals, clock: Clock) -> Intervals:
    """Intervals on the reference clock."""
    return dataclasses.replace(intervals, start=clock(intervals.start), end=clock(intervals.end))


# ---------------------------------------------------------------- without pulses
def estimate_lag(a: Array, b: Array, sfreq: float, max_lag_s: float | None = None) -> float:
    """Seconds by which (n,) `b` runs behind (m,) `a`, at most `max_lag_s`: the peak of their cross-correlation, between samples by
    a parabola through its top three."""
    from scipy.signal import correlate, correlation_lags

    match = correlate(b - np.mean(b), a - np.mean(a), method="fft")
    lags = correlation_lags(len(b), len(a))
    if max_lag_s is not None:
        near = np.abs(lags) <= max_lag_s * sfreq
        match, lags = match[near], lags[near]
    k = int(np.argmax(match))
    if not 0 < k < len(match) - 1:
        raise ValueError(
            f"the best lag, {lags[k] / sfreq:g} s, is the furthest that was looked at; look further (max_lag_s), or they share nothing."
        )
    before, top, after = match[k - 1 : k + 2]
    return float((lags[k] + 0.5 * (before - after) / (before - 2 * top + after)) / sfreq)


# ---------------------------------------------------------------- step
@config
class AlignClock(Step):
    """The named signals, the pulses `own` and further `intervals` of their system, put onto the clock of the pulses `reference`.
    Pulses are the starts of intervals."""

    modalities: ClassVar = MODALITIES
    own: str
    reference: str
    intervals: tuple[str, ...] = ()
    tolerance_s: float = TOLERANCE_S
    max_offset_s: float | None = None

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        wanted = (self.own, self.reference, *self.intervals)
        if unknown := [name for name in wanted if name not in recording.intervals]:
            raise ValueError(f"there are no intervals {', '.join(unknown)}; there are {', '.join(recording.intervals) or 'none'}.")
        if len(names) == len(recording.signals):
            raise ValueError(f"it would move every signal; name those that run on the clock of {self.own!r} in `signals`.")
        own, reference = (recording.intervals[name].start for name in (self.own, self.reference))
        clock = fit_clock(own, reference, self.tolerance_s, self.max_offset_s)
        moved = {name: shift_intervals(recording.intervals[name], clock) for name in (self.own, *self.intervals)}
        signals = {name: apply_clock(recording.signals[name], clock) for name in names}
        aligned = dataclasses.replace(recording, intervals={**recording.intervals, **moved})
        return aligned.with_signals({**recording.signals, **signals}, f"{', '.join(names)}: {clock!r}")

    def reach_s(self, series: Series) -> float:
        return _TAPS / series.sfreq if isinstance(series, Signal) else 0.0
