"""NeuroFMx at size small, a hundred updates of pretraining."""

from pathlib import Path

import numpy as np
import pytest

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.training.curves import read_curves
from neurofm_ml.training.pretrain import pretrain


@pytest.mark.slow
def test_a_hundred_updates_at_size_small(shards, scaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurofm_ml.training.pretrain.load_scaler", lambda _: scaler)
    train = {"steps": 100, "batch_size": 2, "precision": "32-true", "checkpoint_every": 90, "log_every": 1, "warmup": 0.1, "ema": 0.9}
    report = pretrain("neurofmx", patch(presets.pretrain("small"), {"train": train}), [shards], [], tmp_path)
    assert {check.name: check.passed for check in report.checks} == {"loss_is_finite": True, "loss_fell": True, "resume_is_exact": True}
    assert 15e6 < report.metrics["parameters"] < 17e6  # 20e6 with the tokenizers of every modality
    losses = read_curves(tmp_path / "metrics.csv")["loss"][1]
    assert len(losses) == 100
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
