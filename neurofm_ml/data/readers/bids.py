"""BIDS folders: EEG, iEEG and MEG recordings with what the tables beside them say of people, channels, electrodes and events.

A table holds for every recording below it whose name has all entities of its own (``sub-01_ses-2_task-rest``); of several,
the nearest and most specific one. fMRI is the affair of the NIfTI readers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.readers import electrophysiology, nwb
from neurofm_ml.data.readers.adopt import adopt, data_file
from neurofm_ml.data.readers.base import naming
from neurofm_ml.data.readers.intervals import read_intervals
from neurofm_ml.data.readers.tables import MISSING, read_table
from neurofm_ml.knowledge.cards import DatasetCard, IntervalSpec, RecordingSpec
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.types import Array, Intervals, Recording, Series, Signal, Subject

_KINDS = ("eeg", "ieeg", "meg")
_SUFFIXES = (*electrophysiology.SUFFIXES, ".nwb")
#: BIDS's channel type -> MNE's, where they differ; MEG channels are as MNE finds them.
_TYPES = {
    "heog": "eog",
    "veog": "eog",
    "trig": "stim",
    "temp": "temperature",
    "ppg": "bio",
    "audio": "misc",
    "adc": "misc",
    "dac": "misc",
    "other": "misc",
}
_SAME = ("eeg", "eog", "ecg", "emg", "ecog", "seeg", "dbs", "misc", "resp", "gsr", "pupil", "eyegaze")
#: Units of coordinates, in metres.
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
_SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}

#: Rows of a table by name of their column.
Rows = list[dict[str, str]]


def is_bids(path: Path, head: bytes) -> bool:
    """Whether a folder says that it is a BIDS dataset."""
    return path.is_dir() and (path / "dataset_description.json").exists()


def read_folder(root: Path) -> list[Recording]:
    """Every EEG, iEEG and MEG recording of a dataset, sorted by name."""
    files = sorted(p for p in root.glob("sub-*/**/*") if _is_data(p))
    if not files:
        raise ValueError(f"{root} is a BIDS dataset without EEG, iEEG or MEG; read its scans and tables by a dataset card.")
    return [read_one(path, root) for path in files]


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One recording of a card, whose root is the dataset's."""
    path, root = data_file(card, spec, _SUFFIXES), data_root(card)
    assert root is not None
    return adopt(read_one(path, root), card, spec, path)


def read_one(path: Path, root: Path) -> Recording:
    """One data file with the tables of the dataset at `root`."""
    entities = _entities(path)
    channels = _rows(_beside(path, root, "channels.tsv"), "name")
    found = nwb.read_file(path) if path.suffix == ".nwb" else electrophysiology.read_file(path, _types(channels))
    signals, notes = _placed(_with_units(found.signals, channels), path, root)
    if bad := [row["name"] for row in channels if row.get("status") == "bad"]:
        notes.append(f"marked as bad: {', '.join(bad)}")
    intervals, said = _events(path, root)
    about = _json(root / "dataset_description.json")
    subject, species = _person(root, entities["sub"])
    return replace(
        found,
        id=path.name.rsplit("_", 1)[0],
        dataset=str(about.get("Name", "")).strip() or root.name,
        subject=subject,
        session="_".join(f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities),
        species=species,
        licence=about.get("License") or "unknown",
        signals=signals,
        intervals={**({"annotations": found.intervals["events"]} if "events" in found.intervals else {}), **intervals},
        history=("read (bids)", *found.history[1:], *notes, *said),
    )


# ---------------------------------------------------------------- which files belong together
def _is_data(path: Path) -> bool:
    """A recording; of one in several parts the first, from which MNE finds the others."""
    kind = path.name.split(".")[0].rsplit("_", 1)[-1]
    return kind in _KINDS and path.name.lower().endswith(_SUFFIXES) and _entities(path).get("split", "1").lstrip("0") == "1"


def _entities(path: Path) -> dict[str, str]:
    """``sub-01_task-rest_eeg.edf`` -> {"sub": "01", "task": "rest"}."""
    return dict(part.split("-", 1) for part in path.name.split(".")[0].split("_") if "-" in part)


def _beside(path: Path, root: Path, ending: str, besides: Sequence[str] = ()) -> Path | None:
    """The table ``..._<ending>`` that holds for the data file `path`; entities named in `besides` are its own affair."""
    own = _entities(path).items()
    for folder in _upwards(path.parent, root):
        fitting = {p: _entities(p) for p in sorted(folder.glob(f"*{ending}")) if p.name == ending or p.name.endswith(f"_{ending}")}
        fitting = {p: {k: v for k, v in e.items() if k not in besides} for p, e in fitting.items()}
        fitting = {p: e for p, e in fitting.items() if e.items() <= own}
        if fitting:
            return max(fitting, key=lambda p: len(fitting[p]))
    return None


def _upwards(folder: Path, root: Path) -> Iterator[Path]:
    yield folder
    if folder != root:
        yield from _upwards(folder.parent, root)


def _rows(path: Path | None, key: str) -> Rows:
    """Rows of a table that names them in the column `key`."""
    if path is None:
        return []
    table = read_table(path)
    if key not in table.header:
        raise ValueError(f"{path} has no column {key!r}, which BIDS demands; it has {', '.join(table.header)}.")
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def _json(path: Path) -> dict[str, Any]:
    """Fields of a sidecar. Raises ValueError for one that is missing or damaged."""
    with naming(path):
        about = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(about, dict):
            raise ValueError("it needs an object of fields; get it again.")
        return about


# ---------------------------------------------------------------- what they say
def _types(channels: Rows) -> dict[str, str]:
    """Channel name -> MNE's type of it."""
    known = {row["name"]: row.get("type", "").lower() for row in channels}
    return {name: _TYPES.get(kind, kind) for name, kind in known.items() if kind in _TYPES or kind in _SAME}


def _with_units(signals: Mapping[str, Series], channels: Rows) -> dict[str, Series]:
    """Signals whose unit MNE leaves open with the one that all of their channels have; MNE gives volts for any part of them."""
    units = {row["name"]: row.get("units", "") for row in channels}
    named = dict(signals)
    for name, series in signals.items():
        if isinstance(series, Signal) and not series.unit:
            stated = {"V" if units.get(channel, "").endswith("V") else units.get(channel, "") for channel in series.ch_names} - MISSING
            named[name] = replace(series, unit=stated.pop() if len(stated) == 1 else "")
    return named


def _placed(signals: Mapping[str, Series], path: Path, root: Path) -> tuple[dict[str, Series], list[str]]:
    """Signals with the positions of electrodes.tsv, in metres, where every channel has one and the unit is known."""
    table = _beside(path, root, "electrodes.tsv", besides=("space",))
    if table is None:
        return dict(signals), []
    unit = _unit_of_coordinates(table, root)
    if unit not in _METRES:
        return dict(signals), [f"left out the positions of {table.name}: their unit is {unit or 'not stated'}"]
    places = {row["name"]: [row.get(axis, "n/a") for axis in "xyz"] for row in _rows(table, "name")}
    with naming(table):
        known = {name: np.array(xyz, np.float64) * _METRES[unit] for name, xyz in places.items() if not MISSING & {*xyz}}
    return {name: _at(series, known) for name, series in signals.items()}, []


def _at(series: Series, places: Mapping[str, Array]) -> Series:
    if isinstance(series, Signal) and {*series.ch_names} <= places.keys():
        return replace(series, positions=np.stack([places[name] for name in series.ch_names]))
    return series


def _unit_of_coordinates(table: Path, root: Path) -> str:
    """ "m", "cm" or "mm" as coordsystem.json says, else what it says."""
    described = _beside(table, root, "coordsystem.json")
    about = _json(described) if described else {}
    return next((str(value) for key, value in about.items() if key.endswith("CoordinateUnits")), "")


def _events(path: Path, root: Path) -> tuple[dict[str, Intervals], list[str]]:
    """events.tsv: an interval per row, labelled by its trial type, else its value."""
    table = _beside(path, root, "events.tsv")
    if table is None:
        return {}, []
    header = read_table(table).header
    label = next((name for name in ("trial_type", "value") if name in header), "")
    others = tuple(name for name in header if name not in ("onset", "duration", label))
    duration = "duration" if "duration" in header else ""
    with naming(table):
        events, notes = read_intervals(table, IntervalSpec(start="onset", duration=duration, label=label, columns=others))
    return {"events": events}, [f"{table.name}: {note}" for note in notes]


def _person(root: Path, name: str) -> tuple[Subject, str]:
    """Who took part by participants.tsv, and of which species (people, where it does not say)."""
    table = root / "participants.tsv"
    rows = {row["participant_id"].removeprefix("sub-"): row for row in _rows(table if table.exists() else None, "participant_id")}
    row = {key: value for key, value in rows.get(name, {}).items() if value not in MISSING}
    age = row.get("age", "")
    return Subject(
        name,
        age=float(age) if age.replace(".", "", 1).isdigit() else None,
        sex=_SEXES.get(row.get("sex", "").lower()),
        site=row.get("site"),
        family=row.get("family"),
        diagnosis=row.get("diagnosis"),
    ), row.get("species", "Homo sapiens").capitalize()
