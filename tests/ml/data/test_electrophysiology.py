"""MNE's formats: rows as MNE gives them without reading the rest, triggers, what a card picks, files cut short, averages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.lazy import LazyArray
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec
from neurofm_ml.types import Recording, Signal, Subject

RNG = np.random.default_rng(0)
COUNTS = RNG.integers(-3000, 3000, (200, 3)).astype("<i2")


def read_one(path: Path) -> Recording:
    recording = read(path)
    assert isinstance(recording, Recording)
    return recording


def signal(recording: Recording, name: str) -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


# ---------------------------------------------------------------- BrainVision
def write_brainvision(folder: Path, *, common: str = "", marker: int = 150, data: bytes = COUNTS.tobytes()) -> Path:
    """Two channels of 0.5 uV per count and one in a unit of its own, at 100 Hz."""
    (folder / "a.vhdr").write_text(
        f"Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\nMarkerFile=a.vmrk\n{common}"
        "DataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels=3\nSamplingInterval=10000\n"
        "[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\nCh1=C3,,0.5,µV\nCh2=C4,,0.5,µV\nCh3=grip,,0.5,N\n"
    )
    (folder / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        f"[Marker Infos]\nMk1=New Segment,,1,1,0\nMk2=Stimulus,S  1,{marker},1,0\n"
    )
    (folder / "a.eeg").write_bytes(data)
    return folder / "a.vhdr"


def test_brainvision_gives_the_numbers_that_were_written(tmp_path: Path) -> None:
    recording = read_one(write_brainvision(tmp_path, common="DataPoints=200\n"))
    eeg, misc = signal(recording, "eeg"), signal(recording, "misc")
    assert isinstance(eeg.values, LazyArray)
    np.testing.assert_allclose(eeg.values, COUNTS[:, :2] * 0.5e-6, rtol=1e-6)
    np.testing.assert_allclose(eeg.slice(0.5, 0.7).values, COUNTS[50:70, :2] * 0.5e-6, rtol=1e-6)
    np.testing.assert_allclose(misc.values, COUNTS[:, 2:] * 0.5, rtol=1e-6)
    assert (misc.ch_names, misc.modality, eeg.unit, misc.unit) == (("grip",), "physio", "V", "")
    assert recording.intervals["events"].labels[-1] == "Stimulus/S  1"
    assert recording.intervals["events"].start[-1] == pytest.approx(1.49)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"data": COUNTS.tobytes()[:-2]}, r"a.eeg is cut short: its 1198 bytes are no whole number of frames of 6 bytes"),
        (
            {"data": COUNTS[:180].tobytes(), "common": "DataPoints=200\n"},
            r"a.eeg is cut short: its header states 200 data points, the file has 180",
        ),
        ({"data": COUNTS[:120].tobytes()}, r"a.eeg: its data end at point 120 but a marker lies at 150; the file is cut short"),
    ],
    ids=["half a frame", "fewer than stated", "before a marker"],
)
def test_brainvision_cut_short_is_refused(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read(write_brainvision(tmp_path, **change))


def test_brainvision_without_its_data_is_refused(tmp_path: Path) -> None:
    path = write_brainvision(tmp_path)
    (tmp_path / "a.eeg").unlink()
    with pytest.raises(ValueError, match=r"a.vhdr: its data file a.eeg is not there; put the two side by side"):
        read(path)


# ---------------------------------------------------------------- FIF
def raw(*, triggers: bool = False) -> Any:
    """Four channels at 50 Hz; the trigger channel rises to 3 at sample 10, to 5 at 20, falls, and rises to 3 at 30."""
    import mne

    stim = np.zeros(60)
    stim[10:20], stim[20:25], stim[30:] = 3, 5, 3
    info = mne.create_info(["C3", "C4", "HEOG", "STI"], 50.0, ["eeg", "eeg", "eeg", "stim" if triggers else "misc"])
    made = mne.io.RawArray(np.vstack([RNG.normal(size=(3, 60)) * 1e-5, stim]), info, first_samp=500, verbose="error")
    made.info["bads"] = ["C4"]
    return made


def card(folder: Path, pattern: str = "{id}_raw.fif", **signals: SignalSpec) -> DatasetCard:
    return DatasetCard(
        name="d", title="t", species="s", licence="l", source="s", reader="electrophysiology", root=str(folder), pattern=pattern,
        signals=signals, grid_hz=1, window_s=1, stride_s=1,
    )  # fmt: skip


def test_a_card_types_channels_anew(tmp_path: Path) -> None:
    made = raw(triggers=True)
    made.save(tmp_path / "a_raw.fif", verbose="error")
    whole = read_one(tmp_path / "a_raw.fif")
    assert "marked as bad: C4" in whole.history
    assert not whole.intervals, "a file is not read through for its triggers"
    (found,) = read(
        card(
            tmp_path,
            eeg=SignalSpec(modality="eeg", variable="C*", positions="colin27_1005"),
            eog=SignalSpec(modality="physio", variable="HEOG", scale=1e6, unit="uV"),
        )
    )
    assert isinstance(found, Recording)
    eeg, eog = signal(found, "eeg"), signal(found, "eog")
    assert (eeg.ch_names, eog.ch_names, eog.modality) == (("C3", "C4"), ("HEOG",), "physio")
    np.testing.assert_allclose(eeg.values, made.get_data(["C3", "C4"]).T, rtol=1e-6)
    np.testing.assert_allclose(eog.values, made.get_data("HEOG").T * 1e6, rtol=1e-5)
    assert eeg.positions is not None
    assert eeg.positions[0, 0] < 0 < eeg.positions[1, 0]
    triggers = found.intervals["triggers"]
    np.testing.assert_allclose(triggers.start, [0.2, 0.4, 0.6])
    assert triggers.labels == ("3", "5", "3")
    assert triggers.columns["channel"].tolist() == ["STI"] * 3


def test_triggers_are_found_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neurofm_ml.data import lazy

    raw(triggers=True).save(tmp_path / "a_raw.fif", verbose="error")
    for rows in (1, 7, 10, 30):
        monkeypatch.setattr(lazy, "CHUNK_BYTES", 4 * rows)
        (found,) = read(card(tmp_path, eeg=SignalSpec(modality="eeg")))
        assert isinstance(found, Recording)
        np.testing.assert_allclose(found.intervals["triggers"].start, [0.2, 0.4, 0.6])


def test_zipped_fif_is_the_same(tmp_path: Path) -> None:
    made = raw()
    made.save(tmp_path / "a_raw.fif", verbose="error")
    made.save(tmp_path / "b_raw.fif.gz", verbose="error")
    plain, zipped = (signal(read_one(tmp_path / name), "eeg") for name in ("a_raw.fif", "b_raw.fif.gz"))
    np.testing.assert_array_equal(plain.values, zipped.values)
    assert signal(read_one(tmp_path / "a_raw.fif"), "misc").modality == "physio"


def test_averages_lie_end_to_end(tmp_path: Path) -> None:
    import mne

    info = mne.create_info(["C3", "C4"], 50.0, "eeg")
    averages = [
        mne.EvokedArray(RNG.normal(size=(2, n)) * 1e-6, info, tmin=-0.1, comment=name, nave=nave)
        for name, n, nave in (("left", 20, 4), ("right", 30, 6))
    ]
    mne.write_evokeds(tmp_path / "a-ave.fif", averages, verbose="error")
    recording = read_one(tmp_path / "a-ave.fif")
    conditions = recording.intervals["conditions"]
    np.testing.assert_allclose([conditions.start, conditions.end], [[0, 0.4], [0.4, 1.0]])
    assert (conditions.labels, conditions.columns["nave"].tolist()) == (("left", "right"), [4, 6])
    np.testing.assert_allclose(conditions.columns["tmin"], [-0.1, -0.1])
    np.testing.assert_allclose(signal(recording, "eeg").slice(0.4, 1.0).values, averages[1].data.T, rtol=1e-5)


def test_epochs_are_no_recording(tmp_path: Path) -> None:
    import mne

    epochs = mne.EpochsArray(RNG.normal(size=(3, 2, 50)), mne.create_info(2, 50.0, "eeg"), verbose="error")
    epochs.save(tmp_path / "a-epo.fif", verbose="error")
    with pytest.raises(ValueError, match=r"a-epo.fif cannot be read by MNE \(No raw data"):
        read(tmp_path / "a-epo.fif")


# ---------------------------------------------------------------- EDF
def write_edf(path: Path, names: tuple[str, ...] = ("EEG C3",), n_records: int = 2, rate: int = 50, patient: str = "X X X X") -> Path:
    n = len(names)
    columns = [(80, ""), (8, "uV"), (8, "-3276.8"), (8, "3276.7"), (8, "-32768"), (8, "32767"), (80, ""), (8, str(rate)), (32, "")]
    head = [(8, "0"), (80, patient), (80, "Startdate X X X X"), (8, "01.01.24"), (8, "00.00.00"), (8, str(256 * (n + 1))), (44, ""), (8, str(n_records)), (8, "1"), (4, str(n))]  # fmt: skip
    text = "".join(word.ljust(width) for width, word in head) + "".join(name.ljust(16) for name in names)
    text += "".join(word.ljust(width) * n for width, word in columns)
    path.write_bytes(text.encode() + RNG.integers(-99, 99, n_records * n * rate).astype("<i2").tobytes())
    return path


def test_edf_is_told_from_its_content_and_must_be_called_so(tmp_path: Path) -> None:
    assert list(read_one(write_edf(tmp_path / "a.edf")).signals) == ["eeg"]
    with pytest.raises(ValueError, match=r"a.rec cannot be read by MNE .*\(It was read as EDF.\)"):
        read(write_edf(tmp_path / "a.rec"))


def test_channels_of_a_lower_rate_are_told(tmp_path: Path) -> None:
    """MNE repeats or interpolates their samples; the history says whose."""
    path = write_edf(tmp_path / "a.edf", ("C3", "pulse"), rate=50)
    raw_bytes = bytearray(path.read_bytes())
    at = 256 + 216 * 2 + 8
    raw_bytes[at : at + 8] = b"25".ljust(8)
    path.write_bytes(bytes(raw_bytes[: 256 * 3 + 2 * 2 * 75]))
    recording = read_one(path)
    assert "brought to 50 Hz by MNE: pulse" in recording.history
    assert signal(recording, "eeg").values.shape == (100, 2)
    assert not any("brought" in note for note in read_one(write_edf(tmp_path / "b.edf")).history)


def test_who_was_recorded_is_completed_from_the_file(tmp_path: Path) -> None:
    write_edf(tmp_path / "a.edf", patient="p7 F X X")
    stated = RecordingSpec(id="a", subject=Subject("first", age=30.0))
    for spec, subject in ((stated, Subject("first", age=30.0, sex="female")), (RecordingSpec(id="a"), Subject("p7", sex="female"))):
        described = card(tmp_path, "{id}.edf", eeg=SignalSpec(modality="eeg"))
        (found,) = read(DatasetCard(**{**vars(described), "recordings": (spec,)}))
        assert isinstance(found, Recording)
        assert found.subject == subject


def two(folder: Path) -> None:
    write_edf(folder / "a.edf")
    write_edf(folder / "a.bdf")


@pytest.mark.parametrize(
    ("write", "match"),
    [(two, r"d/a: 2 files .edf, .* match 'a.\*'; it needs to match one"), (lambda f: (f / "a.txt").touch(), r"d/a: 0 files .edf, ")],
)
def test_a_recording_begins_with_one_file(tmp_path: Path, write: Callable[[Path], object], match: str) -> None:
    write(tmp_path)
    described = card(tmp_path, "a.*", eeg=SignalSpec(modality="eeg"))
    with pytest.raises(ValueError, match=match):
        read(DatasetCard(**{**vars(described), "recordings": (RecordingSpec(id="a"),)}))
