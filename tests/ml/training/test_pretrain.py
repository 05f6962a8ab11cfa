"""Pretraining chooses its datasets: what cannot teach anything is left out or refused by name."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from parcel_shards import write

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import build_vocabulary, readable
from neurofm_ml.data.ingest import ingest
from neurofm_ml.data.scaler import fit as fit_scaler
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.data.shards import read_manifest
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.knowledge.cards import TaskSpec, datasets
from neurofm_ml.knowledge.files import raw_files
from neurofm_ml.presets import IngestConfig, ScalerConfig, ShardsConfig
from neurofm_ml.training.checkpoints import latest_checkpoint
from neurofm_ml.training.families import FAMILIES
from neurofm_ml.training.pretrain import pretrain
from neurofm_ml.training.sampling import dataset_weights

TINY = patch(
    presets.pretrain("tiny"), {"train": {"steps": 2, "batch_size": 2}, "model": {"d_model": 16, "n_heads": 2, "d_state": 4, "n_layers": 1}}
)


@pytest.fixture
def without_training(shards, tmp_path):
    """The same dataset under another name, with no training window."""
    folder = tmp_path / "empty"
    shutil.copytree(shards, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "name": "empty"}))
    table = pd.read_parquet(folder / "windows.parquet")
    table["split"] = "test"
    table.to_parquet(folder / "windows.parquet", index=False)
    return folder


@pytest.fixture
def scalers(scaler, monkeypatch):
    monkeypatch.setattr("neurofm_ml.training.pretrain.load_scaler", lambda _: scaler)


def test_datasets_without_training_windows_are_left_out_by_name(shards, without_training, scalers, tmp_path):
    cfg = patch(TINY, {"datasets": ["empty", "nowhere", "simulation"]})
    report = pretrain("neurofmx", cfg, [shards, without_training], [], tmp_path)
    assert (report.metrics["datasets"], report.metrics["left_out"]) == ("simulation", "empty, nowhere")


def test_checkpoints_say_what_they_were_trained_on(shards, scalers, tmp_path):
    pretrain("neurofmx", TINY, [shards], [], tmp_path)
    found = latest_checkpoint(tmp_path / "checkpoints").state["provenance"]
    assert found["simulation"] == read_manifest(shards)["index"]
    assert set(found) == {"simulation", "git_revision"}


def test_nothing_to_learn_from_is_refused(without_training, scalers, tmp_path):
    with pytest.raises(ValueError, match="none of the datasets empty has training windows of spikes, intracellular, lfp, "):
        pretrain("neurofmx", TINY, [without_training], [], tmp_path)


def test_behaviour_alone_is_refused_for_datasets_without_tasks(shards, scalers, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(shards, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "tasks": []}))
    with pytest.raises(ValueError, match=r"finds nothing to learn in simulation, without tasks; give \"masked\" a weight"):
        pretrain("neurofmx", patch(TINY, {"objectives": {"masked": 0.0}}), [folder], [], tmp_path)
    assert pretrain("neurofmx", TINY, [folder], [], tmp_path).metrics["datasets"] == "simulation"


def test_unknown_objectives_are_refused(shards, scalers, tmp_path):
    with pytest.raises(ValueError, match=r"Unknown objective 'maskd'\. Did you mean 'masked'"):
        pretrain("neurofmx", patch(TINY, {"objectives": {"maskd": 1.0}}), [shards], [], tmp_path)


def test_labelled_datasets_share_three_quarters_of_the_updates():
    labelled = {"simulation": True, "a": True, "b": False, "c": False, "d": False}
    assert dataset_weights(labelled, 0.75) == {"simulation": 0.375, "a": 0.375, **dict.fromkeys("bcd", 0.25 / 3)}
    assert dataset_weights({"simulation": True, "a": True}, 0.75) == {"simulation": 1.0, "a": 1.0}


def test_windows_without_anything_to_read_are_passed_by(tmp_path, monkeypatch):
    """A dataset of EEG in one recording and a heart alone in two others."""
    rng = np.random.default_rng(0)
    for name in ("brain", "heart", "pulse"):
        np.savetxt(tmp_path / f"{name}.csv", rng.normal(size=(3200, 2)), delimiter=",")
    signals = {
        "eeg": {"modality": "eeg", "sfreq": 64, "recordings": ["brain"]},
        "ecg": {"modality": "physio", "sfreq": 64, "recordings": ["heart", "pulse"]},
    }
    about = {"name": "both", "title": "t", "species": "s", "licence": "CC0", "source": "bench", "reader": "arrays", "pattern": "{id}.csv"}
    (tmp_path / "both.yaml").write_text(json.dumps({**about, "signals": signals, "grid_hz": 8, "window_s": 2, "stride_s": 2}))
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    ingest(IngestConfig(dataset="both"), raw_files(datasets()["both"]), tmp_path / "recordings")
    (tmp_path / "shards").mkdir()
    shard_recordings(ShardsConfig(dataset="both"), tmp_path / "recordings", tmp_path / "shards")
    (tmp_path / "scaler").mkdir()
    fit_scaler(ScalerConfig(modality="eeg"), [tmp_path / "shards"], tmp_path / "scaler")
    cfg = patch(TINY, {"train": {"batch_size": 2, "steps": 20, "log_every": 20}})
    report = pretrain("neurofmx", cfg, [tmp_path / "shards"], [tmp_path / "scaler"], tmp_path / "model")
    assert np.isfinite(report.metrics["loss"])
    assert {key.split("-")[0] for key in readable(tmp_path / "shards")["key"]} == {"brain"}


def test_what_is_an_input_here_is_never_read_where_it_is_the_target(tmp_path):
    whole = datasets()["simulation"]
    kept = {name: whole.signals[name] for name in ("spikes", "calcium", "behaviour")}
    own = dataclasses.replace(whole, recordings=whole.recordings[:1], signals=kept, window_s=4.0, stride_s=4.0)
    other = dataclasses.replace(own, name="other", tasks=(TaskSpec(name="glow", target="calcium", inputs=("spikes",)),))
    shards = [write(tmp_path, card, simulate(card, 60.0)) for card in (own, other)]
    for modality in ("spikes", "calcium", "pose"):
        (tmp_path / modality).mkdir()
        fit_scaler(ScalerConfig(modality=modality), shards, tmp_path / modality)
    scales = load_scaler([tmp_path / modality for modality in ("spikes", "calcium", "pose")])
    batches = FAMILIES["neurofmx"].evenly(TINY, build_vocabulary(shards), shards, scales)
    read = {(*batch.targets, *batch.streams) for batch in itertools.islice(batches, 20)}
    assert read == {("simulation/behaviour", "spikes", "calcium"), ("other/glow", "spikes")}
