"""The table of tasks: all that cards and pools state, what any signal can be asked, one row each."""

import dataclasses
import re
from collections import Counter
from typing import get_args

import pytest

from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.pools import POOLS
from neurofm_ml.knowledge.task_spec import OF_NUMBERS, OF_TWO, Metric
from neurofm_ml.knowledge.task_table import CATEGORIES, forecast_name, reconstruction_name, tasks
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import READ, BaselinesConfig


def test_every_task_of_every_card_and_pool_is_a_row() -> None:
    rows = {(row.dataset, row.task): row for row in tasks()}
    assert len(rows) == len(tasks()), "each once"
    for name in datasets():
        for task in datasets()[name].tasks:
            row = rows[name, task.name]
            assert (row.category, row.target, row.metric, row.inputs) == (task.category, task.target, task.metric, task.inputs)
    for name in POOLS:
        assert {task for dataset, task in rows if dataset == name} == {
            task.name for task in POOLS[name].specs([datasets()[d] for d in POOLS[name].datasets])
        }


def test_every_category_is_there_and_scored_by_a_known_metric() -> None:
    found = Counter(row.category for row in tasks())
    assert set(found) == set(CATEGORIES)
    assert {row.metric for row in tasks() if row.category != "alignment"} <= set(SCORES)
    people = {row.target for row in tasks() if row.category == "person"}
    assert {"subject.age", "subject.sex", "subject.diagnosis", "subject.iq", "subject.site"} <= people


def test_neural_signals_split_in_time_are_forecast_and_reconstructed() -> None:
    rows = {(row.dataset, row.task) for row in tasks((0.5,))}
    for name in datasets():
        card = datasets()[name]
        for signal, spec in card.signals.items():
            asked = card.split.kind == "block" and spec.modality in READ and signal not in {t.target for t in card.series_tasks}
            assert ((name, forecast_name(signal, 0.5)) in rows) == asked
            assert ((name, reconstruction_name(signal)) in rows) == asked


def test_forecasts_reach_as_far_as_those_of_the_baselines() -> None:
    names = {row.task for row in tasks() if row.dataset == "eeglab_sample" and row.category == "forecasting"}
    assert names == {f"eeg_in_{horizon:g}s" for horizon in BaselinesConfig(dataset="eeglab_sample").horizons_s}


def test_streams_that_are_never_there_at_once_are_not_aligned() -> None:
    aligned = [row.task for row in tasks() if row.category == "alignment" and row.dataset == "yasa_sleep_snippets"]
    assert aligned == [], "each of its signals is in a recording of its own"


def test_how_windows_are_kept_apart_is_said() -> None:
    rows = {(row.dataset, row.task): row.split for row in tasks()}
    assert rows["alice_listening", "word_rate"] == "blocks of time 60% / 15% / 25%, 20 s apart"
    assert rows["qtab_partlycloudy", "age"] == "whole families 60% / 15% / 25%"
    assert rows["abide", "diagnosis"] == "whole subjects 60% / 15% / 25%; leave one site out"


def test_cards_name_the_metrics_that_there_are() -> None:
    assert set(get_args(Metric)) == set(SCORES)
    for name in get_args(Metric):
        assert (name in OF_NUMBERS) == (SCORES[name].of != "classes")
        assert not (name in OF_TWO and SCORES[name].of != "classes")


@pytest.mark.parametrize("name", list(POOLS))
def test_the_datasets_of_a_pool_have_its_tasks_and_channels(name: str) -> None:
    cards = [datasets()[member] for member in POOLS[name].datasets]
    for task in POOLS[name].specs(cards):
        for card in cards:
            assert set(task.inputs) <= set(card.signals)
            stated = {t.name: t for t in card.tasks}
            assert stated.get(task.name, task) == task
            assert (task.name in stated) != (task in POOLS[name].across)
    assert {re.sub("_[a-z]+$", "", card.name) for card in cards} == {name}
    other = dataclasses.replace(
        cards[1], tasks=tuple(dataclasses.replace(t, metric="r2") if t.name == "age" else t for t in cards[1].tasks)
    )
    with pytest.raises(ValueError, match="task 'age' is not the same in the cards of"):
        POOLS[name].specs([cards[0], other])
