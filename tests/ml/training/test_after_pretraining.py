"""The jobs that go on from a pretrained model: what they write is a pretrained model again, and what they report is there."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch, to_dict
from neurofm_ml.data.batches import Vocabulary, build_vocabulary
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import fit
from neurofm_ml.jobs import JOBS
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import ScalerConfig
from neurofm_ml.training.saved import load_model, save_model

SMALL = patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4})
QUICK = {"train": {"steps": 2, "batch_size": 4, "log_every": 1, "checkpoint_every": 2}}
REPORTED = {
    "continual": ("plain.forgotten", "elastic.forgotten", "elastic.learned", "elastic.final"),
    "meta_train": ("before", "loss", "recordings"),
    "distill": ("fidelity_r2", "behaviour_error", "latents_error", "student.samples_per_second", "teacher.samples_per_second"),
}


@pytest.fixture
def inputs(shards: Path, tmp_path: Path) -> dict[str, list[Path]]:
    """The simulated shards with tasks of one signal, their scalers, and a model that knows them."""
    source = shutil.copytree(shards, tmp_path / "shards")
    card = load_card(source)
    (source / "card.json").write_text(json.dumps(to_dict(dataclasses.replace(card, tasks=card.tasks[:2]))))
    scalers = [tmp_path / modality for modality in ("spikes", "calcium", "eeg", "pose")]
    for folder in scalers:
        folder.mkdir()
        fit(ScalerConfig(modality=folder.name), [source], folder)
    torch.manual_seed(0)
    save_model(tmp_path / "base", NeuroFMx(SMALL, build_vocabulary([source])))
    return {"pretrained": [tmp_path / "base"], "shards": [source], "scaler": scalers}


@pytest.mark.parametrize("name", REPORTED)
def test_a_job_goes_on_from_a_pretrained_model_and_writes_one(name, inputs, tmp_path):
    changes = QUICK | ({"model": {"d_model": 8, "n_heads": 2}} if name == "distill" else {})
    cfg, out = patch(getattr(presets, name)("tiny"), changes), tmp_path / "out"
    out.mkdir()
    report = JOBS[name].function(cfg, inputs, out)
    assert set(REPORTED[name]) <= set(report.metrics)
    assert all(np.isfinite(report.metrics[key]) for key in REPORTED[name])
    assert {check.name: check.severity for check in report.checks} == JOBS[name].checks
    model, base = load_model(out), load_model(inputs["pretrained"][0])
    assert model.vocabulary == base.vocabulary
    assert model.cfg.d_model == (8 if name == "distill" else 16)
    assert {path.parent for path in out.rglob("step-*")} <= {out / "checkpoints"}, "the only ones that no artifact keeps"
    if name == "continual":
        turns = pd.read_csv(out / "turns.csv")
        assert len(turns) == 2 * (1 + 2 + 3)
        first = turns[turns.after == turns.after.iloc[0]]
        assert first.r2.nunique() == 1  # the first recording is learned once


def test_one_recording_cannot_be_forgotten(inputs, tmp_path):
    table = inputs["shards"][0] / "windows.parquet"
    windows = pd.read_parquet(table)
    windows[windows.recording == windows.recording.iloc[0]].to_parquet(table)
    with pytest.raises(ValueError, match="is the only decoding problem here, and nothing comes after it"):
        JOBS["continual"].function(presets.continual("tiny"), inputs, tmp_path)


def test_a_teacher_is_not_asked_about_data_it_has_not_seen(inputs, tmp_path):
    save_model(tmp_path / "base", NeuroFMx(SMALL, Vocabulary({"spikes": ("toy/a/spikes/0",)}, ("toy/a",), {"toy/side": 2})))
    with pytest.raises(ValueError, match=r"the teacher has not seen simulation; name others in DistillConfig\.datasets"):
        JOBS["distill"].function(presets.distill("tiny"), inputs, tmp_path)
