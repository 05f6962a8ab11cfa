"""Whether a file is as long as its header says: EDF, BDF and BrainVision, where MNE reads what is left of it."""

import re
from pathlib import Path
from typing import NamedTuple

from neurofm_ml.data.readers.base import naming
from neurofm_ml.knowledge.roots import check_inside

#: BrainVision's number formats, in bytes.
_BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4, "IEEE_FLOAT_64": 8}


def check_size(path: Path) -> None:
    """Raises ValueError for a file that is shorter than its header states."""
    check = {".edf": _check_edf, ".bdf": _check_edf, ".vhdr": _check_brainvision}.get(path.suffix.lower())
    if check is not None:
        check(path)


def _check_edf(path: Path) -> None:
    """The header of EDF and BDF states how many data records follow; MNE would read as many as there are."""
    head = _edf_header(path)
    size, needed = path.stat().st_size, head.n_bytes + head.n_records * sum(head.samples.values()) * head.width
    if size < needed:
        raise ValueError(
            f"{path} is cut short: its header states {head.n_records} data records ({needed} bytes), the file has {size}; get it again."
        )


class _EDFHeader(NamedTuple):
    """Bytes before the data, data records, samples of each channel in a record, bytes of a sample."""

    n_bytes: int
    n_records: int
    samples: dict[str, int]
    width: int


def _edf_header(path: Path) -> _EDFHeader:
    with path.open("rb") as file:
        head = file.read(256)
        try:
            n_bytes, n_records, n_chans = int(head[184:192]), int(head[236:244]), int(head[252:256])
            rest = file.read(256 * n_chans)
            names = [f"{i} {rest[16 * i : 16 * (i + 1)].decode('latin-1').strip()}" for i in range(n_chans)]
            counts = [int(rest[216 * n_chans + 8 * i : 216 * n_chans + 8 * (i + 1)]) for i in range(n_chans)]
        except ValueError:
            raise ValueError(f"{path} has no EDF header; it is damaged or another format, get it again.") from None
    return _EDFHeader(n_bytes, n_records, dict(zip(names, counts, strict=True)), 3 if head[0] == 0xFF else 2)


def slower_channels(path: Path) -> list[str]:
    """Channels of an EDF or BDF file that were sampled more slowly than others; MNE brings them to the highest rate."""
    if path.suffix.lower() not in (".edf", ".bdf"):
        return []
    signals = {name.split(" ", 1)[1]: n for name, n in _edf_header(path).samples.items() if not name.endswith("Annotations")}
    return [name for name, n in signals.items() if n < max(signals.values())]


def _check_brainvision(path: Path) -> None:
    """The data are as many frames as the header states (`DataPoints`), else a whole number, and no marker lies beyond them."""
    head = _text(path)
    data, n_chans, kind = (_field(head, name) for name in ("DataFile", "NumberOfChannels", "BinaryFormat"))
    if data is None or not (n_chans or "").isdecimal() or kind not in _BYTES:
        return  # text, or no header at all, which MNE tells
    with naming(path):
        check_inside("DataFile", data)
        check_inside("MarkerFile", _field(head, "MarkerFile") or "")
    file = path.parent / data
    if not file.exists():
        raise ValueError(f"{path}: its data file {file.name} is not there; put the two side by side.")
    frame, size = max(int(n_chans or 0), 1) * _BYTES[kind], file.stat().st_size
    if size % frame:
        raise ValueError(f"{file} is cut short: its {size} bytes are no whole number of frames of {frame} bytes; get it again.")
    stated, last = _field(head, "DataPoints"), _last_marker(path, head)
    if stated and stated != str(size // frame):
        raise ValueError(f"{file} is cut short: its header states {stated} data points, the file has {size // frame}; get it again.")
    if last > size // frame:
        raise ValueError(f"{file}: its data end at point {size // frame} but a marker lies at {last}; the file is cut short, get it again.")


def _last_marker(path: Path, head: str) -> int:
    """Data point of the last marker, 0 without any. Raises ValueError for a marker file that is named but not there."""
    name = _field(head, "MarkerFile")
    if not name:
        return 0
    markers = path.parent / name
    if not markers.is_file() or not _text(markers).startswith("Brain"):
        raise ValueError(
            f"{path}: its marker file {name} is not there or is none; without it all events are lost. Put it beside the header."
        )
    points = re.findall(r"^Mk\d+=[^,]*,[^,]*,(\d+)", _text(markers), re.MULTILINE)
    return max(map(int, points), default=0)


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _field(head: str, name: str) -> str | None:
    match = re.search(rf"^{name}=(.*?)\s*$", head, re.MULTILINE)
    return match[1] if match else None
