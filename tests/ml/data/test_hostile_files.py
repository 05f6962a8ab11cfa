"""Files and cards that point out of their place, and damage that would be read as data."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.foci import neurosynth
from neurofm_ml.data.grid import to_grid
from neurofm_ml.data.lazy import lazy
from neurofm_ml.data.readers import READERS
from neurofm_ml.data.readers.physionet import read_file as read_wfdb
from neurofm_ml.data.readers.positions import read_atlas
from neurofm_ml.data.readers.tables import is_number, read_table
from neurofm_ml.data.readers.variables import load_variables
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec, datasets
from neurofm_ml.knowledge.files import find_recordings, path_of, recording_files
from neurofm_ml.types import Recording, Signal, Subject


# ---------------------------------------------------------------- HDF5 that points elsewhere
def external_link(file: Any, other: Path) -> None:
    import h5py

    file["x"] = h5py.ExternalLink(str(other), "/secret")


def external_storage(file: Any, other: Path) -> None:
    file.create_dataset("x", (5,), "f8", external=[(str(other), 0, 40)])


def virtual(file: Any, other: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout((5,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", (5,))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize("point", [external_link, external_storage, virtual])
@pytest.mark.parametrize("name", ["a.h5", "a.mat", "a.nwb"])
def test_hdf5_that_points_elsewhere_is_refused(tmp_path: Path, point: Callable[[Any, Path], None], name: str) -> None:
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.arange(5.0)
    with h5py.File(tmp_path / name, "w") as file:
        point(file, tmp_path / "other.h5")
    with pytest.raises(ValueError, match=f"{name}.*'x' lies in another file"):
        read(tmp_path / name) if name == "a.nwb" else load_variables(tmp_path / name, ("x",))


def test_links_within_a_file_are_read(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["y"] = np.arange(5.0)
        file["x"] = h5py.SoftLink("/y")
    np.testing.assert_array_equal(load_variables(tmp_path / "a.h5", ("y",))[0][0], np.arange(5.0))


# ---------------------------------------------------------------- names that lead elsewhere
def card_at(root: Path, **changes: Any) -> DatasetCard:
    signals = {"lfp": SignalSpec(modality="lfp", sfreq=100.0)}
    return dataclasses.replace(datasets()["lfp_ca1_neurodsp"], root=str(root), signals=signals, recordings=(), tasks=(), **changes)


def test_a_subject_cannot_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.csv").write_text("1\n")
    card, spec = card_at(tmp_path / "root", pattern="{subject}.csv"), RecordingSpec(id="a", subject=Subject("../secret"))
    for look in (lambda: recording_files(card, spec, card.pattern), lambda: path_of(card, "{subject}.csv", spec)):
        with pytest.raises(ValueError, match=r"the file of recording 'a' is '\.\./secret\.csv'; it must stay inside"):
            look()


def test_marks_of_patterns_in_names_stand_for_themselves(tmp_path: Path) -> None:
    for name in ("rat[1].csv", "rat1.csv"):
        (tmp_path / name).write_text("1\n")
    card = card_at(tmp_path, pattern="{id}.csv")
    found = {spec.id: recording_files(card, spec, card.pattern) for spec in find_recordings(card)}
    assert found == {"rat[1]": [tmp_path / "rat[1].csv"], "rat1": [tmp_path / "rat1.csv"]}


@pytest.mark.parametrize("text", ["100 1 360 1000\n../100.dat 16 200 11 0 0 0 0 MLII\n", "a/2 1 360 1000\nx/b 500\nc 500\n"])
def test_a_wfdb_header_names_files_beside_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "100.hea").write_text(text)
    with pytest.raises(ValueError, match=r"100\.hea (names the file|is no WFDB header)"):
        read_wfdb(tmp_path / "100.hea")


def test_a_brainvision_header_names_files_beside_it(tmp_path: Path) -> None:
    head = "Brain Vision Data Exchange Header\n[Common Infos]\nDataFile=../secret.eeg\nNumberOfChannels=1\n[Binary Infos]\nBinaryFormat=INT_16\n"
    (tmp_path / "a.vhdr").write_text(head)
    with pytest.raises(ValueError, match=r"a\.vhdr: DataFile is '\.\./secret\.eeg'; it must stay inside"):
        read(tmp_path / "a.vhdr")


def test_what_a_reader_would_not_do_is_refused(tmp_path: Path) -> None:
    card = card_at(tmp_path, pattern="{id}.edf", reader="electrophysiology")
    shifted = dataclasses.replace(card, signals={"eeg": SignalSpec(modality="eeg", t0=3.0, transpose=True)})
    with pytest.raises(ValueError, match=r"signal 'eeg': the reader 'electrophysiology' does not look at transpose, t0; leave it out"):
        READERS[card.reader](shifted)


# ---------------------------------------------------------------- damage
def test_annotations_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    import wfdb

    wfdb.wrsamp("a", 360, ["mV"], ["ECG"], np.zeros((1000, 1)), fmt=["16"], write_dir=str(tmp_path))
    wfdb.wrann("a", "atr", np.array([10, 200, 500]), ["N", "N", "V"], write_dir=str(tmp_path))
    assert len(read_wfdb(tmp_path / "a.hea").intervals["beats"].start) == 3
    (tmp_path / "a.atr").write_bytes((tmp_path / "a.atr").read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"a\.atr is damaged or cut short"):
        read_wfdb(tmp_path / "a.hea")


@pytest.mark.parametrize(
    ("look", "name"),
    [(read_atlas, "a.nii.gz"), (neurosynth.read_neurosynth, "a_coordinates.tsv.gz"), (lambda p: load_variables(p, ("x",)), "a.mat")],
)
def test_what_is_no_file_of_its_kind_is_named(tmp_path: Path, look: Callable[[Path], Any], name: str) -> None:
    (tmp_path / "a_metadata.tsv.gz").write_bytes(b"")
    (tmp_path / name).write_bytes(b"\x1f\x8b" + bytes(range(256)))
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        look(tmp_path / name)


def test_a_file_that_gives_fewer_rows_than_it_promised() -> None:
    values = lazy((10, 2), lambda start, stop: np.zeros((min(stop, 7) - start, 2), np.float32))
    assert values[:7].shape == (7, 2)
    for look in (lambda: values[5:9], lambda: np.asarray(values)):
        with pytest.raises(ValueError, match="were asked for and the file gave"):
            look()


def test_words_are_no_numbers_and_tabs_part_a_tsv(tmp_path: Path) -> None:
    assert [is_number(word) for word in ("1e3", "2024_01", "n/a")] == [True, False, True]
    (tmp_path / "a.tsv").write_text("name\tplace, time\nx\ty, z\n")
    assert read_table(tmp_path / "a.tsv").header == ("name", "place, time")


# ---------------------------------------------------------------- time
@pytest.mark.parametrize("offset", [0.0, 0.05, 0.07])
def test_every_sample_of_behaviour_keeps_its_bin(offset: float) -> None:
    """At the grid's rate a sample lies in the bin that holds its time, at centres of bins (0.05 s) too."""
    values = np.arange(20, dtype=np.float32)[:, None]
    signals = {"eeg": Signal(np.zeros((200, 1), np.float32), 100.0, "eeg"), "pose": Signal(values, 10.0, "pose", offset)}
    recording = Recording("a", "d", Subject("s"), "x", "none", "CC0-1.0", signals, span=(0.0, 2.0))
    pose = to_grid(recording, dataclasses.replace(datasets()["simulation"], grid_hz=10.0)).signals["pose"]
    assert isinstance(pose, Signal)
    np.testing.assert_array_equal(pose.values, values)
