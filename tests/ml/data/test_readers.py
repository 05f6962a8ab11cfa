"""Readers: the same numbers out of every format, known truth in written files, bad input refused by file and field."""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from nwb_examples import (
    RNG,
    TIMES,
    VALUES,
    add_behaviour,
    add_electrical,
    add_imaging,
    add_nonsense_spike,
    add_nonsense_stamp,
    add_units,
    write_nwb,
)

from neurofm_ml.data import read
from neurofm_ml.data.readers.nelpy import read_tracking
from neurofm_ml.data.readers.positions import positions_of
from neurofm_ml.data.readers.series import read_series
from neurofm_ml.data.readers.uci_eeg import read_trial
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec
from neurofm_ml.types import Array, Recording, Samples, Series, Signal, SpikeTrain, Subject

# hdmf warns while it writes tables whose parent comes later.
pytestmark = pytest.mark.filterwarnings("ignore:The linked table for DynamicTableRegion:UserWarning")

LFP = SignalSpec(modality="lfp", sfreq=20)


def read_one(path: Path, signal: SignalSpec | None = None) -> Recording:
    recording = read(path, signal)
    assert isinstance(recording, Recording)
    return recording


def as_signal(series: Series) -> Signal:
    assert isinstance(series, Signal)
    return series


# ---------------------------------------------------------------- array files
def write_matlab_5(path: Path) -> None:
    scipy.io.savemat(path, {"x": VALUES, "t": TIMES[:, None], "s": {"inner": VALUES}}, do_compression=True)


def write_matlab_73(path: Path) -> None:
    """What MATLAB's -v7.3 writes: HDF5 with columns first, behind 512 bytes of header."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for place, values in (("x", VALUES.T), ("t", TIMES[None]), ("s/inner", VALUES.T)):
            file.create_dataset(place, data=values).attrs["MATLAB_class"] = np.bytes_("double")
        file["s"].attrs["MATLAB_class"] = np.bytes_("struct")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM")


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"], file["t"], file["s/inner"] = VALUES, TIMES, VALUES


def write_npz(path: Path) -> None:
    np.savez(path, **{"x": VALUES, "t": TIMES, "s/inner": VALUES})


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.mat", write_matlab_5), ("a.mat", write_matlab_73), ("a.h5", write_hdf5), ("a.npz", write_npz)],
    ids=["matlab5", "matlab7.3", "hdf5", "npz"],
)
def test_formats_with_variables_agree(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    for variable in ("x", "s/inner"):
        series = as_signal(read_series(tmp_path / name, SignalSpec(modality="lfp", variable=variable, time="t", unit="mV")))
        np.testing.assert_array_equal(series.values, VALUES.astype(np.float32))
        assert (series.sfreq, series.t0, series.unit, series.values.dtype) == (20.0, 3.0, "mV", np.float32)
    with pytest.raises(ValueError, match=r"a\..* has no variable 'y'; it holds s.*, t, x"):
        read_series(tmp_path / name, SignalSpec(modality="lfp", variable="y", sfreq=20))


TABLES = {
    "a.csv": ("u,v,w\n", ","),
    "a.tsv": ("u\tv\tw\n", "\t"),
    "semicolons.csv": ("u;v;w\n", ";"),
    "a.txt": ("u v w\n", " "),
    "commented.txt": ("# made by hand\n#u #v #w\n", " "),
    "a.csv.gz": ("u,v,w\n", ","),
}


@pytest.mark.parametrize("name", TABLES)
def test_text_tables_agree(tmp_path: Path, name: str) -> None:
    header, separator = TABLES[name]
    text = header + "".join(separator.join(f"{v:.6f}" for v in row) + "\n" for row in VALUES)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    series = as_signal(read_series(path, SignalSpec(modality="lfp", sfreq=20)))
    np.testing.assert_allclose(series.values, VALUES, atol=1e-6)
    assert series.ch_names == ("u", "v", "w")
    two = as_signal(read_series(path, SignalSpec(modality="lfp", variable=("w", "u"), sfreq=20)))
    np.testing.assert_allclose(two.values, VALUES[:, [2, 0]], atol=1e-6)
    assert two.ch_names == ("w", "u")
    last = as_signal(read_series(path, SignalSpec(modality="lfp", columns=(2,), sfreq=20)))
    np.testing.assert_allclose(last.values, VALUES[:, [2]], atol=1e-6)
    assert last.ch_names == ("w",)


def test_npy_and_bare_text_agree(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    np.savetxt(tmp_path / "a.dat", VALUES, fmt="%.6f")
    for name in ("a.npy", "a.dat"):
        series = as_signal(read_one(tmp_path / name, SignalSpec(modality="lfp", sfreq=20, ch_names=("a", "b", "c"))).signals["lfp"])
        np.testing.assert_array_equal(series.values, VALUES.astype(np.float32))
        assert series.ch_names == ("a", "b", "c")


def test_orientation_scale_missing_and_columns(tmp_path: Path) -> None:
    raw = np.array([[1, 2, 1023], [4, 1023, 6], [7, 8, 9]], np.int16)
    np.save(tmp_path / "a.npy", raw)
    spec = SignalSpec(modality="pose", sfreq=1, transpose=True, missing=(1023,), scale=0.5, columns=(2, 0))
    np.testing.assert_array_equal(as_signal(read_series(tmp_path / "a.npy", spec)).values, [[3.5, 0.5], [4, 1], [4.5, np.nan]])


def test_a_recording_is_cut_to_its_span(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    spec = RecordingSpec(id="a", span=(0.5, 1.5))
    (recording,) = read(card(root=str(tmp_path), pattern="{id}.npy", recordings=(spec,), signals={"lfp": LFP}))
    assert isinstance(recording, Recording)
    np.testing.assert_array_equal(as_signal(recording.signals["lfp"]).values, VALUES[10:30].astype(np.float32))
    assert recording.bounds == (0.5, 1.5)


def test_missing_cells_become_nan(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,x,label\n0,1,rest\n1,NA,task\n2,,\n")
    series = as_signal(read_series(tmp_path / "a.csv", SignalSpec(modality="pose", variable="x", sfreq=1)))
    np.testing.assert_array_equal(series.values, [[1], [np.nan], [np.nan]])
    assert series.ch_names == ("x",)


def test_a_clock_decides_between_signal_and_samples(tmp_path: Path) -> None:
    jitter = TIMES + RNG.uniform(-0.002, 0.002, 40)
    gap = TIMES + (np.arange(40) > 20) * 1.0
    np.savez(tmp_path / "a.npz", x=VALUES, jitter=jitter * 1000, gap=gap)
    regular = as_signal(read_series(tmp_path / "a.npz", SignalSpec(modality="pose", variable="x", time="jitter", time_scale=1e-3)))
    assert regular.sfreq == pytest.approx(20, rel=0.01)
    irregular = read_series(tmp_path / "a.npz", SignalSpec(modality="pose", variable="x", time="gap"))
    assert isinstance(irregular, Samples)
    np.testing.assert_array_equal(irregular.times, gap)
    zeroed = as_signal(
        read_series(tmp_path / "a.npz", SignalSpec(modality="pose", variable="x", time="jitter", time_scale=1e-3, sfreq=20, t0=0))
    )
    assert (zeroed.sfreq, zeroed.t0) == (20.0, 0.0)
    with pytest.raises(ValueError, match=r"a.npz: time 'gap' leaves the stated sfreq 20 Hz at row 21"):
        read_series(tmp_path / "a.npz", SignalSpec(modality="pose", variable="x", time="gap", sfreq=20))


def test_spike_times_are_sorted_by_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", t=[300, 100, 200, 50], unit=[7, 3, 7, 3])
    train = read_series(tmp_path / "a.npz", SignalSpec(modality="spikes", variable="t", unit_index="unit", time_scale=1e-3))
    assert isinstance(train, SpikeTrain)
    np.testing.assert_allclose(train.times, [0.05, 0.1, 0.2, 0.3])
    assert [train.unit_ids[i] for i in train.unit_index] == ["3", "3", "7", "7"]


# ---------------------------------------------------------------- positions
def card(**changes: Any) -> DatasetCard:
    base: dict[str, Any] = {
        **{"name": "d", "title": "t", "species": "s", "licence": "l", "source": "the archive", "reader": "arrays"},
        **{"grid_hz": 1.0, "window_s": 1.0, "stride_s": 1.0, "signals": {"x": SignalSpec(modality="eeg", sfreq=1)}},
    }
    return DatasetCard(**{**base, **changes})


def test_electrodes_are_where_the_montage_puts_them() -> None:
    spec = SignalSpec(modality="eeg", positions="colin27_1005")
    places = positions_of(card(), spec, ("C3", "C4", "FPZ", "OZ"))
    assert places is not None
    left, right, front, back = places
    assert left[0] < -0.05 < 0.05 < right[0]
    assert back[1] < 0 < front[1]
    with pytest.raises(ValueError, match="colin27_1005 knows no channel C33"):
        positions_of(card(), spec, ("C3", "C33"))
    with pytest.raises(ValueError, match=r"positions is 'colin28', which is no montage of MNE; it has .*colin27_1005"):
        positions_of(card(), SignalSpec(modality="eeg", positions="colin28"), ("C3",))


def test_parcels_are_at_their_centroids(tmp_path: Path) -> None:
    import nibabel

    labels = np.zeros((6, 5, 4), np.int16)
    labels[1:3, 1, 1], labels[5, 4, 3] = 7, 2
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([2.0, 2, 2, 1]) + np.array([[0, 0, 0, -10]] + [[0] * 4] * 3)), tmp_path / "a.nii.gz")
    places = positions_of(card(root=str(tmp_path)), SignalSpec(modality="fmri", positions="a.nii.gz"), ("7", "2"))
    np.testing.assert_allclose(places, [[-7, 2, 2], [0, 8, 6]])


# ---------------------------------------------------------------- NWB
def test_nwb_gives_what_was_written(tmp_path: Path) -> None:
    recording = read_one(write_nwb(tmp_path / "mouse.nwb", add_units, add_electrical, add_imaging, add_behaviour))
    assert (recording.id, recording.session, recording.species) == ("mouse", "day1", "Mus musculus")
    assert recording.subject == Subject("m1", age=pytest.approx((2 * 30.4375 + 10) / 365.25), sex="female")
    assert {name: s.modality for name, s in recording.signals.items()} == {
        **{"units": "spikes", "LFP_series": "lfp", "dff": "calcium", "position": "pose", "gaze": "eye", "speed": "pose"},
        "sweep": "intracellular",
    }
    units = recording.signals["units"]
    assert isinstance(units, SpikeTrain)
    np.testing.assert_array_equal(units.times, [0.25, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(units.unit_index, [2, 0, 2, 0])
    assert units.unit_ids == ("0", "1", "2")
    lfp, dff, sweep = (as_signal(recording.signals[name]) for name in ("LFP_series", "dff", "sweep"))
    np.testing.assert_allclose(lfp.values, VALUES[:, :2] * 1e-3, rtol=1e-6)
    assert (lfp.sfreq, lfp.t0, lfp.unit, lfp.ch_names) == (1250.0, 2.0, "volts", ("2", "0"))
    assert (dff.sfreq, dff.t0, dff.ch_names) == (20.0, 3.0, ("0", "1", "2"))
    assert sweep.sfreq == 50000.0
    assert isinstance(recording.signals["position"], Samples)
    trials = recording.intervals["trials"]
    np.testing.assert_array_equal(trials.start, [1.0, 4.0])
    assert list(trials.columns["side"]) == ["right", "left"]
    assert recording.history == ("read (nwb)", "left out acquisition/movie, processing/ophys/ImageSegmentation/cells")


def test_a_card_takes_what_it_names_from_nwb(tmp_path: Path) -> None:
    write_nwb(tmp_path / "mouse.nwb", add_units, add_electrical, add_imaging, add_behaviour)
    signals = {"spikes": SignalSpec(modality="spikes", variable="units"), "speed": SignalSpec(modality="physio")}
    (recording,) = read(card(reader="nwb", root=str(tmp_path), pattern="{id}.nwb", signals=signals))
    assert isinstance(recording, Recording)
    assert {name: s.modality for name, s in recording.signals.items()} == {"spikes": "spikes", "speed": "physio"}
    assert (recording.dataset, recording.subject.id, recording.licence) == ("d", "m1", "l")
    signals["lick"] = SignalSpec(modality="task")
    with pytest.raises(ValueError, match=r"mouse.nwb: signal 'lick' looks for 'lick', which is not there; there is units, "):
        read(card(reader="nwb", root=str(tmp_path), pattern="{id}.nwb", signals=signals))


# ---------------------------------------------------------------- MNE's formats
def write_edf(path: Path, n_records: int = 4, rate: int = 50) -> Array:
    """A plain EDF: two channels in microvolts, one-second records. Returns (n_times, 2) volts."""
    digital = RNG.integers(-2000, 2000, (n_records, 2, rate)).astype("<i2")
    fields = [
        *[("EEG C3", 16), ("EEG C4", 16), ("", 80), ("", 80), ("uV", 8), ("uV", 8), ("-3276.8", 8), ("-3276.8", 8)],
        *[("3276.7", 8), ("3276.7", 8), ("-32768", 8), ("-32768", 8), ("32767", 8), ("32767", 8), ("", 80), ("", 80)],
        *[(str(rate), 8), (str(rate), 8), ("", 32), ("", 32)],
    ]
    head = [("0", 8), ("X X X X", 80), ("Startdate X X X X", 80), ("01.01.24", 8), ("00.00.00", 8)]
    head += [(str(256 * 3), 8), ("", 44), (str(n_records), 8), ("1", 8), ("2", 4)]
    path.write_bytes(b"".join(text.ljust(width).encode() for text, width in head + fields) + digital.tobytes())
    return digital.transpose(0, 2, 1).reshape(-1, 2) * 1e-7


def test_edf_gives_the_volts_that_were_written(tmp_path: Path) -> None:
    volts = write_edf(tmp_path / "a.edf")
    recording = read_one(tmp_path / "a.edf")
    eeg = as_signal(recording.signals["eeg"])
    np.testing.assert_allclose(eeg.values, volts, atol=1e-9)
    assert (eeg.sfreq, eeg.unit, eeg.positions, recording.bounds) == (50.0, "V", None, (0.0, 4.0))
    assert recording.subject == Subject("a")


def test_fif_gives_types_positions_and_events(tmp_path: Path) -> None:
    import mne

    info = mne.create_info(["C3", "C4", "HEOG", "STI"], 50.0, ["eeg", "eeg", "eog", "stim"])
    raw = mne.io.RawArray(np.column_stack([VALUES, np.zeros(40)]).T * 1e-6, info, first_samp=100, verbose="error")
    raw.set_montage("colin27_1005", verbose="error")
    raw.set_annotations(mne.Annotations([0.2], [0.1], ["blink"]))
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    recording = read_one(tmp_path / "a_raw.fif")
    assert {name: s.modality for name, s in recording.signals.items()} == {"eeg": "eeg", "eog": "physio", "stim": "task"}
    eeg = as_signal(recording.signals["eeg"])
    np.testing.assert_allclose(eeg.values, VALUES[:, :2] * 1e-6, rtol=1e-5)
    assert eeg.positions is not None
    assert eeg.positions[0, 0] < 0 < eeg.positions[1, 0]
    np.testing.assert_allclose([recording.intervals["events"].start[0], recording.intervals["events"].end[0]], [0.2, 0.3], atol=1e-6)


# ---------------------------------------------------------------- formats of the named sets
def test_parcels_join_their_phenotype(tmp_path: Path) -> None:
    (tmp_path / "Site_0050012_x.1D").write_text("#1\t#2\t#5\n1.5\t0\t3\n2.5\t0\t4\n")
    (tmp_path / "p.csv").write_text("ID,DX,AGE,SEX\n50011,2,20,1\n50012,1,-9999,\n")
    (tmp_path / "mine.yaml").write_text(
        "{name: site, title: t, species: s, licence: l, source: s, reader: parcels, grid_hz: 0.5, window_s: 4, stride_s: 2,\n"
        " pattern: 'Site_{id}_x.1D', signals: {bold: {modality: fmri, sfreq: 0.5}},\n"
        " subjects: {file: p.csv, key: ID, fields: {age: AGE, sex: SEX, diagnosis: DX}, missing: ['', '-9999'],\n"
        "            codes: {diagnosis: {'1': autism, '2': control}, sex: {'1': male}}}}"
    )
    (recording,) = read(tmp_path / "mine.yaml")
    assert isinstance(recording, Recording)
    bold = as_signal(recording.signals["bold"])
    np.testing.assert_array_equal(bold.values, [[1.5, 0, 3], [2.5, 0, 4]])
    assert (bold.ch_names, bold.sfreq) == (("1", "2", "5"), 0.5)
    assert recording.subject == Subject("0050012", age=None, sex=None, diagnosis="autism")
    assert "parcels that are all zero: 2" in recording.history


def write_tracking(path: Path, n: int = 3) -> None:
    fields = b"Fields: <time uint32><xloc uint16><yloc uint16><xloc2 uint16><yloc2 uint16>\n"
    records = np.array([(30000 + 500 * k, 10 + k, 20, 0, 0) for k in range(n)], "<u4,<u2,<u2,<u2,<u2")
    path.write_bytes(b"<Start settings>\nclockrate: 30000\n" + fields + b"<End settings>\n" + records.tobytes())


def test_tracking_is_in_seconds_and_pixels(tmp_path: Path) -> None:
    write_tracking(tmp_path / "v")
    times, xy = read_tracking(tmp_path / "v")
    np.testing.assert_allclose(times, [1, 1 + 1 / 60, 1 + 2 / 60])
    np.testing.assert_array_equal(xy, [[10, 20], [11, 20], [12, 20]])


# ---------------------------------------------------------------- bad input
def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_nwb(path: Path) -> None:
    halve(write_nwb(path, add_units))


def truncated_edf(path: Path) -> None:
    write_edf(path)
    halve(path)


def truncated_fif(path: Path) -> None:
    import mne

    mne.io.RawArray(VALUES.T, mne.create_info(3, 50.0, "eeg"), verbose="error").save(path, verbose="error")
    halve(path)


def truncated_matlab(path: Path) -> None:
    write_matlab_5(path)
    halve(path)


def truncated_hdf5(path: Path) -> None:
    write_hdf5(path)
    halve(path)


def empty(path: Path) -> None:
    path.touch()


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


BAD: list[tuple[str, Callable[[Path], object], SignalSpec | None, str]] = [
    ("cut.nwb", truncated_nwb, None, r"cut.nwb is damaged or cut short .* get it again"),
    ("text.nwb", text("hello"), None, r"text.nwb is damaged or cut short"),
    ("time.nwb", lambda p: write_nwb(p, add_nonsense_spike), None, r"time.nwb, units.spike_times: entry 0 is -1.5e\+09 s, .* repair that entry"),
    ("stamp.nwb", lambda p: write_nwb(p, add_nonsense_stamp), None, r"stamp.nwb, processing/behavior/speed: entry 1 is -1.5e\+09 s"),
    ("bare.nwb", write_nwb, None, r"bare.nwb holds no units or series"),
    ("cut.edf", truncated_edf, None, r"cut.edf is cut short: its header states 4 data records \(1568 bytes\), the file has 784"),
    ("text.edf", text("hello"), None, r"text.edf has no EDF header"),
    ("cut_raw.fif", truncated_fif, None, r"cut_raw.fif cannot be read by MNE .* cut short"),
    ("text.vhdr", text("hello"), None, r"text.vhdr cannot be read by MNE"),
    ("empty.set", empty, None, r"empty.set is empty; get it again"),
    ("cut.mat", truncated_matlab, SignalSpec(modality="lfp", variable="x", sfreq=1), r"cut.mat is damaged, cut short"),
    ("short.mat", text("MATLA"), LFP, r"short.mat is damaged, cut short or no MATLAB file"),
    ("header.mat", text("MATLAB 5.0 MAT-file".ljust(100)), LFP, r"header.mat is damaged, cut short or no MATLAB file"),
    ("text.mat", text("hello there, no matrix" * 9), LFP, r"text.mat is damaged, cut short or no MATLAB file"),
    ("absent.mat", write_matlab_5, SignalSpec(modality="lfp", variable="eeg", sfreq=1), r"absent.mat has no variable 'eeg'; it holds s, t, x"),
    ("which.mat", write_matlab_5, LFP, r"which.mat holds more than one variable: s, t, x. Name one of them"),
    ("struct.mat", write_matlab_5, SignalSpec(modality="lfp", variable="s", sfreq=1), r"struct.mat, variable 's': it holds structs, cells or words, not real numbers; name a variable that does"),
    ("cut.h5", truncated_hdf5, SignalSpec(modality="lfp", variable="x", sfreq=1), r"cut.h5 is damaged or cut short"),
    ("text.h5", text("hello"), LFP, r"text.h5 does not begin like a .h5 file"),
    ("pickled.npy", lambda p: np.save(p, np.array([{}], object), allow_pickle=True), LFP, r"pickled.npy cannot be read .* pickled objects are"),
    ("pickled.npz", lambda p: np.savez(p, x=np.array([{}], object)), LFP, r"pickled.npz, variable 'x' cannot be read .* pickled objects"),
    ("none.npy", lambda p: np.save(p, np.zeros((0, 3))), LFP, r"none.npy: it holds no numbers"),
    ("clock.npz", lambda p: np.savez(p, x=VALUES, t=TIMES[1:]), SignalSpec(modality="lfp", variable="x", time="t"), r"has 39 entries for 40 rows"),
    ("deep.npy", lambda p: np.save(p, np.zeros((2, 3, 4))), LFP, r"deep.npy: its shape is \(2, 3, 4\); a series needs"),
    ("ragged.csv", text("a,b\n1,2\n3,4,5\n6,7\n"), LFP, r"ragged.csv, line 3 has 3 columns where the first has 2"),
    ("word.csv", text("a,b\n1,2\n\n3,x\n"), LFP, r"word.csv, line 4, column 'b': 'x' is no number"),
    ("column.csv", text("a,b\n1,2\n"), SignalSpec(modality="lfp", variable="c", sfreq=1), r"column.csv has no variable 'c'; it holds a, b"),
    ("comments.txt", text("# nothing else\n"), LFP, r"comments.txt holds no numbers"),
    ("binary.csv", lambda p: p.write_bytes(bytes(range(256))), LFP, r"binary.csv is no text"),
    ("unknown.csv", text("a\n1\n"), None, r"unknown.csv says neither what was measured nor how fast; describe it: read\(path, SignalSpec"),
    ("rate.csv", text("a\n1\n"), SignalSpec(modality="lfp"), r"rate.csv: the card gives neither sfreq nor time"),
    ("names.csv", text("a,b\n1,2\n"), SignalSpec(modality="lfp", sfreq=1, ch_names=("a",)), r"names.csv: ch_names has 1 names for 2 channels"),
    ("many.csv", text("a,b\n1,2\n"), SignalSpec(modality="lfp", sfreq=1, columns=(2,)), r"many.csv: columns asks for 2, .* there are 2"),
    ("back.csv", text("t,a\n0,1\n2,1\n1,1\n"), SignalSpec(modality="pose", variable="a", time="t"), r"back.csv: times is not sorted: entry 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "signal", "match"), BAD, ids=[name for name, *_ in BAD])
def test_bad_input_is_refused_by_file_and_field(
    tmp_path: Path, name: str, write: Callable[[Path], object], signal: SignalSpec | None, match: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError, match=match):
        read(tmp_path / name, signal)


def test_bad_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"itself holds no recording \(.nwb, .edf, .*describe its arrays by a dataset card"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"'uci_egg' is no file here and no dataset, table or corpus. Did you mean 'uci_eeg'\?"):
        read("uci_egg")
    with pytest.raises(ValueError, match=r"files of uci_eeg are not here; get them from https.* NEUROFM_DATA names"):
        read("uci_eeg")
    with pytest.raises(ValueError, match=r"Unknown reader 'aray'. Did you mean 'arrays'"):
        read(card(reader="aray"))


def test_damaged_sets_are_refused(tmp_path: Path) -> None:
    write_tracking(tmp_path / "v")
    (tmp_path / "v").write_bytes((tmp_path / "v").read_bytes()[:-5])
    with pytest.raises(ValueError, match="it is cut short: 31 bytes are no whole number of records of 12 bytes"):
        read_tracking(tmp_path / "v")
    trial = "# S1 obj , trial 3\n# FP1 chan 0\n3 FP1 0 1.5\n3 FP1 1 2.5\n# FP2 chan 1\n3 FP2 0 3.5\n"
    (tmp_path / "t.gz").write_bytes(gzip.compress(trial.encode()))
    with pytest.raises(ValueError, match=r"t.gz holds no whole trial: 2 channels and 3 samples in all"):
        read_trial(tmp_path / "t.gz")
    (tmp_path / "t.gz").write_bytes(gzip.compress((trial + "3 FP2 1 4.5\n").encode())[:-9])
    with pytest.raises(ValueError, match=r"t.gz is damaged or cut short"):
        read_trial(tmp_path / "t.gz")


def test_a_folder_gives_every_recording(tmp_path: Path) -> None:
    write_edf(tmp_path / "b.edf")
    write_edf(tmp_path / "a.EDF")
    (tmp_path / "notes.txt").write_text("not a recording")
    recordings = read(tmp_path)
    assert isinstance(recordings, list)
    assert [r.id for r in recordings] == ["a", "b"]


def test_importing_data_is_light() -> None:
    heavy = "{'torch', 'mne', 'pynwb', 'h5py', 'scipy', 'pandas', 'matplotlib', 'nibabel', 'pymatreader'}"
    done = run(
        [sys.executable, "-c", f"import sys, neurofm_ml.data; print(sorted({heavy} & set(sys.modules)))"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
