"""The numbers of one recording: a row per signal, and per table of intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.data.grid import BEHAVIOUR
from neurofm_ml.data.quality.channels import movement, odd_channels
from neurofm_ml.data.quality.clocks import interval_numbers, rate_off, rows_off, stamp_numbers
from neurofm_ml.data.quality.fmri import motion_numbers, volume_numbers
from neurofm_ml.data.quality.hearts import heart_numbers
from neurofm_ml.data.quality.leaks import leak_numbers
from neurofm_ml.data.quality.pieces import excerpt
from neurofm_ml.data.quality.spectra import spectral_numbers
from neurofm_ml.data.quality.spikes import count_numbers, train_numbers
from neurofm_ml.data.quality.values import Range, edge_numbers, range_of, value_numbers
from neurofm_ml.data.schemas import QUALITY
from neurofm_ml.data.splits import SHOWN
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Recording, Samples, Series, Signal, SpikeTrain

#: Potentials and fields, whose noise reaches up to Nyquist (that of a patched cell is filtered far below it).
ELECTRIC = ("lfp", "eeg", "meg", "ecog", "ieeg", "emg")
#: Arrays whose channels see one field, so that each resembles a neighbour.
SENSORS = ("lfp", "eeg", "meg", "ecog", "ieeg")
#: What an amplifier or a detector can cut off; the mean of a parcel's voxels it cannot.
SATURATING = (*ELECTRIC, "intracellular", "calcium")
#: Channels named in the table.
NAMED = 5
_DTYPES = {"text": "str", "number": "float64", "integer": "int64"}


def as_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `measure` as the quality table: its columns and types, NaN where a number does not apply."""
    unknown = {name for row in rows for name in row} - set(QUALITY.columns)
    assert not unknown, f"the schema of the quality table lacks {sorted(unknown)}"
    table = pd.DataFrame(rows, columns=list(QUALITY.columns))
    return table.astype({name: _DTYPES[column.kind] for name, column in QUALITY.columns.items()})


def measure(recording: Recording, card: DatasetCard) -> list[dict[str, Any]]:
    """One row per signal and per table of intervals; what does not apply is left out."""
    who = {"recording": recording.id, "session": recording.session, "subject": recording.subject.id, "duration_s": recording.duration}
    rows_apart, leaks = rows_off(recording), leak_numbers(recording, card)
    rows = []
    for name, series in recording.signals.items():
        row = {**who, "signal": name, **measure_series(series, name), **leaks.get(name, {})}
        row["uncovered"] = 1 - (row["end_s"] - row["start_s"]) / max(recording.duration, 1e-9)
        rows.append(row | ({"rows_off": rows_apart[name]} if name in rows_apart else {}))
    for name, intervals in recording.intervals.items():
        rows.append({**who, "signal": name, "kind": "Intervals", "modality": "", "n_chans": 0, **interval_numbers(intervals, recording)})
    return rows


def measure_series(series: Series, name: str = "") -> dict[str, Any]:
    """The numbers of one series, by what it is."""
    start, end = series.span
    row: dict[str, Any] = {"modality": series.modality, "kind": type(series).__name__, "start_s": start, "end_s": end}
    if isinstance(series, SpikeTrain):
        numbers, odd = train_numbers(series)
        return {**row, "n_chans": len(series.unit_ids), **numbers, **_named(odd, series.unit_ids)}
    found = range_of(series.values)
    row |= {"n_chans": len(series.ch_names), "unit": series.unit, **value_numbers(found), **_named({"flat": found.flat}, series.ch_names)}
    if isinstance(series, Samples):
        return {**row, **stamp_numbers(series), "placeholder": edge_numbers(series.values, found)["placeholder"]}
    row |= {"sfreq": series.sfreq, "rate_off": rate_off(series)}
    if series.modality == "spikes":
        numbers, odd = count_numbers(series.values, series.sfreq)
        return {**row, **numbers, **_named(odd, series.ch_names)}
    edges = edge_numbers(series.values, found)
    row |= {"placeholder": edges["placeholder"], **motion_numbers(series), **heart_numbers(name, series)}
    if series.modality in BEHAVIOUR + SHOWN:  # these may stand still, as a silent room does
        return row
    if series.modality in SATURATING:
        row["clipped"] = edges["clipped"]
    return row | (_shape(series, found) if found.alive.any() and found.n > 2 else {})


def _shape(signal: Signal, found: Range) -> dict[str, Any]:
    """What the channels that live show: size, noise, odd ones, spectrum, volumes."""
    alive = np.flatnonzero(found.alive)
    parts = excerpt(signal.values, alive)
    numbers: dict[str, Any] = {"frozen": found.still / (found.n - 1), **movement(parts), **_places(signal)}
    numbers |= _named(odd_channels(parts, signal.modality in SENSORS), [signal.ch_names[i] for i in alive])
    if signal.modality in ELECTRIC:
        numbers |= spectral_numbers(parts, signal.sfreq)
    if signal.modality == "fmri":
        numbers |= volume_numbers(np.concatenate(parts))
    return numbers


def _named(odd: Mapping[str, Array], ch_names: Sequence[str]) -> dict[str, Any]:
    """What is odd about channels -> how many, and which (the first NAMED of them)."""
    found: dict[str, Any] = {}
    for what, which in odd.items():
        names = [ch_names[i] for i in np.flatnonzero(which).tolist()]
        found |= {what: len(names), f"{what}_names": " ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")}
    return found


def _places(signal: Signal) -> dict[str, float]:
    """Median distance of the channels from their middle, in the unit of positions."""
    if signal.positions is None or len(signal.positions) < 3:
        return {}
    places = np.asarray(signal.positions, np.float64)
    return {"radius": float(np.nanmedian(np.linalg.norm(places - np.nanmean(places, axis=0), axis=1)))}
