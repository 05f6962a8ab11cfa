"""Neurodata Without Borders through pynwb. The home of pynwb.

Units become a SpikeTrain; electrical series lfp; regions of interest calcium; patch clamp intracellular;
spatial and behavioural series pose, or eye; trials and other interval tables Intervals. What has no place
in a Recording (images, video, stimulus waveforms) is named in the history.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.readers.base import adopt, as_columns, check_times, naming, series_from_times
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, recording_files
from neurofm_ml.types import Array, Intervals, Recording, Series, Signal, SpikeTrain, Subject

_DAYS = {"Y": 365.25, "M": 30.4375, "W": 7.0, "D": 1.0}


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One recording of a card, with the series that the card names."""
    path = recording_files(card, spec, card.pattern)[0]
    return adopt(read_file(path), card, spec, path)


def read_file(path: Path) -> Recording:
    """One NWB file. Raises ValueError naming file and field for a damaged file and for nonsense times."""
    from pynwb import NWBHDF5IO

    try:
        with NWBHDF5IO(path, "r", load_namespaces=True) as io:
            return _recording(io.read(), path)
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, cut short or no NWB file ({error}); get it again.") from None


def _recording(nwb: Any, path: Path) -> Recording:
    signals: dict[str, Series] = {}
    left_out = [f"stimulus {name}" for name in nwb.stimulus]
    if nwb.units is not None:
        with naming(f"{path}, units.spike_times"):
            signals["units"] = _spikes(nwb.units)
    for place, series in _series_of(nwb):
        if (modality := _modality(series, place)) is None:
            left_out.append(f"{place}/{series.name}")
            continue
        with naming(f"{path}, {place}/{series.name}"):
            name = series.name if series.name not in signals else f"{place}/{series.name}".replace("/", "_")
            signals[name] = _series(series, modality)
    if not signals:
        raise ValueError(f"{path} holds no units or series that NeuroFM reads; it holds {', '.join(left_out) or 'nothing'}.")
    return Recording(
        id=path.stem,
        dataset="file",
        subject=_subject(nwb.subject, path.stem),
        session=nwb.session_id or path.stem,
        species=getattr(nwb.subject, "species", None) or "unknown",
        licence="unknown",
        signals=signals,
        intervals=_intervals(nwb, path),
        history=("read (nwb)", *((f"left out {', '.join(left_out)}",) if left_out else ())),
    )


def _spikes(units: Any) -> SpikeTrain:
    """The units table; a unit without spikes keeps its place."""
    trains = [np.asarray(units.get_unit_spike_times(i)) for i in range(len(units))]
    times = check_times(np.concatenate(trains) if trains else np.empty(0))
    index = np.repeat(np.arange(len(trains)), [len(t) for t in trains])
    order = np.argsort(times, kind="stable")
    return SpikeTrain(times[order], index[order], tuple(map(str, units.id[:])))


def _series_of(nwb: Any) -> Iterator[tuple[str, Any]]:
    """Every TimeSeries with the path of its container: acquisition, then the processing modules."""
    for item in nwb.acquisition.values():
        yield from _unpacked("acquisition", item)
    for module in nwb.processing.values():
        for item in module.data_interfaces.values():
            yield from _unpacked(f"processing/{module.name}", item)


def _unpacked(place: str, item: Any) -> Iterator[tuple[str, Any]]:
    """Containers such as LFP, DfOverF or Position hold series as children."""
    from pynwb import TimeSeries

    if isinstance(item, TimeSeries):
        yield place, item
        return
    for child in getattr(item, "children", ()):
        yield from _unpacked(f"{place}/{item.name}", child)


def _modality(series: Any, place: str) -> str | None:
    """Modality of a series by its type and place; None for what is not a series of numbers we read."""
    from pynwb import behavior, ecephys, icephys, image, ophys

    if isinstance(series, (image.ImageSeries, ecephys.SpikeEventSeries)):
        return None
    if isinstance(series, ecephys.ElectricalSeries):
        return "lfp"
    if isinstance(series, ophys.RoiResponseSeries):
        return "calcium"
    if isinstance(series, icephys.PatchClampSeries):
        return "intracellular"
    if re.search(r"(?i)eye|pupil|gaze", f"{place}/{series.name}"):
        return "eye"
    if isinstance(series, behavior.SpatialSeries) or "behav" in place.lower():
        return "pose"
    return None


def _series(series: Any, modality: str) -> Series:
    """Numbers in the series' own unit, on its rate or its time stamps."""
    values = as_columns(np.asarray(series.data[()] if hasattr(series.data, "shape") else series.data))
    values = values * np.float32(series.conversion) + np.float32(series.offset)
    if (per_channel := getattr(series, "channel_conversion", None)) is not None:
        values = values * np.asarray(per_channel[:], np.float32)
    ch_names = _ch_names(series, values.shape[1])
    if series.rate is None:
        return series_from_times(np.asarray(series.timestamps[:]), values, modality, ch_names, series.unit)
    t0 = check_times(np.array([series.starting_time]))[0]
    # Rates are often written as a quotient: 50000.00000000001 Hz is 50 kHz.
    return Signal(values, float(f"{series.rate:.9g}"), modality, float(t0), ch_names, unit=series.unit)


def _ch_names(series: Any, n_chans: int) -> tuple[str, ...]:
    """Ids of the electrodes or regions of interest behind the columns, else numbers."""
    region = getattr(series, "electrodes", None) or getattr(series, "rois", None)
    ids = [str(region.table.id[i]) for i in region.data[:]] if region is not None else []
    return tuple(ids) if len(ids) == n_chans else tuple(map(str, range(n_chans)))


def _intervals(nwb: Any, path: Path) -> dict[str, Intervals]:
    """Trials, epochs and other interval tables, sorted by start; ragged columns are left out."""
    found = {}
    for name, table in (nwb.intervals or {}).items():
        with naming(f"{path}, intervals/{name}"):
            start, end = (check_times(table[column][:]) for column in ("start_time", "stop_time"))
            order = np.argsort(start, kind="stable")
            columns = {c: np.asarray(table[c][:]) for c in table.colnames if _is_plain(table[c])}
            found[name] = Intervals(start[order], end[order], (), {c: values[order] for c, values in columns.items()})
    return found


def _is_plain(column: Any) -> bool:
    """One number or word per row."""
    values: Array = np.asarray(column[:])
    plain = values.ndim == 1 and (values.dtype.kind in "biuf" or all(isinstance(v, str) for v in values))
    return plain and column.name not in ("start_time", "stop_time")


def _subject(subject: Any, fallback: str) -> Subject:
    """Age in years; None where it is not given as one ISO 8601 duration."""
    if subject is None:
        return Subject(fallback)
    match = re.fullmatch(r"P(?=.)(?:([\d.]+)Y)?(?:([\d.]+)M)?(?:([\d.]+)W)?(?:([\d.]+)D)?", subject.age or "")
    days = sum(float(n or 0) * d for n, d in zip(match.groups(), _DAYS.values(), strict=True)) if match else None
    sex = {"F": "female", "M": "male"}.get(subject.sex or "")
    return Subject(subject.subject_id or fallback, age=days / _DAYS["Y"] if days is not None else None, sex=sex)
