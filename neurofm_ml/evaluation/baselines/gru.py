"""Trained baselines with the model's own recipe from scratch: a recurrent network of its size, and the model itself.

Same tokens, same tuning-map embeddings, same augmentation, optimiser and loop as the fine-tuned
model. What is left between it and the network is the backbone and the pretraining; between it and
the model from scratch, which has the updates of fine-tuning, the pretraining alone.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.evaluation.tasks.tasks import Case
from neurofm_ml.presets import BaselinesConfig, NeuroFMxConfig, TrainConfig
from neurofm_ml.training.adapt import predictions
from neurofm_ml.training.decoders import fit_decoder, from_scratch
from neurofm_ml.training.problems import Problem, find_problems


def fit_gru(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """A recurrent network, trained on the training block of one task, predicts its test block."""
    return _fit(case, "gru", cfg.model, cfg.train, cfg, out)


def fit_from_scratch(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """NeuroFMx without pretraining does the same."""
    return _fit(case, "from_scratch", cfg.scratch, cfg.scratch_train, cfg, out)


def _fit(case: Case, method: str, shape: NeuroFMxConfig, train: TrainConfig, cfg: BaselinesConfig, out: Path) -> Prediction:
    problem, scaler = problem_of(case), load_scaler(case.scaler)
    model = from_scratch(shape, problem, scaler, cfg.seed)
    folder = out / "fits" / f"{problem.name}-{case.task.name}-{method}"
    history = fit_decoder(model, problem, scaler, train, cfg.augment, folder, cfg.seed)
    shutil.rmtree(folder / "checkpoints")
    (prediction,) = predictions(model, problem, scaler, "test", method, "baseline", cfg.seed, history.seconds)
    return prediction


def problem_of(case: Case) -> Problem:
    """The decoding problem that has this case's task alone."""
    same = (p for p in find_problems(case.shards) if p.recording == case.recording and p.inputs == case.task.inputs)
    return replace(next(same), tasks=(case.task,))
