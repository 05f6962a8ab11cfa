"""Labels of windows: found by hand and by the code, for people and for intervals; asked for wrongly."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary
from neurofm_ml.data.labels import Labels, interval_label
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import Scaler, fit, load_scaler
from neurofm_ml.data.shards import read_index
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.knowledge.cards import SplitSpec, TaskSpec, datasets
from neurofm_ml.presets import ScalerConfig, ShardsConfig
from neurofm_ml.types import Intervals, Subject

EVENTS = {"start": [0.0, 4.0, 4.5], "end": [2.0, 8.0, 5.5], "labels": ["a", "b", "c"], "columns": {"speed": [1.5, None, 3.0]}}


def window(start: float, end: float, **intervals: Any) -> dict[str, Any]:
    return {"json": {"dataset": "toy", "recording": "r1", "start": start, "end": end, "intervals": intervals}}


def events(**changes: Any) -> TaskSpec:
    return TaskSpec(**{"name": "t", "target": "intervals.events", "inputs": ("eeg",), **changes})


@pytest.mark.parametrize(
    ("changes", "start", "expected"),
    [
        ({}, 0.0, "a"),
        ({}, 1.0, None),  # the end of an interval is outside it
        ({}, 2.5, None),
        ({}, 3.0, "b"),
        ({}, 4.0, "c"),  # inside both: the one that began last
        ({}, 6.0, "b"),
        ({"column": "speed"}, 0.0, 1.5),
        ({"column": "speed"}, 3.0, None),
        ({"during": (-1.0, 0.0)}, 2.0, "b"),
        ({"during": (-1.0, 0.0)}, 2.6, "c"),
        ({"during": (0.5, 1.5)}, 0.0, "a"),
        ({"during": (0.5, 1.5)}, 5.0, None),
        ({"metric": "auroc", "classes": ("", "a")}, 0.0, "a"),
        ({"metric": "auroc", "classes": ("", "a")}, 2.5, ""),  # no interval is a class where it is named
        ({"metric": "auroc", "classes": ("", "a")}, 3.0, "b"),
    ],
)
def test_the_interval_around_the_middle(changes: dict[str, Any], start: float, expected: Any) -> None:
    assert interval_label(window(start, start + 2, events=EVENTS), events(**changes), "events") == expected


def test_a_window_without_such_intervals_has_no_label() -> None:
    assert interval_label(window(0, 2), events(), "events") is None


@pytest.mark.parametrize(
    ("changes", "listed", "match"),
    [
        ({"column": "pace"}, EVENTS, r"task 't': intervals 'events' have no column 'pace'; name one of their columns \(speed\)"),
        ({}, {**EVENTS, "labels": []}, r"intervals 'events' have no labels; name one of their columns \(speed\)"),
        ({}, {**EVENTS, "labels": [], "columns": {}}, r"name one of their columns \(none\)"),
    ],
)
def test_what_intervals_do_not_have_is_refused(changes: dict[str, Any], listed: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        interval_label(window(0, 2, events=listed), events(**changes), "events")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"target": "subject.height"}, "task 't': target is 'subject.height'; a label is intervals.<name> or subject.<field>, age, sex"),
        ({"target": "intervals."}, "a label is intervals.<name>"),
        ({"target": "subject.age", "column": "x"}, "task 't': column and during are of intervals, but target is 'subject.age'"),
        ({"target": "speed", "during": (0, 1)}, "column and during are of intervals, but target is 'speed'"),
        ({"during": (1, 1)}, "during is 1 to 1 s; the end must follow the start"),
        ({"during": (0, 1), "epoch": (1, 0)}, "epoch is 1 to 0 s; the end must follow the start"),
        ({"epoch": (0, 1)}, "an epoch is cut from windows whose middle lies `during` known seconds; name them too"),
        ({"category": "person"}, "category is 'person'; for target 'intervals.events' it is state or decoding"),
        ({"target": "subject.age", "category": "decoding"}, "category is 'decoding'; for target 'subject.age' it is person"),
        ({"target": "speed", "category": "state"}, "category is 'state'; for target 'speed' it is decoding or encoding"),
        ({"metric": "kappa"}, "has 0 classes; the metric 'kappa' needs two or more"),
        ({"metric": "auroc"}, "task 't' has 0 classes; the metric 'auroc' needs two, the positive one last"),
        ({"metric": "auroc", "classes": ("a", "b", "c")}, "has 3 classes; the metric 'auroc' needs two"),
        ({"metric": "balanced_accuracy", "classes": ("a",)}, "has 1 classes; the metric 'balanced_accuracy' needs two or more"),
        ({"classes": ("a", "b")}, "has 2 classes; the metric 'r2' needs none"),
        ({"metric": "auroc", "classes": ("a", "a")}, "names a class twice"),
        ({"target": "speed", "metric": "auroc", "classes": ("a", "b")}, "has classes, but target 'speed' is a series"),
    ],
)
def test_a_wrong_label_task_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        events(**changes)


@pytest.mark.parametrize(
    ("changes", "category"),
    [({}, "state"), ({"category": "decoding"}, "decoding"), ({"target": "subject.iq"}, "person"), ({"target": "speed"}, "decoding")],
)
def test_the_category_follows_from_the_target(changes: dict[str, Any], category: str) -> None:
    task = events(**changes)
    assert (task.category, task.of_subject) == (category, category == "person")
    assert from_dict(TaskSpec, json.loads(json.dumps(to_dict(task)))) == task


LABELS = (
    TaskSpec(name="eyes", target="intervals.state", inputs=("eeg",), classes=("open", "shut"), metric="auroc"),
    TaskSpec(name="level", target="intervals.state", inputs=("eeg",), column="level"),
    TaskSpec(name="age", target="subject.age", inputs=("eeg",)),
    TaskSpec(name="sex", target="subject.sex", inputs=("eeg",), classes=("male", "female"), metric="auroc"),
)
#: Seconds: eyes are open, shut, then nobody says.
STATE = Intervals(np.array([0.0, 20.0]), np.array([20.0, 40.0]), ("open", "shut"), {"level": np.array([0.5, np.nan])})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, the second without an age, and a task that decodes a series."""
    card = datasets()["simulation"]
    kept = {name: card.signals[name] for name in ("eeg", "behaviour")}
    series = TaskSpec(name="behaviour", target="behaviour", inputs=("eeg",))
    card = dataclasses.replace(
        card, recordings=card.recordings[:2], signals=kept, window_s=4.0, stride_s=4.0, split=SplitSpec(gap_s=1.0), tasks=(series, *LABELS)
    )
    source, out = tmp_path_factory.mktemp("recordings"), tmp_path_factory.mktemp("shards")
    people = (Subject("p1", age=30.0, sex="female"), Subject("p2", sex="unknown"))
    for recording, person in zip(simulate(card, 60.0), people, strict=True):
        save_recording(dataclasses.replace(recording, subject=person, intervals={"state": STATE}), source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(ShardsConfig(dataset="simulation"), source, out)
    return out


@pytest.fixture(scope="module")
def scaler(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Scaler:
    folders = [tmp_path_factory.mktemp(modality) for modality in ("eeg", "pose")]
    for folder in folders:
        fit(ScalerConfig(modality=folder.name.rstrip("0")), [shards], folder)
    return load_scaler(folders)


def test_the_labels_of_every_window(shards: Path, scaler: Scaler) -> None:
    vocabulary = build_vocabulary([shards])
    assert vocabulary.tasks == {"simulation/behaviour": 2}
    assert vocabulary.labels == {
        "simulation/eyes": ("open", "shut"), "simulation/level": (), "simulation/age": (), "simulation/sex": ("male", "female"),
    }  # fmt: skip
    first = datasets()["simulation"].recordings[0].id
    index = read_index(shards)
    seen = {"open": 0, "shut": 0, "neither": 0}
    loader = Loader([shards], split="train", batch_size=5, seed=0, collate=Collate([shards], vocabulary, scaler))
    for batch in loader.epoch():
        for k, row in enumerate(batch.rows.tolist()):
            middle, is_first = float(batch.starts[k]) + 2, index.key(row).startswith(first)
            state = "open" if middle < 20 else "shut" if middle < 40 else "neither"
            seen[state] += 1
            found = {name.split("/")[1]: values[k] for name, values in batch.labels.items()}
            assert found["eyes"] == {"open": 0, "shut": 1, "neither": -1}[state]
            assert torch.equal(found["level"].nan_to_num(-1), torch.tensor(0.5 if state == "open" else -1.0))
            assert found["age"].nan_to_num(-1) == (30 if is_first else -1)
            assert found["sex"] == (1 if is_first else -1)
    assert min(seen["open"], seen["shut"]) > 0


def test_a_dataset_without_the_task_has_no_label(shards: Path) -> None:
    read = Labels([shards], {"simulation/age": ()})
    read.answers["other"] = {}
    first = datasets()["simulation"].recordings[0].id
    here, there = window(0, 4), window(0, 4)
    here["json"] |= {"dataset": "simulation", "recording": first}
    there["json"]["dataset"] = "other"
    assert read([there]) == {}
    assert read([there, here])["simulation/age"].nan_to_num(-1).tolist() == [-1, 30]


def test_vocabularies_add_up_and_survive_json() -> None:
    one, other = (Vocabulary({}, (), {}, {f"d/{name}": classes}) for name, classes in (("a", ("x", "y")), ("b", ())))
    union = one.union(other)
    assert union.labels == {"d/a": ("x", "y"), "d/b": ()}
    assert from_dict(Vocabulary, json.loads(json.dumps(to_dict(union)))) == union
