"""Distillation: a small model learns what a larger one makes of the same windows (Hinton et al. 2015).

The student sees corrupted windows and is held to the teacher's latents, read through a linear projection (Romero et
al. 2015), to the teacher's behaviour, and to the labels. Fidelity is measured on validation blocks, speed on their windows.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from neurofm_ml.data.augment import augment
from neurofm_ml.data.batches import Collate
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.metrics import r2
from neurofm_ml.models import NeuroFMx
from neurofm_ml.objectives import OBJECTIVES, Truth
from neurofm_ml.presets import READ, DistillConfig
from neurofm_ml.training.adapt import decoding_problems, known
from neurofm_ml.training.decoders import block_latents, predict_block, problem_batches
from neurofm_ml.training.loop import LossFunction, fit
from neurofm_ml.training.pretrain import choose
from neurofm_ml.training.problems import Problem, provenance
from neurofm_ml.training.sampling import evenly, mixture, whole
from neurofm_ml.training.saved import load_model, save_model
from neurofm_ml.training.tuning import embed_by_tuning
from neurofm_ml.types import Array, Batch, Report

#: Times each model's speed is taken; the fastest counts.
TURNS = 3


class Pupil(nn.Module):
    """A student, and the projection (D of the student -> D of the teacher) its latents are judged through."""

    def __init__(self, student: NeuroFMx, width: int) -> None:
        super().__init__()
        self.student, self.projection = student, nn.Linear(student.cfg.d_model, width)


def imitation(cfg: DistillConfig, teacher: NeuroFMx) -> LossFunction:
    """Weighted squared errors against the teacher (latents: as a share of their variance) and against the labels."""

    def loss(pupil: Pupil, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            told = teacher.to(batch.times.device)(batch)
        said, there = pupil.student(augment(batch, cfg.augment, generator)), told.latents.mask
        target = told.latents.values[there]
        unlike = (pupil.projection(said.latents.values[there]) - target).square().mean()
        parts = {
            "latents": unlike / target.var(0, unbiased=False).mean(),
            "behaviour": OBJECTIVES["behaviour"](said, Truth(told.behaviour, there, {})),
            "labels": OBJECTIVES["behaviour"](said, Truth(batch.targets, there, {})),
        }
        return torch.stack([getattr(cfg, name) * part for name, part in parts.items()]).sum(), parts

    return loss


def distill(cfg: DistillConfig, teacher: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Write the student, which can be adapted and scored like any pretrained model, and report how well and how fast it follows."""
    master, scale = load_model(teacher).requires_grad_(False), load_scaler(scaler)
    wanted = taught(cfg, master, shards)
    problems = decoding_problems(None, wanted)
    torch.manual_seed(cfg.seed)
    student = NeuroFMx(cfg.model, master.vocabulary)
    embed_by_tuning(student, problems, scale)
    pupil = Pupil(student, master.cfg.d_model)
    found = whole(wanted, READ)
    batches = mixture(found, evenly(found), lambda s: Collate([s.shards], master.vocabulary, scale, signals=s.signals), cfg.train, cfg.seed)
    made_from = provenance(wanted)
    history = fit(pupil, batches, imitation(cfg, master), cfg.train, out, seed=cfg.seed, provenance=made_from, description="distill")
    save_model(out, student)
    sizes = {"parameters": student.n_parameters(), "teacher.parameters": master.n_parameters()}
    judged = {**fidelity(pupil, master.cpu(), problems, scale), **speeds(student, master, problems[0], scale)}
    return Report({**history.metrics, **sizes, **judged}, history.checks, history.shown)


def taught(cfg: DistillConfig, teacher: NeuroFMx, shards: Sequence[Path]) -> list[Path]:
    """The datasets to learn from. Raises ValueError for those that the teacher has not seen, whose units and tasks it does not know."""
    used, _ = choose(cfg.datasets, shards)
    if unseen := sorted(used.keys() - {session.split("/")[0] for session in teacher.vocabulary.sessions}):
        raise ValueError(f"the teacher has not seen {', '.join(unseen)}; name others in DistillConfig.datasets, or pretrain on them too.")
    return list(used.values())


def fidelity(pupil: Pupil, teacher: NeuroFMx, problems: Sequence[Problem], scaler: Scaler) -> dict[str, float]:
    """Means over problems on their validation blocks: R2 and relative L2 error of the student's behaviour, with the
    teacher's as the truth, of its projected latents, and what both reach against the labels."""
    rows = []
    for problem in problems:
        said, told = (predict_block(model, problem, scaler, "validation") for model in (pupil.student, teacher))
        latents = block_latents(pupil.student, problem, scaler, "validation"), block_latents(teacher, problem, scaler, "validation")
        projected = pupil.projection(torch.from_numpy(latents[0]).float()).detach().numpy()
        for task in told:
            mine, theirs = said[task], told[task]
            use = known(mine)
            rows.append(
                (
                    r2(theirs.guess, mine.guess),
                    _relative(mine.guess, theirs.guess),
                    _relative(projected, latents[1]),
                    r2(mine.truth, mine.guess, mask=use),
                    r2(mine.truth, theirs.guess, mask=use),
                )
            )
    names = ("fidelity_r2", "behaviour_error", "latents_error", "student.r2", "teacher.r2")
    return dict(zip(names, map(float, np.mean(rows, 0)), strict=True))


def _relative(a: Array, b: Array) -> float:
    """Relative L2 error of `a` against `b`, both (T, K), about the mean of `b`: 1 is what its mean alone would give."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b - b.mean(0)))


@torch.no_grad()
def speeds(student: NeuroFMx, teacher: NeuroFMx, problem: Problem, scaler: Scaler) -> dict[str, float]:
    """Windows per second of both on the problem's validation windows, taking turns."""
    batches = list(problem_batches(student, problem, scaler, "validation", 16, seed=0).epoch())
    n, models = sum(len(batch.times) for batch in batches), {"student": student, "teacher": teacher}
    best = dict.fromkeys(models, np.inf)
    for _ in range(TURNS):
        for name, model in models.items():
            began = time.perf_counter()
            for batch in batches:
                model(batch)
            best[name] = min(best[name], time.perf_counter() - began)
    return {f"{name}.samples_per_second": n / seconds for name, seconds in best.items()}
