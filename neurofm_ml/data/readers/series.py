"""One series from the arrays of a file, as a SignalSpec describes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers import media
from neurofm_ml.data.readers.base import as_columns, check_times, naming, series_from_times
from neurofm_ml.data.readers.layouts import end_to_end, on_the_circle
from neurofm_ml.data.readers.tables import read_stream
from neurofm_ml.data.readers.variables import as_column, as_texts, expand, load_variables, rows_where
from neurofm_ml.knowledge.cards import SignalSpec
from neurofm_ml.types import Array, Intervals, Series, Signal, SpikeTrain

#: A regular clock may stray from its time stamps by less than this share of a step.
_HALF_STEP = 0.5
#: Fields of a SignalSpec that name a variable beside the values.
_BESIDE = ("time", "unit_index", "unit_counts", "trial_label")


def read_series(path: Path, signal: SignalSpec) -> Series:
    """The series that `signal` describes. Raises ValueError naming file and variable."""
    return read_with_trials(path, signal)[0]


def read_with_trials(path: Path, signal: SignalSpec) -> tuple[Series, Intervals | None]:
    """The series that `signal` describes, and where its trials lie when it is made of trials."""
    if read_stimulus := media.reader_of(path, signal):
        return read_stimulus(path, signal), None
    names, arrays, beside, headers = _load(path, signal)
    trials = None
    with naming(path):
        if signal.unit_index or signal.unit_counts:
            return _spike_train(arrays[0], beside, signal), None
        if signal.trial_label:
            arrays[0], trials = end_to_end(arrays[0], as_texts(as_column(beside["trial_label"], signal.trial_label)), signal)
    values = _values(path, names, arrays, signal)
    headers = () if signal.transpose else headers  # those of a table that lies (n_chans, n_times) name its times
    ch_names = signal.ch_names or _default_names(names, headers, signal.columns, values.shape[1])
    with naming(path):
        if len(ch_names) not in (0, values.shape[1]):
            raise ValueError(f"ch_names has {len(ch_names)} names for {values.shape[1]} channels.")
        if signal.angle:
            values, ch_names = on_the_circle(values, ch_names)
        return _series(values, beside.get("time"), ch_names, signal), trials


def _load(path: Path, signal: SignalSpec) -> tuple[tuple[str, ...], list[Array], dict[str, Array], tuple[str, ...]]:
    """Names and arrays of the values, the arrays beside them by the field that names each, headers of a whole table."""
    names = expand(path, (signal.variable,) if isinstance(signal.variable, str) else signal.variable)
    if signal.ragged:
        return names, [read_stream(path)], {}, ()
    beside = {field: name for field in _BESIDE if (name := getattr(signal, field))}
    loaded, headers = load_variables(path, (*names, *beside.values()))
    arrays = rows_where(path, signal.where, loaded)
    return names, arrays[: len(names)], dict(zip(beside, arrays[len(names) :], strict=True)), headers


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
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if signal.columns:
        if max(signal.columns) >= values.shape[1]:
            raise ValueError(f"{path}: columns asks for {max(signal.columns)}, counted from 0; there are {values.shape[1]}.")
        values = values[:, signal.columns]
    if signal.missing:
        values[np.isin(values, np.asarray(signal.missing, np.float32))] = np.nan
    return np.ascontiguousarray(values if signal.scale == 1 else values * np.float32(signal.scale))


def _series(values: Array, stamps: Array | None, ch_names: tuple[str, ...], signal: SignalSpec) -> Series:
    """Put `values` on the clock that the card states."""
    if stamps is None:
        if signal.sfreq is None:
            raise ValueError("the card gives neither sfreq nor time; the file does not hold the rate, so state one of them.")
        return Signal(values, signal.sfreq, signal.modality, signal.t0 or 0.0, ch_names, unit=signal.unit)
    stamps = np.ravel(stamps).astype(np.float64) * signal.time_scale
    if len(stamps) != len(values):
        raise ValueError(f"time {signal.time!r} has {len(stamps)} entries for {len(values)} rows; they must agree.")
    # A stated start makes sense of a clock of any kind, that of Unix too.
    times = check_times(stamps if signal.t0 is None else stamps - stamps[0] + signal.t0)
    if signal.sfreq is None:
        return series_from_times(times, values, signal.modality, ch_names, signal.unit)
    strayed = np.abs(times - times[0] - np.arange(len(times)) / signal.sfreq) * signal.sfreq
    if (bad := np.flatnonzero(strayed >= _HALF_STEP)).size:
        raise ValueError(
            f"time {signal.time!r} leaves the stated sfreq {signal.sfreq:g} Hz at row {bad[0]}; correct sfreq, or leave it out to "
            "keep the time stamps."
        )
    return Signal(values, signal.sfreq, signal.modality, float(times[0]), ch_names, unit=signal.unit)


def _spike_train(times: Array, beside: Mapping[str, Array], signal: SignalSpec) -> SpikeTrain:
    """Spike times with the unit of each, or with the number of each unit's -> SpikeTrain, sorted by time.

    Units are named by their number; one that is counted but never fired keeps its place.
    """
    seconds = check_times(np.ravel(times) * signal.time_scale)
    if signal.unit_counts:
        counts = np.ravel(beside["unit_counts"]).astype(np.int64)
        labels, index = np.arange(len(counts)), np.repeat(np.arange(len(counts)), counts)
    else:
        labels, index = np.unique(np.ravel(beside["unit_index"]), return_inverse=True)
    if len(seconds) != len(index):
        raise ValueError(f"{len(seconds)} spike times but {signal.unit_counts or signal.unit_index!r} speaks of {len(index)}.")
    order = np.argsort(seconds, kind="stable")
    return SpikeTrain(seconds[order], index[order], signal.ch_names or tuple(map(str, as_texts(labels))), signal.modality)
