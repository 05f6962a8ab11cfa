"""Transfer on planted truth: what is shared transfers, what is not does not, what is opposite misleads; p and q under the null."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted_places import PERSON, SERIES, labels, series, slow
from sklearn.linear_model import Ridge

from neurofm_ml import metrics
from neurofm_ml.config import to_dict
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.windows import read_windows, shard_recordings
from neurofm_ml.evaluation.tasks.tasks import find_cases
from neurofm_ml.evaluation.transfer.example_sources import series_examples
from neurofm_ml.evaluation.transfer.examples import Examples, joined
from neurofm_ml.evaluation.transfer.nulls import null_scores, permuted_labels, shifted_scores
from neurofm_ml.evaluation.transfer.places import Place, matrix, task_matrix
from neurofm_ml.evaluation.transfer.transfer import comparable, publish, rows_of, table_of
from neurofm_ml.knowledge.cards import SignalSpec, SplitSpec, TaskSpec, datasets
from neurofm_ml.presets import SPLITS, ShardsConfig
from neurofm_ml.types import TRANSFER_COLUMNS, Recording, Signal, Subject

RNG = np.random.default_rng(0)
SHARED, OTHER = RNG.normal(size=(2, 6, 2))


def cells(places: dict[str, Examples], **changes: object) -> pd.DataFrame:
    found = matrix([Place.of(name, part) for name, part in places.items()], **{"standardise": "own", "n_perm": 300, "seed": 0, **changes})
    return pd.DataFrame(found).set_index(["source", "target"])


def test_a_shared_map_transfers_an_unrelated_one_does_not_and_an_opposite_one_misleads() -> None:
    found = cells(
        {
            "a": series(SHARED, 0.3, 1, recording="a"),
            "b": series(SHARED, 0.3, 2, recording="b"),
            "other": series(OTHER, 0.3, 3, recording="other"),
            "opposite": series(-SHARED, 0.3, 4, recording="opposite"),
        }
    )
    for pair in (("a", "b"), ("b", "a")):
        assert found.value[pair] > 0.85
        assert found.value[pair] > 0.95 * found.within[pair]
        assert found.q[pair] < 0.05
    assert (found.value["a", "other"], found.q["a", "other"]) < (0.3, 1)
    assert found.value["a", "opposite"] < -2
    assert found.p["a", "opposite"] > 0.9
    assert (found.within == [found.value[t, t] for _, t in found.index]).all()
    assert (found.chance == 0).all()


def test_labels_transfer_by_auroc_below_one_half_where_they_are_swapped() -> None:
    found = cells({"a": labels(3.0, 1), "b": labels(3.0, 2), "swapped": labels(3.0, 3, sign=-1.0), "none": labels(0.0, 4)})
    assert found.value["a", "b"] > 0.9
    assert found.q["a", "b"] < 0.05
    assert found.value["a", "swapped"] < 0.1
    assert found.p["a", "swapped"] > 0.95
    assert 0.2 < found.value["a", "none"] < 0.8
    assert (found.metric == "auroc").all()
    assert (found.chance == 0.5).all()


def test_features_in_another_unit_and_place_are_read_in_the_places_own_scale() -> None:
    a, b = series(SHARED, 0.2, 1), series(SHARED, 0.2, 2)
    moved = Examples(b.task, 40 * b.x + 7, b.y, b.about)
    assert cells({"a": a, "b": moved}).value["a", "b"] > 0.85
    assert cells({"a": a, "b": moved}, standardise="source").value["a", "b"] < 0
    assert cells({"a": a, "b": b}, standardise="source").value["a", "b"] > 0.85


def test_a_cell_is_the_ridge_of_scikit_learn_scored_elsewhere() -> None:
    source, target = Place.of("a", series(SHARED, 0.5, 1)), Place.of("b", series(SHARED, 0.5, 2))
    train, test = source.splits["train"], target.splits["test"]
    said = []
    for penalty in 10.0 ** np.arange(-4, 3.1, 0.5) * train.y.shape[0]:
        twin = Ridge(alpha=penalty).fit((train.x - train.x.mean(0)) / train.x.std(0), train.y)
        validation = source.splits["validation"]
        errors = ((twin.predict((validation.x - train.x.mean(0)) / train.x.std(0)) - validation.y) ** 2).mean(0)
        own = target.splits["train"].x
        said.append(((errors / validation.y.var(0)).mean(), metrics.r2(test.y, twin.predict((test.x - own.mean(0)) / own.std(0)))))
    row = matrix([source, target], "own", 50, 0)[1]
    assert row["value"] == pytest.approx(min(said)[1])


def test_p_of_unrelated_places_is_uniform_and_the_false_discovery_rate_holds() -> None:
    """200 matrices of three places whose targets are slow noise: q <= .05 stands anywhere in at most 5 % of them, sampling error aside."""
    bases = [Place.of(str(j), series(np.zeros((4, 1)), 1.0, j, n=400)) for j in range(3)]
    p, found = [], 0
    for k in range(200):
        rng = np.random.default_rng(k)
        places = [Place(b.name, {s: replace(part, y=slow(rng, len(part.y), 1)) for s, part in b.splits.items()}) for b in bases]
        pairs = [row for row in matrix(places, "own", 199, k) if row["source"] != row["target"]]
        p += [row["p"] for row in pairs]
        found += any(row["q"] <= 0.05 for row in pairs)
    assert found / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    for level in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.05)


# ---------------------------------------------------------------- nulls
def test_shifts_are_those_of_a_loop() -> None:
    examples = joined([series(SHARED, 1.0, k, n=40, recording=f"r{k}") for k in range(2)])
    said = examples.y + np.random.default_rng(5).normal(size=examples.y.shape)
    found = shifted_scores(examples.y, said, examples.groups("recording"), 30, [3])
    every = {round(metrics.r2(examples.y, np.concatenate([np.roll(said[:40], a, 0), np.roll(said[40:], b, 0)])), 9)
             for a in range(4, 37) for b in range(4, 37)}  # fmt: skip
    assert found[0] == pytest.approx(metrics.r2(examples.y, said))
    assert {round(float(v), 9) for v in found[1:]} <= every


@pytest.mark.parametrize("n_classes", [0, 2, 4])
def test_scores_of_permuted_labels_are_the_metrics(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    examples = labels(1.0, 0, n=60)
    task = PERSON if n_classes == 2 else None
    y = rng.integers(0, n_classes, 60).astype(float) if n_classes else rng.normal(20, 5, 60)
    said = rng.normal(size=(60, max(n_classes, 1))).round(1)
    task = task or TaskSpec(
        name="t",
        target="subject.age",
        inputs=("bold",),
        classes=tuple("abcd"[:n_classes]),
        metric="balanced_accuracy" if n_classes else "r2",
    )
    found = null_scores(Examples(task, examples.x, y[:, None], examples.about), said, 20, [1])
    units = examples.groups("unit")
    permuted = np.concatenate([y[None], permuted_labels(y, units, units, 20, [1])])
    score = metrics.SCORES["r2" if not n_classes else "auroc" if n_classes == 2 else "balanced_accuracy"]
    assert np.allclose(found, [score.value(labels_[:, None], said) for labels_ in permuted])


def test_labels_are_exchanged_between_units_or_between_the_trials_of_each() -> None:
    units, trials = np.repeat([0, 1, 2, 3], 6), np.repeat(np.arange(12), 2)
    of_units = np.array([0.0, 1, 1, 0])[units]
    for drawn in permuted_labels(of_units, trials, units, 20, [0]):
        assert (drawn == drawn[::6][units]).all()
        assert drawn.sum() == of_units.sum()
    of_trials = np.resize([0.0, 0, 1, 1, 2, 2], 24)
    drawn = permuted_labels(of_trials, trials, units, 50, [0])
    assert all(sorted(row[units == u]) == sorted(of_trials[units == u]) for row in drawn for u in range(4))
    assert (drawn[:, ::2] == drawn[:, 1::2]).all()
    assert len(np.unique(drawn, axis=0)) > 20


# ---------------------------------------------------------------- axes
def test_a_task_is_read_through_what_the_readout_of_another_keeps() -> None:
    """Of two features, task one is the first and task two the second; task three is the first again."""
    base = series(np.eye(4)[:, :2], 0.2, 1)
    named = [replace(base, task=replace(SERIES, name=name), y=base.y[:, [k]]) for name, k in (("one", 0), ("two", 1), ("three", 0))]
    found = pd.DataFrame(task_matrix([Place.of(part.task.name, part) for part in named], 100, 0)).set_index(["source", "target"]).value
    assert found["one", "three"] == pytest.approx(found["three", "three"], abs=0.02)
    assert found["one", "two"] < 0.3
    assert found["two", "two"] > 0.85


def test_every_axis_groups_what_is_comparable(tmp_path: Path) -> None:
    parts = [
        series(SHARED, 0.3, k, recording=f"r{k}", session=f"s{k}", subject=f"p{k // 2}", dataset=dataset, species=species)
        for k, (dataset, species) in enumerate([("x", "rat"), ("x", "rat"), ("x", "rat"), ("y", "worm")])
    ]
    parts.append(series(SHARED[:, :1], 0.3, 9, dataset="z", recording="r9"))
    left_out: dict[str, str] = {}
    rows = {axis: rows_of(parts, axis, "own", 50, 0, left_out) for axis in ("session", "subject", "species", "dataset", "task", "modality")}
    assert {axis: len(found) for axis, found in rows.items()} == {
        "session": 16, "subject": 9, "species": 4, "dataset": 4, "task": 0, "modality": 0,
    }  # fmt: skip
    assert {row["source"] for row in rows["subject"]} == {"x/p0", "x/p1", "y/p1"}
    table = table_of([row for found in rows.values() for row in found], 0, tmp_path)
    assert list(table) == list(TRANSFER_COLUMNS)
    report = publish(table, left_out, tmp_path)
    assert all(check.passed for check in report.checks)
    assert report.metrics["retained.session"] > 0.9
    assert (tmp_path / "transfer.png").stat().st_size > 10_000
    assert len(pd.read_parquet(tmp_path / "transfer.parquet")) == 33


def test_a_place_without_a_test_row_or_a_second_answer_is_left_out_by_name(tmp_path: Path) -> None:
    whole, short, dull = labels(2.0, 1, session="a"), labels(2.0, 2, session="b"), labels(2.0, 3, session="c")
    short = short.where((short.about.split != "test").to_numpy())
    dull.y[(dull.about.split == "train").to_numpy()] = 1.0
    left_out: dict[str, str] = {}
    assert rows_of([whole, short, dull], "session", "own", 50, 0, left_out) == []
    assert left_out == {"session toy/b": "no test rows", "session toy/c": "one answer in all train rows"}
    report = publish(table_of([], 0, tmp_path), left_out, tmp_path)
    assert report.metrics["cells"] == 0
    assert "no test rows: session toy/b" in str(report.metrics["left_out"])


# ---------------------------------------------------------------- one unit
POSITION = TaskSpec(name="position", target="position", inputs=("counts",))


def tracked(folder: Path, dataset: str, ch_names: tuple[str, ...], unit: str, task: TaskSpec = POSITION) -> Examples:
    """Examples of 20 s of a unit and of where somebody is, read from shards."""
    rng = np.random.default_rng(0)
    counts = Signal(rng.poisson(3.0, (100, 1)).astype(np.float32), 5.0, "spikes")
    position = Signal(rng.normal(size=(100, len(ch_names))).astype(np.float32), 5.0, "pose", ch_names=ch_names, unit=unit)
    signals = {"counts": counts, "position": position}
    recording = Recording(dataset, dataset, Subject("p"), "s", "Rattus norvegicus", "CC0", signals, {}, (0.0, 20.0))
    specs = {name: SignalSpec(modality=signal.modality, sfreq=5.0, unit=signal.unit) for name, signal in signals.items()}
    card = replace(
        datasets()["simulation"], name=dataset, signals=specs, tasks=(task,), split=SplitSpec(), grid_hz=5.0, window_s=1.0, stride_s=1.0,
    )  # fmt: skip
    source, shards = folder / dataset / "recordings", folder / dataset / "shards"
    shards.mkdir(parents=True)
    save_recording(recording, source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(ShardsConfig(dataset=dataset), source, shards)
    (case,) = find_cases(shards, [])
    return series_examples(case, read_windows(shards), {split: case.data.x[split] for split in SPLITS})


def test_only_the_same_columns_in_the_same_unit_stand_in_one_matrix(tmp_path: Path) -> None:
    part = replace(POSITION, channels=("x", "y"))
    parts = [
        tracked(tmp_path, "field", ("x", "y"), "cm"),
        tracked(tmp_path, "track", ("x", "y"), "px"),
        tracked(tmp_path, "maze", ("x", "y"), "cm"),
        tracked(tmp_path, "screen", ("r", "angle"), "cm"),
        tracked(tmp_path, "flight", ("z", "x", "y"), "cm", part),
    ]
    names = [[part.about.dataset.iloc[0] for part in group] for group in comparable(parts, "dataset")]
    assert names == [["field", "maze", "flight"], ["track"], ["screen"]]


def test_centimetres_are_not_scored_against_pixels() -> None:
    centimetres = series(SHARED, 0.3, 1, dataset="field")
    track = series(SHARED, 0.3, 2, dataset="track", recording="t")
    pixels = replace(track, y=300 + 2 * track.y, columns=("x [px]", "y [px]"))
    assert len(rows_of([centimetres, track], "dataset", "own", 50, 0, {})) == 4
    assert cells({"field": centimetres, "track": pixels}).value["field", "track"] < -90
    assert rows_of([centimetres, pixels], "dataset", "own", 50, 0, {}) == []
