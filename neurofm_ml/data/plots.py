"""Pictures of recordings, for a person to look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.types import Recording, Samples, Series, Signal, SpikeTrain

#: Traces drawn per series; more cannot be told apart.
_MAX_TRACES = 8
#: Recordings that one picture of coverage shows.
_MAX_ROWS = 40
#: Irregular samples further apart leave a hole in the picture.
_PAUSE_S = 1.0


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


def plot_coverage(recordings: Sequence[Recording], path: Path) -> Path:
    """What each recording holds when: a line per recording, a bar per series, broken where an irregular one pauses."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shown = recordings[:_MAX_ROWS]
    names = list(dict.fromkeys(name for recording in shown for name in recording.signals))
    figure = Figure(figsize=(9, 0.22 * len(shown) * max(1, len(names) ** 0.5) + 1.4), layout="constrained")
    axis = figure.subplots()
    for row, recording in enumerate(shown):
        for name, series in recording.signals.items():
            lane = names.index(name)
            bars = [(start - recording.bounds[0], end - start) for start, end in _covered(series)]
            axis.broken_barh(
                bars, (row + 0.9 * lane / len(names), 0.8 / len(names)), color=colormaps["tab20"](lane % 20), label=None if row else name
            )
    axis.set_yticks(np.arange(len(shown)) + 0.45, [recording.id for recording in shown], fontsize="small")
    axis.set(xlabel="seconds from the start of the recording", xlim=(0, None), ylim=(len(shown), 0))
    more = len(recordings) - len(shown)
    axis.set_title(f"{recordings[0].dataset}: {len(recordings)} recordings" + (f", the first {len(shown)} shown" if more else ""))
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=90)
    return path


def _covered(series: Series) -> list[tuple[float, float]]:
    """(start, end) of the stretches with samples, in seconds."""
    if not isinstance(series, Samples) or len(series.times) < 2:
        return [series.span]
    steps = np.diff(series.times)
    cuts = np.flatnonzero(steps > max(_PAUSE_S, 5 * float(np.median(steps)))) + 1
    return [(float(part[0]), float(part[-1])) for part in np.split(series.times, cuts)]
