"""Epochs: stretches of equal length around events, with their baseline taken off, without those that jump too far."""

from typing import NamedTuple

import numpy as np

from neurofm_ml.types import Array, Intervals, Signal


class Epochs(NamedTuple):
    """values (n_epochs, n_times, n_chans); times (n_times,) seconds from the event; kept (n_epochs,) rows of the intervals;
    off_edge and rejected: rows of those that leave the signal, and of those whose peak-to-peak is too large."""

    values: Array
    times: Array
    kept: Array
    off_edge: Array
    rejected: Array


def cut_epochs(
    signal: Signal,
    events: Intervals,
    tmin: float,
    tmax: float,
    baseline: tuple[float, float] | None = None,
    peak_to_peak: float | None = None,
) -> Epochs:
    """Stretches of `signal` from `tmin` to `tmax` seconds (both ends included) around the start of each event.

    `baseline` (seconds from the event): its mean is subtracted, channel by channel. An epoch in which a channel spans more than
    `peak_to_peak` (in the signal's unit) is rejected. Events are placed on the nearest sample.
    """
    lo, hi = round(tmin * signal.sfreq), round(tmax * signal.sfreq)
    if hi < lo:
        raise ValueError(f"tmin is {tmin:g} and tmax {tmax:g}; the end must follow the start.")
    centre = np.round((events.start - signal.t0) * signal.sfreq).astype(int)
    inside = (centre + lo >= 0) & (centre + hi < len(signal.values))
    rows = np.flatnonzero(inside)
    offsets = np.arange(lo, hi + 1)
    values = np.asarray(signal.values)[centre[rows, None] + offsets].astype(np.float64)
    times = offsets / signal.sfreq
    if baseline is not None:
        values -= values[:, _within(times, baseline)].mean(axis=1, keepdims=True)
    calm = np.ones(len(rows), bool) if peak_to_peak is None else (np.ptp(values, axis=1) <= peak_to_peak).all(axis=1)
    return Epochs(values[calm], times, rows[calm], np.flatnonzero(~inside), rows[~calm])


def _within(times: Array, baseline: tuple[float, float]) -> Array:
    # Half a step on each side, so that a bound that lies on a sample takes that sample in.
    slack = 0.5 * (times[1] - times[0]) if len(times) > 1 else 0.0
    chosen = (times >= baseline[0] - slack) & (times <= baseline[1] + slack)
    if not chosen.any():
        raise ValueError(f"baseline is {baseline}; the epoch spans {times[0]:g} to {times[-1]:g} s.")
    return chosen
