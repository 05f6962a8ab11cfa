"""Gaze: saccades, fixations and blinks."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import Step, as_signal, only
from neurofm_ml.data.preprocess.gaps import runs
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Intervals, Recording, Signal

#: Shorter saccades are noise, shorter fixations no fixations, longer blinks lost tracking. Seconds.
SACCADE_S, FIXATION_S, BLINK_S = 0.012, 0.05, 1.0


class GazeEvent(NamedTuple):
    """A stretch [start, end) of samples. amplitude: distance between its ends; peak_velocity per second; x, y: mean place."""

    label: str
    start: int
    end: int
    amplitude: float
    peak_velocity: float
    x: float
    y: float


def gaze_velocity(gaze: Array, sfreq: float) -> Array:
    """(n_times, 2) -> (n_times, 2) per second, over five samples (Engbert & Kliegl 2003); NaN at the ends and beside missing samples."""
    velocity = np.full(gaze.shape, np.nan)
    velocity[2:-2] = (gaze[4:] + gaze[3:-1] - gaze[1:-3] - gaze[:-4]) * sfreq / 6
    return velocity


def adaptive_threshold(velocity: Array, factor: float = 6.0) -> Array:
    """(2,) `factor` times the median-based spread of each velocity component (Engbert & Kliegl 2003)."""
    spread = np.sqrt(np.nanmedian(velocity**2, axis=0) - np.nanmedian(velocity, axis=0) ** 2)
    if not (spread > 0).all():
        raise ValueError("gaze stands still for half of the recording, so noise has no size; give a `velocity` threshold.")
    return factor * spread


def find_saccades(gaze: Array, sfreq: float, threshold: Array) -> tuple[Array, Array]:
    """Samples [start, end) in which the velocity leaves the ellipse of `threshold` (2,) for at least 12 ms."""
    fast = np.nan_to_num(((gaze_velocity(gaze, sfreq) / threshold) ** 2).sum(axis=1)) > 1
    start, end = runs(fast)
    long_enough = end - start >= SACCADE_S * sfreq
    return start[long_enough], end[long_enough]


def gaze_events(gaze: Array, sfreq: float, threshold: Array) -> list[GazeEvent]:
    """Saccades, fixations between them, blinks and longer losses (where gaze is missing) of (n_times, 2) gaze, in order of time.

    Fast samples within what the velocity looks at of a loss are the lid, not the eye: they are neither saccade nor fixation.
    """
    lost = ~np.isfinite(gaze.sum(axis=1))
    fast = list(zip(*find_saccades(gaze, sfreq, threshold), strict=True))
    busy = lost.copy()
    for a, b in fast:
        busy[a:b] = True
    stretches = [("saccade", a, b) for a, b in fast if not lost[max(a - 3, 0) : b + 3].any()]
    stretches += [("blink" if b - a <= BLINK_S * sfreq else "lost", a, b) for a, b in zip(*runs(lost), strict=True)]
    stretches += [("fixation", a, b) for a, b in zip(*runs(~busy), strict=True) if b - a >= FIXATION_S * sfreq]
    velocity = np.hypot(*gaze_velocity(gaze, sfreq).T)
    return [_event(label, a, b, gaze, velocity) for label, a, b in sorted(stretches, key=lambda s: s[1])]


def _event(label: str, a: int, b: int, gaze: Array, velocity: Array) -> GazeEvent:
    if label in ("blink", "lost"):
        return GazeEvent(label, a, b, np.nan, np.nan, np.nan, np.nan)
    x, y = gaze[a:b].mean(axis=0)
    return GazeEvent(label, a, b, float(np.hypot(*(gaze[b - 1] - gaze[a]))), float(np.nanmax(velocity[a:b], initial=0)), x, y)


@config
class GazeEvents(Step):
    """Saccades, fixations and blinks from the channels `x` and `y`, as intervals `events`. `velocity` (in the signal's unit per
    second) is what is fast; without it, six times the spread of velocities in the recording."""

    modalities: ClassVar = ("eye",)
    x: str = "x"
    y: str = "y"
    velocity: float | None = None
    events: str = "gaze_events"

    @property
    def fits(self) -> bool:
        return self.velocity is None

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        signal = as_signal(recording, only(names))
        gaze = _gaze(signal, self.x, self.y)
        speed = gaze_velocity(gaze, signal.sfreq)
        threshold = adaptive_threshold(speed) if self.velocity is None else np.full(2, self.velocity)
        found = _intervals(gaze_events(gaze, signal.sfreq, threshold), signal)
        return dataclasses.replace(recording, intervals={**recording.intervals, self.events: found})


def _gaze(signal: Signal, x: str, y: str) -> Array:
    if unknown := [name for name in (x, y) if name not in signal.ch_names]:
        raise ValueError(f"there is no channel {', '.join(unknown)}; name two of {', '.join(signal.ch_names)} in `x` and `y`.")
    return np.asarray(signal.values, np.float64)[:, [signal.ch_names.index(x), signal.ch_names.index(y)]]


def _intervals(events: list[GazeEvent], signal: Signal) -> Intervals:
    start, end = (signal.t0 + np.array([getattr(e, side) for e in events], float) / signal.sfreq for side in ("start", "end"))
    columns = {name: np.array([getattr(e, name) for e in events], float) for name in ("amplitude", "peak_velocity", "x", "y")}
    return Intervals(start, end, tuple(e.label for e in events), columns)
