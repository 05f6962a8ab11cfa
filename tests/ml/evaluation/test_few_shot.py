"""Few labels: who is drawn, what is fitted to them alone, how sure the mean over draws is, and curves of planted tasks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted_places import PERSON, labels, series

from neurofm_ml import metrics
from neurofm_ml.evaluation.scoring.scores import read_scores
from neurofm_ml.evaluation.shots.few_shot import (
    EXAMPLE_COLUMNS,
    PROBE,
    RAW,
    SCRATCH,
    Question,
    count,
    few_shot,
    interval_over,
    publish,
    rows_of,
)
from neurofm_ml.evaluation.shots.scratch import components, fit_networks
from neurofm_ml.evaluation.shots.shot_methods import ridge
from neurofm_ml.evaluation.shots.shots import draw, folds, kept, same_rows, shuffled, trials_of
from neurofm_ml.evaluation.statistics.resampling import score_interval
from neurofm_ml.evaluation.transfer.examples import Examples, joined
from neurofm_ml.presets import FewShotConfig

CFG = FewShotConfig(seed=0, size="tiny", shots=(1, 10), draws=5, n_boot=100, n_perm=100)
SHARED = np.random.default_rng(0).normal(size=(6, 2))


def in_trials(examples: Examples, rows: int) -> Examples:
    """Trials, and units, of several rows with one label; the first half is for training, then validation, then test."""
    n = len(examples.y)
    trial = np.arange(n) // rows
    y = examples.y[trial * rows]
    about = examples.about.assign(trial=trial, unit=trial, split=np.where(trial * rows < n // 2, "train", "test"))
    return replace(examples, y=y, about=about)


# ---------------------------------------------------------------- drawing
def test_whole_trials_are_drawn_as_many_of_each_class_and_others_for_each_seed() -> None:
    examples = in_trials(labels(0.0, 0, n=240), 4)
    for k in (1, 5):
        part = kept(examples, draw(examples, k, [0, k]))
        assert set(part.about.split) == {"train"}
        assert part.about.groupby("trial").size().eq(4).all()
        assert [len(np.unique(part.about.trial[part.y[:, 0] == c])) for c in (0, 1)] == [k, k]
        assert not set(part.about.unit) & set(examples.split("test").about.unit)
    assert draw(examples, 5, [1]) == draw(examples, 5, [1]) != draw(examples, 5, [2])
    assert draw(examples, 30, [0]) is None
    assert len(kept(examples, None).y) == 120


def test_examples_are_counted_as_they_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = [Question("toy", "r", in_trials(labels(2.0, 0, n=240), 4), []), Question("toy", "s", series(SHARED, 0.3, 0, n=80), [])]
    assert [count(question) for question in asked] == [
        {"dataset": "toy", "recording": "r", "task": "state", "examples": 30, "classes": 2},
        {"dataset": "toy", "recording": "s", "task": "velocity", "examples": 40, "classes": 0},
    ]
    monkeypatch.setattr("neurofm_ml.evaluation.shots.few_shot.load_features", lambda path: {})
    monkeypatch.setattr("neurofm_ml.evaluation.shots.few_shot.questions", lambda *given: iter(asked[:1]))
    few_shot(replace(CFG, shots=(1,)), tmp_path, [], [], tmp_path)
    table = pd.read_parquet(tmp_path / "examples.parquet")
    assert list(table) == list(EXAMPLE_COLUMNS)
    assert table.examples.tolist() == [30]


def test_seconds_of_a_series_and_people_for_a_number() -> None:
    recording = series(SHARED, 0.3, 0, n=80)
    assert len(set(draw(recording, 10, [0]) or ())) == 10
    assert draw(recording, 41, [0]) is None
    person = replace(labels(0.0, 0), task=replace(PERSON, name="age", target="subject.age", classes=(), metric="r2"))
    assert draw(person, 1, [0]) is None
    assert len(draw(person, 5, [0]) or ()) == 5


def test_the_same_rows_are_found_in_another_order() -> None:
    examples = joined([labels(1.0, k, n=12, recording=f"r{k}") for k in range(2)])
    order = np.random.default_rng(0).permutation(24)
    found = same_rows(examples.where(order), examples.where(np.arange(5, 20)))
    assert np.array_equal(found.x, examples.x[5:20])
    assert (trials_of(found) == trials_of(examples)[5:20].to_numpy()).all()


def test_controls_keep_labels_of_a_trial_together_and_roll_series() -> None:
    examples = in_trials(labels(0.0, 0, n=80), 4)
    found = shuffled(examples, [0])
    assert sorted(found.y[::4, 0]) == sorted(examples.y[::4, 0])
    assert not np.array_equal(found.y, examples.y)
    assert all(len(np.unique(found.y[examples.about.trial == t])) == 1 for t in range(20))
    recording = series(SHARED, 0.3, 0, n=10)
    assert np.array_equal(shuffled(recording, [0]).y, np.roll(recording.y, 5, axis=0))


def test_neighbours_in_time_and_rows_of_a_unit_are_left_out_together() -> None:
    recording = series(SHARED, 0.3, 0, n=20)
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(folds(recording.where(order)), order // 4)
    trials = in_trials(labels(0.0, 0, n=40), 4)
    assert np.array_equal(folds(trials), np.arange(40) // 4)
    people = replace(trials, about=trials.about.assign(unit=np.arange(40) // 10))
    assert np.array_equal(folds(people), np.arange(40) // 10)
    assert np.array_equal(folds(replace(trials, about=trials.about.assign(unit=0))), np.arange(40) // 4)


# ---------------------------------------------------------------- fitting
def test_labels_that_were_not_drawn_change_nothing() -> None:
    """Not those of other training rows, of validation rows, or of test rows."""
    for examples in (labels(1.0, 0), series(SHARED, 0.5, 1)):
        draws = [draw(examples, 5, [s]) for s in range(3)]
        chosen = trials_of(examples).isin([name for names in draws for name in names or ()]).to_numpy()
        spoiled = replace(examples, y=np.where(chosen[:, None], examples.y, 1 - examples.y))
        assert np.array_equal(ridge([examples], draws, 0).said, ridge([spoiled], draws, 0).said)


def test_the_better_view_is_chosen_from_the_few_labels_alone() -> None:
    good = series(SHARED, 0.2, 1)
    bad = replace(good, x=np.random.default_rng(5).normal(size=good.x.shape))
    draws = [draw(good, 25, [s]) for s in range(4)]
    assert np.array_equal(ridge([bad, good], draws, 0).said, ridge([good], draws, 0).said)


def test_networks_trained_together_are_those_trained_alone() -> None:
    examples = labels(3.0, 0, n=200)
    x = components(examples)
    sets = [kept(replace(examples, x=x), draw(examples, k, [k])) for k in (5, 20)]
    test = x[examples.about.split == "test"]
    parts = [[s.x for s in sets], [s.targets for s in sets], [s.weights for s in sets]]
    said = fit_networks(*parts, test, classes=True, seed=0)
    assert np.allclose(said[0], fit_networks(*[part[:1] for part in parts], test, classes=True, seed=0)[0], atol=1e-4)
    assert metrics.auroc(examples.split("test").y[:, 0], said[1]) > 0.9
    assert np.allclose(said.sum(2), 1)


def test_a_network_fits_numbers_in_their_unit() -> None:
    recording = series(SHARED, 0.1, 1)
    part = kept(replace(recording, x=components(recording)), None)
    moved = 100 + 50 * part.y
    said = fit_networks([part.x], [moved], [part.weights], part.x, classes=False, seed=0)[0]
    assert metrics.r2(moved, said) > 0.9


# ---------------------------------------------------------------- intervals
def test_an_interval_joins_the_doubt_of_test_rows_and_of_draws() -> None:
    test = series(SHARED, 0.5, 1).split("test")
    rng = np.random.default_rng(0)
    same = np.stack([test.y + 0.5 * rng.normal(size=test.y.shape)] * 6)
    one = score_interval("r2", test.y, same[0], None, 200, 0)
    value, low, high = interval_over("r2", test, same, 200, 0)
    assert (value, low) == pytest.approx((one.value, one.low))
    assert interval_over("r2", test, same[:1], 200, 0)[1] == pytest.approx(one.low)
    differing = np.stack([test.y + scale * rng.normal(size=test.y.shape) for scale in (0.1, 0.5, 0.9, 1.1, 0.3, 0.7)])
    value, low, high = interval_over("r2", test, differing, 200, 0)
    scores = [metrics.r2(test.y, said) for said in differing]
    assert value == pytest.approx(np.mean(scores))
    assert value - low > 2.57 * np.std(scores, ddof=1) / np.sqrt(6)
    assert high <= 1


# ---------------------------------------------------------------- curves
@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """Features that hold the answer in one direction; the recordings hold it behind forty times as many directions of noise."""
    found, left_out = [], {}
    for k, examples in enumerate((labels(2.0, 1, n=240, d=4), series(SHARED[:4], 0.3, 2, n=600))):
        noise = np.random.default_rng(9).normal(size=(len(examples.y), 160))
        raw = replace(examples, x=np.concatenate([examples.x, 2 * noise], axis=1))
        question = Question("toy", "r", examples, [raw] if k == 0 else [raw] * 4)
        assert question.lacks == ""
        found += rows_of(question, CFG, left_out)
    assert left_out == {}
    return found


def test_few_labels_are_worth_more_on_features_that_hold_the_answer(rows: list[dict]) -> None:
    table = pd.DataFrame(rows).set_index(["task", "method", "k_shot"]).sort_index()
    for task in ("state", "velocity"):
        probe, raw, scratch = (table.loc[task, method] for method in (PROBE, RAW, SCRATCH))
        assert probe.value[10.0] > raw.value[10.0] + 0.1
        assert probe.value[10.0] > scratch.value[10.0] + 0.1
        assert probe.value[10.0] > probe.value[1.0]
        assert probe.value[np.nan] >= probe.value[10.0] - 0.02
        assert (probe.p.iloc[1:] < 0.05).all()
        assert ((probe.ci_low <= probe.value) & (probe.value <= probe.ci_high)).all()
    assert abs(table.loc["state"].control.mean() - 0.5) < 0.1
    assert table.loc["velocity"].control.mean() < 0.1
    assert set(table.reset_index().family) == {"neurofmx", "baseline"}


def test_table_picture_and_checks(rows: list[dict], tmp_path: Path) -> None:
    constant = {"run": "tiny-0", "fingerprint": "abc", "size": "tiny", "seed": 0}
    report = publish([{**constant, **row} for row in rows], {"a": "b"}, tmp_path)
    table = read_scores(tmp_path / "scores.parquet")
    assert len(table) == 2 * 3 * 3
    assert {check.name: check.passed for check in report.checks} == {"table_is_valid": True, "controls_at_chance": True}
    assert report.metrics[f"{PROBE}.auroc.10"] > report.metrics[f"{RAW}.auroc.10"]
    assert (tmp_path / "few_shot.png").stat().st_size > 10_000
    assert publish([], {}, tmp_path).metrics["rows"] == 0


def test_controls_are_held_against_the_chance_of_their_metric(rows: list[dict], tmp_path: Path) -> None:
    """An error at chance is fine; an accuracy that exchanged labels reach is not."""
    told = [{"run": "tiny-0", "fingerprint": "abc", "size": "tiny", "seed": 0, **row} for row in rows]
    fine = publish([{**row, "metric": "mae", "control": 5.0, "excess": -0.1} for row in told], {}, tmp_path)
    leaky = publish([{**row, "metric": "balanced_accuracy", "control": 0.99, "excess": 0.49} for row in told], {}, tmp_path)
    assert [{check.name: check.passed for check in report.checks}["controls_at_chance"] for report in (fine, leaky)] == [True, False]


def test_a_probe_whose_model_learned_from_the_labels_is_not_called_few_shot() -> None:
    rows = rows_of(Question("toy", "r", labels(2.0, 1), [], seen=True), replace(CFG, shots=(5,)), {})
    assert {(row["method"], row["family"]) for row in rows} == {("linear_probe_of_seen_labels", "neurofmx")}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda e: e.where((e.about.split != "test").to_numpy()), "no training or no test rows"),
        (lambda e: replace(e, y=np.where((e.about.split == "test").to_numpy()[:, None], 1.0, e.y)), "fewer than two test units of a class"),
    ],
)
def test_what_cannot_be_scored_is_left_out_by_name(spoil, why: str) -> None:
    assert why in Question("toy", "all", spoil(labels(1.0, 0)), []).lacks


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"draws": 4}, r"draws is 4; an interval over draws needs 5"),
        ({"shots": ()}, r"shots is \(\); it needs numbers of examples"),
        ({"shots": (0, 5)}, r"shots is \(0, 5\)"),
        ({"n_boot": 0}, "n_boot is 0; it must be positive"),
    ],
)
def test_wrong_configs_are_refused(changes: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FewShotConfig(**{"seed": 0, "size": "tiny", **changes})
