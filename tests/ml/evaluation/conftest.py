"""Series with known truth, predictions of known quality, and one small shards artifact."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from neurofm_ml.config import to_dict
from neurofm_ml.data.predictions import Prediction
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import fit
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.evaluation.tasks.tasks import Case
from neurofm_ml.knowledge.cards import TaskSpec, datasets
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import ScalerConfig, ShardsConfig
from neurofm_ml.types import Array

MakeSeries = Callable[..., Array]


def autoregressive(rng: np.random.Generator, phi: float, n: int, k: int = 2) -> Array:
    """(n, k) AR(1) series of unit variance."""
    noise = rng.standard_normal((n + 500, k)) * np.sqrt(1 - phi**2)
    series: Array = lfilter([1.0], [1.0, -phi], noise, axis=0)[500:]
    return series


@pytest.fixture
def make_series() -> MakeSeries:
    return autoregressive


@pytest.fixture
def make_prediction() -> Callable[..., Prediction]:
    """A prediction whose error has the given deviation, on a target of unit variance that depends on `recording` alone."""

    def make(method: str = "ours", family: str = "neurofmx", noise: float = 0.5, recording: str = "r1", **changes: object) -> Prediction:
        rng = np.random.default_rng([ord(c) for c in recording])
        y = autoregressive(rng, 0.8, 400)
        made = Prediction(
            dataset="toy",
            recording=recording,
            task="velocity",
            method=method,
            family=family,
            y_true=y,
            y_pred=y + noise * autoregressive(rng, 0.5, 400),
            times=np.arange(400) / 5,
            mask=np.ones(400, bool),
            parameters=10,
            train_seconds=1.5,
            samples_per_second=1e4,
            trained_on="toy/r1",
            seed=0,
            metric="r2",
        )
        return dataclasses.replace(made, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def toy_cases() -> list[Case]:
    task = TaskSpec(name="velocity", target="velocity", inputs=("counts",))
    return [Case(Path(), (), "toy", recording, "Homo sapiens", "spikes", task) for recording in ("r1", "r2")]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 s of one simulated recording, with a decoding task from spikes and one from calcium."""
    folder = tmp_path_factory.mktemp("simulation")
    card = datasets()["simulation"]
    from_calcium = dataclasses.replace(card.tasks[0], name="behaviour_from_calcium", inputs=("calcium",))
    card = dataclasses.replace(card, recordings=card.recordings[:1], tasks=(*card.tasks, from_calcium))
    for recording in simulate(card, 100.0):
        save_recording(recording, folder / "recordings" / "recordings")
    (folder / "recordings" / "card.json").write_text(json.dumps(to_dict(card)))
    (folder / "shards").mkdir()
    shard_recordings(ShardsConfig(dataset="simulation"), folder / "recordings", folder / "shards")
    return folder / "shards"


@pytest.fixture(scope="session")
def scalers(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Scalers of everything the tasks of `shards` read or predict."""
    folders = [tmp_path_factory.mktemp(modality) for modality in ("spikes", "calcium", "pose")]
    for folder, modality in zip(folders, ("spikes", "calcium", "pose"), strict=True):
        fit(ScalerConfig(modality=modality), [shards], folder)
    return folders


@pytest.fixture
def make_labels(make_prediction: Callable[..., Prediction]) -> Callable[..., Prediction]:
    """Classes (or numbers, for metrics of numbers) of `rows` windows of each unit, and scores that know them as well as `gain` says.

    Windows of a unit share its label, or take theirs in turns (`mixed`), and half of the noise.
    """

    def make(
        n_units: int = 20, rows: int = 10, gain: float = 1.0, n: int = 2, metric: str = "balanced_accuracy", seed: int = 0,
        noise_seed: int = 0, mixed: bool = False, **changes: object,
    ) -> Prediction:  # fmt: skip
        units = np.repeat(np.arange(n_units), rows)
        labels = np.random.default_rng(seed).permutation(np.arange(n_units) % n)[units]
        labels = (labels + np.arange(len(units))) % n if mixed else labels
        rng = np.random.default_rng([seed, noise_seed, 1])
        width = n if SCORES[metric].of == "classes" else 1
        truth = labels[:, None].astype(float) if width == 1 else np.eye(n)[labels]
        said = gain * truth + (rng.normal(size=(n_units, width))[units] + rng.normal(size=truth.shape)) / 2**0.5
        made = {
            "recording": "all", "task": "state", "metric": metric, "y_true": labels[:, None].astype(float), "y_pred": said,
            "times": np.arange(len(units), dtype=float), "mask": np.ones(len(units), bool), "units": units,
        }  # fmt: skip
        return make_prediction(**{**made, **changes})

    return make
