"""Labelled windows of planted recordings: found by hand and by the code, cut about their events, kept apart, permuted, pooled."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml.config import to_dict
from neurofm_ml.data.batches import build_vocabulary, neural_signals
from neurofm_ml.data.recordings import load_card, save_recording
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.evaluation.baselines.baselines import questions
from neurofm_ml.evaluation.tasks import label_tasks as tasks_module
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, find_label_cases, find_pooled_cases, leave_sites_out, pool
from neurofm_ml.evaluation.tasks.label_windows import STRETCH, LabelSource
from neurofm_ml.evaluation.tasks.tasks import find_cases, find_encoding_cases
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, TaskSpec
from neurofm_ml.knowledge.pools import Pool
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import SPLITS, BaselinesConfig, ShardsConfig
from neurofm_ml.training.problems import find_problems
from neurofm_ml.types import Array, Intervals, Recording, Signal, Subject

HZ, SECONDS = 16, 24
#: What follows an event: a peak half a second later, up for "up" and down for "down".
ANSWER = np.exp(-0.5 * ((np.arange(16) - 8) / 2) ** 2)
EVENT = TaskSpec(
    name="event", target="intervals.events", during=(0.5, 1.0), epoch=(0.0, 1.0), inputs=("eeg",), classes=("down", "up"), metric="auroc"
)
TASKS = (
    EVENT,
    dataclasses.replace(EVENT, name="any", classes=("", "up")),
    TaskSpec(name="state", target="intervals.state", inputs=("eeg",), classes=("calm", "busy"), metric="balanced_accuracy"),
    TaskSpec(name="sex", target="subject.sex", inputs=("eeg",), classes=("male", "female"), metric="auroc"),
    TaskSpec(name="age", target="subject.age", inputs=("eeg", "meg")),
    TaskSpec(name="site", target="subject.site", inputs=("eeg",), classes=("here", "there"), metric="auroc"),
    TaskSpec(name="tone", target="eeg", channels=("a",), inputs=("tone",), category="encoding", metric="pearson"),
)
CARD = DatasetCard(
    name="here",
    title="planted events",
    species="Homo sapiens",
    licence="CC0",
    source="this test",
    reader="arrays",
    session="cap",
    signals={
        "eeg": SignalSpec(modality="eeg"),
        "meg": SignalSpec(modality="meg"),
        "tone": SignalSpec(modality="audio"),
        "slow": SignalSpec(modality="audio"),
    },
    grid_hz=HZ,
    window_s=2,
    stride_s=0.5,
    split=SplitSpec(kind="subject", train=0.5, validation=0.25),
    tasks=TASKS,
)


def recorded(k: int, site: str) -> Recording:
    """One person: an event every three seconds or so; calm and busy in turn."""
    rng = np.random.default_rng([k, len(site)])
    start = (np.arange(1, 8) * 3 + rng.integers(0, 8, 7) / HZ).astype(float)
    labels = tuple(rng.permutation(["up", "down", "up", "down", "up", "down", "other"]))
    eeg = np.zeros((SECONDS * HZ, 2), np.float32)
    for at, label in zip(start, labels, strict=True):
        first = round(at * HZ)
        eeg[first : first + 16, 0] += ({"up": 1, "down": -1, "other": 0}[label] * ANSWER)[: len(eeg) - first]
    eeg[:, 1] = k + 1
    tone = rng.standard_normal((SECONDS * HZ, 1)).astype(np.float32)
    turns = np.array([0.0, 9.0, 16.0, 20.0, SECONDS])
    return Recording(
        id=f"{site}{k}",
        dataset=site,
        subject=Subject(f"p{k}", age=None if k == 0 else 20.0 + k, sex=("male", "female")[k % 2], site=site),
        session="cap",
        species="Homo sapiens",
        licence="CC0",
        signals={
            "eeg": Signal(eeg, HZ, "eeg", ch_names=("a", "b"), positions=np.eye(2, 3)),
            "meg": Signal(eeg[:, :1] * 2, HZ, "meg", ch_names=("a",)),
            "tone": Signal(tone, HZ, "audio"),
            "slow": Signal(tone[::2], HZ / 2, "audio"),
        },
        intervals={
            "events": Intervals(start, start, labels),
            "state": Intervals(turns[:-1], turns[1:], ("calm", "busy") * 2),
        },
        span=(0.0, SECONDS),
    )


Write = Callable[..., Path]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Shards of eight people of a site, its card changed."""

    def made(site: str = "here", **changes: Any) -> Path:
        card = dataclasses.replace(CARD, name=site, **changes)
        source, out = tmp_path_factory.mktemp("recordings"), tmp_path_factory.mktemp("shards")
        for k in range(8):
            save_recording(recorded(k, site), source / "recordings")
        (source / "card.json").write_text(json.dumps(to_dict(card)))
        shard_recordings(ShardsConfig(dataset=site), source, out)
        return out

    return made


@pytest.fixture(scope="module")
def people(write: Write) -> Path:
    """Split by person."""
    return write()


@pytest.fixture(scope="module")
def blocks(write: Write) -> Path:
    """Split in time."""
    return write(split=SplitSpec(gap_s=0.5))


def cases_of(shards: Path) -> dict[str, LabelCase]:
    return {case.task.name: case for case in find_label_cases(shards, [])}


def by_hand(task: TaskSpec, recording: Recording, middle: float) -> str | None:
    """Label of the window around `middle`."""
    intervals = recording.intervals[task.target.partition(".")[2]]
    first, last = task.during or (0.0, np.inf)
    ends = np.full(len(intervals.start), np.inf) if task.during else intervals.end
    found = [k for k, (a, b) in enumerate(zip(intervals.start, ends, strict=True)) if a + first <= middle < min(a + last, b)]
    said = intervals.labels[found[-1]] if found else ""
    return said if said in task.classes else None


@pytest.mark.parametrize("name", ["event", "any", "state"])
def test_windows_with_a_label_are_those_found_by_hand(people: Path, name: str) -> None:
    data = cases_of(people)[name].data
    found = {(r.recording, r.start): data.classes[int(y)] for r, y in zip(data.rows.itertuples(), data.y, strict=True)}
    starts = np.arange(0, SECONDS - 2 + 0.1, 0.5)
    told = {(f"here{k}", s): by_hand(data.task, recorded(k, "here"), s + 1) for k in range(8) for s in starts}
    assert found == {window: label for window, label in told.items() if label is not None}
    assert list(data.rows.split) == sorted(data.rows.split, key=SPLITS.index)


def test_epochs_begin_where_the_event_does(people: Path) -> None:
    data = cases_of(people)["event"].data
    for split in SPLITS:
        for signal, label in zip(data.windows(split), data.labels(split), strict=True):
            assert (signal.values.shape, signal.values.dtype) == ((16, 2), np.float64)
            np.testing.assert_allclose(signal.values[:, 0], ANSWER if label else -ANSWER, atol=1e-6)


def test_windows_without_an_event_are_cut_alike(people: Path) -> None:
    data = cases_of(people)["any"].data
    quiet = np.isnan(data.rows.onset.to_numpy())
    assert np.array_equal(quiet, data.y == 0)
    assert 0 < quiet.sum() < len(quiet)
    assert {signal.values.shape for split in SPLITS for signal in data.windows(split)} == {(16, 2)}


def test_windows_are_what_was_recorded(people: Path) -> None:
    data = cases_of(people)["sex"].data
    rows = data.rows[data.rows.split == "test"]
    for signal, row in zip(data.windows("test"), rows.itertuples(), strict=True):
        original = recorded(int(row.subject[1:]), "here").signals["eeg"]
        assert isinstance(original, Signal)
        np.testing.assert_array_equal(signal.values, original.slice(row.start, row.end).values)
        assert (signal.sfreq, signal.t0, signal.ch_names, signal.modality) == (HZ, row.start, ("a", "b"), "eeg")
        np.testing.assert_array_equal(np.asarray(signal.positions), np.eye(2, 3))


def test_inputs_of_one_rate_stand_side_by_side(people: Path) -> None:
    case = cases_of(people)["age"]
    signal = next(case.data.windows("test"))
    assert (case.modality, signal.ch_names) == ("eeg+meg", ("eeg.a", "eeg.b", "meg.a"))
    np.testing.assert_array_equal(signal.values[:, 2], signal.values[:, 0] * 2)


def test_people_are_units_where_people_are_split(people: Path) -> None:
    cases = cases_of(people)
    for name in ("event", "state", "sex"):
        rows = cases[name].data.rows
        assert rows.groupby("unit").subject.nunique().tolist() == [1] * 8
        assert rows.groupby("unit").split.nunique().max() == 1
    assert cases["age"].data.rows.subject.nunique() == 7, "one age is unknown"
    assert cases["sex"].data.rows.trial.nunique() == 8


def test_trials_are_units_where_time_is_split(blocks: Path) -> None:
    cases = cases_of(blocks)
    events, state = cases["event"].data.rows, cases["state"].data.rows
    assert np.array_equal(events.unit, events.trial)
    assert (events.groupby("trial").apply(lambda r: (r.start + r.onset).round(6).nunique(), include_groups=False) == 1).all()
    spans = state.groupby("trial").start.agg(np.ptp)
    assert spans.max() < STRETCH * CARD.window_s, "a state that lasts counts as several trials"
    assert state.groupby("trial").recording.nunique().max() == 1


@pytest.mark.parametrize("name", ["event", "state", "sex"])
def test_permuted_labels_go_from_trial_to_trial_within_a_split(people: Path, name: str) -> None:
    data = cases_of(people)[name].data
    permuted = [data.with_permuted_labels(seed) for seed in range(8)]
    trials = data.rows.assign(y=data.y).groupby("trial").first()
    for other in permuted:
        moved = data.rows.assign(y=other.y)
        assert moved.groupby("trial").y.nunique().max() == 1, "a trial keeps one label"
        for split in SPLITS:
            counts = moved.groupby("trial").first()
            assert sorted(counts.y[counts.split == split]) == sorted(trials.y[trials.split == split])
    assert any(not np.array_equal(other.y, data.y) for other in permuted)
    np.testing.assert_array_equal(data.with_permuted_labels(3).y, permuted[3].y)


def test_what_is_asked_of_a_person_is_answered_once_per_recording(people: Path) -> None:
    case = cases_of(people)["sex"]
    rows = case.data.rows[case.data.rows.split == "test"]
    said = np.random.default_rng(0).dirichlet([1, 1], len(rows))
    told = case.prediction("ours", "probe", said, seed=0, parameters=1, train_seconds=1.0, samples_per_second=1.0)
    means = rows.assign(p=said[:, 1], y=case.data.labels("test")).groupby("recording", sort=False)[["p", "y", "unit", "start"]].mean()
    np.testing.assert_allclose(told.y_pred[:, 1], means.p)
    np.testing.assert_array_equal(told.y_true[:, 0], means.y)
    np.testing.assert_array_equal(told.units, means.unit)
    assert (told.case, told.metric, told.trained_on) == (("here", "all", "sex"), "auroc", "here")
    assert case.data.score("test", said) == SCORES["auroc"].value(told.y_true, told.y_pred)


def test_what_is_asked_of_a_window_is_answered_by_it(people: Path) -> None:
    case = cases_of(people)["event"]
    rows = case.data.rows[case.data.rows.split == "test"]
    said = np.stack([1 - case.data.labels("test"), case.data.labels("test")], axis=1)
    told = case.prediction("ours", "probe", said, seed=0, parameters=1, train_seconds=1.0, samples_per_second=1.0)
    np.testing.assert_array_equal(told.times, rows.start)
    assert case.data.score("test", said) == 1.0
    with pytest.raises(ValueError, match=f"task 'event': 3 answers for the {len(rows)} windows of split 'test'; give each one"):
        case.data.score("test", said[:3])


# ---------------------------------------------------------------- several datasets
@pytest.fixture(scope="module")
def sites(people: Path, write: Write) -> list[Path]:
    return [people, write("there")]


@pytest.fixture
def planted_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of the two sites: the age of everybody, and where they are."""
    across = tuple(task for task in TASKS if task.name == "site")
    made = Pool(datasets=("here", "there"), tasks=("age",), across=across)
    monkeypatch.setattr("neurofm_ml.evaluation.tasks.label_tasks.POOLS", {"everywhere": made})


def test_a_site_is_told_across_datasets_alone(sites: list[Path], planted_pool: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert "site" not in cases_of(sites[0])
    assert "here/site is left out: all windows of train, validation, test have one label or none." in caplog.text
    assert find_pooled_cases(sites[:1], []) == []
    age, site = find_pooled_cases(sites, [])
    assert (site.key, age.key, site.shards) == (("everywhere", "all", "site"), ("everywhere", "all", "age"), tuple(sites))
    rows = site.data.rows
    assert np.array_equal(site.data.y == 0, rows.dataset == "here")
    assert rows.unit.nunique() == 16, "p1 here is not p1 there"
    for signal, row in zip(site.data.windows("train"), rows[rows.split == "train"].itertuples(), strict=True):
        assert signal.values[0, 1] == int(row.subject[1:]) + 1
        assert signal.t0 == row.start


def test_a_site_that_is_left_out_is_seen_in_the_test_alone(sites: list[Path], planted_pool: None) -> None:
    age, site = find_pooled_cases(sites, [])
    assert leave_sites_out(site) == []
    before = age.data.rows.set_index(["dataset", "key"]).split
    for case in leave_sites_out(age):
        rows = case.data.rows
        assert case.key[1] == f"without_{case.left_out}"
        assert np.array_equal(rows.split == "test", rows.site == case.left_out)
        assert len(rows) == len(before)
        others = rows[rows.site != case.left_out].set_index(["dataset", "key"])
        assert np.array_equal(others.split == "validation", before.loc[others.index] == "validation")


def test_baselines_of_a_pool_answer_its_tasks_and_those_of_each_site_left_out(
    sites: list[Path], planted_pool: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neurofm_ml.evaluation.baselines.baselines.POOLS", tasks_module.POOLS)
    with pytest.raises(ValueError, match="pool 'everywhere' lacks the shards of there"):
        list(questions(BaselinesConfig(dataset="everywhere"), sites[:1], [], tmp_path))
    asked = list(questions(BaselinesConfig(dataset="everywhere"), sites, [], tmp_path))
    age = {("everywhere", where, "age") for where in ("all", "without_here", "without_there")}
    assert {q.case.key for q in asked} == {*age, ("everywhere", "all", "site")}
    assert {len(q.case.data.y) for q in asked if q.case.key in age} == {asked[0].case.data.y.size}


def test_inputs_of_two_rates_are_refused(people: Path) -> None:
    case = pool("here", [LabelSource(people)], dataclasses.replace(TASKS[3], inputs=("eeg", "slow")), [])
    with pytest.raises(ValueError, match="task 'sex': inputs have 'eeg' 16 Hz, 'slow' 8 Hz; name inputs of one rate"):
        next(case.data.windows("test"))


# ---------------------------------------------------------------- encoding
def test_activity_told_from_a_stimulus_is_no_decoding(blocks: Path) -> None:
    card = load_card(blocks)
    assert (card.series_tasks, [task.name for task in card.encoding_tasks]) == ((), ["tone"])
    assert build_vocabulary([blocks]).tasks == {}
    assert neural_signals(card) == ("eeg", "meg"), "what is encoded is still read"
    assert (list(find_problems(blocks)), find_cases(blocks, [])) == ([], [])
    cases = find_encoding_cases(blocks, [])
    assert [case.key for case in cases] == [("here", f"here{k}", "tone") for k in range(8)]
    assert {case.modality for case in cases} == {"eeg"}
    x: Array = cases[3].data.x["test"]
    tone = recorded(3, "here").signals["tone"]
    assert isinstance(tone, Signal)
    assert np.corrcoef(x[:, 0], tone.values[-len(x) :, 0])[0, 1] == pytest.approx(1)


def test_encoding_asks_nothing_of_recordings_that_are_split_whole(people: Path) -> None:
    assert find_encoding_cases(people, []) == []


def test_pooling_keeps_each_source(sites: list[Path]) -> None:
    case = pool("both", [LabelSource(path) for path in sites], EVENT, [])
    assert set(case.data.rows.dataset) == {"here", "there"}
    for signal, label in zip(case.data.windows("validation"), case.data.labels("validation"), strict=True):
        np.testing.assert_allclose(signal.values[:, 0], ANSWER if label else -ANSWER, atol=1e-6)
