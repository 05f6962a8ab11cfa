"""The planted benchmark: the arrays it compares with, and, where there is time, what pretraining makes of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurofm_ml.data.simulate import FINE_HZ, VIEWS
from neurofm_ml.evaluation.features.planted import BAR, INPUTS, binned, planted, probed, raw_blocks, simulated
from neurofm_ml.evaluation.tasks.tasks import DecodingData
from neurofm_ml.presets import PlantedConfig, TrainConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[DecodingData, DecodingData]:
    """One simulated recording of 80 s as the methods see it, and the same with the latent half a second late."""
    shards, _, truths = simulated(PlantedConfig(recordings=1, duration_s=80.0), tmp_path_factory.mktemp("planted"))
    ((name, truth),) = truths.items()
    late = type(truth)(np.roll(truth.latent, round(FINE_HZ / 2), axis=0), truth.planted)
    return raw_blocks(shards, name, truth), raw_blocks(shards, name, late)


def test_bins_are_means_of_their_samples() -> None:
    values = np.arange(24.0)[:, None]
    np.testing.assert_array_equal(binned(values, 8.0, 1.0, np.array([1.25, 2.75]), 2.0), [[1.5], [13.5]])


def test_signals_and_latent_stand_on_one_clock(data: tuple[DecodingData, DecodingData]) -> None:
    """A latent that is late is read worse from the signals of its bin, though half a second is a fourth of its period."""
    on_time, late = (probed(d, {"raw": d.x})["linear_probe"] for d in data)
    assert on_time > 0.85
    assert late < on_time - 0.2
    n = sum(VIEWS[name].n_chans for name in INPUTS)
    assert {split: x.shape for split, x in data[0].x.items()} == {split: (len(y), n) for split, y in data[0].y.items()}


def test_the_layer_is_chosen_on_validation(data: tuple[DecodingData, DecodingData]) -> None:
    truth = data[0]
    noise = {split: np.random.default_rng(0).normal(size=y.shape) for split, y in truth.y.items()}
    found = probed(truth, {"good": truth.x, "noise": noise})
    assert found["linear_probe"] == found["layer:good"] > found["layer:noise"]


@pytest.mark.slow
def test_the_latent_is_recovered_from_frozen_features(tmp_path: Path) -> None:
    report = planted(PlantedConfig(recordings=1, train=TrainConfig(steps=200, ema=0.99, checkpoint_every=200)), tmp_path)
    table = pd.read_parquet(tmp_path / "planted.parquet").set_index("method").value
    assert table["linear_probe"] >= BAR
    assert report.checks[0].passed
    assert report.checks[1].passed == (table["linear_probe"] > max(table[["ridge", "pca", "embedding"]]))
    assert [path.name for path in tmp_path.iterdir()] == ["planted.parquet"]
