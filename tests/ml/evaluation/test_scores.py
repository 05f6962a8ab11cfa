"""The scores table: its types, who beats whom, and the files of a run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.scoring.score import publish
from neurofm_ml.evaluation.scoring.scores import (
    BEATS,
    LOSES,
    NO_VERDICT,
    SWAPS,
    TIES,
    WHOLE_UNITS,
    compare,
    control_check,
    read_scores,
    score_predictions,
    write_scores,
)
from neurofm_ml.presets import ScoreConfig
from neurofm_ml.types import SCORE_COLUMNS

Make = Callable[..., Prediction]


@pytest.fixture
def table(make_prediction: Make, toy_cases) -> pd.DataFrame:
    predictions = [make_prediction("ridge", "baseline"), make_prediction(noise=0.2, control=0.01)]
    return score_predictions(predictions, toy_cases, run="tiny-0", fingerprint="abc", size="tiny", n_boot=100)


def test_rows_say_what_was_measured(table: pd.DataFrame) -> None:
    assert list(table) == list(SCORE_COLUMNS)
    row = table.iloc[1]
    assert row[["run", "fingerprint", "family", "size", "method", "species", "modality", "split"]].tolist() == [
        "tiny-0", "abc", "neurofmx", "tiny", "ours", "Homo sapiens", "spikes", "test",
    ]  # fmt: skip
    assert row.ci_low < row.value < row.ci_high <= 1
    assert row.value == pytest.approx(0.96, abs=0.02)
    assert (row.n, row.control, row.parameters) == (400, 0.01, 10)
    assert np.isnan(row.noise_ceiling)


def test_a_table_survives_parquet(table: pd.DataFrame, tmp_path: Path) -> None:
    for rows in (table, table.iloc[:0]):
        write_scores(rows, tmp_path / "scores.parquet")
        pd.testing.assert_frame_equal(read_scores(tmp_path / "scores.parquet"), rows)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda t: t.drop(columns="control"), r"lacks columns \['control'\]"),
        (lambda t: t.assign(stars=5), r"unknown columns \['stars'\]"),
        (lambda t: t.assign(value="0.5"), "column 'value' .* needs float"),
        (lambda t: t.assign(n=0.5), "column 'n' .* needs int"),
        (lambda t: t.assign(task=1), "column 'task' .* needs str"),
    ],
)
def test_another_table_is_refused(table: pd.DataFrame, tmp_path: Path, spoil: Callable, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        write_scores(spoil(table), tmp_path / "scores.parquet")
    spoil(table).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=match):
        read_scores(tmp_path / "other.parquet")


@pytest.mark.parametrize(("noise", "stamp"), [(0.2, BEATS), (0.5, TIES), (0.9, LOSES)])
def test_stamps_against_the_best_baseline(make_prediction: Make, noise: float, stamp: str) -> None:
    baselines = [make_prediction("knn", "baseline", 1.2), make_prediction("ridge", "baseline", 0.5)]
    ours = make_prediction(noise=noise)
    if stamp == TIES:
        ours = make_prediction(y_pred=baselines[1].y_pred + 1e-3 * ours.y_pred[::-1])
    row = compare([*baselines, ours], n_boot=200).iloc[0]
    assert (row.method, row.baseline, row.stamp) == ("ours", "ridge", stamp)
    assert row.difference == pytest.approx(row.value - row.baseline_value)


@pytest.mark.parametrize(
    ("baseline", "match"),
    [
        ({"recording": "r2"}, "no baseline answers toy/r1/velocity"),
        ({"y_true": np.zeros((400, 2))}, "different targets"),
        ({"y_true": np.zeros((3, 2))}, "different targets"),
    ],
)
def test_what_cannot_be_compared_is_refused(make_prediction: Make, baseline: dict, match: str) -> None:
    other = make_prediction("ridge", "baseline")
    other = make_prediction("ridge", "baseline", **baseline) if "recording" in baseline else other
    ours = make_prediction(**{k: v for k, v in baseline.items() if k != "recording"})
    with pytest.raises(ValueError, match=match):
        compare([other, ours])


def test_a_run_is_published_with_its_losses(make_prediction: Make, toy_cases, tmp_path: Path) -> None:
    baselines = [make_prediction(m, "baseline", noise, r) for r in ("r1", "r2") for m, noise in (("ridge", 0.5), ("knn", 0.7))]
    ours = [make_prediction(noise=0.2), make_prediction(noise=0.9, recording="r2")]
    cfg = ScoreConfig(seed=3, size="tiny", n_boot=200)
    report = publish(cfg, {tmp_path / "f1": ours, tmp_path / "f2": baselines}, toy_cases, tmp_path)
    assert {k: v for k, v in report.metrics.items() if k.startswith("ours.")} == {
        "ours.beats": 1, "ours.ties": 0, "ours.loses": 1, "ours.undecided": 0,
    }  # fmt: skip
    assert report.metrics["mean_r2.ridge"] == pytest.approx(0.75, abs=0.05)
    assert all(check.passed for check in report.checks)
    scores = read_scores(tmp_path / "scores.parquet")
    assert set(zip(scores.family, scores.fingerprint, strict=True)) == {("neurofmx", "f1"), ("baseline", "f2")}
    text = (tmp_path / "scores.md").read_text()
    assert f"{BEATS} (ridge: +" in text
    assert f"{LOSES} (ridge: -" in text
    assert all((tmp_path / path).stat().st_size for path in report.shown.values())


# ---------------------------------------------------------------- tasks with labels
@pytest.mark.parametrize(
    ("metric", "n_units", "gain", "stamp", "test"),
    [
        ("auroc", 30, 3.0, BEATS, WHOLE_UNITS),
        ("balanced_accuracy", 30, 1.01, TIES, WHOLE_UNITS),
        ("balanced_accuracy", 30, -1.0, LOSES, WHOLE_UNITS),
        ("mae", 30, -1.0, LOSES, WHOLE_UNITS),
        ("auroc", 8, 5.0, BEATS, SWAPS),
        ("mae", 8, -4.0, LOSES, SWAPS),
        ("auroc", 5, 50.0, NO_VERDICT, SWAPS),  # however clear, five units have no p below 2 / 2^5
    ],
)
def test_stamps_of_tasks_with_units(make_labels: Make, metric: str, n_units: int, gain: float, stamp: str, test: str) -> None:
    made = [make_labels(n_units, gain=g, metric=metric, noise_seed=1, mixed=True, method=m) for g, m in ((1.0, "lda"), (0.2, "knn"))]
    baselines = [dataclasses.replace(p, family="baseline") for p in made]
    row = compare([*baselines, make_labels(n_units, gain=gain, metric=metric, noise_seed=1, mixed=True)], n_boot=300).iloc[0]
    assert (row.baseline, row.stamp, row.test, row.pieces, row.metric) == ("lda", stamp, test, n_units, metric)
    better = row.baseline_value - row.value if metric == "mae" else row.value - row.baseline_value
    assert row.difference == pytest.approx(better)
    assert n_units != 5 or row.p == 2 / 2**5


def test_without_an_interval_there_is_no_verdict(make_labels: Make) -> None:
    """One person alone has the rarer class: resamples without that person have no area."""
    ours = make_labels(20, gain=3.0, metric="auroc")
    rare = dataclasses.replace(ours, y_true=(ours.units == ours.units[0]).astype(float)[:, None])
    row = compare([dataclasses.replace(rare, y_pred=-rare.y_pred, family="baseline", method="lda"), rare], n_boot=200).iloc[0]
    assert np.isnan(row.ci_low)
    assert (row.test, row.stamp) == (WHOLE_UNITS, NO_VERDICT)


def test_rows_of_tasks_with_labels(make_labels: Make, toy_cases) -> None:
    case = dataclasses.replace(toy_cases[0], recording="all", task=dataclasses.replace(toy_cases[0].task, name="state"))
    made = [make_labels(metric="auroc", gain=2.0), make_labels(metric="auroc", gain=0.0, method="guess", control=0.48)]
    table = score_predictions(made, [case], run="tiny-0", fingerprint="abc", n_boot=100)
    assert (table.metric == "auroc").all()
    assert (table.ci_low < table.value).all()
    assert (table.value < table.ci_high).all()
    assert table.p[0] < 0.01 < 0.05 < table.p[1]
    assert table.control[0] == pytest.approx(0.5, abs=0.05)
    assert table.control[1] == 0.48


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"units": np.arange(200)}, "or units"),
        ({"units": None}, "or units"),
        ({"metric": "kappa"}, "by auroc and .* by kappa"),
    ],
)
def test_rows_of_other_units_or_metrics_are_not_compared(make_labels: Make, change: dict, match: str) -> None:
    ours = make_labels(metric="auroc")
    other = dataclasses.replace(ours, method="lda", family="baseline", **change)
    with pytest.raises(ValueError, match=match):
        compare([other, ours])


@pytest.mark.parametrize(
    ("metric", "n", "control", "passed"),
    [
        ("r2", 1, 0.05, True),
        ("r2", 1, 0.2, False),
        ("auroc", 2, 0.4, True),
        ("auroc", 2, 0.6, True),  # twenty people allow that much
        ("auroc", 2, 0.95, False),
        ("balanced_accuracy", 4, 0.35, True),
        ("balanced_accuracy", 4, 0.8, False),
        ("mae", 2, 0.48, True),  # the median is off by 0.5
        ("mae", 2, 0.1, False),
    ],
)
def test_a_control_must_sit_at_its_metric_s_chance(
    make_prediction: Make, make_labels: Make, metric: str, n: int, control: float, passed: bool
) -> None:
    series = make_prediction(control=0.0)
    made = make_prediction(control=control) if metric == "r2" else make_labels(metric=metric, n=n, control=control)
    (check,) = control_check([series, made])
    assert check.passed == passed
    assert "largest_excess" in check.numbers


def test_controls_of_many_methods_without_knowledge_pass(make_labels: Make) -> None:
    blind = [make_labels(gain=0.0, metric=metric, seed=seed) for seed in range(30) for metric in ("auroc", "balanced_accuracy")]
    (check,) = control_check([dataclasses.replace(p, control=p.value) for p in blind])
    assert check.passed
    assert check.numbers["largest_excess"] > 1
