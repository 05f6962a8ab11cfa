"""EEG, MEG, ECoG and SEEG through MNE: EDF, BDF, FIF (raw and evoked), BrainVision, EEGLAB, KIT. The home of MNE's readers.

Channels of one type become one Signal named after it. MNE's values are in SI units (volts, tesla) and stay so, and stay in
the file until they are asked for.

    sizes.py   whether files are whole, where MNE would read what is left of them
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from neurofm_ml.data.lazy import chunks, lazy
from neurofm_ml.data.readers.adopt import adopt, data_file
from neurofm_ml.data.readers.base import alone
from neurofm_ml.data.readers.electrophysiology.sizes import check_size, slower_channels
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.types import Array, Intervals, Recording, Signal, Subject

SUFFIXES = (".edf", ".bdf", ".fif", ".fif.gz", ".vhdr", ".set", ".sqd", ".con")

T = TypeVar("T")

#: MNE's channel type -> (modality, unit).
_TYPES: Mapping[str, tuple[str, str]] = {
    "eeg": ("eeg", "V"), "mag": ("meg", "T"), "grad": ("meg", "T/m"), "ref_meg": ("meg", "T"), "ecog": ("ecog", "V"),
    "seeg": ("ieeg", "V"), "dbs": ("ieeg", "V"), "emg": ("emg", "V"), "eog": ("physio", "V"), "ecg": ("physio", "V"),
    "bio": ("physio", "V"), "resp": ("physio", "V"), "gsr": ("physio", "S"), "temperature": ("physio", "C"),
    "eyegaze": ("eye", ""), "pupil": ("eye", ""), "misc": ("physio", ""), "stim": ("task", ""),
}  # fmt: skip

#: What MNE only warns of although samples are missing.
_DAMAGE = r"(?i).*(truncat|incomplete|corrupt|damaged|outside (the )?data range)"


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One recording of a card, with the channel types or channels that the card names, and its triggers as intervals."""
    path = data_file(card, spec, SUFFIXES)
    found = read_file(path)
    return adopt(replace(found, intervals={**found.intervals, **_triggers(found)}), card, spec, path)


def read_file(path: Path, types: Mapping[str, str] | None = None) -> Recording:
    """One file as MNE reads it, with the channel types that `types` corrects by channel name.

    Raises ValueError for a file that is damaged, cut short or without raw data.
    """
    check_size(path)
    try:
        raw = _open(path)
    except ValueError as error:
        if "No raw data in" not in str(error) or not (evokeds := _evokeds(path)):
            raise
        return _average(path, evokeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that the unit changes with the type
        raw.set_channel_types({name: kind for name, kind in (types or {}).items() if name in raw.ch_names}, verbose="error")
    sfreq = float(raw.info["sfreq"])

    def values(picks: list[int]) -> Array:
        return lazy((raw.n_times, len(picks)), lambda start, stop: _rows(raw, picks, start, stop, path))

    found = _recording(path, raw.info, sfreq, values)
    return replace(found, intervals=_events(raw), span=(0.0, raw.n_times / sfreq))


def _open(path: Path) -> Any:
    """mne.io.Raw with its data in the file (in memory for a zipped one); its first and last sample are there."""
    import mne

    raw = _guarded(path, lambda: mne.io.read_raw(path, preload=path.suffix == ".gz", verbose="error"))
    for sample in (0, raw.n_times - 1) if raw.ch_names else ():
        _rows(raw, list(range(len(raw.ch_names))), sample, sample + 1, path)
    return raw


def _guarded(path: Path, read: Callable[[], T]) -> T:
    """What `read` gives; MNE's errors, and its warnings of missing samples, are errors that name the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.filterwarnings("error", message=_DAMAGE, category=RuntimeWarning)
            return read()
    except Exception as error:  # whatever a damaged file does to its parsers
        raise ValueError(f"{path} cannot be read by MNE ({error}); it is damaged, cut short or not continuous: get it again.") from None


def _rows(raw: Any, picks: list[int], start: int, stop: int, path: Path) -> Array:
    """(stop - start, n_picks) float32."""
    return np.ascontiguousarray(_guarded(path, lambda: raw.get_data(picks, start, stop)).T, np.float32)


def _recording(path: Path, info: Any, sfreq: float, values: Callable[[list[int]], Array]) -> Recording:
    """Signals by channel type; channels of other types, and those marked as bad, are named in the history."""
    types = info.get_channel_types() if info.ch_names else []
    signals = {}
    for kind in dict.fromkeys(t for t in types if t in _TYPES):
        picks = [i for i, t in enumerate(types) if t == kind]
        modality, unit = _TYPES[kind]
        names = tuple(info.ch_names[i] for i in picks)
        signals[kind] = Signal(values(picks), sfreq, modality, 0.0, names, _positions(info, picks), unit)
    left_out = [name for name, t in zip(info.ch_names, types, strict=True) if t not in _TYPES]
    if not signals:
        held = f"its channels are {', '.join(left_out)}" if left_out else "it has none, annotations at most"
        raise ValueError(f"{path} has no channel that NeuroFM knows; {held}.")
    notes = {"left out": left_out, "marked as bad:": info["bads"], f"brought to {sfreq:g} Hz by MNE:": slower_channels(path)}
    known = (f"{what} {', '.join(names)}" for what, names in notes.items() if names)
    found = alone(path, "electrophysiology", signals, notes=known)
    return replace(found, subject=_subject(info["subject_info"] or {}, found.id))


def _positions(info: Any, picks: Sequence[int]) -> Array | None:
    """(n_chans, 3) metres in head (device for MEG) coordinates, None unless every channel has them."""
    places = np.array([info["chs"][i]["loc"][:3] for i in picks], np.float64)
    known = np.isfinite(places).all(axis=1) & places.any(axis=1)
    return places if known.all() else None


def _events(raw: Any) -> dict[str, Intervals]:
    """MNE's annotations, from the first sample on."""
    notes = raw.annotations
    if not len(notes):
        return {}
    start = notes.onset - raw.first_time
    return {"events": Intervals(start, start + notes.duration, tuple(map(str, notes.description)))}


def _triggers(found: Recording) -> dict[str, Intervals]:
    """Instants at which a trigger channel takes another value than 0, labelled by that value."""
    stim = found.signals.get("stim")
    if not isinstance(stim, Signal):
        return {}
    at, owner, value = [], [], []
    last, start = np.zeros((1, len(stim.ch_names)), np.float32), 0
    for rows in chunks(stim.values):
        rise = np.argwhere((np.diff(rows, axis=0, prepend=last) != 0) & (rows != 0))
        at.append(start + rise[:, 0])
        owner.append(rise[:, 1])
        value.append(rows[tuple(rise.T)])
        last, start = rows[-1:], start + len(rows)
    seconds = np.concatenate(at) / stim.sfreq
    channels = np.array(stim.ch_names)[np.concatenate(owner)]
    return {"triggers": Intervals(seconds, seconds, tuple(f"{v:g}" for v in np.concatenate(value)), {"channel": channels})}


def _evokeds(path: Path) -> list[Any]:
    """The averaged responses of a FIF file."""
    import mne

    return _guarded(path, lambda: list(mne.read_evokeds(path, verbose="error")))


def _average(path: Path, evokeds: Sequence[Any]) -> Recording:
    """Responses averaged over trials, laid end to end, with their conditions as intervals."""
    sfreq, lengths = float(evokeds[0].info["sfreq"]), [len(e.times) for e in evokeds]
    found = _recording(path, evokeds[0].info, sfreq, lambda picks: np.concatenate([e.data[picks].T for e in evokeds]).astype(np.float32))
    ends = np.cumsum(lengths) / sfreq
    columns = {"nave": np.array([e.nave for e in evokeds]), "tmin": np.array([e.tmin for e in evokeds])}
    conditions = Intervals(ends - np.array(lengths) / sfreq, ends, tuple(e.comment for e in evokeds), columns)
    note = "responses averaged over trials, laid end to end; nave trials each, from tmin seconds around the event on"
    return replace(found, intervals={"conditions": conditions}, history=(*found.history, note))


def _subject(info: Mapping[str, Any], fallback: str) -> Subject:
    """EDF+ writes "X" for what is not known."""
    known = str(info.get("his_id") or "X")
    return Subject(fallback if known == "X" else known, sex={1: "male", 2: "female"}.get(info.get("sex", 0)))
