"""The scores table: its types, who beats whom, and the files of a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.score import publish
from neurofm_ml.evaluation.scores import BEATS, LOSES, TIES, compare, read_scores, score_predictions, write_scores
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
    assert {k: v for k, v in report.metrics.items() if k.startswith("ours.")} == {"ours.beats": 1, "ours.ties": 0, "ours.loses": 1}
    assert report.metrics["mean_r2.ridge"] == pytest.approx(0.75, abs=0.05)
    assert [c.passed for c in report.checks] == [True, True]
    scores = read_scores(tmp_path / "scores.parquet")
    assert set(zip(scores.family, scores.fingerprint, strict=True)) == {("neurofmx", "f1"), ("baseline", "f2")}
    text = (tmp_path / "scores.md").read_text()
    assert f"{BEATS} (ridge: +" in text
    assert f"{LOSES} (ridge: -" in text
    assert all((tmp_path / path).stat().st_size for path in report.shown.values())
