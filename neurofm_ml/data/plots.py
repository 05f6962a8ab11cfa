"""Pictures of recordings, for a person to look at."""

from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.types import Recording, Samples, Series, Signal, SpikeTrain

#: Traces drawn per series; more cannot be told apart.
_MAX_TRACES = 8


def plot_recording(recording: Recording, seconds: float, path: Path) -> Path:
    """Draw `seconds` from the middle of every series, one panel each, and write a PNG."""
    from matplotlib.figure import Figure

    start = max((recording.bounds[0] + recording.bounds[1] - seconds) / 2, recording.bounds[0])
    figure = Figure(figsize=(9, 1.8 * len(recording.signals) + 0.6), layout="constrained")
    axes = figure.subplots(len(recording.signals), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, series) in zip(axes, recording.signals.items(), strict=True):
        _draw(axis, series.slice(start, start + seconds))
        axis.set_ylabel(f"{name}\n{getattr(series, 'unit', '')}")
    axes[-1].set_xlabel("time (s)")
    figure.suptitle(f"{recording.dataset} / {recording.id}")
    figure.savefig(path, dpi=90)
    return path


def _draw(axis: Any, series: Series) -> None:
    if isinstance(series, SpikeTrain):
        axis.plot(series.times, series.unit_index, "|", markersize=3)
    elif isinstance(series, Samples):
        axis.plot(series.times, series.values[:, :_MAX_TRACES], linewidth=0.8)
    elif series.modality == "spikes":
        _draw_counts(axis, series)
    else:
        _draw_traces(axis, series)


def _draw_counts(axis: Any, series: Signal) -> None:
    """Units down, bins across, darker for more spikes."""
    axis.imshow(series.values.T, aspect="auto", cmap="Greys", interpolation="none", extent=(*series.span, series.values.shape[1], 0))


def _draw_traces(axis: Any, series: Signal) -> None:
    """The first channels, one above the other where they are many."""
    values = series.values[:, :_MAX_TRACES]
    step = 4 * float(np.nanstd(values)) if series.values.shape[1] > _MAX_TRACES else 0.0
    axis.plot(series.times, values + step * np.arange(values.shape[1]), linewidth=0.8)
