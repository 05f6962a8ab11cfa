"""Distillation: nothing to learn from oneself, a student that comes to follow its teacher, and numbers that say how well."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import AugmentConfig, DistillConfig, TrainConfig
from neurofm_ml.training.decoders import problem_batches
from neurofm_ml.training.distill import Pupil, fidelity, imitation, speeds
from neurofm_ml.training.loop import fit

LARGE = patch(presets.neurofmx("tiny"), {"d_model": 24, "n_heads": 2, "d_state": 4, "dropout": 0.0})
SMALL = patch(LARGE, {"d_model": 12, "n_layers": 1})
CLEAN = AugmentConfig(modality_dropout=0.0, unit_dropout=0.0, time_mask=0.0, noise=0.0, drift=0.0)
CFG = DistillConfig(
    seed=0,
    size="tiny",
    model=SMALL,
    train=TrainConfig(steps=60, batch_size=8, lr=1e-2, ema=0.5, checkpoint_every=60),
    augment=CLEAN,
    labels=0.0,
)


@pytest.fixture
def problem(problems):
    return next(p for p in problems if p.inputs == ("spikes",) and p.session == "two")


@pytest.fixture
def teacher(shards) -> NeuroFMx:
    torch.manual_seed(0)
    return NeuroFMx(LARGE, build_vocabulary([shards])).eval().requires_grad_(False)


def test_who_is_the_teacher_has_nothing_to_learn(teacher, problem, scaler):
    pupil = Pupil(copy.deepcopy(teacher), LARGE.d_model).eval()
    nn.init.eye_(pupil.projection.weight)
    nn.init.zeros_(pupil.projection.bias)
    batch = next(iter(problem_batches(teacher, problem, scaler, "train", 4, seed=0)))
    total, parts = imitation(CFG, teacher)(pupil, batch, torch.Generator().manual_seed(0), 0.0)
    assert total.item() == pytest.approx(0.0, abs=1e-9)
    assert parts["labels"] > 0.1
    found = fidelity(pupil, teacher, [problem], scaler)
    assert found["fidelity_r2"] == pytest.approx(1.0)
    assert max(found["behaviour_error"], found["latents_error"]) < 1e-5
    assert found["student.r2"] == found["teacher.r2"]


def test_weights_weigh(teacher, problem, scaler):
    pupil = Pupil(NeuroFMx(SMALL, teacher.vocabulary), LARGE.d_model).eval()
    batch = next(iter(problem_batches(teacher, problem, scaler, "train", 4, seed=0)))
    cfg = dataclasses.replace(CFG, latents=2.0, behaviour=0.0, labels=3.0)
    total, parts = imitation(cfg, teacher)(pupil, batch, torch.Generator().manual_seed(0), 0.0)
    assert total.item() == pytest.approx(2 * parts["latents"].item() + 3 * parts["labels"].item(), rel=1e-5)


def test_a_student_half_as_wide_follows_its_teacher(tmp_path, teacher, problem, scaler):
    torch.manual_seed(1)
    pupil = Pupil(NeuroFMx(SMALL, teacher.vocabulary), LARGE.d_model)
    before = fidelity(pupil.eval(), teacher, [problem], scaler)
    fit(pupil, problem_batches(teacher, problem, scaler, "train", 8, seed=0), imitation(CFG, teacher), CFG.train, tmp_path, seed=0)
    after = fidelity(pupil, teacher, [problem], scaler)
    assert after["fidelity_r2"] > max(0.5, before["fidelity_r2"])
    assert after["latents_error"] < 0.9 * before["latents_error"]
    assert set(speeds(pupil.student, teacher, problem, scaler)) == {"student.samples_per_second", "teacher.samples_per_second"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"latents": 0.0, "behaviour": 0.0, "labels": 0.0}, "latents, behaviour and labels are all 0; one must be positive"),
        ({"labels": -1.0}, r"DistillConfig\.labels is -1\.0; it must not be negative"),
        ({"train": {"strategy": "ddp"}}, 'it must be "single": the teacher is held by one process'),
    ],
)
def test_wrong_settings_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        patch(presets.distill("tiny"), changes)
