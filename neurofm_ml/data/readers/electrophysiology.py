"""EEG, MEG, ECoG and SEEG through MNE: EDF, BDF, FIF, BrainVision, EEGLAB. The home of MNE's readers.

Channels of one type become one Signal named after it. MNE's values are in SI units (volts, tesla) and stay so.
"""

import configparser
import functools
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.readers.base import adopt
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, recording_files
from neurofm_ml.types import Array, Intervals, Recording, Signal, Subject

SUFFIXES = (".edf", ".bdf", ".fif", ".fif.gz", ".vhdr", ".set")

#: MNE's channel type -> (modality, unit).
_TYPES: Mapping[str, tuple[str, str]] = {
    "eeg": ("eeg", "V"), "mag": ("meg", "T"), "grad": ("meg", "T/m"), "ref_meg": ("meg", "T"), "ecog": ("ecog", "V"),
    "seeg": ("ieeg", "V"), "dbs": ("ieeg", "V"), "emg": ("emg", "V"), "eog": ("physio", "V"), "ecg": ("physio", "V"),
    "bio": ("physio", "V"), "resp": ("physio", "V"), "gsr": ("physio", "S"), "temperature": ("physio", "C"),
    "eyegaze": ("eye", ""), "pupil": ("eye", ""),
}  # fmt: skip

#: What MNE only warns of although samples are missing.
_DAMAGE = r"(?i).*(truncat|incomplete|corrupt|damaged|outside (the )?data range)"


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One recording of a card, with the channel types that the card names."""
    path = recording_files(card, spec, card.pattern)[0]
    return adopt(read_file(path), card, spec, path)


def read_file(path: Path) -> Recording:
    """One file as MNE reads it. Raises ValueError for a file that is damaged, cut short or without raw data."""
    if path.suffix.lower() in (".edf", ".bdf"):
        _check_edf_size(path)
    raw = _open(path)
    signals, left_out = _signals(raw)
    if not signals:
        raise ValueError(f"{path} has no channel that NeuroFM knows; its channels are {', '.join(left_out) or 'none'}.")
    name = path.name.split(".")[0]
    return Recording(
        id=name,
        dataset="file",
        subject=_subject(raw.info["subject_info"] or {}, name),
        session=name,
        species="unknown",
        licence="unknown",
        signals=signals,
        intervals=_events(raw),
        span=(0.0, raw.n_times / raw.info["sfreq"]),
        history=("read (electrophysiology)", *((f"left out {', '.join(left_out)}",) if left_out else ())),
    )


def _open(path: Path) -> Any:
    """mne.io.Raw with its data in memory; MNE's warnings of missing samples are errors."""
    import mne

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.filterwarnings("error", message=_DAMAGE, category=RuntimeWarning)
            raw = mne.io.read_raw(path, preload=True, verbose="error")
    except (ValueError, OSError, EOFError, RuntimeError, TypeError, KeyError, IndexError, configparser.Error, Warning) as error:
        raise ValueError(f"{path} cannot be read by MNE ({error}); it is damaged, cut short or not continuous: get it again.") from None
    if path.suffix.lower() == ".vhdr":
        _check_markers(path, raw)
    return raw


def _check_edf_size(path: Path) -> None:
    """The header of EDF and BDF states how many data records follow; MNE would read as many as there are."""
    with path.open("rb") as file:
        head = file.read(256)
        try:
            n_header, n_records, n_chans = int(head[184:192]), int(head[236:244]), int(head[252:256])
            rest = file.read(256 * n_chans)
            per_record = sum(int(rest[216 * n_chans + 8 * i : 216 * n_chans + 8 * (i + 1)]) for i in range(n_chans))
        except ValueError:
            raise ValueError(f"{path} has no EDF header; it is damaged or another format, get it again.") from None
    size = path.stat().st_size
    needed = n_header + n_records * per_record * (3 if head[0] == 0xFF else 2)
    if size < needed:
        raise ValueError(
            f"{path} is cut short: its header states {n_records} data records ({needed} bytes), the file has {size}; get it again."
        )


def _check_markers(path: Path, raw: Any) -> None:
    """BrainVision states no length: a marker after the last sample is what tells of a file cut short."""
    import mne

    match = re.search(r"^MarkerFile=(.+?)\s*$", path.read_text(encoding="latin-1"), re.MULTILINE)
    if match is None:
        return
    with mne.use_log_level("error"):
        last = mne.read_annotations(path.parent / match[1].replace("$b", path.stem)).onset.max(initial=0.0)
    seconds = raw.n_times / raw.info["sfreq"]
    if last > seconds:
        raise ValueError(
            f"{path}: its data end at {seconds:g} s but a marker lies at {last:g} s; the data file is cut short, get it again."
        )


def _signals(raw: Any) -> tuple[dict[str, Signal], list[str]]:
    """Signals by channel type, and the names of the channels of other types."""
    types = raw.get_channel_types()
    signals = {}
    for kind in dict.fromkeys(t for t in types if t in _TYPES):
        picks = [i for i, t in enumerate(types) if t == kind]
        modality, unit = _TYPES[kind]
        values = np.ascontiguousarray(raw.get_data(picks).T, np.float32)
        ch_names = tuple(raw.ch_names[i] for i in picks)
        signals[kind] = Signal(values, float(raw.info["sfreq"]), modality, 0.0, ch_names, _positions(raw, picks), unit)
    return signals, [name for name, t in zip(raw.ch_names, types, strict=True) if t not in _TYPES]


def _positions(raw: Any, picks: list[int]) -> Array | None:
    """(n_chans, 3) metres in head (device for MEG) coordinates, None unless every channel has them."""
    places = np.array([raw.info["chs"][i]["loc"][:3] for i in picks], np.float64)
    known = np.isfinite(places).all(axis=1) & places.any(axis=1)
    return places if known.all() else None


def _events(raw: Any) -> dict[str, Intervals]:
    """MNE's annotations, from the first sample on."""
    notes = raw.annotations
    if not len(notes):
        return {}
    start = notes.onset - raw.first_time
    return {"events": Intervals(start, start + notes.duration, tuple(map(str, notes.description)))}


def _subject(info: Mapping[str, Any], fallback: str) -> Subject:
    """EDF+ writes "X" for what is not known."""
    known = str(info.get("his_id") or "X")
    return Subject(fallback if known == "X" else known, sex={1: "male", 2: "female"}.get(info.get("sex", 0)))


@functools.lru_cache(maxsize=4)
def montage(name: str) -> Mapping[str, Array]:
    """Position (3,) in metres of every electrode of one of MNE's montages, by its name in lower case."""
    import mne

    known = mne.channels.get_builtin_montages()
    if name not in known:
        raise ValueError(f"positions is {name!r}, which is no montage of MNE; it has {', '.join(known)}.")
    return {k.casefold(): v for k, v in mne.channels.make_standard_montage(name).get_positions()["ch_pos"].items()}
