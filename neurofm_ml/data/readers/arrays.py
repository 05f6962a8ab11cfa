"""Recordings from array files that a card describes; ``series.py`` reads their series, ``variables.py`` knows the formats.

The file says only numbers; the card's SignalSpec says which variable, rate, unit, orientation, clock.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.base import alone, build, naming
from neurofm_ml.data.readers.layouts import side_by_side
from neurofm_ml.data.readers.positions import positions_of
from neurofm_ml.data.readers.series import read_series, read_with_trials
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec
from neurofm_ml.knowledge.files import fill, recording_files
from neurofm_ml.types import Intervals, Recording, Series, Signal


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One recording whose series lie in array files."""
    signals: dict[str, Series] = {}
    trials: dict[str, Intervals] = {}
    for name, signal in card.signals.items():
        files = recording_files(card, spec, signal.file or card.pattern)
        if len(files) > 1 and not signal.side_by_side:
            raise ValueError(f"{card.name}/{spec.id}, signal {name!r}: {len(files)} files match, first {files[0]}; narrow the pattern.")
        with naming(f"{card.name}/{spec.id}, signal {name!r}"):
            series, found = _read(files, _filled(signal, spec))
            if isinstance(series, Signal):
                series = replace(series, positions=positions_of(card, signal, series.ch_names))
            if found is not None:
                _check_same(trials.setdefault("trials", found), found)
        signals[name] = series
    notes = (f"{name}: {note}" for name in signals for note in _notes(card.signals[name]))
    return build(card, spec, signals, trials, tuple(notes))


def _filled(signal: SignalSpec, spec: RecordingSpec) -> SignalSpec:
    """The signal with ``{id}`` and other names filled into its variables."""
    variable = fill(signal.variable, spec) if isinstance(signal.variable, str) else tuple(fill(v, spec) for v in signal.variable)
    return replace(
        signal,
        variable=variable,
        time=fill(signal.time, spec),
        unit_index=fill(signal.unit_index, spec),
        unit_counts=fill(signal.unit_counts, spec),
        trial_label=fill(signal.trial_label, spec),
        where={column: fill(word, spec) for column, word in signal.where.items()},
    )


def _read(files: Sequence[Path], signal: SignalSpec) -> tuple[Series, Intervals | None]:
    """A series and its trials where it has any, from one file or from several side by side."""
    if not signal.side_by_side:
        return read_with_trials(files[0], signal)
    parts = {path: part for path in files if isinstance(part := read_series(path, replace(signal, ch_names=())), Signal)}
    return side_by_side(parts, signal.ch_names), None


def _check_same(known: Intervals, found: Intervals) -> None:
    if len(known.end) != len(found.end) or not np.allclose(known.end, found.end):
        raise ValueError("its trials differ in number or length from those of another signal; correct sfreq or leave one of them out.")


def _notes(signal: SignalSpec) -> list[str]:
    """What a person must know of series that are not as they were measured."""
    told = {
        "trials laid end to end; the times between them are not known": signal.trial_label,
        f"each count covers {signal.bin_s} s, so neighbours share spikes": signal.bin_s,
        "angles as cosine and sine": signal.angle,
    }
    return [note for note, applies in told.items() if applies]


def read_file(path: Path, signal: SignalSpec) -> Recording:
    """One array file as a recording with the single series that `signal` describes."""
    series, trials = _read([path], signal)
    return alone(path, "arrays", {signal.modality: series}, {"trials": trials} if trials else {}, _notes(signal))
