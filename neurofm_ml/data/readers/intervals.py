"""Intervals that a card describes: tables of trials, events or words in text, csv and array files, rows of labels, and
what the card states itself.

An interval that lies outside the recording (a stimulus table longer than the recording) is kept, and the history
says so; when all of them do, the two clocks cannot be the same, and that is an error.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.tables import as_number, is_number
from neurofm_ml.data.readers.variables import as_texts, load_columns, rows_where
from neurofm_ml.knowledge.cards import IntervalSpec, RecordingSpec
from neurofm_ml.knowledge.files import fill
from neurofm_ml.types import Array, Intervals, Recording


def filled(described: IntervalSpec, spec: RecordingSpec) -> IntervalSpec:
    """`described` with ``{id}`` and other names filled into its columns."""
    return replace(
        described,
        start=fill(described.start, spec),
        end=fill(described.end, spec),
        duration=fill(described.duration, spec),
        label=fill(described.label, spec),
        columns=tuple(fill(column, spec) for column in described.columns),
        where={column: fill(word, spec) for column, word in described.where.items()},
    )


def read_intervals(path: Path, described: IntervalSpec) -> tuple[Intervals, tuple[str, ...]]:
    """The intervals of one file sorted by start, and notes on what had to be decided.

    Raises ValueError naming the column at fault.
    """
    wanted = (described.label, *described.columns)
    if described.sfreq is None:
        wanted = (described.start, described.end, described.duration, *wanted)
    names = tuple(dict.fromkeys(name for name in wanted if name))
    columns = dict(zip(names, rows_where(path, described.where, load_columns(path, names)), strict=True))
    if len({len(c) for c in columns.values()}) > 1:
        raise ValueError(f"{', '.join(columns)} have {', '.join(str(len(c)) for c in columns.values())} rows; they must agree.")
    labels = as_texts(columns[described.label]) if described.label else None
    if described.sfreq is not None:
        assert labels is not None
        return _runs(labels, columns, described), ()
    return _rows(labels, columns, described)


def _rows(labels: Array | None, columns: dict[str, Array], described: IntervalSpec) -> tuple[Intervals, tuple[str, ...]]:
    """One interval per row."""
    keep = np.ones(len(columns[described.start]), bool) if labels is None else ~np.isin(labels, described.skip)
    start = _seconds(columns, described.start, described.time_scale)
    if (unknown := np.flatnonzero(np.isnan(start) & keep)).size:
        raise ValueError(f"row {unknown[0] + 1} of {described.start!r} says no time; delete or correct that row.")
    order = np.flatnonzero(keep)[np.argsort(start[keep], kind="stable")]
    end = start
    if described.end:
        end = _seconds(columns, described.end, described.time_scale)
    elif described.duration:
        end = start + _seconds(columns, described.duration, described.time_scale)
    n = int(np.isnan(end[order]).sum())
    notes = (f"{n} of {len(order)} have no {described.end or described.duration} and are instants",) if n else ()
    return _picked(start, np.where(np.isnan(end), start, end), labels, columns, order, described), notes


def _runs(labels: Array, columns: dict[str, Array], described: IntervalSpec) -> Intervals:
    """One interval per run of rows with the same label; further columns are those of its first row."""
    assert described.sfreq is not None
    first = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    end = np.empty(len(labels))
    end[first] = np.append(first[1:], len(labels)) / described.sfreq
    kept = first[~np.isin(labels[first], described.skip)]
    return _picked(np.arange(len(labels)) / described.sfreq, end, labels, columns, kept, described)


def _picked(start: Array, end: Array, labels: Array | None, columns: dict[str, Array], rows: Array, described: IntervalSpec) -> Intervals:
    kept = {name: _plain(columns[name])[rows] for name in described.columns}
    return Intervals(start[rows], end[rows], () if labels is None else tuple(map(str, labels[rows])), kept)


def _seconds(columns: dict[str, Array], name: str, time_scale: float) -> Array:
    values = _plain(columns[name])
    if values.dtype.kind == "U":
        row = next(i for i, cell in enumerate(values) if not is_number(cell))
        raise ValueError(f"row {row + 1} of {name!r} holds {str(values[row])!r}, which is no time; correct it or name another column.")
    return values.astype(np.float64) * time_scale


def _plain(column: Array) -> Array:
    """Numbers where every cell is one or missing, else text."""
    if column.dtype.kind != "U" or not all(map(is_number, column)):
        return column
    return np.array([as_number(cell) for cell in column], np.float64)


def stated(spec: RecordingSpec) -> dict[str, Intervals]:
    """The intervals that the card writes out for one recording."""
    return {name: _stated(rows) for name, rows in spec.intervals.items()}


def _stated(rows: tuple[tuple[float, float, str], ...]) -> Intervals:
    start, end = (np.array([row[side] for row in sorted(rows)], np.float64) for side in (0, 1))
    return Intervals(start, end, tuple(label for _, _, label in sorted(rows)))


def outside(recording: Recording) -> tuple[str, ...]:
    """Notes on intervals that lie outside the recording. Raises ValueError where all of a table do."""
    notes = []
    lo, hi = recording.bounds
    for name, intervals in recording.intervals.items():
        n = int(((intervals.start > hi) | (intervals.end < lo)).sum())
        if n and n == len(intervals.start):
            raise ValueError(
                f"{recording.dataset}/{recording.id}: all {n} intervals of {name!r} lie outside the recording ({lo:g} to {hi:g} s), the "
                f"first from {intervals.start[0]:g} s; correct time_scale, or the file, which belongs to another recording or clock."
            )
        if n:
            notes.append(f"{n} of {len(intervals.start)} intervals of {name!r} lie outside the recording ({lo:g} to {hi:g} s)")
    return tuple(notes)
