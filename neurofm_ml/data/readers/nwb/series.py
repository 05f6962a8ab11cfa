"""One TimeSeries of NWB -> one series: its numbers in its unit, its clock, its channels and where they are."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.lazy import ReadRows, lazy
from neurofm_ml.data.readers.base import check_times, naming, series_from_times
from neurofm_ml.types import Array, Series, Signal

#: NWB's coordinates of electrodes are microns.
_METRES = 1e-6


def modality_of(series: Any, place: str) -> str | None:
    """Modality of a series by its type and place; None for what is no series of numbers (n_times,) or (n_times, n_chans)."""
    from pynwb import TimeSeries, behavior, ecephys, icephys, image, ophys

    if not isinstance(series, TimeSeries) or isinstance(series, (image.ImageSeries, image.IndexSeries, ecephys.SpikeEventSeries)):
        return None
    data = series.data if hasattr(series.data, "shape") else np.asarray(series.data)
    if data.ndim not in (1, 2) or np.dtype(data.dtype).kind not in "biuf" or place == "stimulus_template":
        return None
    if isinstance(series, ecephys.ElectricalSeries):
        return "lfp"
    if isinstance(series, ophys.RoiResponseSeries):
        return "calcium"
    if isinstance(series, icephys.PatchClampSeries) and place != "stimulus":
        return "intracellular"
    if re.search(r"(?i)eye|pupil|gaze", f"{place}/{series.name}"):
        return "eye"
    return "pose" if isinstance(series, behavior.SpatialSeries) or "behav" in place.lower() else "task"


def read_series(series: Any, modality: str) -> tuple[Series, tuple[str, ...]]:
    """The series in its own unit, on its rate or its time stamps, and notes on how it was read."""
    values = values_of(series)
    ch_names = _ch_names(series, values.shape[1])
    if series.rate is None:
        found = series_from_times(np.asarray(series.timestamps[:]), values, modality, ch_names, series.unit)
    else:
        found = Signal(values, rate_of(series), modality, start_of(series), ch_names, unit=series.unit)
    places, note = _positions(series, len(ch_names))
    if places is None or not isinstance(found, Signal):
        return found, ()
    return Signal(found.values, found.sfreq, modality, found.t0, ch_names, places, series.unit), note


def rate_of(series: Any) -> float:
    """Hz. Rates are often written as a quotient: 50000.00000000001 Hz is 50 kHz."""
    return float(f"{series.rate:.9g}")


def start_of(series: Any) -> float:
    """Seconds at which a series with a rate starts."""
    return float(check_times(np.array([series.starting_time]))[0])


def values_of(series: Any) -> Array:
    """(n_times, n_chans) that stay in the file; ``data * conversion * channel_conversion + offset`` as rows are read."""
    data = series.data if hasattr(series.data, "shape") else np.asarray(series.data)
    n_chans = data.shape[1] if data.ndim == 2 else 1
    per_channel = getattr(series, "channel_conversion", None)
    factor = series.conversion * np.asarray(1.0 if per_channel is None else per_channel[:], np.float64)
    offset, rows = np.float32(series.offset), _rows(data)

    def read(start: int, stop: int) -> Array:
        values = rows(start, stop).reshape(-1, n_chans).astype(np.float32)
        if np.any(factor != 1):
            values *= np.float32(factor)
        if offset:
            values += offset
        return values

    return lazy((data.shape[0], n_chans), read, (data.chunks or (1,))[0] if hasattr(data, "chunks") else 1)


def _rows(data: Any) -> ReadRows:
    """Reader of rows as stored. An HDF5 dataset is found again by file and name, since the file is closed after opening."""
    import h5py

    if not isinstance(data, h5py.Dataset):
        return lambda start, stop: np.asarray(data[start:stop])
    path, name = Path(data.file.filename), data.name

    def read(start: int, stop: int) -> Array:
        with naming(f"{path}, {name}"), h5py.File(path) as file:
            return np.asarray(file[name][start:stop])

    return read


def _ch_names(series: Any, n_chans: int) -> tuple[str, ...]:
    """Ids of the electrodes or regions of interest behind the columns, else numbers."""
    region = getattr(series, "electrodes", None) or getattr(series, "rois", None)
    ids = [str(region.table.id[i]) for i in region.data[:]] if region is not None else []
    return tuple(ids) if len(ids) == n_chans else tuple(map(str, range(n_chans)))


def _positions(series: Any, n_chans: int) -> tuple[Array | None, tuple[str, ...]]:
    """(n_chans, 3) metres of the electrodes, in the brain or else on their probe; None unless every one has a place."""
    region = getattr(series, "electrodes", None)
    if region is None or len(region.data) != n_chans:
        return None, ()
    rows = np.asarray(region.data[:])
    for names, note in ((("x", "y", "z"), ()), (("rel_x", "rel_y", "rel_z"), ("positions are those on the probe",))):
        here = [name for name in names if name in region.table.colnames]
        places = np.zeros((n_chans, 3))
        for axis, name in enumerate(names):
            if name in here:
                places[:, axis] = np.asarray(region.table[name][:], np.float64)[rows]
        if len(here) >= 2 and np.isfinite(places).all() and places.any():
            return places * _METRES, note
    return None, ()
