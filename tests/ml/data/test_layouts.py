"""Arrays as they come: trials, one file per channel, ragged text, many columns, spikes unit after unit, angles, counts of
any bin; subjects told by the recording's own file; a file that was cut."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import yaml

from neurofm_ml.data import read
from neurofm_ml.data.grid import to_grid
from neurofm_ml.data.ingest import ingest
from neurofm_ml.data.readers.series import read_series
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec, SplitSpec, SubjectTable
from neurofm_ml.presets import IngestConfig
from neurofm_ml.types import Recording, Samples, Signal, SpikeTrain

RNG = np.random.default_rng(0)
TRIALS = [RNG.normal(size=(n, 2)) for n in (4, 6, 3)]


def card(root: Path, **changes: Any) -> DatasetCard:
    base: dict[str, Any] = {
        **{"name": "d", "title": "t", "species": "s", "licence": "l", "source": "the archive", "reader": "arrays", "root": str(root)},
        **{"recordings": (RecordingSpec(id="a"),), "grid_hz": 1.0, "window_s": 1.0, "stride_s": 1.0},
    }
    return DatasetCard(**{**base, **changes})


def read_one(described: DatasetCard) -> Recording:
    (recording,) = read(described)
    assert isinstance(recording, Recording)
    return recording


def signal(recording: Recording, name: str = "x") -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


# ---------------------------------------------------------------- trials
def write_struct_array(path: Path) -> None:
    """MATLAB's way: one struct per trial, (n_chans, n_times) each, lengths that differ."""
    structs = np.zeros(3, [("data", object), ("condition", object)])
    structs["data"] = [*(trial.T for trial in TRIALS)]
    structs["condition"] = ["left", "right", "left"]
    scipy.io.savemat(path, {"D": structs})


def test_struct_arrays_of_trials_are_laid_end_to_end(tmp_path: Path) -> None:
    write_struct_array(tmp_path / "a.mat")
    spec = SignalSpec(modality="lfp", variable="D/data", trial_label="D/condition", transpose=True, sfreq=2, t0=10)
    recording = read_one(card(tmp_path, pattern="a.mat", signals={"x": spec}))
    np.testing.assert_array_equal(signal(recording).values, np.concatenate(TRIALS).astype(np.float32))
    trials = recording.intervals["trials"]
    assert (trials.start.tolist(), trials.end.tolist()) == ([10, 12, 15], [12, 15, 16.5])
    assert trials.labels == ("left", "right", "left")
    for number, trial in enumerate(TRIALS):
        cut = signal(recording.slice(trials.start[number], trials.end[number]))
        np.testing.assert_array_equal(cut.values, trial.astype(np.float32))
    assert recording.history[1:] == ("x: trials laid end to end; the times between them are not known",)


def test_stacks_of_trials_of_two_signals_share_their_trials(tmp_path: Path) -> None:
    stack = RNG.normal(size=(5, 8, 3))
    np.savez(tmp_path / "a.npz", fast=stack, slow=stack[:, ::2], y=[0.0, 1.0, 1.0, 0.0, 2.0])
    fast, slow = (SignalSpec(modality="lfp", variable=name, trial_label="y", sfreq=hz) for name, hz in (("fast", 4.0), ("slow", 2.0)))
    recording = read_one(card(tmp_path, pattern="a.npz", signals={"fast": fast, "slow": slow}))
    np.testing.assert_array_equal(signal(recording, "fast").values, stack.reshape(40, 3).astype(np.float32))
    assert recording.intervals["trials"].labels == ("0", "1", "1", "0", "2")
    with pytest.raises(ValueError, match=r"signal 'slow': its trials differ in number or length from those of another signal"):
        read(
            card(
                tmp_path,
                pattern="a.npz",
                signals={"fast": fast, "slow": SignalSpec(modality="lfp", variable="slow", trial_label="y", sfreq=4)},
            )
        )


def test_labels_of_trials_in_hdf5_are_words(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.zeros((2, 4, 1)), ["go", "stop"]
    described = card(tmp_path, pattern="a.h5", signals={"x": SignalSpec(modality="lfp", variable="x", trial_label="y", sfreq=1)})
    assert read_one(described).intervals["trials"].labels == ("go", "stop")


@pytest.mark.parametrize(
    ("arrays", "changes", "match"),
    [
        ({"x": np.zeros((3, 4, 2)), "y": [1, 2]}, {}, r"trial_label 'y' has 2 entries for 3 trials"),
        ({"x": np.zeros((3, 4)), "y": [1, 2, 3]}, {}, r"'x' has shape \(3, 4\); trials need \(n_trials, n_times, n_chans\)"),
        ({"x": np.zeros((3, 4, 2)), "y": [1, 2, 3]}, {"sfreq": None}, r"trials need sfreq"),
        ({"x": np.zeros((3, 4, 2)), "y": [1, 2, 3]}, {"ch_names": ("a",)}, r"ch_names has 1 names for 2 channels"),
    ],
)
def test_bad_trials_are_refused(tmp_path: Path, arrays: dict[str, Any], changes: dict[str, Any], match: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    spec = SignalSpec(**{"modality": "lfp", "variable": "x", "trial_label": "y", "sfreq": 1, **changes})
    with pytest.raises(ValueError, match=rf"a.npz: {match}"):
        read(tmp_path / "a.npz", spec)


# ---------------------------------------------------------------- text
def test_ragged_channels_of_one_file_each_stand_side_by_side(tmp_path: Path) -> None:
    values = RNG.normal(size=(13, 3)).round(4)
    for channel, column in zip(("c3", "cz", "c4"), values.T, strict=True):
        (tmp_path / channel).write_text("\n".join(" ".join(map(str, column[k : k + 5])) for k in (0, 5, 10)) + "\n\n")
    spec = SignalSpec(modality="eeg", side_by_side=True, ragged=True, sfreq=10)
    recording = read_one(card(tmp_path, pattern="c?", signals={"x": spec}))
    assert signal(recording).ch_names == ("c3", "c4", "cz")
    np.testing.assert_array_equal(signal(recording).values, values[:, [0, 2, 1]].astype(np.float32))
    named = read_one(card(tmp_path, pattern="c?", signals={"x": SignalSpec(**{**vars(spec), "ch_names": ("left", "right", "mid")})}))
    assert signal(named).ch_names == ("left", "right", "mid")
    with pytest.raises(ValueError, match=r"signal 'x': 3 files match, first .*c3; narrow the pattern"):
        read(card(tmp_path, pattern="c?", signals={"x": SignalSpec(modality="eeg", ragged=True, sfreq=10)}))
    (tmp_path / "c4").write_text("1 2 3\n")
    with pytest.raises(ValueError, match=r"c4 has Signal\(eeg, 0.3 s .*, the first file Signal\(eeg, 1.3 s .* must agree in length"):
        read(card(tmp_path, pattern="c?", signals={"x": spec}))
    (tmp_path / "c4").write_text("1 2 3\n4 five\n")
    with pytest.raises(ValueError, match=r"c4, line 2: could not convert string to float: 'five'"):
        read(card(tmp_path, pattern="c?", signals={"x": spec}))


def test_columns_are_named_by_what_they_share(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,unit_7,x,unit_12\n0,1,5,0\n1,0,6,2\n")
    units = read_series(tmp_path / "a.csv", SignalSpec(modality="spikes", variable="unit_*", time="t"))
    assert isinstance(units, Signal)
    assert (units.ch_names, units.values.tolist()) == (("unit_7", "unit_12"), [[1, 0], [0, 2]])
    with pytest.raises(ValueError, match=r"a.csv has no column that matches 'cell_\*'; it has t, unit_7, x, unit_12"):
        read_series(tmp_path / "a.csv", SignalSpec(modality="spikes", variable=("x", "cell_*"), sfreq=1))


def test_a_stated_start_makes_sense_of_a_unix_clock(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,x\n" + "".join(f"{1486223115 + k / 4},{k}\n" for k in range(5)))
    series = read_series(tmp_path / "a.csv", SignalSpec(modality="eeg", variable="x", time="t", t0=0))
    assert isinstance(series, Signal)
    assert (series.sfreq, series.t0, len(series.values)) == (4, 0, 5)
    with pytest.raises(ValueError, match=r"entry 0 is 1.48622e\+09 s, which is no time since the session began"):
        read_series(tmp_path / "a.csv", SignalSpec(modality="eeg", variable="x", time="t"))


# ---------------------------------------------------------------- spikes, counts, angles
def test_spikes_unit_after_unit_keep_silent_units(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spikes"], file["sCount"], file["wrong"] = [500.0, 900.0, 100.0], [2, 0, 1], [2, 2]
    train = read_series(tmp_path / "a.h5", SignalSpec(modality="spikes", variable="spikes", unit_counts="sCount", time_scale=1e-3))
    assert isinstance(train, SpikeTrain)
    assert (train.times.tolist(), train.unit_index.tolist(), train.unit_ids) == ([0.1, 0.5, 0.9], [2, 0, 0], ("0", "1", "2"))
    with pytest.raises(ValueError, match=r"a.h5: 3 spike times but 'wrong' speaks of 4"):
        read_series(tmp_path / "a.h5", SignalSpec(modality="spikes", variable="spikes", unit_counts="wrong"))


def test_fine_counts_are_summed_to_the_grid_as_spikes_are_counted(tmp_path: Path) -> None:
    """The twin: the same spikes as times."""
    times = np.sort(RNG.uniform(0, 3.97, 500))
    units = RNG.integers(0, 3, 500)
    fine = np.zeros((397, 3))
    np.add.at(fine, ((times * 100).astype(int), units), 1)
    np.savez(tmp_path / "a.npz", fine=fine, times=times, units=units)
    counts = SignalSpec(modality="spikes", variable="fine", sfreq=100)
    both = {"fine": counts, "train": SignalSpec(modality="spikes", variable="times", unit_index="units")}
    described = card(tmp_path, pattern="a.npz", signals=both, grid_hz=5)
    gridded = to_grid(read_one(described), described)
    summed, counted = signal(gridded, "fine"), signal(gridded, "train")
    assert (summed.sfreq, summed.values.shape) == (5, (19, 3))
    np.testing.assert_array_equal(summed.values, counted.values)
    with pytest.raises(ValueError, match=r"counts were binned at 100 Hz, which no whole number of bins brings to the grid's 30 Hz"):
        to_grid(read_one(described), card(tmp_path, pattern="a.npz", signals={"fine": counts}, grid_hz=30))


def test_angles_are_averaged_on_the_circle(tmp_path: Path) -> None:
    """359, 1, 359, 1 degrees is 0 on average, not 180."""
    np.save(tmp_path / "a.npy", np.tile([359.0, 1.0], 4))
    head = SignalSpec(modality="pose", sfreq=4, angle=True, scale=np.pi / 180, ch_names=("head",))
    described = card(tmp_path, pattern="a.npy", signals={"x": head})
    gridded = signal(to_grid(read_one(described), described))
    assert gridded.ch_names == ("head_cos", "head_sin")
    np.testing.assert_allclose(gridded.values, [[np.cos(np.pi / 180), 0]] * 2, atol=1e-6)
    unnamed = read_series(tmp_path / "a.npy", SignalSpec(modality="pose", sfreq=4, angle=True))
    assert not isinstance(unnamed, SpikeTrain | Samples)
    assert unnamed.ch_names == ("0_cos", "0_sin")


def test_overlapping_counts_need_a_gap_and_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((20, 2)))
    counts = SignalSpec(modality="spikes", sfreq=5, bin_s=1.4)
    with pytest.raises(
        ValueError, match=r"gap_s is 0.2, but counts of 'x' cover 1.4 s each, so blocks would share spikes; set gap_s to at least 1.4"
    ):
        card(tmp_path, signals={"x": counts}, split=SplitSpec(gap_s=0.2))
    recording = read_one(card(tmp_path, pattern="a.npy", signals={"x": counts}, split=SplitSpec(gap_s=1.4)))
    assert recording.history[1:] == ("x: each count covers 1.4 s, so neighbours share spikes",)
    card(tmp_path, signals={"x": counts}, split=SplitSpec(kind="recording"))


# ---------------------------------------------------------------- who has what, and who was recorded
def test_a_series_of_some_recordings_is_looked_for_in_those(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", Qrun=np.ones((4, 2)), Qsleep=np.ones((6, 2)), angle=np.ones(4))
    specs = (RecordingSpec(id="run"), RecordingSpec(id="sleep"))
    signals = {
        "counts": SignalSpec(modality="spikes", variable="Q{id}", sfreq=1),
        "angle": SignalSpec(modality="pose", variable="angle", sfreq=1, recordings=("run",)),
    }
    run, sleep = read(card(tmp_path, pattern="d.npz", recordings=specs, signals=signals))
    assert isinstance(run, Recording)
    assert isinstance(sleep, Recording)
    assert (list(run.signals), list(sleep.signals), sleep.duration) == (["counts", "angle"], ["counts"], 6)


def test_subjects_are_told_by_their_own_file(tmp_path: Path) -> None:
    for name, age, genotype in (("a", 4, b"wt"), ("b", 7, b"Beta2 KO")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"], file["meta/age"], file["meta/genotype"] = np.zeros(3), np.array([age], np.int32), np.array([genotype])
    fields, codes = {"age": "meta/age", "diagnosis": "meta/genotype"}, {"diagnosis": {"wt": "wild type", "Beta2 KO": "knock-out"}}
    table = SubjectTable(file="{id}.h5", fields=fields, codes=codes, age_scale=1 / 365.25)
    signals = {"x": SignalSpec(modality="lfp", variable="x", sfreq=1)}
    first, second = read(card(tmp_path, pattern="{id}.h5", recordings=(), signals=signals, subjects=table))
    assert isinstance(first, Recording)
    assert isinstance(second, Recording)
    assert (first.subject.id, first.subject.age, first.subject.diagnosis) == ("a", pytest.approx(4 / 365.25), "wild type")
    assert (second.subject.id, second.subject.age, second.subject.diagnosis) == ("b", pytest.approx(7 / 365.25), "knock-out")


# ---------------------------------------------------------------- sessions of Biane et al.
CODES = "\n#made by hand\n 10000\tBEGIN\n11500\tODOR6\n14000\tEND\n15000\tLICK\n20000\tBEGIN\n20500\tLICK\n21000\tSHOCK\n23100\tEND\n"


def write_session(folder: Path, codes: str = CODES, n_frames: int = 36) -> DatasetCard:
    """Two trials of 4 and 3.1 s: 20 and 16 frames at 5 Hz."""
    np.savetxt(folder / "C_raw.txt", RNG.normal(size=(3, n_frames)))
    (folder / "a_codes.txt").write_text(codes)
    calcium = SignalSpec(modality="calcium", file="C_raw.txt", transpose=True, sfreq=5)
    return card(folder, reader="biane", pattern="*_codes.txt", signals={"calcium": calcium})


def test_frames_and_events_share_the_clock_of_the_trials(tmp_path: Path) -> None:
    recording = read_one(write_session(tmp_path))
    assert signal(recording, "calcium").values.shape == (36, 3)
    trials, events = recording.intervals["trials"], recording.intervals["events"]
    assert (trials.labels, trials.start.tolist(), trials.end.tolist()) == (("ODOR6", "SHOCK"), [0, 4], [4, 7.2])
    assert events.labels == ("ODOR6", "LICK", "SHOCK")
    np.testing.assert_allclose(events.start, [1.5, 4.5, 5])
    assert recording.history[-1] == "left out 1 events between trials"
    stimuli = recording.intervals["stimuli"]
    assert (stimuli.labels, stimuli.columns["kind"].tolist()) == (("ODOR6", "SHOCK"), ["odour", "shock"])
    np.testing.assert_allclose([stimuli.start, stimuli.end], [[1.5, 5], [4, 7.2]])


@pytest.mark.parametrize(
    ("codes", "n_frames", "match"),
    [
        (CODES[: CODES.rindex("23100")], 36, r"a_codes.txt: BEGIN and END do not take turns; the file is cut short"),
        (CODES, 30, r"2 imaging windows hold 36 frames at 5 Hz, the traces 30; one of the two files is cut short"),
    ],
)
def test_sessions_that_do_not_fit_are_refused(tmp_path: Path, codes: str, n_frames: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read(write_session(tmp_path, codes, n_frames))


# ---------------------------------------------------------------- cut at a line end
@pytest.mark.parametrize(("keep", "passed"), [(40, True), (30, False)])
def test_a_table_cut_at_a_line_end_fails_the_expected_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, passed: bool
) -> None:
    """Nothing in the file says that rows are gone; the card does."""
    cards, out = tmp_path / "cards", tmp_path / "out"
    cards.mkdir()
    out.mkdir()
    (cards / "a.csv").write_text("x,y\n" + "".join(f"{k},{k * k}\n" for k in range(keep)))
    described = {
        **{"name": "cut", "title": "t", "species": "s", "licence": "l", "source": "the archive", "reader": "arrays", "pattern": "{id}.csv"},
        **{"signals": {"x": {"modality": "lfp", "sfreq": 10}}, "grid_hz": 10, "window_s": 1, "stride_s": 1},
        "expected": {"n_recordings": 1, "duration_s": 4, "n_channels.x": 2},
    }
    (cards / "cut.yaml").write_text(yaml.safe_dump(described))
    monkeypatch.setenv("NEUROFM_CARDS", str(cards))
    report = ingest(IngestConfig(dataset="cut"), [cards / "a.csv"], out)
    (check,) = [c for c in report.checks if c.name == "expected_numbers"]
    assert (check.passed, check.severity) == (passed, "error")
    if not passed:
        assert check.note == "duration_s is 3, the card expects 4"
