"""Tables of NWB: units -> SpikeTrain; trials, epochs, events and annotations -> Intervals; the subject."""

import re
from typing import Any

import numpy as np

from neurofm_ml.data.readers.base import check_times
from neurofm_ml.types import Array, Intervals, SpikeTrain, Subject

_DAYS = {"Y": 365.25, "M": 30.4375, "W": 7.0, "D": 1.0}


def read_spikes(units: Any) -> tuple[SpikeTrain | None, tuple[str, ...]]:
    """Spikes of the units table, and a note on its other columns; a unit without spikes keeps its place."""
    others = [name for name in units.colnames if name != "spike_times"]
    note = (f"units: left out the columns {', '.join(others)}",) if others else ()
    if "spike_times" not in units.colnames:
        return None, note
    column = units["spike_times"]
    times = check_times(column.target.data[:])
    counts: Array = np.diff(np.asarray(column.data[:], np.int64), prepend=0)
    index = np.repeat(np.arange(len(units)), counts)
    order = np.argsort(times, kind="stable")
    return SpikeTrain(times[order], index[order], tuple(map(str, units.id[:]))), note


def read_intervals(table: Any) -> Intervals | None:
    """Trials, epochs, events: a table with times, sorted by start; ragged columns are left out. None for another thing."""
    from hdmf.common import DynamicTable

    columns = getattr(table, "colnames", ())
    if not isinstance(table, DynamicTable) or not {"start_time", "timestamp"} & set(columns):
        return None
    start = check_times(table["start_time" if "start_time" in columns else "timestamp"][:])
    if "stop_time" in columns:
        end = check_times(table["stop_time"][:])
    else:
        end = start + (np.nan_to_num(table["duration"][:]) if "duration" in columns else 0.0)
    order = np.argsort(start, kind="stable")
    kept = {name: np.asarray(table[name][:]) for name in columns if _is_plain(table[name])}
    return Intervals(start[order], end[order], (), {name: values[order] for name, values in kept.items()})


def _is_plain(column: Any) -> bool:
    """One number or word per row, and no time of the interval itself."""
    values: Array = np.asarray(column[:])
    plain = values.ndim == 1 and (values.dtype.kind in "biuf" or all(isinstance(v, str) for v in values))
    return plain and column.name not in ("start_time", "stop_time", "timestamp")


def read_instants(series: Any) -> Intervals | None:
    """Annotations (a word each), interval series (> 0 starts, < 0 ends) and behavioural events (a value each)."""
    from pynwb import behavior, misc

    if isinstance(series, misc.AnnotationSeries):
        at = check_times(series.timestamps[:])
        return Intervals(at, at, tuple(map(str, series.data[:])))
    if isinstance(series, misc.IntervalSeries):
        return _paired(check_times(series.timestamps[:]), np.asarray(series.data[:], np.int64))
    if isinstance(getattr(series, "parent", None), behavior.BehavioralEvents) and series.timestamps is not None:
        at, values = check_times(series.timestamps[:]), np.asarray(series.data[:])
        return Intervals(at, at, (), {"value": values} if values.ndim == 1 else {str(i): v for i, v in enumerate(values.T)})
    return None


def _paired(at: Array, kind: Array) -> Intervals:
    """Intervals of an IntervalSeries: k > 0 starts one of kind k, which the next -k ends."""
    kinds = np.unique(np.abs(kind))
    starts, ends = ([at[kind == sign * k] for k in kinds] for sign in (1, -1))
    for k, a, b in zip(kinds, starts, ends, strict=True):
        if len(a) != len(b):
            raise ValueError(f"{len(a)} intervals of kind {k} start but {len(b)} end; repair the series.")
    start, end, owner = np.concatenate(starts), np.concatenate(ends), np.repeat(kinds, [len(a) for a in starts])
    order = np.argsort(start, kind="stable")
    return Intervals(start[order], end[order], (), {"kind": owner[order]})


def read_subject(subject: Any, fallback: str) -> Subject:
    """Age in years; None where it is not given as one ISO 8601 duration."""
    if subject is None:
        return Subject(fallback)
    match = re.fullmatch(r"P(?=.)(?:([\d.]+)Y)?(?:([\d.]+)M)?(?:([\d.]+)W)?(?:([\d.]+)D)?", subject.age or "")
    days = sum(float(n or 0) * d for n, d in zip(match.groups(), _DAYS.values(), strict=True)) if match else None
    sex = {"F": "female", "M": "male"}.get(subject.sex or "")
    return Subject(subject.subject_id or fallback, age=days / _DAYS["Y"] if days is not None else None, sex=sex)
