"""Sampling: what can be drawn, how often in theory and in fact, and resumed exactly."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from neurofm_ml.config import patch
from neurofm_ml.data.batches import Collate, build_vocabulary
from neurofm_ml.data.mixture import Draw
from neurofm_ml.presets import SamplingConfig, StageConfig, TrainConfig
from neurofm_ml.training.sampling import Source, groups, mixture, sources


def source(dataset: str, modalities: str, n: int, labelled: bool = False) -> Source:
    return Source(Path(dataset), dataset, labelled, tuple(modalities.split("+")), (), tuple(f"{k}" for k in range(n)))


#: Windows: spikes 100 + 700, lfp 100, both 100.
FOUND = [source("a", "spikes", 100, True), source("b", "spikes", 700), source("b", "lfp", 100), source("c", "spikes+lfp", 100)]
NAMES = ["a:spikes", "b:spikes", "b:lfp", "c:spikes+lfp"]
CUBE = np.array([800 ** (1 / 3) / 8, 800 ** (1 / 3) * 7 / 8, 100 ** (1 / 3), 100 ** (1 / 3)])

EXPECTED = [
    ({"rule": "proportional"}, [0.1, 0.7, 0.1, 0.1]),
    ({"rule": "temperature", "temperature": 1.0}, [0.1, 0.7, 0.1, 0.1]),
    ({"rule": "temperature", "temperature": 3.0}, (CUBE / CUBE.sum()).tolist()),
    ({"rule": "temperature", "temperature": 1e9}, [1 / 24, 7 / 24, 1 / 3, 1 / 3]),
    ({"rule": "round_robin"}, [1 / 24, 7 / 24, 1 / 3, 1 / 3]),
    ({"rule": "labelled"}, [0.75, 0.0625, 0.0625, 0.125]),
]


def cfg(**more) -> SamplingConfig:
    return patch(SamplingConfig(), more)


@pytest.mark.parametrize(("rule", "expected"), EXPECTED)
def test_expected_shares_in_closed_form(rule, expected):
    found = Counter[str]()
    weights = groups(FOUND, cfg(**rule), labelled_share=0.75)
    for group in weights:
        for name, weight in group.items():
            found[name] += weight / sum(group.values()) / len(weights)
    assert [found[name] for name in NAMES] == pytest.approx(expected)


@pytest.mark.parametrize(("rule", "expected"), EXPECTED)
def test_drawn_shares_by_chi_square(rule, expected):
    draw = Draw(groups(FOUND, cfg(**rule), labelled_share=0.75), seed=1)
    counts = Counter(draw(step) for step in range(6000))
    assert chisquare([counts[name] for name in NAMES], 6000 * np.array(expected)).pvalue > 0.01


def test_in_turn_means_in_turn():
    draw = Draw(groups(FOUND, cfg(rule="round_robin"), labelled_share=0.75), seed=0)
    turns = [draw(step).split(":")[1] for step in range(30)]
    assert turns == ["lfp", "spikes", "spikes+lfp"] * 10
    assert [draw(step) for step in reversed(range(30))] == [draw(step) for step in range(30)][::-1]


def test_unusable_values_are_refused():
    for changes, message in (
        ({"temperature": 0.0}, "temperature is 0.0; it must be positive"),
        ({"rule": "all"}, "rule is 'all'; allowed"),
    ):
        with pytest.raises(ValueError, match=message):
            cfg(**changes)


# ---------------------------------------------------------------- sources of real shards
def stage(kind: str, **more) -> StageConfig:
    return StageConfig(kind=kind, objectives={"masked": 1.0}, fusion="none" if kind == "unimodal" else "early", **more)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (stage("unimodal"), ["calcium", "eeg", "spikes"]),
        (stage("unimodal", modalities=("eeg", "fmri")), ["eeg"]),
        (stage("pairwise"), ["calcium+eeg", "spikes+calcium", "spikes+eeg"]),
        (stage("pairwise", modalities=("eeg", "spikes")), ["spikes+eeg"]),
        (stage("pairwise", pairs=(("eeg", "spikes"), ("eeg", "meg"))), ["spikes+eeg"]),
        (stage("multimodal"), ["spikes+calcium+eeg"]),
        (stage("multimodal", modalities=("spikes", "meg")), ["spikes"]),
    ],
)
def test_sources_of_a_stage(asked, expected, shards):
    found = sources([shards], asked)
    table = pd.read_parquet(shards / "windows.parquet")
    assert sorted("+".join(s.modalities) for s in found) == expected
    for each in found:
        assert each.signals == tuple(n for n in ("spikes", "calcium", "eeg") if n in each.modalities)
        assert set(each.keys) == set(table.loc[table.split == "train", "key"])


def test_a_stage_that_nothing_serves_is_refused(shards):
    for asked, message in (
        (stage("unimodal", modalities=("meg",)), "serves the unimodal stage of meg"),
        (stage("pairwise", pairs=(("meg", "eeg"),)), r"serves the pairwise stage of meg\+eeg; leave the stage out"),
    ):
        with pytest.raises(ValueError, match=message):
            sources([shards], asked)


@pytest.mark.parametrize("rule", ["proportional", "round_robin"])
def test_batches_hold_what_their_source_names_and_resume_exactly(rule, shards, scaler):
    found, vocabulary = sources([shards], stage("pairwise")), build_vocabulary([shards])
    weights = groups(found, cfg(rule=rule), labelled_share=0.75)

    def made():
        return mixture(found, weights, lambda s: Collate([shards], vocabulary, scaler, signals=s.signals), TrainConfig(batch_size=2), 3)

    whole = [(tuple(b.streams), b.rows.tolist()) for b in itertools.islice(made(), 12)]
    assert {signals for signals, _ in whole} == {s.signals for s in found}
    for stop in (0, 5, 11):
        first, second = made(), made()
        seen = [(tuple(b.streams), b.rows.tolist()) for b in itertools.islice(first, stop)]
        second.load_state_dict(first.state_dict())
        assert seen + [(tuple(b.streams), b.rows.tolist()) for b in itertools.islice(second, 12 - stop)] == whole
