"""Neurodata Without Borders through pynwb, as HDF5 or Zarr. The home of pynwb.

Units become a SpikeTrain; electrical series lfp; regions of interest calcium; patch clamp intracellular; spatial and
behavioural series pose, or eye; other series, and stimuli, task; trials, epochs, events and annotations Intervals. Values
stay in the file until they are asked for. What has no place in a Recording (images, other tables) is named in the history.

    series.py   one TimeSeries -> one series, with its unit, clock, channels and their places
    sweeps.py   patch clamp: sweeps laid end to end, with their stimuli
    tables.py   units, intervals, the subject
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from neurofm_ml.data.readers.adopt import adopt, data_file
from neurofm_ml.data.readers.base import alone, naming
from neurofm_ml.data.readers.hdf5 import open_hdf5
from neurofm_ml.data.readers.nwb.series import modality_of, read_series
from neurofm_ml.data.readers.nwb.sweeps import lay_sweeps
from neurofm_ml.data.readers.nwb.tables import read_instants, read_intervals, read_spikes, read_subject
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.types import Intervals, Recording, Series

_HDF5 = b"\x89HDF\r\n"


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One recording of a card, with the series that the card names."""
    path = data_file(card, spec, (".nwb", ".zarr"))
    return adopt(read_file(path), card, spec, path)


def is_nwb(path: Path, head: bytes) -> bool:
    """Whether an HDF5 file or a Zarr folder says which version of NWB it is."""
    if path.is_dir():
        attributes = path / ".zattrs"
        return attributes.exists() and '"nwb_version"' in attributes.read_text(errors="replace")
    if not head.startswith(_HDF5):
        return False
    import h5py

    try:
        with h5py.File(path) as file:
            return "nwb_version" in file.attrs
    except OSError:
        return False


def read_file(path: Path) -> Recording:
    """One NWB file or Zarr folder. Raises ValueError naming file and field for a damaged file and for nonsense times."""
    _check_links(path)
    try:
        with _open(path) as io:
            return _recording(io.read(), path)
    except Exception as error:  # whatever a damaged file does to pynwb
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} is damaged, cut short or no NWB file ({error}); get it again.") from None


def _check_links(path: Path) -> None:
    """Raises ValueError for a file or folder that points to data in another one, which would be read without being named."""
    if not path.is_dir():
        with open_hdf5(path):
            return
    for file in (*path.rglob(".zattrs"), *path.glob(".zmetadata")):
        with naming(file):
            if outside := sorted({*_sources(json.loads(file.read_text()))} - {".", ""}):
                raise ValueError(f"it points to {outside[0]!r}; only what a file holds itself is read. Export it again without links.")


def _sources(attributes: Any) -> Iterator[str]:
    """The files that links and references of Zarr attributes name; "." is their own."""
    if isinstance(attributes, list):
        for item in attributes:
            yield from _sources(item)
    elif isinstance(attributes, dict):
        if {"source", "path"} <= attributes.keys():
            yield str(attributes["source"])
        for item in attributes.values():
            yield from _sources(item)


def _open(path: Path) -> Any:
    if path.is_dir():
        from hdmf_zarr.nwb import NWBZarrIO

        return NWBZarrIO(str(path), "r")
    from pynwb import NWBHDF5IO

    return NWBHDF5IO(path, "r", load_namespaces=True)


def _recording(nwb: Any, path: Path) -> Recording:
    found = _Found(path)
    for place, item in _items(nwb):
        found.add(place, item)
    if nwb.units is not None:
        found.add_units(nwb.units)
    found.add_sweeps(nwb.intracellular_recordings)
    if not found.signals:
        raise ValueError(f"{path} holds no units or series that NeuroFM reads; it holds {', '.join(found.left_out) or 'nothing'}.")
    left_out = (f"left out {', '.join(found.left_out)}",) if found.left_out else ()
    recording = alone(path, "nwb", found.signals, found.intervals, (*found.notes, *left_out))
    return replace(
        recording,
        subject=read_subject(nwb.subject, recording.id),
        session=nwb.session_id or recording.id,
        species=getattr(nwb.subject, "species", None) or "unknown",
    )


class _Found:
    """What the items of one file have become so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.signals: dict[str, Series] = {}
        self.intervals: dict[str, Intervals] = {}
        self.left_out: list[str] = []
        self.notes: list[str] = []
        self.sweeps: list[tuple[str, Any]] = []

    def add_units(self, units: Any) -> None:
        with naming(f"{self.path}, units.spike_times"):
            spikes, note = read_spikes(units)
        self.notes.extend(note)
        if spikes is not None:
            self.signals = {"units": spikes, **self.signals}

    def add_sweeps(self, pairs: Any) -> None:
        """Sweeps of patch clamp: end to end where the file holds nothing else that is recorded, else each on its own clock."""
        responses, stimuli = ([s for p, s in self.sweeps if (p == "stimulus") == is_stimulus] for is_stimulus in (False, True))
        if self.signals or len(responses) < 2 or any(s.rate is None for s in responses):
            for place, series in self.sweeps:
                self.add_series(place, series)
            return
        with naming(f"{self.path}, sweeps"):
            laid = lay_sweeps(responses, stimuli, pairs)
        self.signals.update(laid.signals)
        self.intervals.update(laid.intervals)
        self.left_out.extend(laid.left_out)
        self.notes.append("sweeps laid end to end; when each was started is in their table")

    def add(self, place: str, item: Any) -> None:
        """One series or table of the file."""
        from pynwb.icephys import PatchClampSeries

        if isinstance(item, PatchClampSeries) and place in ("acquisition", "stimulus"):
            self.sweeps.append((place, item))
        else:
            self.add_series(place, item)

    def add_series(self, place: str, item: Any) -> None:
        """One series or table, under its own name, or with its place where that name is taken."""
        with naming(f"{self.path}, {place}/{item.name}"):
            if (intervals := read_intervals(item) or read_instants(item)) is not None:
                self.intervals[_free(item.name, place, self.intervals)] = intervals
            elif (modality := modality_of(item, place)) is not None:
                series, note = read_series(item, modality)
                name = _free(item.name, place, self.signals)
                self.signals[name] = series
                self.notes.extend(f"{name}: {text}" for text in note)
            else:
                self.left_out.append(f"{place}/{item.name}")


def _free(name: str, place: str, taken: dict[str, Any]) -> str:
    return name if name not in taken else f"{place}/{name}".replace("/", "_")


def _items(nwb: Any) -> Iterator[tuple[str, Any]]:
    """Every series and table with the path of its container."""
    for place in ("acquisition", "stimulus", "stimulus_template", "analysis", "intervals", "events"):
        for item in (getattr(nwb, place, None) or {}).values():
            yield from _unpacked(place, item)
    for module in nwb.processing.values():
        for item in module.data_interfaces.values():
            yield from _unpacked(f"processing/{module.name}", item)


def _unpacked(place: str, item: Any) -> Iterator[tuple[str, Any]]:
    """Containers such as LFP, DfOverF or Position hold series as children."""
    from hdmf.common import DynamicTable
    from pynwb import TimeSeries

    if isinstance(item, (TimeSeries, DynamicTable)):
        yield place, item
        return
    for child in getattr(item, "children", ()):
        yield from _unpacked(f"{place}/{item.name}", child)
