"""Modalities: which are read together, what crosses and what is lost on planted features, and one recording through a model."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from planted_places import series

from neurofm_ml.config import to_dict
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import fit
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.evaluation.features.features import extract, labels_seen, load_features
from neurofm_ml.evaluation.transfer.cross_modal import cross_modal, publish, retrieval, subsets_of
from neurofm_ml.evaluation.transfer.examples import Examples
from neurofm_ml.evaluation.transfer.places import Place, matrix, missing
from neurofm_ml.evaluation.transfer.transfer import retention, table_of
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import CrossModalConfig, FeaturesConfig, NeuroFMxConfig, ScalerConfig, ShardsConfig
from neurofm_ml.training.saved import load_model, save_model

WEIGHTS = np.random.default_rng(0).normal(size=(6, 2))


def seen(noise: float, seed: int, shared: bool = True) -> Examples:
    """The same moments in another modality: the same features with noise of its own, or features of another kind."""
    examples = series(WEIGHTS, 0.2, 0)
    rng = np.random.default_rng(seed)
    x = examples.x if shared else examples.x @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return dataclasses.replace(examples, x=x + noise * rng.normal(size=x.shape))


def test_each_alone_all_but_one_and_all() -> None:
    assert subsets_of({"spikes": ["a", "b"], "lfp": ["c"]}) == {"spikes": ("a", "b"), "lfp": ("c",), "spikes+lfp": ("a", "b", "c")}
    three = subsets_of({"spikes": ["a"], "lfp": ["b"], "eeg": ["c"]})
    assert list(three) == ["spikes", "lfp", "eeg", "lfp+eeg", "spikes+eeg", "spikes+lfp", "spikes+lfp+eeg"]
    assert list(three.values())[-1] == ("a", "b", "c")


def test_what_is_shared_crosses_and_is_found_again_and_what_is_not_does_not(tmp_path: Path) -> None:
    places = [
        Place.of(f"d/r/{name}", part) for name, part in (("spikes", seen(0.1, 1)), ("lfp", seen(0.4, 2)), ("eeg", seen(0.1, 3, False)))
    ]
    whole = Place.of("d/r/spikes+lfp+eeg", seen(0.05, 4))
    cells = matrix(places, "own", 100, 0) + missing(whole, [*places, whole], "own", 100, 0) + retrieval(places, 1) + retrieval(places, 5)
    table = table_of([{"axis": "modality", **cell} for cell in cells], 0, tmp_path)
    found = table.set_index(["task", "source", "target"]).value.sort_index()
    assert found["velocity", "d/r/spikes", "d/r/lfp"] > 0.6
    assert found["velocity", "d/r/spikes", "d/r/eeg"] < 0.3
    assert found["retrieval_top_1", "d/r/spikes", "d/r/lfp"] > 0.5
    assert found["retrieval_top_1", "d/r/spikes", "d/r/eeg"] < 0.1
    assert found["retrieval_top_5", "d/r/lfp", "d/r/spikes"] >= found["retrieval_top_1", "d/r/lfp", "d/r/spikes"]
    lost = found["velocity", "d/r/spikes+lfp+eeg"]
    assert lost["d/r/spikes+lfp+eeg"] > lost["d/r/lfp"] > lost["d/r/eeg"]
    report = publish(table, {"other": "no modality that the model reads"}, tmp_path)
    assert report.checks[0].passed
    assert report.metrics["pairs"] == 6
    assert (tmp_path / "missing.png").stat().st_size > 5000
    assert pd.read_parquet(tmp_path / "cross_modal.parquet").equals(table)


def test_retention_is_what_is_left_above_chance_where_the_target_reads_itself() -> None:
    pairs = pd.DataFrame({"value": [0.4, 0.75, -1.0, 0.9], "within": [0.8, 1.0, 0.5, 0.4], "chance": [0.0, 0.5, 0.0, 0.5]})
    assert retention(pairs) == pytest.approx(0.5)
    assert np.isnan(retention(pairs[3:]))


# ---------------------------------------------------------------- through a model
@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Path]]:
    """A fresh model, the shards of 60 s of spikes, calcium and behaviour, and scalers."""
    base = datasets()["simulation"]
    card = dataclasses.replace(
        base,
        recordings=base.recordings[:1],
        signals={name: base.signals[name] for name in ("spikes", "calcium", "behaviour")},
        window_s=4.0,
        stride_s=2.0,
        expected={},
    )
    source, shards, model = (tmp_path_factory.mktemp(name) for name in ("recordings", "shards", "model"))
    for recording in simulate(card, 60.0):
        save_recording(recording, source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(ShardsConfig(dataset="simulation"), source, shards)
    scalers = [tmp_path_factory.mktemp(modality) for modality in ("spikes", "calcium", "pose")]
    for folder, modality in zip(scalers, ("spikes", "calcium", "pose"), strict=True):
        fit(ScalerConfig(modality=modality), [shards], folder)
    torch.manual_seed(0)
    save_model(model, NeuroFMx(NeuroFMxConfig(d_model=16), build_vocabulary([shards])))
    return model, shards, scalers


def test_a_recording_of_two_modalities_through_a_model(made: tuple[Path, Path, list[Path]], tmp_path: Path) -> None:
    model, shards, scalers = made
    report = cross_modal(CrossModalConfig(seed=0, n_perm=50, top_k=(1,)), model, [shards], scalers, tmp_path)
    table = pd.read_parquet(tmp_path / "cross_modal.parquet")
    assert report.metrics["cells"] == len(table) == 4 + 3 + 2
    names = [f"simulation/sub1_ses1/{name}" for name in ("spikes", "calcium", "spikes+calcium")]
    assert set(table.target) == set(names)
    extract(FeaturesConfig(), model, [shards], scalers, tmp_path)
    found = load_features(tmp_path)["simulation"]
    assert found.labels_seen == {"simulation/behaviour"}
    alone = found.bins("sub1_ses1", "test", inputs=("spikes",))
    own = table[(table.source == names[0]) & (table.target == names[0])].iloc[0]
    assert own.n == len(alone)


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({"objectives": {"masked": 1.0}}, []),
        ({"objectives": {"masked": 1.0, "behaviour": 0.1}}, ["simulation/behaviour"]),
        ({"objectives": {"masked": 1.0}, "curriculum": [{"objectives": {"behaviour": 1.0}}]}, ["simulation/behaviour"]),
    ],
)
def test_a_model_says_which_labels_it_learned_from(
    made: tuple[Path, Path, list[Path]], tmp_path: Path, config: dict, seen: list[str]
) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"config": config}))
    assert labels_seen(tmp_path, load_model(made[0])) == seen


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"top_k": ()}, r"top_k is \(\); it needs ranks"), ({"top_k": (0,)}, r"top_k is \(0,\)"), ({"n_perm": 0}, "n_perm is 0")],
)
def test_wrong_configs_are_refused(changes: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CrossModalConfig(**{"seed": 0, **changes})
