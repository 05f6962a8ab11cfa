"""Intervals of cards: the same trials out of every format, missing ends, runs of labels, tables that do not fit the recording."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from neurofm_ml.data import read
from neurofm_ml.data.readers.intervals import read_intervals
from neurofm_ml.data.recordings import load_recording, save_recording
from neurofm_ml.knowledge.cards import DatasetCard, IntervalSpec, RecordingSpec, SignalSpec
from neurofm_ml.types import Recording

START, DURATION, LABEL, SCORE = [4.0, 1.0, 2.5], [0.5, 1.0, 0.25], ["go", "stop", "go"], [7.0, 8.0, 9.0]
TRIALS = IntervalSpec(start="onset", duration="duration", label="kind", columns=("score",))


def table(separator: str) -> str:
    rows = [("onset", "duration", "kind", "score"), *zip(START, DURATION, LABEL, SCORE, strict=True)]
    return "\n".join(separator.join(map(str, row)) for row in rows) + "\n"


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["onset"], file["duration"], file["kind"], file["score"] = START, DURATION, LABEL, SCORE


def write_matlab(path: Path) -> None:
    columns = {"onset": np.array(START)[:, None], "duration": DURATION, "kind": np.array(LABEL, object), "score": SCORE}
    scipy.io.savemat(path, columns)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.csv": lambda path: path.write_text(table(",")),
    "a.tsv": lambda path: path.write_text(table("\t")),
    "a.txt": lambda path: path.write_text(table(" ")),
    "a.tsv.gz": lambda path: path.write_bytes(gzip.compress(table("\t").encode())),
    "a.h5": write_hdf5,
    "a.mat": write_matlab,
    "a.npz": lambda path: np.savez(path, onset=START, duration=DURATION, kind=LABEL, score=SCORE),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_trials_in_order(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    trials, notes = read_intervals(tmp_path / name, TRIALS)
    assert trials.start.tolist() == [1, 2.5, 4]
    assert trials.end.tolist() == [2, 2.75, 4.5]
    assert trials.labels == ("stop", "go", "go")
    assert trials.columns["score"].tolist() == [8, 9, 7]
    assert notes == ()


def test_ends_instants_scales_and_words(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,until,word,pos\n0,250,the,DET\n250,900,cat,\n900,n/a,n/a,NOUN\n")
    words, notes = read_intervals(tmp_path / "a.csv", IntervalSpec(start="t", end="until", label="word", columns=("pos",), time_scale=1e-3))
    assert words.end.tolist() == [0.25, 0.9, 0.9]
    assert words.labels == ("the", "cat", "n/a")
    assert words.columns["pos"].tolist() == ["DET", "", "NOUN"]
    assert notes == ("1 of 3 have no until and are instants",)
    instants, _ = read_intervals(tmp_path / "a.csv", IntervalSpec(start="t", label="word", skip=("cat",)))
    assert instants.start.tolist() == instants.end.tolist() == [0, 900]


def test_a_text_without_a_header_is_named_by_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("#by hand\n 5\tBEGIN\n7\tEND\n")
    events, _ = read_intervals(tmp_path / "a.txt", IntervalSpec(start="0", label="1"))
    assert (events.start.tolist(), events.labels) == ([5, 7], ("BEGIN", "END"))


def test_runs_of_a_label_are_intervals(tmp_path: Path) -> None:
    """A trigger is a run of one row, a block a longer one; the last run ends with the table."""
    (tmp_path / "a.csv").write_text("x,Marker\n" + "".join(f"0.5,{m}\n" for m in (0, 2, 0, 0, 1, 1, 1, 2, 2)))
    runs, _ = read_intervals(tmp_path / "a.csv", IntervalSpec(label="Marker", sfreq=4, skip=("0",)))
    assert runs.labels == ("2", "1", "2")
    assert runs.start.tolist() == [0.25, 1, 1.75]
    assert runs.end.tolist() == [0.5, 1.75, 2.25]
    np.savez(tmp_path / "a.npz", y=[1.0, 1.0, 0.0])
    assert read_intervals(tmp_path / "a.npz", IntervalSpec(label="y", sfreq=1))[0].labels == ("1", "0")


# ---------------------------------------------------------------- in a recording
def card(folder: Path, seconds: float = 5, **changes: Any) -> DatasetCard:
    """A recording "a" of `seconds` at 10 Hz with its trials beside it."""
    np.save(folder / "a.npy", np.arange(seconds * 10))
    (folder / "a.csv").write_text(table(","))
    base: dict[str, Any] = {
        **{"name": "d", "title": "t", "species": "s", "licence": "l", "source": "the archive", "reader": "arrays", "root": str(folder)},
        **{"pattern": "{id}.npy", "grid_hz": 1.0, "window_s": 1.0, "stride_s": 1.0, "signals": {"x": SignalSpec(modality="lfp", sfreq=10)}},
        "intervals": {"trials": IntervalSpec(file="{id}.csv", duration="duration", label="kind")},
    }
    return DatasetCard(**{**base, **changes})


def read_one(described: DatasetCard) -> Recording:
    (recording,) = read(described)
    assert isinstance(recording, Recording)
    return recording


def test_a_card_puts_trials_beside_the_signal(tmp_path: Path) -> None:
    spec = RecordingSpec(id="a", values={"what": "kind"}, intervals={"state": ((2, 5, "asleep"), (0, 2, "awake"))})
    intervals = {"trials": IntervalSpec(file="{id}.csv", duration="duration", label="{what}"), "none": IntervalSpec(recordings=("b",))}
    recording = read_one(card(tmp_path, recordings=(spec,), intervals=intervals))
    assert recording.intervals["trials"].labels == ("stop", "go", "go")
    assert set(recording.intervals) == {"trials", "state"}
    state = load_recording(save_recording(recording, tmp_path)).intervals["state"]
    assert (state.start.tolist(), state.end.tolist(), state.labels) == ([0, 2], [2, 5], ("awake", "asleep"))
    assert recording.history == ("read (arrays)",)


def test_a_table_longer_than_its_recording_is_named(tmp_path: Path) -> None:
    recording = read_one(card(tmp_path, seconds=2))
    assert recording.history[1:] == ("2 of 3 intervals of 'trials' lie outside the recording (0 to 2 s)",)
    assert len(recording.intervals["trials"].start) == 3
    cut = read_one(card(tmp_path, recordings=(RecordingSpec(id="a", span=(0, 3)),)))
    assert cut.intervals["trials"].start.tolist() == [1, 2.5], "a span of the card cuts its intervals"
    assert cut.history == ("read (arrays)",)


@pytest.mark.parametrize(
    ("rows", "described", "match"),
    [
        ("onset\n1\n", {"label": "kind"}, r"intervals 'trials': .*a.csv has no variable 'kind'; it holds onset"),
        ("onset,duration\n1,2\nn/a,3\n", {}, r"row 2 of 'onset' says no time"),
        ("onset,duration\n1,2\nlate,3\n", {}, r"row 2 of 'onset' holds 'late', which is no time"),
        ("onset,duration\n1,-2\n", {"duration": "duration"}, r"interval 0 ends at -1 before it starts at 1"),
        (
            "onset,duration\n2000,3\n3000,1\n",
            {},
            r"d/a: all 2 intervals of 'trials' lie outside the recording \(0 to 5 s\), the first from 2000",
        ),
        ("onset\n1486223115\n", {}, r"entry 0 is 1.48622e\+09 s, which is no time since the session began"),
        ("onset,duration\n1,2\n3\n", {}, r"a.csv, line 3 has 1 columns where the first has 2"),
        ("", {}, r"a.csv holds no numbers"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, rows: str, described: dict[str, Any], match: str) -> None:
    bad = card(tmp_path, intervals={"trials": IntervalSpec(file="{id}.csv", **described)})
    (tmp_path / "a.csv").write_text(rows)
    with pytest.raises(ValueError, match=match):
        read(bad)


def test_arrays_that_disagree_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", onset=[1, 2], kind=["go"], z=[1j, 2j])
    with pytest.raises(ValueError, match="onset, kind have 2, 1 rows; they must agree"):
        read_intervals(tmp_path / "a.npz", IntervalSpec(label="kind"))
    with pytest.raises(ValueError, match="variable 'z' holds complex128, neither numbers nor words"):
        read_intervals(tmp_path / "a.npz", IntervalSpec(start="z"))


def test_runs_need_a_label() -> None:
    with pytest.raises(ValueError, match=r"sfreq is 4.0 and label ''; runs of rows need"):
        IntervalSpec(sfreq=4.0)
