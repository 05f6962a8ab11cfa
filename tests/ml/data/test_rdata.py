"""R data and long tables: columns, rows of one person and trial, what is no table refused; numbers of the real files."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadr
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.readers.rdata import read_rdata
from neurofm_ml.data.readers.variables import load_columns, load_variables
from neurofm_ml.knowledge.cards import DatasetCard, IntervalSpec, RecordingSpec, SignalSpec
from neurofm_ml.types import Recording, Samples, Signal

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
real = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")

FRAME = pd.DataFrame(
    {
        "who": ["ann", "ann", "ann", "bob", "bob"],
        "trial": [1, 1, 2, 1, 1],
        "ms": [0.0, 10.0, 0.0, 0.0, 10.0],
        "x": [1.0, 2.0, 3.0, 4.0, np.nan],
        "kind": pd.Categorical(["easy", "easy", "hard", "easy", "easy"]),
    }
)


@pytest.fixture(params=[".RData", ".rda", ".rds", ".csv"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A file with FRAME, and what its columns begin with."""
    path = tmp_path / f"long{request.param}"
    if request.param == ".csv":
        FRAME.to_csv(path, index=False)
        return path, ""
    if request.param == ".rds":
        pyreadr.write_rds(path, FRAME)
        return path, "/"
    pyreadr.write_rdata(path, FRAME, df_name="gaze", compress="gzip")
    return path, "gaze/"


def test_columns_are_numbers_or_words(table: tuple[Path, str]) -> None:
    path, prefix = table
    (x,), headers = load_variables(path, (f"{prefix}x",))
    np.testing.assert_array_equal(x, FRAME.x)
    assert headers == ()
    who, kind = load_columns(path, (f"{prefix}who", f"{prefix}kind"))
    assert (who.tolist(), kind.tolist()) == (FRAME.who.tolist(), FRAME.kind.tolist())


def test_rows_of_one_person_and_trial(table: tuple[Path, str]) -> None:
    path, prefix = table
    card = DatasetCard(
        name="long", title="", species="", licence="", source="", reader="arrays", root=str(path.parent), pattern=path.name,
        recordings=(RecordingSpec(id="b1", values={"who": "bob", "n": "1"}), RecordingSpec(id="a", values={"who": "ann", "n": "2"})),
        signals={
            "eye": SignalSpec(
                modality="eye", variable=f"{prefix}x", time=f"{prefix}ms", time_scale=0.001, where={f"{prefix}who": "{who}", f"{prefix}trial": "{n}"}
            )
        },
        intervals={"trials": IntervalSpec(label=f"{prefix}kind", where={f"{prefix}who": "{who}"}, sfreq=100)},
        grid_hz=1, window_s=1, stride_s=1,
    )  # fmt: skip
    bob, ann = read(card)  # type: ignore[misc]
    assert bob.signals["eye"].values.tolist()[0] == [4.0]
    assert np.isnan(bob.signals["eye"].values[1])
    np.testing.assert_allclose(bob.signals["eye"].times, [0, 0.01])
    assert ann.signals["eye"].values.tolist() == [[3.0]]
    assert (ann.intervals["trials"].labels, ann.intervals["trials"].end.tolist()) == (("easy", "hard"), [0.02, 0.03])


def test_a_whole_object_is_a_matrix_with_headers(tmp_path: Path) -> None:
    pyreadr.write_rdata(tmp_path / "m.rda", FRAME[["ms", "x"]], df_name="m")
    (matrix,), headers = load_variables(tmp_path / "m.rda", ("",))
    np.testing.assert_array_equal(matrix, FRAME[["ms", "x"]])
    assert headers == ("ms", "x")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gaze.rda"
    pyreadr.write_rdata(path, FRAME, df_name="gaze")
    with pytest.raises(ValueError, match="no variable 'pupil'; it holds gaze"):
        load_variables(path, ("pupil/x",))
    with pytest.raises(ValueError, match="no variable 'y'; it holds kind, ms, trial, who, x"):
        load_variables(path, ("gaze/y",))
    with pytest.raises(ValueError, match="no row where gaze/who is 'eve'; gaze/who holds ann, bob"):
        read(path, SignalSpec(modality="eye", variable="gaze/x", sfreq=100, where={"gaze/who": "eve"}))
    with pytest.raises(ValueError, match="not real numbers"):
        read(path, SignalSpec(modality="eye", variable="gaze/who", sfreq=100))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gaze.rda"
    pyreadr.write_rdata(path, FRAME, df_name="gaze")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no R data at all", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"gaze.rda cannot be read as R data \(.+\); it is damaged"):
            read_rdata(path)


def test_a_file_of_other_objects_is_refused(tmp_path: Path) -> None:
    """A list of one string, ``l = list("hi")``, in R's binary serialisation."""
    path = tmp_path / "list.rda"
    name, value = _integers(0x402, 1, 0x40009, 1) + b"l", _integers(19, 1, 16, 1, 0x40009, 2) + b"hi"
    path.write_bytes(b"RDX2\nX\n" + _integers(2, 0x30508, 0x20300) + name + value + _integers(254))
    with pytest.raises(ValueError, match=r"list.rda holds no data frame, matrix or vector"):
        read_rdata(path)


def _integers(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


# ---------------------------------------------------------------- real files
def read_set(name: str) -> list[Recording]:
    recordings = read(name)
    assert isinstance(recordings, list)
    return recordings


@real
def test_real_pupils() -> None:
    people = read_set("pupillometry_arithmetic")
    assert [p.id for p in people] == ["1", "2", "3", "4", "5", "6", "7", "9"]
    for person in people:
        pupil, trials = person.signals["pupil"], person.intervals["trials"]
        assert isinstance(pupil, Signal)
        assert (pupil.values.shape, person.duration) == ((3600, 2), 60)
        assert trials.labels == ("Easy", "Hard") * 3
        np.testing.assert_allclose(trials.end, np.arange(1, 7) * 10)
        assert np.nanmin(pupil.values) > 1.5, "-1 is no size of a pupil"
    missing = np.mean([np.isnan(p.signals["pupil"].values).mean() for p in people])  # type: ignore[union-attr]
    assert missing == pytest.approx(0.12675, abs=1e-5)


@real
def test_real_gaze() -> None:
    trials = read_set("eyetools_hcl")
    assert [t.subject.id for t in trials] == ["118"] * 6 + ["119"] * 6
    gaze = [t.signals["gaze"] for t in trials]
    assert all(isinstance(g, Samples) for g in gaze)
    assert sum(len(g.times) for g in gaze) == 31041
    assert [round(t.duration, 3) for t in trials[:2]] == [13.461, 7.792]
    assert np.median(np.diff(gaze[0].times)) == pytest.approx(0.003)
    assert trials[2].intervals["trials"].labels == ("correct",)
    assert trials[2].intervals["trials"].end == pytest.approx([5.267], abs=1e-3)


@real
def test_real_seizure() -> None:
    path = DATA / "ephys/lfp/ieeg_seizure_EZFragility/data/pt01EcoG.rda"
    recording = read(path, SignalSpec(modality="ecog", variable="pt01EcoG", transpose=True, sfreq=1000))
    assert isinstance(recording, Recording)
    ecog = recording.signals["ecog"]
    assert isinstance(ecog, Signal)
    assert ecog.values.shape == (3000, 84)
    assert ecog.values[0, :2] == pytest.approx([16650.233115, -225911.037354])
    assert read_rdata(path)["pt01EcoG"].index[0] == "G1"
