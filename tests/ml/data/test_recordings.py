"""Recordings on disk come back as they were; damage is named; the job `ingest` tells what it found."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from neurofm_ml import jobs
from neurofm_ml.config import to_dict
from neurofm_ml.data.ingest import ingest
from neurofm_ml.data.recordings import load_card, load_recording, load_recordings, save_recording
from neurofm_ml.jobs import JobResult
from neurofm_ml.knowledge import yaml_cards
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.files import raw_files
from neurofm_ml.presets import IngestConfig
from neurofm_ml.types import Array, Intervals, Recording, Samples, Signal, SpikeTrain, Subject


def example(recording_id: str = "a") -> Recording:
    """One of everything that a recording can hold."""
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(3, 3))
    return Recording(
        id=recording_id,
        dataset="d",
        subject=Subject("s", age=3.5, sex="female"),
        session="x",
        species="Mus musculus",
        licence="CC0",
        signals={
            "eeg": Signal(rng.normal(size=(50, 3)).astype(np.float32), 10.0, "eeg", 1.5, ("C3", "C4", "Cz"), positions, "uV"),
            "gaze": Samples(np.array([1.0, 1.25, 4.0]), rng.normal(size=(3, 2)).astype(np.float32), "eye", ("x", "y"), "deg"),
            "silent": Samples(np.empty(0), np.empty((0, 1), np.float32), "pose"),
            "units": SpikeTrain(np.array([0.5, 0.5, 2.0]), np.array([1, 0, 1]), ("u0", "u1")),
        },
        intervals={
            "trials": Intervals(np.array([0.0, 1.0]), np.array([1.0, 3.0]), ("go", "stop"), {"side": np.array(["left", "r"], object)})
        },
        span=(0.0, 7.0),
        history=("read (test)", "left out nothing"),
    )


def assert_same(a: object, b: object) -> None:
    """Equality through nested fields and arrays."""
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a.astype(str) if a.dtype == object else a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif hasattr(a, "__dataclass_fields__"):
        assert type(a) is type(b)
        assert_same(dict(vars(a)), dict(vars(b)))
    else:
        assert a == b


def test_a_recording_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = save_recording(example(), tmp_path)
    loaded = load_recording(folder)
    assert_same(example(), loaded)
    values = loaded.signals["eeg"].values
    assert isinstance(values, np.memmap)
    assert values.dtype == np.float32
    assert {p.suffix for p in folder.iterdir()} == {".json", ".npy"}


def test_saving_again_replaces_the_whole(tmp_path: Path) -> None:
    save_recording(example(), tmp_path)
    eeg = example().signals["eeg"]
    folder = save_recording(example().with_signals({"only": eeg}, "cut"), tmp_path)
    assert list(load_recording(folder).signals) == ["only"]
    assert not list(folder.glob("gaze*"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_recordings_come_sorted(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        save_recording(example(name), tmp_path / "recordings")
    assert [r.id for r in load_recordings(tmp_path)] == ["a", "b", "c"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickle_in(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "damage", "match"),
    [
        ("eeg.values.npy", cut, r"eeg.values.npy is missing or damaged .* run the job 'ingest' again"),
        ("eeg.values.npy", Path.unlink, r"eeg.values.npy is missing or damaged"),
        ("gaze.times.npy", pickle_in, r"gaze.times.npy is missing or damaged"),
        ("recording.json", cut, r"recording.json is damaged"),
        ("recording.json", Path.unlink, r"holds no recording \(no recording.json\)"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, damage: Callable[[Path], object], match: str) -> None:
    folder = save_recording(example(), tmp_path)
    damage(folder / name)
    with pytest.raises(ValueError, match=match):
        load_recording(folder)


def test_the_card_travels_along(tmp_path: Path) -> None:
    card = datasets()["abide_olin"]
    (tmp_path / "card.json").write_text(json.dumps(to_dict(card)))
    assert load_card(tmp_path) == card
    with pytest.raises(ValueError, match=r"has no card.json"):
        load_card(tmp_path / "nowhere")


# ---------------------------------------------------------------- ingest
@pytest.fixture
def my_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: two csv files, a table of people, a card of fifteen lines. No code."""
    rng = np.random.default_rng(1)
    for name, seconds in (("rest", 3), ("task", 5)):
        rows = np.column_stack([np.arange(100 * seconds) / 100, rng.normal(size=(100 * seconds, 2))])
        np.savetxt(tmp_path / f"{name}.csv", rows, delimiter=",", header="t,C3,C4", comments="", fmt="%.9g")
    (tmp_path / "people.tsv").write_text("participant\tage\tsex\nrest\t31\tF\ntask\tn/a\tM\n")
    card = {
        **{"name": "mine", "title": "Mine", "species": "Homo sapiens", "licence": "CC0", "source": "my bench", "reader": "arrays"},
        "pattern": "{id}.csv",
        "signals": {"eeg": {"modality": "eeg", "variable": ["C3", "C4"], "time": "t", "sfreq": 100, "scale": 1e6, "unit": "uV"}},
        "subjects": {
            **{"file": "people.tsv", "key": "participant", "fields": {"age": "age", "sex": "sex"}},
            "codes": {"sex": {"F": "female", "M": "male"}},
        },
        **{"grid_hz": 10, "window_s": 1, "stride_s": 1},
        "expected": {"n_recordings": 2, "n_subjects": 2, "duration_s": 8, "n_channels.eeg": 4},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    return tmp_path


def column(path: Path, name: str) -> Array:
    return pd.read_csv(path)[name].to_numpy()


def test_ingest_reads_a_users_card(my_data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    report = ingest(IngestConfig(dataset="mine"), [my_data / "rest.csv", my_data / "task.csv"], out)
    assert report.metrics == {"n_recordings": 2, "n_subjects": 2, "duration_s": 8.0, "hours": 0.002, "n_channels.eeg": 4, "taken_over": 0}
    assert [(c.name, c.passed, c.severity) for c in report.checks] == [(n, True, "error") for n in ("expected_numbers", "table_is_valid")]
    rest, task = load_recordings(out)
    np.testing.assert_allclose(rest.signals["eeg"].values[:, 1], column(my_data / "rest.csv", "C4") * 1e6, rtol=1e-6)
    assert rest.subject == Subject("rest", age=31.0, sex="female")
    assert task.subject == Subject("task", age=None, sex="male")
    table = pd.read_parquet(out / "recordings.parquet")
    assert table[["id", "subject", "signals", "n_channels", "duration_s"]].to_numpy().tolist() == [
        ["rest", "rest", "eeg", 2, 3.0],
        ["task", "task", "eeg", 2, 5.0],
    ]
    assert load_card(out) == datasets()["mine"]
    assert (out / report.shown["first recording"]).read_bytes().startswith(b"\x89PNG")


def test_ingest_blocks_what_the_card_does_not_expect(my_data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (my_data / "task.csv").unlink()
    report = ingest(IngestConfig(dataset="mine"), [my_data / "rest.csv"], tmp_path_factory.mktemp("out"))
    check, _ = report.checks
    assert not check.passed
    assert check.severity == "error"
    assert "n_recordings is 1, the card expects 2" in check.note
    assert check.numbers["duration_s"] == 3.0


def test_ingest_refuses_a_dataset_that_is_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path))
    with pytest.raises(
        ValueError,
        match=r"uci_eeg: no recording in 0 raw files, looked for as .*gz; get them from https.* NEUROFM_DATA at them, or correct",
    ):
        ingest(IngestConfig(dataset="uci_eeg"), [], tmp_path)


def run_ingest(home: Path) -> JobResult:
    raw = tuple(map(str, raw_files(datasets()["mine"])))
    return jobs.run(jobs.JobSpec(job="ingest", config={"dataset": "mine"}, inputs={"raw": raw}, out=str(home)))


def test_a_recording_more_does_not_read_the_others_again(my_data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    home, fresh = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("fresh")
    first = run_ingest(home)
    (my_data / "sleep.csv").write_bytes((my_data / "rest.csv").read_bytes())
    with (my_data / "people.tsv").open("a") as people:
        people.write("sleep\t40\tF\n")
    grown = run_ingest(home)
    assert (first.metrics["taken_over"], grown.metrics["taken_over"], grown.metrics["n_recordings"]) == (0, 2, 3)
    assert grown.artifacts == run_ingest(fresh).artifacts
    kept = "recordings/rest/eeg.values.npy"
    assert (Path(grown.path) / kept).samefile(Path(first.path) / kept)


@pytest.mark.parametrize("change", ["a file", "the card", "the person", "the artifact before"])
def test_what_changed_is_read_again(my_data: Path, tmp_path_factory: pytest.TempPathFactory, change: str) -> None:
    home, fresh = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("fresh")
    first = run_ingest(home)
    if change == "a file":
        rows = (my_data / "rest.csv").read_text().splitlines()
        (my_data / "rest.csv").write_text("\n".join([*rows[:-1], "2.99,7,7"]))
    elif change == "the card":
        (my_data / "mine.yaml").write_text((my_data / "mine.yaml").read_text().replace("unit: uV", "unit: V"))
        yaml_cards._cards.cache_clear()
    elif change == "the person":
        (my_data / "people.tsv").write_text((my_data / "people.tsv").read_text().replace("31", "32"))
    else:
        (my_data / "sleep.csv").write_bytes((my_data / "rest.csv").read_bytes())
        (my_data / "people.tsv").write_text((my_data / "people.tsv").read_text() + "sleep\t40\tF\n")
        (Path(first.path) / "recordings/rest/eeg.values.npy").write_bytes(b"damaged")
    again = run_ingest(home)
    assert again.metrics["taken_over"] == {"a file": 1, "the person": 1}.get(change, 0)
    assert again.artifacts == run_ingest(fresh).artifacts


def test_a_recording_that_is_gone_is_gone(my_data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    run_ingest(home)
    (my_data / "task.csv").unlink()
    left = run_ingest(home)
    assert (left.metrics["n_recordings"], left.metrics["taken_over"]) == (1, 1)
    assert [r.id for r in load_recordings(Path(left.path))] == ["rest"]
