"""Tasks of real recordings: a plain linear readout of what the label windows hold does what is known of each set, and nothing on
permuted labels."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data.ingest import ingest
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.evaluation.baselines.ridge import fit_ridge
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, LabelData, find_label_cases
from neurofm_ml.evaluation.tasks.tasks import find_encoding_cases
from neurofm_ml.metrics import pearson
from neurofm_ml.presets import SPLITS, IngestConfig, ShardsConfig
from neurofm_ml.types import Array, Signal

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")

Feature = Callable[[Signal], Array]


def mean(signal: Signal) -> Array:
    return np.asarray(signal.values.mean(0))


def slow(signal: Signal) -> Array:
    """Means of 1/32 s about that of the epoch."""
    each = round(signal.sfreq / 32)
    n = len(signal.values) // each
    return np.asarray((signal.values - signal.values.mean(0))[: n * each].reshape(n, each, -1).mean(1).ravel())


def shards_of(name: str, folder: Path) -> Path:
    """From raw files to shards."""
    for step in ("recordings", "shards"):
        (folder / step).mkdir()
    ingest(IngestConfig(dataset=name), [], folder / "recordings")
    shard_recordings(ShardsConfig(dataset=name), folder / "recordings", folder / "shards")
    return folder / "shards"


def readout(data: LabelData, x: dict[str, Array]) -> float:
    """Score on the test windows of a ridge on indicators of the classes, its penalty chosen on the validation windows."""
    centre, spread = x["train"].mean(0), x["train"].std(0) + 1e-9
    z = {split: np.c_[(values - centre) / spread, np.ones(len(values))] for split, values in x.items()}
    y = np.eye(len(data.classes))[data.labels("train").astype(int)]
    y = (y - y.mean(0)) / y.sum(0)
    fits = [np.linalg.solve(z["train"].T @ z["train"] + 10.0**p * np.eye(z["train"].shape[1]), z["train"].T @ y) for p in range(-1, 6)]
    best = max(fits, key=lambda w: data.score("validation", z["validation"] @ w))
    return data.score("test", z["test"] @ best)


def features(case: LabelCase, feature: Feature) -> dict[str, Array]:
    return {split: np.array([feature(signal) for signal in case.data.windows(split)]) for split in SPLITS}


#: What a readout reaches, less a margin, on each: AUROC of two classes, else balanced accuracy.
@pytest.mark.parametrize(
    ("name", "task", "feature", "least", "chance"),
    [
        pytest.param("eeg_muse_n170", "face", slow, 0.58, 0.5, marks=pytest.mark.slow),
        ("eeglab_sample", "target", slow, 0.85, 0.5),
        ("haxby_slice", "category", mean, 0.3, 0.125),
        pytest.param("qtab_partlycloudy", "event", mean, 0.45, 0.25, marks=pytest.mark.slow),
        pytest.param("eeg_muse_p300", "target", slow, 0.6, 0.5, marks=pytest.mark.slow),
    ],
)
def test_what_is_known_of_a_set_is_found(tmp_path: Path, name: str, task: str, feature: Feature, least: float, chance: float) -> None:
    (case,) = (case for case in find_label_cases(shards_of(name, tmp_path), []) if case.task.name == task)
    x = features(case, feature)
    assert readout(case.data, x) > least
    controls = [readout(case.data.with_permuted_labels(seed), x) for seed in range(5)]
    assert abs(np.mean(controls) - chance) < 0.1


@pytest.mark.slow
def test_the_rate_of_words_is_found_in_language_areas(tmp_path: Path) -> None:
    """Small in each listener: it is the mean correlation over 27 of them that stands clear of 0."""
    found = []
    for case in find_encoding_cases(shards_of("alice_listening", tmp_path), []):
        data = case.data
        # The rate is convolved with the response of blood flow: it needs no lag.
        found.append(pearson(data.y["test"], fit_ridge(data, data.x, lags=(0,)).predict(data.x["test"])))
    assert len(found) == 27
    assert np.mean(found) > 2 * np.std(found) / np.sqrt(len(found))
