"""Probes: scikit-learn as twin, planted layers, and the job on simulated shards."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from probe_features import AGE, write_features
from sklearn.linear_model import LogisticRegression, Ridge

from neurofm_ml.data.predictions import load_predictions
from neurofm_ml.evaluation.features import probe as module
from neurofm_ml.evaluation.features.probe import LAYER_COLUMNS, fit_labels, fit_ridges, probe, probe_labels, probe_series, standardised
from neurofm_ml.evaluation.readouts.readout import PENALTIES
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, LabelData
from neurofm_ml.evaluation.tasks.tasks import Case, DecodingData, find_cases
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.metrics import r2
from neurofm_ml.presets import SPLITS, ProbeConfig
from neurofm_ml.types import Array

CUTS = {"train": 120, "validation": 60, "test": 60}


def _cut(values: Array) -> dict[str, Array]:
    return dict(zip(SPLITS, np.split(values, np.cumsum(list(CUTS.values()))[:-1]), strict=True))


@pytest.fixture
def planted(make_series) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """20 features of 240 rows, and three targets of them, one with rows that are not known."""
    rng = np.random.default_rng(0)
    x = make_series(rng, 0.5, 240, 20) * np.linspace(0.1, 3, 20)
    targets = {
        "both": x[:, 10:12] + 0.5 * rng.normal(size=(240, 2)),
        "one": x[:, 5:6] - x[:, 9:10] + rng.normal(size=(240, 1)),
        "holes": np.where(np.arange(240)[:, None] % 4 == 0, np.nan, x[:, 3:4] + rng.normal(size=(240, 1))),
    }
    return standardised(_cut(x)), {task: _cut(y) for task, y in targets.items()}


def test_ridges_of_all_tasks_are_those_a_loop_over_penalties_finds(planted) -> None:
    x, targets = planted
    found = fit_ridges(x, targets)
    for task, y in targets.items():
        known = {split: np.isfinite(values).all(1) for split, values in y.items()}
        own = x["train"][known["train"]]
        unit = ((own - own.mean(0)) ** 2).sum() / own.shape[1]
        twins = [Ridge(alpha=p * unit).fit(own, y["train"][known["train"]]) for p in PENALTIES]
        scores = [
            r2(y["validation"], t.predict(x["validation"]).reshape(len(x["validation"]), -1), mask=known["validation"]) for t in twins
        ]
        assert found[task].validation == pytest.approx(max(scores))
        twin = twins[int(np.argmax(scores))].predict(x["test"]).reshape(len(x["test"]), -1)
        np.testing.assert_allclose(found[task].readout(x["test"]), twin, atol=1e-6)


def _labels(y: Array, classes: tuple[str, ...], metric: str) -> LabelData:
    split = np.repeat(SPLITS, list(CUTS.values()))
    task = TaskSpec(name="state", target="intervals.states", inputs=("eeg",), classes=classes, metric=metric)  # type: ignore[arg-type]
    trials = np.arange(len(y))
    return LabelData(task, {}, pd.DataFrame({"split": split, "trial": trials, "unit": trials, "start": trials, "key": trials}), y)


@pytest.mark.parametrize(("classes", "metric"), [(("a", "b"), "auroc"), (("a", "b", "c"), "balanced_accuracy")])
def test_classes_are_told_apart_as_scikit_learn_does(classes: tuple[str, ...], metric: str, planted) -> None:
    x, _ = planted
    every = np.concatenate([x[split] for split in SPLITS])
    drawn = np.random.default_rng(1).gumbel(size=(len(every), len(classes)))
    data = _labels((2 * every[:, : len(classes)] + drawn).argmax(1).astype(float), classes, metric)
    fitted = fit_labels(x, data)
    own = x["train"]
    unit = ((own - own.mean(0)) ** 2).sum() / own.shape[1]
    twins = [
        LogisticRegression(C=1 / (p * unit), class_weight="balanced", tol=1e-8, max_iter=5000).fit(own, data.labels("train"))
        for p in PENALTIES
    ]
    best = max(data.score("validation", t.predict_proba(x["validation"])) for t in twins)
    assert fitted.validation == pytest.approx(best, abs=0.02)
    assert data.score("test", fitted.readout(x["test"])) > data.score("test", np.ones((60, len(classes)))) + 0.2


def test_a_number_is_read_with_the_penalty_that_validation_likes(planted) -> None:
    x, targets = planted
    y = np.concatenate([targets["one"][split][:, 0] for split in SPLITS])
    fitted, twin = fit_labels(x, _labels(y, (), "r2")), fit_ridges(x, {"one": targets["one"]})["one"]
    np.testing.assert_allclose(fitted.readout(x["test"]), twin.readout(x["test"]), atol=1e-9)
    worse = fit_labels(x, _labels(y, (), "mae"))
    assert worse.validation < 0


def _case(x: dict[str, Array], y: dict[str, Array], name: str = "velocity") -> Any:
    data = DecodingData(x, y, {split: np.arange(len(v)) / 5 for split, v in y.items()}, np.zeros(x["train"].shape[1], bool))
    case = Case(Path(), (), "toy", "r1", "Mus musculus", "spikes", TaskSpec(name=name, target=name, inputs=("counts",)))
    case.__dict__["data"] = data
    return case


def test_the_layer_that_holds_the_target_is_chosen_on_validation(planted, make_series) -> None:
    x, targets = planted
    noise = {split: np.random.default_rng(3).normal(size=values.shape) for split, values in x.items()}
    cases = [_case(x, targets["both"]), _case(x, targets["one"], "position")]
    for found, case in zip(probe_series(cases, {"tokens": noise, "latents": x}, "neurofmx", 7), cases, strict=True):
        table = pd.DataFrame(found.layers)
        assert set(table) == set(LAYER_COLUMNS)
        assert list(table.layer[table.chosen]) == ["latents"]
        assert table.value[table.chosen].item() == pytest.approx(case.data.r2("test", found.prediction.y_pred))
        assert found.prediction.value > 0.4
        assert found.prediction.control < 0.2
        assert (found.prediction.method, found.prediction.seed, found.prediction.case) == ("linear_probe", 7, case.key)


def test_what_the_test_rows_say_moves_nothing(planted) -> None:
    x, targets = planted
    blind = {**targets["both"], "test": np.zeros_like(targets["both"]["test"])}
    one, other = (fit_ridges(x, {"both": y})["both"] for y in (targets["both"], blind))
    np.testing.assert_array_equal(one.readout.weights, other.readout.weights)


def test_features_of_other_shards_are_refused(planted) -> None:
    x, targets = planted
    short = {split: values[:-1] for split, values in x.items()}
    with pytest.raises(ValueError, match=r"toy/r1/velocity: features of 119 rows, but the task has 120; extract"):
        probe_series([_case(x, targets["both"])], {"latents": short}, "neurofmx", 0)


def test_labels_are_matched_by_key_and_people_answered_once(tmp_path: Path) -> None:
    """240 windows of 48 people in another order than the features'; age is planted in the latents alone."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(48), 5)
    age = 20.0 + person % 12
    values = rng.normal(size=(240, 2, 6))
    values[:, 1, 2] += (age - age.mean()) / age.std()
    table = {"recording": [f"p{k}" for k in person], "subject": [f"p{k}" for k in person], "age": age}
    features = write_features(tmp_path, "toy", values, table, (AGE,))
    split = np.repeat(SPLITS, [120, 60, 60])
    rows = features.windows.assign(split=split, unit=person, trial=person)
    # Within splits as they must be, in reverse.
    order = np.concatenate([np.flatnonzero(split == s)[::-1] for s in SPLITS])
    data = LabelData(AGE, {}, rows.iloc[order].reset_index(drop=True), age[order])
    case = LabelCase("toy", "Homo sapiens", "eeg", AGE, (), ())
    case.__dict__["data"] = data
    found = probe_labels({"toy": features}, case, 0)
    assert found.prediction.y_true.shape == (12, 1)
    assert [row["layer"] for row in found.layers if row["chosen"]] == ["latents"]
    assert found.prediction.value > 0.5 > found.prediction.control
    missing = dataclasses.replace(data, rows=data.rows.assign(key=["x", *data.rows.key[1:]]))
    case.__dict__["data"] = missing
    with pytest.raises(ValueError, match="toy/all/age: features of 239 rows, but the task has 240"):
        probe_labels({"toy": features}, case, 0)


def test_a_pool_is_read_from_the_features_of_all_its_datasets(tmp_path: Path) -> None:
    """Keys of two datasets are the same; the rows of a case go to and fro between them."""
    rng, n = np.random.default_rng(0), 120
    score = {name: rng.normal(size=n) for name in ("one", "two")}
    features = {name: write_features(tmp_path, name, y[:, None, None], {"subject": ["p"] * n}, ()) for name, y in score.items()}
    rows = pd.concat([f.windows.assign(split=np.repeat(SPLITS, n // 3), trial=f.windows.index) for f in features.values()])
    rows = rows.iloc[rng.permutation(len(rows))].sort_values("split", key=lambda s: s.map(SPLITS.index), kind="stable")
    y = np.array([score[name][trial] for name, trial in zip(rows.dataset, rows.trial, strict=True)])
    task = TaskSpec(name="score", target="intervals.score", inputs=("eeg",), metric="r2")
    case = LabelCase("both", "Homo sapiens", "eeg", task, (), ())
    case.__dict__["data"] = LabelData(task, {}, rows.assign(unit=np.arange(len(rows))).reset_index(drop=True), y)
    assert probe_labels(features, case, 0).prediction.value > 0.99


def test_the_job_answers_what_has_features_and_names_the_rest(
    shards: Path, scalers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bins of the spikes alone hold the behaviour itself; nothing was read from calcium."""
    spikes = next(case for case in find_cases(shards, scalers) if case.task.name == "behaviour")
    own = SimpleNamespace(
        layers=("tokens", "latents"),
        family="neurofmx",
        windows=pd.DataFrame({"key": []}),
        has_bins=lambda recording, inputs: inputs == ("spikes",),
        bins=lambda recording, split, layer, inputs: spikes.data.y[split] * (layer == "latents") + spikes.data.x[split][:, :2],
    )
    monkeypatch.setattr(module, "load_features", lambda folder: {"simulation": own})
    report = probe(ProbeConfig(), tmp_path, [shards], scalers, tmp_path)
    (prediction,) = load_predictions(tmp_path / "predictions")
    table = pd.read_parquet(tmp_path / "layers.parquet")
    assert prediction.value == pytest.approx(report.metrics["mean_r2"], abs=1e-4)
    assert prediction.value > 0.9
    assert report.metrics["left_out"] == "simulation/sub1_ses1/behaviour_from_calcium"
    assert list(table.layer) == ["tokens", "latents"]
    assert all(check.passed for check in report.checks)
