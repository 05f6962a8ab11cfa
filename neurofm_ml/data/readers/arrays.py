"""Series from arrays that a card describes; ``variables.py`` knows the file formats.

The file says only numbers; the card's SignalSpec says which variable, rate, unit, orientation, clock.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.base import as_columns, build, check_times, naming, series_from_times
from neurofm_ml.data.readers.positions import positions_of
from neurofm_ml.data.readers.variables import load_variables
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec, fill, recording_files
from neurofm_ml.types import Array, Recording, Series, Signal, SpikeTrain, Subject

#: A regular clock may stray from its time stamps by less than this share of a step.
_HALF_STEP = 0.5


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One recording whose series lie in array files."""
    signals: dict[str, Series] = {}
    for name, signal in card.signals.items():
        files = recording_files(card, spec, signal.file or card.pattern)
        if len(files) > 1:
            raise ValueError(f"{card.name}/{spec.id}, signal {name!r}: {len(files)} files match, first {files[0]}; narrow the pattern.")
        with naming(f"{card.name}/{spec.id}, signal {name!r}"):
            series = read_series(files[0], _filled(signal, spec))
            if isinstance(series, Signal):
                series = replace(series, positions=positions_of(card, signal, series.ch_names))
        signals[name] = series
    return build(card, spec, signals)


def _filled(signal: SignalSpec, spec: RecordingSpec) -> SignalSpec:
    """The signal with ``{id}`` and other names filled into its variables."""
    variable = fill(signal.variable, spec) if isinstance(signal.variable, str) else tuple(fill(v, spec) for v in signal.variable)
    return replace(signal, variable=variable, time=fill(signal.time, spec), unit_index=fill(signal.unit_index, spec))


def read_file(path: Path, signal: SignalSpec) -> Recording:
    """One array file as a recording with the single series that `signal` describes."""
    return Recording(
        id=path.name.split(".")[0],
        dataset="file",
        subject=Subject(path.name.split(".")[0]),
        session=path.name.split(".")[0],
        species="unknown",
        licence="unknown",
        signals={signal.modality: read_series(path, signal)},
        history=("read (arrays)",),
    )


def read_series(path: Path, signal: SignalSpec) -> Series:
    """The series that `signal` describes. Raises ValueError naming file and variable."""
    names = (signal.variable,) if isinstance(signal.variable, str) else signal.variable
    extra = tuple(name for name in (signal.time, signal.unit_index) if name)
    arrays, headers = load_variables(path, (*names, *extra))
    if signal.unit_index:
        with naming(path):
            return _spike_train(arrays[0], arrays[-1], signal)
    values = _values(path, names, arrays[: len(names)], signal)
    headers = () if signal.transpose else headers  # those of a table that lies (n_chans, n_times) name its times
    ch_names = signal.ch_names or _default_names(names, headers, signal.columns, values.shape[1])
    with naming(path):
        if len(ch_names) not in (0, values.shape[1]):
            raise ValueError(f"ch_names has {len(ch_names)} names for {values.shape[1]} channels.")
        return _series(values, arrays[len(names)] if signal.time else None, ch_names, signal)


def _default_names(names: Sequence[str], headers: Sequence[str], columns: Sequence[int], n_chans: int) -> tuple[str, ...]:
    """Last parts of the variables where each is one channel, headers of a whole table, else () for numbers."""
    if all(names) and len(names) == n_chans:
        return tuple(name.rsplit("/", 1)[-1] for name in names)
    return tuple(headers[i] for i in columns) if headers and columns else tuple(headers)


def _values(path: Path, names: Sequence[str], arrays: Sequence[Array], signal: SignalSpec) -> Array:
    """(n_times, n_chans) float32 in the card's unit, missing numbers as NaN."""
    parts = []
    for name, array in zip(names, arrays, strict=True):
        with naming(f"{path}, variable {name!r}" if name else path):
            columns = as_columns(array)
            if not columns.size:
                raise ValueError("it holds no numbers; get the file again or correct `variable`.")
            parts.append(columns.T if signal.transpose else columns)
    if len({len(p) for p in parts}) > 1:
        raise ValueError(f"{path}: {', '.join(names)} have {', '.join(str(len(p)) for p in parts)} rows; they must agree.")
    values = np.concatenate(parts, axis=1)
    if signal.columns:
        if max(signal.columns) >= values.shape[1]:
            raise ValueError(f"{path}: columns asks for {max(signal.columns)}, counted from 0; there are {values.shape[1]}.")
        values = values[:, signal.columns]
    values[np.isin(values, np.asarray(signal.missing, np.float32))] = np.nan
    return np.ascontiguousarray(values * np.float32(signal.scale))


def _series(values: Array, stamps: Array | None, ch_names: tuple[str, ...], signal: SignalSpec) -> Series:
    """Put `values` on the clock that the card states."""
    if stamps is None:
        if signal.sfreq is None:
            raise ValueError("the card gives neither sfreq nor time; the file does not hold the rate, so state one of them.")
        return Signal(values, signal.sfreq, signal.modality, signal.t0 or 0.0, ch_names, unit=signal.unit)
    times = check_times(np.ravel(stamps) * signal.time_scale)
    if len(times) != len(values):
        raise ValueError(f"time {signal.time!r} has {len(times)} entries for {len(values)} rows; they must agree.")
    if signal.t0 is not None:
        times = times - times[0] + signal.t0
    if signal.sfreq is None:
        return series_from_times(times, values, signal.modality, ch_names, signal.unit)
    strayed = np.abs(times - times[0] - np.arange(len(times)) / signal.sfreq) * signal.sfreq
    if (bad := np.flatnonzero(strayed >= _HALF_STEP)).size:
        raise ValueError(
            f"time {signal.time!r} leaves the stated sfreq {signal.sfreq:g} Hz at row {bad[0]}; correct sfreq, or leave it out to "
            "keep the time stamps."
        )
    return Signal(values, signal.sfreq, signal.modality, float(times[0]), ch_names, unit=signal.unit)


def _spike_train(times: Array, units: Array, signal: SignalSpec) -> SpikeTrain:
    """Spike times and the unit of each -> SpikeTrain, sorted by time; units are named by their number."""
    seconds, units = check_times(np.ravel(times) * signal.time_scale), np.ravel(units)
    if len(seconds) != len(units):
        raise ValueError(f"{len(seconds)} spike times but {len(units)} entries in unit_index {signal.unit_index!r}.")
    labels, index = np.unique(units, return_inverse=True)
    order = np.argsort(seconds, kind="stable")
    return SpikeTrain(seconds[order], index[order], signal.ch_names or tuple(f"{u:g}" for u in labels), signal.modality)
