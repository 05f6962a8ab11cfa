"""Arrays that lie otherwise than (n_times, n_chans): trials, one file per channel, angles. Pure functions of arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from neurofm_ml.knowledge.cards import SignalSpec
from neurofm_ml.types import Array, Intervals, Signal


def end_to_end(trials: Array, labels: Array, signal: SignalSpec) -> tuple[Array, Intervals]:
    """Trials (n_trials, n_times, n_chans), or an object array of (n_times, n_chans) each -> all of them one behind the
    other, (n_chans, n_times) each where the card says so, and where each lies, in the order of the file."""
    axis = 1 if signal.transpose else 0
    arrays = list(trials)
    if not arrays or any(np.ndim(array) != 2 for array in arrays):
        raise ValueError(f"{signal.variable!r} has shape {trials.shape}; trials need (n_trials, n_times, n_chans), or an array each.")
    if len(labels) != len(arrays):
        raise ValueError(f"trial_label {signal.trial_label!r} has {len(labels)} entries for {len(arrays)} trials; they must agree.")
    if signal.sfreq is None:
        raise ValueError("trials need sfreq; the times between them are not known, so they have no clock of their own.")
    edges = np.cumsum([0, *(array.shape[axis] for array in arrays)]) / signal.sfreq + (signal.t0 or 0.0)
    columns = {"trial": np.arange(len(arrays))}
    return np.concatenate(arrays, axis=axis), Intervals(edges[:-1], edges[1:], tuple(map(str, labels)), columns)


def side_by_side(parts: Mapping[Path, Signal], ch_names: tuple[str, ...]) -> Signal:
    """One series from files that hold some of its channels each; unless they have names, a channel alone in its file is
    named after the file."""
    first = next(iter(parts.values()))
    for path, part in parts.items():
        if (len(part.values), part.sfreq, part.t0) != (len(first.values), first.sfreq, first.t0):
            raise ValueError(f"{path} has {part!r}, the first file {first!r}; channels of one series must agree in length, rate and start.")
    names = ch_names or tuple(name for path, part in parts.items() for name in _names(path, part))
    return replace(first, values=np.concatenate([part.values for part in parts.values()], axis=1), ch_names=names)


def _names(path: Path, part: Signal) -> list[str]:
    stem = path.name.split(".")[0]
    return [stem] if len(part.ch_names) == 1 else [f"{stem}_{name}" for name in part.ch_names]


def on_the_circle(angles: Array, ch_names: Sequence[str]) -> tuple[Array, tuple[str, ...]]:
    """Radians (n_times, n_chans) -> (n_times, 2 n_chans) cosine and sine of each, and their names."""
    both = np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(len(angles), -1)
    names = ch_names or tuple(map(str, range(angles.shape[1])))
    return both, tuple(f"{name}_{part}" for name in names for part in ("cos", "sin"))
