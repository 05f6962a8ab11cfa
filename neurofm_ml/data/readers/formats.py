"""Which reader a file or folder is for: told by what it holds, else by its name. One line per format that describes itself."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from neurofm_ml.data.foci import neurosynth, nimare, sleuth
from neurofm_ml.data.readers import axona, bids, electrophysiology, eyelink, media, nifti, nwb, physionet, speech
from neurofm_ml.types import Foci, Recording

#: Whether a path, whose first bytes are given (b"" for a folder), holds a format.
Holds = Callable[[Path, bytes], bool]


class Format(NamedTuple):
    """A format that describes itself. `suffixes` are in lower case; `holds` tells it from content."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Recording | list[Recording] | Foci]
    holds: Holds = lambda path, head: False


def begins(*magic: bytes) -> Holds:
    """The format whose files begin with one of these bytes."""
    return lambda path, head: head.startswith(magic)


#: In order of looking: the first that a file holds reads it, else the first whose suffix it has.
FORMATS: tuple[Format, ...] = (
    Format("NWB", (".nwb",), nwb.read_file, nwb.is_nwb),
    Format("EDF", (".edf",), electrophysiology.read_file, begins(b"0       ")),
    Format("BDF", (".bdf",), electrophysiology.read_file, begins(b"\xffBIOSEMI")),
    Format("FIF", (".fif", ".fif.gz"), electrophysiology.read_file, begins(b"\x00\x00\x00\x64\x00\x00\x00\x1f")),
    Format("BrainVision", (".vhdr",), electrophysiology.read_file, begins(b"Brain Vision Data Exchange Header", b"BrainVision Data Exchange Header")),
    Format("Axona", (), axona.read_file, begins(b"trial_date")),
    Format("EEGLAB", (".set",), electrophysiology.read_file),
    Format("KIT", (".sqd", ".con"), electrophysiology.read_file),
    Format("WFDB", (".hea",), physionet.read_file),
    Format("BIDS", (), bids.read_folder, bids.is_bids),
    Format("NIfTI", nifti.SUFFIXES, nifti.read_file, lambda path, head: head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"),
    Format("Sleuth text", (), sleuth.read_sleuth, sleuth.is_sleuth),
    Format("NiMARE JSON", (), nimare.read_json, nimare.is_json),
    Format("Neurosynth coordinates", (), neurosynth.read_neurosynth, neurosynth.is_neurosynth),
    Format("EyeLink", (".asc",), eyelink.read_file, begins(b"** CONVERTED FROM")),
    Format("sound", media.SOUNDS, media.read_file),
    Format("video", media.VIDEOS, media.read_file),
    Format("aligned speech", speech.SUFFIXES, media.read_file),
)  # fmt: skip


def format_of(path: Path) -> Format | None:
    """The format of a file or folder: by content, else by name; None for one that does not describe itself."""
    head = _head(path)
    held = (f for f in FORMATS if f.holds(path, head))
    named = (f for f in FORMATS if path.name.lower().endswith(f.suffixes))
    return next(held, None) or next(named, None)


def _head(path: Path) -> bytes:
    """The first bytes of a file, unzipped; b"" of a folder."""
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        with gzip.open(path) as file:
            return file.read(4096)
    except (OSError, EOFError, zlib.error):
        return head
