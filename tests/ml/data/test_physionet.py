"""WFDB records: numbers as wfdb gives them, beats apart from other annotations, several rates and units, cut files refused."""

from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.lazy import LazyArray
from neurofm_ml.types import Recording, Signal

ECG = np.round(np.random.default_rng(0).normal(size=(300, 3)), 2)


def write_record(folder: Path, units: tuple[str, ...] = ("mV", "mV", "mmHg")) -> Path:
    import wfdb

    options = {"sig_name": ["I", "II", "pressure"], "units": list(units), "fmt": ["16"] * 3, "adc_gain": [200.0] * 3, "baseline": [0] * 3}
    wfdb.wrsamp("r1", fs=100, p_signal=ECG, write_dir=str(folder), comments=["a note"], **options)
    return folder / "r1.hea"


def read_one(path: Path) -> Recording:
    recording = read(path)
    assert isinstance(recording, Recording)
    return recording


def signal(recording: Recording, name: str) -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


def test_channels_of_one_unit_stand_together(tmp_path: Path) -> None:
    recording = read_one(write_record(tmp_path))
    volts, pressure = signal(recording, "mV_100Hz"), signal(recording, "mmHg_100Hz")
    assert isinstance(volts.values, LazyArray)
    np.testing.assert_allclose(volts.values, ECG[:, :2], atol=1e-6)
    np.testing.assert_allclose(pressure.slice(0.5, 1.5).values, ECG[50:150, 2:], atol=1e-6)
    assert (volts.ch_names, volts.unit, pressure.unit, recording.duration) == (("I", "II"), "mV", "mmHg", 3.0)
    assert recording.history == ("read (physionet)", "comment: a note")
    assert list(read_one(write_record(tmp_path, ("mV",) * 3)).signals) == ["physio"]


def test_beats_stand_apart(tmp_path: Path) -> None:
    import wfdb

    path = write_record(tmp_path)
    wfdb.wrann(
        "r1", "atr", np.array([50, 120, 130, 200]), ["N", "V", "+", "A"], aux_note=["", "", "(AFIB", ""], fs=100, write_dir=str(tmp_path)
    )
    wfdb.wrann("r1", "qrs", np.array([51, 199]), ["N", "N"], fs=100, write_dir=str(tmp_path))
    found = read_one(path).intervals
    assert {name: (i.start.tolist(), i.labels) for name, i in found.items()} == {
        "beats": ([0.5, 1.2, 2.0], ("N", "V", "A")), "annotations": ([1.3], ("+",)), "beats_qrs": ([0.51, 1.99], ("N", "N"))
    }  # fmt: skip
    assert found["annotations"].columns["note"].tolist() == ["(AFIB"]


def test_channels_of_several_rates(tmp_path: Path) -> None:
    """Frames of one sample of the first and four of the second, interleaved in one file."""
    slow, fast = np.arange(50), np.arange(200) * 3
    frames = np.column_stack([slow, fast.reshape(50, 4)]).astype("<i2")
    (tmp_path / "m.dat").write_bytes(frames.tobytes())
    (tmp_path / "m.hea").write_text("m 2 25 50\nm.dat 16 10/mV 16 0 0 0 0 resp\nm.dat 16x4 100/mV 16 0 0 0 0 ecg\n")
    recording = read_one(tmp_path / "m.hea")
    ecg = signal(recording, "mV_100Hz")
    np.testing.assert_allclose(signal(recording, "mV_25Hz").values[:, 0], slow / 10, rtol=1e-6)
    for start, stop in ((0, 200), (3, 9), (198, 200), (7, 7)):
        np.testing.assert_allclose(ecg.values[start:stop, 0], fast[start:stop] / 100, rtol=1e-6)
    assert (ecg.sfreq, ecg.span) == (100.0, (0.0, 2.0))


def test_segments_follow_each_other(tmp_path: Path) -> None:
    for k in (1, 2):
        (tmp_path / f"s{k}.dat").write_bytes((np.arange(100) * k).astype("<i2").tobytes())
        (tmp_path / f"s{k}.hea").write_text(f"s{k} 1 100 100\ns{k}.dat 16 10/mV 16 0 0 0 0 ecg\n")
    (tmp_path / "s.hea").write_text("s/2 1 100 200\ns1 100\ns2 100\n")
    ecg = signal(read_one(tmp_path / "s.hea"), "physio")
    truth = np.concatenate([np.arange(100), np.arange(100) * 2]) / 10
    np.testing.assert_allclose(ecg.values[:, 0], truth, rtol=1e-6)
    np.testing.assert_allclose(ecg.values[90:120, 0], truth[90:120], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("r1.dat", None, r"r1.hea: its signals cannot be read \(.*\); a file is cut short or missing"),
        ("r1.dat", b"\1\2" * 400, r"r1.hea: its signals cannot be read \(.*\); a file is cut short or missing"),
        ("r1.hea", b"hello there\n", r"r1.hea is no WFDB header that can be read"),
        ("r1.hea", b"r1 0 100 300\n", r"r1.hea describes no signals; annotations alone are no recording"),
    ],
    ids=["missing", "cut short", "no header", "no signals"],
)
def test_damage_is_named(tmp_path: Path, name: str, content: bytes | None, match: str) -> None:
    path = write_record(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read(path)
