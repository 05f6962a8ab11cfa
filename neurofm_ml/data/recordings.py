"""Recordings on disk: ``<id>/recording.json`` with one ``.npy`` per array, read back by memory map.

No pickle anywhere. A folder is written under a passing name and renamed, so it is whole or absent.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.config import from_dict
from neurofm_ml.data.lazy import LazyArray, chunks
from neurofm_ml.data.stores import open_files
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Intervals, Recording, Samples, Series, Signal, SpikeTrain, Subject

_KINDS: Mapping[str, type[Signal] | type[Samples] | type[SpikeTrain]] = {c.__name__: c for c in (Signal, Samples, SpikeTrain)}


def save_recording(recording: Recording, folder: Path) -> Path:
    """Write one recording to ``folder/<id>`` and return that folder."""
    final = folder / recording.id
    work = folder / f".{recording.id}.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    described = {
        "id": recording.id,
        "dataset": recording.dataset,
        "subject": asdict(recording.subject),
        "session": recording.session,
        "species": recording.species,
        "licence": recording.licence,
        "span": list(recording.bounds),
        "history": list(recording.history),
        "signals": {name: _save_series(series, name, work) for name, series in recording.signals.items()},
        "intervals": {name: _save_intervals(ivs, name, work) for name, ivs in recording.intervals.items()},
    }
    (work / "recording.json").write_text(json.dumps(described, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    return work.rename(final)


def _save_series(series: Series, name: str, folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": type(series).__name__}
    for key, value in vars(series).items():
        described[key] = _save_array(value, f"{name}.{key}.npy", folder) if isinstance(value, (np.ndarray, LazyArray)) else value
    return described


def _save_intervals(intervals: Intervals, name: str, folder: Path) -> dict[str, Any]:
    columns = {key: _save_array(values, f"{name}.column_{i}.npy", folder) for i, (key, values) in enumerate(intervals.columns.items())}
    start, end = (_save_array(a, f"{name}.{side}.npy", folder) for side, a in (("start", intervals.start), ("end", intervals.end)))
    return {"start": start, "end": end, "labels": list(intervals.labels), "columns": columns}


def _save_array(values: Array | LazyArray, name: str, folder: Path) -> dict[str, str]:
    """Text columns may come as objects; they are stored as fixed-width text, which needs no pickle. Values that are still
    in their file pass through memory a piece at a time."""
    if isinstance(values, LazyArray):
        return _save_lazy(values, name, folder)
    np.save(folder / name, values.astype(str) if values.dtype == object else values, allow_pickle=False)
    return {"array": name}


def _save_lazy(values: LazyArray, name: str, folder: Path) -> dict[str, str]:
    with (folder / name).open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": values.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for rows in chunks(values):
            file.write(np.ascontiguousarray(rows).data)
    return {"array": name}


def load_recording(folder: Path) -> Recording:
    """One saved recording; arrays are memory maps. Raises ValueError naming a missing or damaged file."""
    try:
        described = json.loads((folder / "recording.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} holds no recording (no recording.json); run the job 'ingest' again.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'recording.json'} is damaged ({error}); run the job 'ingest' again.") from None
    return Recording(
        **{
            **described,
            "subject": Subject(**described["subject"]),
            "span": tuple(described["span"]),
            "history": tuple(described["history"]),
            "signals": {name: _load_series(s, folder) for name, s in described["signals"].items()},
            "intervals": {name: _load_intervals(s, folder) for name, s in described["intervals"].items()},
        }
    )


def _load_series(described: Mapping[str, Any], folder: Path) -> Series:
    fields = {key: _load_value(value, folder) for key, value in described.items() if key != "kind"}
    return _KINDS[described["kind"]](**fields)


def _load_intervals(described: Mapping[str, Any], folder: Path) -> Intervals:
    columns = {key: _load_value(value, folder) for key, value in described["columns"].items()}
    return Intervals(_load_value(described["start"], folder), _load_value(described["end"], folder), tuple(described["labels"]), columns)


def _load_value(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    path = folder / value["array"]
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}); run the job 'ingest' again.") from None


def load_recordings(artifact: Path) -> Iterator[Recording]:
    """Every recording of a recordings artifact, sorted by id."""
    for folder in sorted((artifact / "recordings").iterdir()):
        yield load_recording(folder)


def load_card(artifact: Path | str) -> DatasetCard:
    """The dataset card that an artifact, in a folder or behind a URL, was made with."""
    files = open_files(artifact)
    try:
        return from_dict(DatasetCard, json.loads(files.read("card.json")), files.path("card.json"))
    except FileNotFoundError:
        raise ValueError(f"{artifact} has no card.json; it is no artifact of a dataset.") from None
