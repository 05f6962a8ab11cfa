"""What a file is, is told from what it holds, else from its name; a wrong guess says what was tried."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.readers.formats import FORMATS, format_of

HEADS: list[tuple[str, bytes, str]] = [
    ("a.edf", b"0       X", "EDF"),
    ("a.rec", b"0       X", "EDF"),
    ("a.bdf", b"\xffBIOSEMI", "BDF"),
    ("a.dat", b"\x00\x00\x00\x64\x00\x00\x00\x1f", "FIF"),
    ("a.bin.gz", gzip.compress(b"\x00\x00\x00\x64\x00\x00\x00\x1f"), "FIF"),
    ("a.txt", b"Brain Vision Data Exchange Header File Version 1.0", "BrainVision"),
    ("a.set", b"MATLAB 5.0 MAT-file", "EEGLAB"),
    ("a.set", b"trial_date Tuesday", "Axona"),
    ("a.con", b"anything", "KIT"),
    ("a.SQD", b"anything", "KIT"),
    ("a.hea", b"100 2 360 650000", "WFDB"),
    ("a.nwb", b"no HDF5", "NWB"),
    ("a.h5", b"\x89HDF\r\n\x1a\n but not really", ""),
    ("a.csv", b"1,2\n3,4\n", ""),
    ("a.gz", b"\x1f\x8b cut short", ""),
]


@pytest.mark.parametrize(("name", "content", "expected"), HEADS, ids=[f"{name} {expected}" for name, _, expected in HEADS])
def test_a_file_is_told(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = format_of(tmp_path / name)
    assert (found.name if found else "") == expected


def zarr(folder: Path) -> None:
    (folder / ".zattrs").write_text('{"nwb_version": "2.7.0"}')


def other_zarr(folder: Path) -> None:
    (folder / ".zattrs").write_text("{}")


def bids(folder: Path) -> None:
    (folder / "dataset_description.json").write_text("{}")


@pytest.mark.parametrize(("fill", "expected"), [(zarr, "NWB"), (other_zarr, ""), (bids, "BIDS")])
def test_a_folder_is_told(tmp_path: Path, fill: Callable[[Path], None], expected: str) -> None:
    fill(tmp_path)
    found = format_of(tmp_path)
    assert (found.name if found else "") == expected


def test_formats_have_names_of_their_own() -> None:
    assert len({f.name for f in FORMATS}) == len(FORMATS)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for f in FORMATS for suffix in f.suffixes)


def test_a_wrong_guess_says_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "a.edf").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"a.edf has no EDF header; .* \(It was read as EDF.\)"):
        read(tmp_path / "a.edf")
    np.savetxt(tmp_path / "a.csv", np.zeros((3, 2)), delimiter=",")
    with pytest.raises(ValueError, match=r"describe it: read\(path, SignalSpec.* Neither its content nor its name is one of NWB, EDF, BDF"):
        read(tmp_path / "a.csv")
