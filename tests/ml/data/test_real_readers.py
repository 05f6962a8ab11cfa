"""Every named set and every format on the real recordings under NEUROFM_DATA: the numbers their descriptions state."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.readers.nelpy import read_spikes, read_tracking
from neurofm_ml.knowledge.cards import SignalSpec
from neurofm_ml.types import Recording, Samples, Signal, SpikeTrain

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
EPHYS = DATA / "ephys"


def signal(recording: Recording, name: str) -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


def read_set(name: str) -> list[Recording]:
    recordings = read(name)
    assert isinstance(recordings, list)
    return recordings


def read_file(path: Path) -> Recording:
    recording = read(path)
    assert isinstance(recording, Recording)
    return recording


def test_monkey_chewie() -> None:
    train, test = read_set("monkey_m1_chewie")
    assert (train.id, test.id, train.session, test.session) == ("tr", "te", "chewie", "chewie")
    assert signal(train, "counts").values.shape == (1200, 71)
    assert signal(test, "counts").values.shape == (1818, 71)
    assert signal(test, "velocity").values.shape == (1818, 2)
    counts = signal(test, "counts").values
    np.testing.assert_array_equal(counts, counts.round())
    assert set(np.unique(signal(test, "target").values)) == {0, 1, 2, 3}
    assert signal(train, "velocity").sfreq == 5


def test_rats_on_the_open_field() -> None:
    first, second = read_set("rat_ca1_openfield")
    assert signal(first, "counts").values.shape == (5410, 63)
    assert signal(second, "counts").values.shape == (7510, 26)
    np.testing.assert_allclose(signal(first, "position").values[0], [51.7198, 50.1238], rtol=1e-6)
    assert signal(first, "position").unit == "cm"


def test_rats_on_tracks() -> None:
    """Every unit of the files and every run; no stretch where the tracking stands still."""
    linear, *maze = read_set("rat_ca1_track")
    assert [(r.id, r.session, round(r.duration)) for r in maze] == [("w-maze-1", "w-maze", 1075), ("w-maze-2", "w-maze", 1200)]
    for recording, n_units in ((linear, 31), (maze[0], 25), (maze[1], 25)):
        spikes, position = recording.signals["spikes"], recording.signals["position"]
        assert isinstance(spikes, SpikeTrain)
        assert isinstance(position, Samples)
        assert len(spikes.unit_ids) == n_units
        assert len(spikes.times) / n_units / recording.duration > 0.1, "spikes per second"
        assert np.median(np.diff(position.times)) == pytest.approx(1 / 60, rel=1e-3)
        quarters = np.array_split(position.values, 4)
        assert min(q.std(axis=0).min() for q in quarters) > 30, "pixels"


def test_the_files_of_the_tracks_are_read_whole() -> None:
    for track, n_units, n_spikes, n_frames in (("linear-track", 31, 28829, 118965), ("w-maze", 25, 518352, 261995)):
        folder = EPHYS / "spikes/rat_hippocampus_nelpy" / track
        spikes = read_spikes(folder / "spikes.mat")
        assert (len(spikes.unit_ids), len(spikes.times)) == (n_units, n_spikes)
        assert len(read_tracking(folder / "trajectory.videoPositionTracking")[0]) == n_frames


@pytest.mark.parametrize(("name", "shape"), [("worm_swf415", (799, 130)), ("worm_swf702", (800, 146))])
def test_worms(name: str, shape: tuple[int, int]) -> None:
    (worm,) = read_set(name)
    calcium, behaviour = signal(worm, "calcium"), signal(worm, "behaviour")
    assert calcium.values.shape == shape
    assert calcium.values.std() == pytest.approx(1, abs=0.02)
    assert behaviour.ch_names == ("head_angle", "velocity", "angular_velocity", "curvature", "reversal")
    assert np.isfinite(behaviour.values).all()
    assert calcium.t0 == behaviour.t0 == 0


def test_uci_eeg() -> None:
    people = read_set("uci_eeg")
    assert [p.subject.diagnosis for p in people].count("alcoholic") == 6
    assert len(people) == 12
    first = people[0]
    eeg = signal(first, "eeg")
    assert eeg.values.shape == (9 * 256, 61)
    np.testing.assert_allclose(eeg.values[:3, 0], [-8.921, -8.433, -2.574])
    assert eeg.ch_names[0] == "FP1"
    assert not {"X", "Y", "nd"} & set(eeg.ch_names)
    assert eeg.positions is not None
    assert np.isfinite(eeg.positions).all()
    trials = first.intervals["trials"]
    assert sorted(set(trials.labels)) == ["S1 obj", "S2 match", "S2 nomatch"]
    assert trials.columns["trial"].tolist() == [0, 2, 7, 9, 10, 15, 17, 19, 23]
    assert trials.end[-1] == first.duration == 9


def test_abide_olin() -> None:
    people = read_set("abide_olin")
    assert len(people) == 36
    assert {p.subject.site for p in people} == {"OLIN"}
    assert {p.subject.diagnosis for p in people} == {"autism", "control"}
    first = people[0]
    bold = signal(first, "bold")
    assert (first.id, first.subject.age, first.subject.sex) == ("0050102", 14.0, "male")
    assert bold.values.shape == (206, 200)
    assert first.duration == pytest.approx(309)
    assert bold.positions is not None
    assert (np.abs(bold.positions).max(axis=0) < [80, 110, 90]).all(), "inside the MNI brain, millimetres"
    assert np.ptp(bold.positions, axis=0).min() > 80


@pytest.mark.parametrize(
    ("file", "kind", "shape", "sfreq", "n_events"),
    [
        ("meg/mne_test_data/edf/tests/data/test.edf", "eeg", (3072, 138), 512, 5),
        ("meg/mne_test_data/edf/tests/data/test.bdf", "eeg", (2048, 72), 2048, 0),
        ("meg/mne_test_data/kit/tests/data/test_bin_raw.fif", "mag", (2000, 157), 1000, 0),
        ("meg/mne_test_data/brainvision/tests/data/test.vhdr", "eeg", (7900, 26), 1000, 13),
        ("eeg/eeglab_sample/eeglab_data.set", "eeg", (30504, 32), 128, 154),
    ],
)
def test_formats_of_mne(file: str, kind: str, shape: tuple[int, int], sfreq: float, n_events: int) -> None:
    recording = read_file(EPHYS / file)
    series = signal(recording, kind)
    assert (series.values.shape, series.sfreq) == (shape, sfreq)
    assert series.unit == {"eeg": "V", "mag": "T"}[kind]
    assert np.median(np.asarray(series.values).std(axis=0)) < {"eeg": 1e-2, "mag": 1e-9}[kind], "SI units"
    assert len(recording.intervals["events"].start if n_events else []) == n_events


def test_patch_clamp_in_nwb() -> None:
    sweeps = read_file(EPHYS / "nwb/intracellular_NWBShowcase/Lantyer/LantyerEtAl2018_180817_ME_9_CC.nwb")
    assert {name: s.modality for name, s in sweeps.signals.items()} == {
        "CurrentClampSeries": "intracellular", "CurrentClampStimulusSeries": "task"
    }  # fmt: skip
    voltage, current = (signal(sweeps, name) for name in sweeps.signals)
    assert (voltage.values.shape, voltage.sfreq, voltage.unit, current.unit) == ((232000, 1), 20000.0, "volts", "amperes")
    assert -0.1 < np.median(voltage.values) < -0.04
    table = sweeps.intervals["sweeps"]
    assert table.labels[1] == "CurrentClampSeries_02"
    np.testing.assert_allclose(table.start, np.arange(10) * 1.16)
    steps = [current.slice(a + 0.3, a + 0.5).values.mean() - current.slice(a, a + 0.05).values.mean() for a in table.start]
    np.testing.assert_allclose(1e12 * np.array(steps), 40 * np.arange(1, 11), rtol=0.01)
    assert sweeps.subject.age == pytest.approx(105 / 365.25)
    clamp = read_file(EPHYS / "nwb/intracellular_NWBShowcase/Lantyer/LantyerEtAl2018_171220_NC_156_ST100_C.nwb")
    assert {s.unit for s in clamp.signals.values() if isinstance(s, Signal)} == {"amperes", "volts"}
    assert (signal(clamp, "VoltageClampSeries").sfreq, clamp.duration) == (50000.0, 2.2)


def test_evoked_responses_lie_end_to_end() -> None:
    import mne

    path = EPHYS / "meg/mne_test_data/tests/data/test-ave.fif.gz"
    recording = read_file(path)
    conditions, grad = recording.intervals["conditions"], signal(recording, "grad")
    assert conditions.labels == ("Left Auditory", "Right Auditory", "Left visual", "Right visual")
    assert conditions.columns["nave"].tolist() == [3, 6, 6, 6]
    assert {k: signal(recording, k).values.shape for k in ("grad", "mag", "eeg")} == {
        "grad": (1684, 204),
        "mag": (1684, 102),
        "eeg": (1684, 60),
    }
    second = mne.read_evokeds(path, verbose="error")[1]
    np.testing.assert_allclose(grad.slice(conditions.start[1], conditions.end[1]).values, second.get_data("grad").T, rtol=1e-6)
    assert conditions.columns["tmin"][1] == second.tmin
    assert any("averaged over trials" in note for note in recording.history)


@pytest.mark.parametrize(
    ("folder", "cut", "name", "match"),
    [
        ("nwb/intracellular_NWBShowcase/Lantyer", "LantyerEtAl2018_180817_ME_9_CC.nwb", None, "ME_9_CC.nwb is damaged or cut short"),
        ("meg/mne_test_data/edf/tests/data", "test.edf", None, "test.edf is cut short: its header states 6 data records"),
        ("meg/mne_test_data/edf/tests/data", "test.bdf", None, "test.bdf is cut short: its header states 1 data records"),
        ("meg/mne_test_data/brainvision/tests/data", "test.eeg", "test.vhdr", "data end at point 3950 but a marker lies at 7700"),
        ("eeg/eeglab_sample", "eeglab_data.fdt", "eeglab_data.set", "eeglab_data.set cannot be read by MNE"),
        ("meg/mne_test_data/kit/tests/data", "test_bin_raw.fif", None, "test_bin_raw.fif cannot be read by MNE"),
    ],
)
def test_real_files_cut_in_half_are_refused(tmp_path: Path, folder: str, cut: str, name: str | None, match: str) -> None:
    for file in (EPHYS / folder).iterdir():
        shutil.copy(file, tmp_path / file.name)
    whole = (tmp_path / cut).read_bytes()
    (tmp_path / cut).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=match):
        read(tmp_path / (name or cut))


def test_a_real_table_with_a_malformed_line_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2.txt, line \d+ has 17 columns where the first has 9"):
        read(EPHYS / "emg/myo_readings_8ch/_readings_right_hand/19999-2/2.txt", SignalSpec(modality="emg", sfreq=200))
