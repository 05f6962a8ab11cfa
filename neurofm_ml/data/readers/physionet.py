"""WFDB records of PhysioNet through wfdb: a ``.hea`` beside its signal files, and annotations (``.atr``) as intervals.

Channels of one rate and unit become one Signal named "physio"; where a record holds several, each is named after its unit
and rate. Values are in the physical units that the header states, and stay in the file until they are asked for.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.lazy import lazy
from neurofm_ml.data.readers.adopt import adopt, data_file
from neurofm_ml.data.readers.base import alone
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.types import Array, Intervals, Recording, Signal

#: Extensions of annotations: checked by people, beats found, rhythms, sleep, ST.
_ANNOTATORS = ("atr", "qrs", "ecg", "ari", "apn", "st")


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One record of a card."""
    path = data_file(card, spec, (".hea",))
    return adopt(read_file(path), card, spec, path)


def read_file(path: Path) -> Recording:
    """The record that the header `path` describes. Raises ValueError for one that is damaged or cut short."""
    import wfdb

    base = path.with_name(path.name.removesuffix(".hea"))
    try:
        header = wfdb.rdheader(str(base), rd_segments=True)
    except Exception as error:  # whatever a broken header does to the parser
        raise ValueError(f"{path} is no WFDB header that can be read ({error}); get the record again.") from None
    _check_inside(path, header)
    signals = _signals(base, header)
    for signal in signals.values():
        signal.values[len(signal.values) - 1 :]  # a file that is cut short has no last row
    return alone(path, "physionet", signals, _annotations(base), (f"comment: {text}" for text in header.comments or ()))


def _check_inside(path: Path, header: Any) -> None:
    """The header names its files, which lie beside it; raises ValueError where it names one elsewhere."""
    for part in (header, *(s for s in getattr(header, "segments", None) or () if s is not None)):
        names = [*(getattr(part, "file_name", None) or ()), *(getattr(part, "seg_name", None) or ())]
        if outside := [name for name in names if Path(name).name != name]:
            raise ValueError(f"{path} names the file {outside[0]!r}; the files of a record lie beside its header.")


def _signals(base: Path, header: Any) -> dict[str, Signal]:
    """Signals of the channels that share rate and unit. Of several segments, the first describes the channels."""
    first = header.segments[0] if hasattr(header, "segments") else header
    if not first.n_sig:
        raise ValueError(f"{base}.hea describes no signals; annotations alone are no recording.")
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for i, key in enumerate(zip(first.samps_per_frame, first.units, strict=True)):
        groups[key].append(i)
    signals: dict[str, Signal] = {}
    for (per_frame, unit), picks in groups.items():
        sfreq = float(header.fs) * per_frame
        name = "physio" if len(groups) == 1 else f"{unit}_{sfreq:g}Hz"
        values = _values(base, picks, per_frame, int(header.sig_len))
        signals[name] = Signal(values, sfreq, "physio", 0.0, tuple(first.sig_name[i] for i in picks), unit=unit)
    return signals


def _values(base: Path, picks: list[int], per_frame: int, n_frames: int) -> Array:
    """(n_frames * per_frame, n_picks) that stay in the file."""
    import wfdb

    def read(start: int, stop: int) -> Array:
        if start >= stop:
            return np.empty((0, len(picks)), np.float32)
        lo, hi = start // per_frame, -(-stop // per_frame)
        try:
            record = wfdb.rdrecord(str(base), lo, hi, picks, smooth_frames=per_frame == 1)
        except Exception as error:  # as above
            raise ValueError(f"{base}.hea: its signals cannot be read ({error}); a file is cut short or missing, get it again.") from None
        values = record.p_signal if per_frame == 1 else np.stack(record.e_p_signal, axis=1)
        return np.asarray(values[start - lo * per_frame : stop - lo * per_frame], np.float32)

    return lazy((n_frames * per_frame, len(picks)), read)


def _annotations(base: Path) -> dict[str, Intervals]:
    """ "beats" and the other "annotations" of each annotator, instants labelled by their symbol."""
    from wfdb.io.annotation import ann_labels, is_qrs

    beats = {label.symbol for label in ann_labels if is_qrs[label.label_store]}
    found = {}
    for extension in _ANNOTATORS:
        if not base.with_name(f"{base.name}.{extension}").exists():
            continue
        notes = _read_notes(base, extension)
        is_beat = np.array([symbol in beats for symbol in notes.symbol], bool)
        for kind, keep in (("beats", is_beat), ("annotations", ~is_beat)):
            if keep.any():
                name = kind if extension == "atr" else f"{kind}_{extension}"
                found[name] = _instants(notes, np.flatnonzero(keep))
    return found


def _read_notes(base: Path, extension: str) -> Any:
    """One annotation file. wfdb reads what is left of one that is cut short, but two zero bytes end each (MIT format)."""
    import wfdb

    path = base.with_name(f"{base.name}.{extension}")
    try:
        if path.read_bytes()[-2:] != b"\0\0":
            raise ValueError("it has no end")
        return wfdb.rdann(str(base), extension)
    except Exception as error:  # as above
        raise ValueError(f"{path} is damaged or cut short ({error}); get it again.") from None


def _instants(notes: Any, keep: Array) -> Intervals:
    seconds = notes.sample[keep] / notes.fs
    text = np.array([notes.aux_note[i].strip("\0 ") for i in keep])
    return Intervals(seconds, seconds, tuple(notes.symbol[i] for i in keep), {"note": text} if any(text) else {})
