"""Whether an input holds what is to be predicted from it: a channel that is the target, or channels that add up to it."""

import numpy as np

from neurofm_ml.data.grid import BEHAVIOUR
from neurofm_ml.data.splits import SHOWN
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Recording, Samples, Series, Signal, SpikeTrain

#: Rows that are looked at, and rows that each channel needs for a fit that means something.
LOOKED_AT, ROWS_PER_CHANNEL = 8192, 8


def leak_numbers(recording: Recording, card: DatasetCard) -> dict[str, dict[str, float]]:
    """signal -> largest R2 with which it gives a behaviour away by a linear fit of the one half, tested on the other.

    Inputs are the neural signals, and what the card's tasks name as inputs; targets are all behaviours.
    """
    named = {(name, task.target) for task in card.series_tasks for name in task.inputs}
    series = recording.signals
    behaviours = [name for name, s in series.items() if s.modality in BEHAVIOUR]
    neural = [name for name, s in series.items() if s.modality not in BEHAVIOUR + SHOWN]
    pairs = named | {(name, target) for name in neural for target in behaviours}
    found: dict[str, float] = {}
    for name, target in sorted(pairs):
        if name in series and target in series and name != target:
            found[name] = float(np.fmax(gives_away(series[name], series[target]), found.get(name, np.nan)))
    return {name: {"gives_away": r2} for name, r2 in found.items()}


def gives_away(source: Series, target: Series) -> float:
    """Largest R2 over the target's channels; NaN where there is too little to tell."""
    if isinstance(source, SpikeTrain) or isinstance(target, SpikeTrain):
        return float("nan")
    lo, hi = max(source.span[0], target.span[0]), min(source.span[1], target.span[1])
    hz = min(len(s.values) / max(s.span[1] - s.span[0], 1e-9) for s in (source, target))
    if not (hi - lo) * hz > 1:
        return float("nan")
    # Both as far as they are looked at, and a sample beyond.
    parts = [s.slice(lo - 2 / hz, min(hi, lo + LOOKED_AT / hz) + 2 / hz) for s in (source, target)]
    slower = min(parts, key=lambda s: len(s.values))
    times = slower.times[(slower.times >= lo) & (slower.times <= hi)]
    x, y = (_at(part, times) for part in parts)
    kept = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    return _held_out_r2(x[kept], y[kept]) if kept.sum() >= 2 * ROWS_PER_CHANNEL * (x.shape[1] + 1) else float("nan")


def _at(series: Signal | Samples, times: Array) -> Array:
    """(len(times), C) linearly between samples."""
    values = np.asarray(series.values, np.float64)
    return np.stack([np.interp(times, series.times, column) for column in values.T], axis=1)


def _held_out_r2(x: Array, y: Array) -> float:
    """Highest R2, over the columns of y (n, K), that x (n, C) reaches on the second half when fitted on the first."""
    half = len(x) // 2
    x = np.column_stack([(x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-300), np.ones(len(x))])
    weights = np.linalg.lstsq(x[:half], y[:half], rcond=1e-9)[0]
    rest, spread = y[half:] - x[half:] @ weights, y[half:] - y[half:].mean(axis=0)
    moving = spread.std(axis=0) > 1e-6 * np.maximum(np.abs(y).max(axis=0), 1e-300)
    r2 = 1 - (rest[:, moving] ** 2).sum(axis=0) / (spread[:, moving] ** 2).sum(axis=0)
    return float(r2.max()) if len(r2) else float("nan")
