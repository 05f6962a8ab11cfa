"""From a file that describes itself to what its card names: which series or channels, in which unit, under which names."""

from collections.abc import Hashable, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from neurofm_ml.data.lazy import columns, mapped
from neurofm_ml.data.readers.base import build, naming
from neurofm_ml.data.readers.positions import positions_of
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec
from neurofm_ml.knowledge.files import fill, recording_files
from neurofm_ml.types import Array, Recording, Samples, Series, Signal, SpikeTrain, Subject

#: Fields of a signal's card that `adopt` looks at.
HEEDED = ("modality", "recordings", "variable", "columns", "missing", "scale", "unit", "sfreq", "ch_names", "positions")
#: Channels of one regular or irregular series.
Part = tuple[Signal | Samples, tuple[int, ...]]


def adopt(found: Recording, card: DatasetCard, spec: RecordingSpec, path: Path) -> Recording:
    """A recording from a file that describes itself, with the identity and the signals that its card names.

    `variable` of a signal names series of the file or channels of them (``A*`` all that match); several stand side by
    side. Its `columns`, `missing`, `scale`, `unit`, `ch_names` and `positions` hold as for arrays. Raises ValueError for
    what the file does not hold.
    """
    signals: dict[str, Series] = {}
    notes: list[str] = []
    for name, signal in card.signals.items():
        if signal.recordings and spec.id not in signal.recordings:
            continue
        sources = signal.variable if isinstance(signal.variable, tuple) else (signal.variable or name,)
        with naming(path):
            sources = tuple(fill(source, spec) for source in sources)
            signals[name], note = _picked(found, sources, name, signal, card)
        notes += [f"{name}: {note}"] if note else []
    adopted = build(card, spec, signals, found.intervals, (*found.history[1:], *notes))
    stated = spec.subject or card.subjects or "subject" in spec.values
    return replace(adopted, subject=_completed(adopted.subject, found.subject) if stated else found.subject)


def data_file(card: DatasetCard, spec: RecordingSpec, suffixes: tuple[str, ...]) -> Path:
    """The file of one recording that a reader begins with. A pattern may match those that belong to it too, which then count
    as its raw files. Raises ValueError unless it is one."""
    files = [path for path in recording_files(card, spec, card.pattern) if path.name.lower().endswith(suffixes)]
    if len(files) != 1:
        raise ValueError(f"{card.name}/{spec.id}: {len(files)} files {', '.join(suffixes)} match {card.pattern!r}; it needs to match one.")
    return files[0]


def _picked(found: Recording, sources: Sequence[str], name: str, signal: SignalSpec, card: DatasetCard) -> tuple[Series, str]:
    """The series that a card wants, and a note where its numbers or their unit are not those of the file."""
    whole = found.signals.get(sources[0])
    if isinstance(whole, SpikeTrain) and len(sources) == 1:
        return replace(whole, modality=signal.modality), ""
    parts = [_find(found, source, name) for source in sources]
    with naming(f"signal {name!r}"):
        series = _side_by_side(parts)
        described = _described(series, signal, card)
    changed = signal.scale != 1 or described.unit != series.unit
    return described, f"{series.unit or 'numbers'} times {signal.scale:g} are {described.unit or 'kept'}" if changed else ""


def _find(found: Recording, source: str, name: str) -> Part:
    """A series of the file with all of its channels, or the channels of one that are called so."""
    continuous = {name: series for name, series in found.signals.items() if not isinstance(series, SpikeTrain)}
    if source in continuous:
        return continuous[source], tuple(range(len(continuous[source].ch_names)))
    for series in continuous.values():
        if picks := tuple(i for i, channel in enumerate(series.ch_names) if fnmatchcase(channel, source)):
            return series, picks
    there = ", ".join(found.signals)
    raise ValueError(f"signal {name!r} looks for {source!r}, which is not there; there is {there}, or a channel of them.")


def _side_by_side(parts: Sequence[Part]) -> Signal | Samples:
    """One series of the channels picked. Raises ValueError where they do not share a clock."""
    runs: list[Part] = []
    for series, picks in parts:
        if runs and runs[-1][0] is series:
            runs[-1] = (series, runs[-1][1] + picks)
        else:
            runs.append((series, picks))
    first, picks = runs[0]
    if len(runs) == 1 and picks == tuple(range(len(first.ch_names))):
        return first
    if len({_clock(series) for series, _ in runs}) > 1:
        raise ValueError("its channels differ in rate, start or length; make them signals of their own.")
    values = columns([(series.values, picks) for series, picks in runs])
    names = tuple(series.ch_names[i] for series, picks in runs for i in picks)
    if isinstance(first, Samples):
        return replace(first, values=values, ch_names=names)
    places = [s.positions[list(picks)] for s, picks in runs if isinstance(s, Signal) and s.positions is not None]
    return replace(first, values=values, ch_names=names, positions=np.concatenate(places) if len(places) == len(runs) else None)


def _clock(series: Signal | Samples) -> Hashable:
    if isinstance(series, Signal):
        return series.sfreq, series.t0, len(series.values)
    return series.times.tobytes()


def _described(series: Signal | Samples, signal: SignalSpec, card: DatasetCard) -> Signal | Samples:
    """The series as its card describes it."""
    names = series.ch_names
    if signal.columns:
        if max(signal.columns) >= len(names):
            raise ValueError(f"columns asks for {max(signal.columns)}, counted from 0; there are {len(names)}.")
        series = _side_by_side([(series, signal.columns)])
        names = series.ch_names
    if signal.ch_names and len(signal.ch_names) != len(names):
        raise ValueError(f"ch_names has {len(signal.ch_names)} names for {len(names)} channels.")
    if signal.sfreq is not None and isinstance(series, Signal) and not np.isclose(signal.sfreq, series.sfreq, rtol=1e-6):
        raise ValueError(f"sfreq is {signal.sfreq:g} Hz but the file says {series.sfreq:g}; leave it out, or correct the file.")
    names = signal.ch_names or names
    values = mapped(series.values, lambda rows: _in_unit(rows, signal)) if signal.missing or signal.scale != 1 else series.values
    described = replace(series, values=values, modality=signal.modality, ch_names=names, unit=signal.unit or series.unit)
    if isinstance(described, Signal) and (places := positions_of(card, signal, names)) is not None:
        return replace(described, positions=places)
    return described


def _in_unit(rows: Array, signal: SignalSpec) -> Array:
    """Rows of values with the missing ones NaN, in the card's unit."""
    rows = np.where(np.isin(rows, np.asarray(signal.missing, np.float32)), np.float32(np.nan), rows) if signal.missing else rows
    return rows * np.float32(signal.scale)


def _completed(stated: Subject, found: Subject) -> Subject:
    """What the card states, and what the file says beyond it."""
    blank = {f.name: getattr(found, f.name) for f in fields(Subject) if getattr(stated, f.name) is None}
    return replace(stated, **blank)
