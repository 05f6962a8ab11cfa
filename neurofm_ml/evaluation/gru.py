"""The trained baseline: a recurrent network of the model's size, with the model's own recipe, from scratch.

Same tokens, same tuning-map embeddings, same augmentation, optimiser and loop as the fine-tuned
model: what is left between the two is the backbone and the pretraining.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.evaluation.tasks import Case
from neurofm_ml.presets import BaselinesConfig
from neurofm_ml.training.adapt import predictions
from neurofm_ml.training.decoders import fit_decoder, from_scratch
from neurofm_ml.training.problems import Problem, find_problems


def fit_gru(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Train on the training block of one task and predict its test block."""
    problem, scaler = problem_of(case), load_scaler(case.scaler)
    model = from_scratch(cfg.model, problem, scaler, cfg.seed)
    folder = out / "fits" / f"{problem.name}-{case.task.name}"
    history = fit_decoder(model, problem, scaler, cfg.train, cfg.augment, folder, cfg.seed)
    shutil.rmtree(folder / "checkpoints")
    (prediction,) = predictions(model, problem, scaler, "test", "gru", "baseline", cfg.seed, history.seconds)
    return prediction


def problem_of(case: Case) -> Problem:
    """The decoding problem that has this case's task alone."""
    same = (p for p in find_problems(case.shards) if p.recording == case.recording and p.inputs == case.task.inputs)
    return replace(next(same), tasks=(case.task,))
