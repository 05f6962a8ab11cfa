"""Learning one recording after the other, and how much of the earlier ones is forgotten.

Elastic weight consolidation (Kirkpatrick et al. 2017): weights that earlier tasks depend on are held by a spring as stiff
as their Fisher information. All earlier tasks share one anchor, the weights after the last of them, and their
information adds up (Huszar 2018). For a Gaussian readout of unit noise the information of a weight is the mean
square of the outputs' derivatives, which is also what the mean squared error grows by: the penalty is in its unit.
"""

import copy
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import ContinualConfig
from neurofm_ml.training.adapt import decoding_problems, validation_r2
from neurofm_ml.training.decoders import adapted_to, problem_batches
from neurofm_ml.training.loop import LossFunction, fit
from neurofm_ml.training.problems import Problem, provenance
from neurofm_ml.training.saved import load_model, save_model
from neurofm_ml.training.steps import weighted_loss
from neurofm_ml.types import Batch, Check, Report


@dataclasses.dataclass
class Memory:
    """What must not be forgotten: parameter -> its value after the last task, and its information over all of them."""

    anchor: dict[str, Tensor]
    information: dict[str, Tensor]

    def penalty(self, model: nn.Module) -> Tensor:
        """What the earlier tasks' mean squared errors have grown by, as far as the diagonal tells."""
        terms = []
        for name, p in model.named_parameters():
            self.anchor[name], self.information[name] = self.anchor[name].to(p.device), self.information[name].to(p.device)
            terms.append((self.information[name] * (p - self.anchor[name]).square()).sum())
        return torch.stack(terms).sum()


def remember(model: nn.Module, information: Mapping[str, Tensor], before: Memory | None) -> Memory:
    """The memory after one more task."""
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    return Memory(anchor, {name: i + before.information[name] if before else i for name, i in information.items()})


def elastic(loss: LossFunction, memory: Memory, strength: float) -> LossFunction:
    """`loss` plus the penalty of moving away from what is remembered."""

    def held(model: Any, batch: Any, generator: torch.Generator, progress: float) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        total, parts = loss(model, batch, generator, progress)
        penalty = memory.penalty(model)
        return total + strength * penalty, {**parts, "penalty": penalty}

    return held


def fisher_diagonal(
    model: nn.Module, batches: Iterable[Any], outputs: Callable[[Any, Any], Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """Parameter -> mean over outputs of the squared derivative, by one backward pass per batch.

    `outputs` (model, batch) gives the batch's scalar predictions (n,). They are summed with random signs: the square of
    the sum's gradient is the sum of squared gradients, since products of different outputs average to zero.
    """
    model.eval()
    parameters = dict(model.named_parameters())
    total, n = {name: torch.zeros_like(p) for name, p in parameters.items()}, 0
    for batch in batches:
        values = outputs(model, batch)
        signs = torch.randint(0, 2, values.shape, generator=generator).to(values) * 2 - 1
        gradients = torch.autograd.grad(values @ signs, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square()
        n += values.numel()
    return {name: value / n for name, value in total.items()}


def decoded(model: NeuroFMx, batch: Batch) -> Tensor:
    """(n,) predictions of every target that is known."""
    said = model(batch).behaviour
    return torch.cat([said[task][batch.mask[..., None] & target.isfinite()] for task, target in batch.targets.items()])


# ---------------------------------------------------------------- the job
def continual(cfg: ContinualConfig, pretrained: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Write the model that learned every recording in turn, elastic, and ``turns.csv``: what it and a plain one knew when."""
    scale, problems = load_scaler(scaler), decoding_problems(cfg.datasets, shards)
    if len(problems) < 2:
        raise ValueError(f"{problems[0].name} is the only decoding problem here, and nothing comes after it; add recordings or datasets.")
    begun = adapted_to(load_model(pretrained), problems, scale, cfg.seed)
    rows, models = [], {}
    for way, strength in (("plain", 0.0), ("elastic", cfg.strength)):
        models[way], r2s = learn_in_turn(cfg, copy.deepcopy(begun), problems, scale, strength, out / "fits")
        rows += [
            {"way": way, "after": problems[i].name, "on": problems[j].name, "r2": r2s[i, j]}
            for i, j in zip(*np.tril_indices(len(problems)), strict=True)
        ]
    table = pd.DataFrame(rows)
    table.to_csv(out / "turns.csv", index=False)
    save_model(out, models["elastic"])
    shutil.rmtree(out / "fits")
    numbers = {f"{way}.{name}": value for way, own in table.groupby("way") for name, value in summary(own).items()}
    forgotten = {way: numbers[f"{way}.forgotten"] for way in ("elastic", "plain")}
    checks = (
        Check("decodes_are_finite", bool(np.isfinite(table.r2).all()), numbers={"lowest": float(table.r2.min())}, threshold="finite"),
        Check("elastic_forgets_less", forgotten["elastic"] < forgotten["plain"], "warn", forgotten, "elastic below plain"),
    )
    return Report({"recordings": len(problems), **numbers}, checks, {"turns": "turns.csv"})


def learn_in_turn(
    cfg: ContinualConfig, model: NeuroFMx, problems: Sequence[Problem], scaler: Scaler, strength: float, out: Path
) -> tuple[NeuroFMx, np.ndarray]:
    """Fit `model` in place to one problem after the other; gives validation R2 (i, j) of problem j after learning problem i.

    Fits that are finished in `out` are taken up: the first one is that of every strength.
    """
    found, memory = np.full((len(problems), len(problems)), np.nan), None
    for i, problem in enumerate(problems):
        loss: LossFunction = weighted_loss(cfg.augment, {"behaviour": 1.0})
        folder = out / f"{i}-{strength:g}" if i else out / "0"
        batches = problem_batches(model, problem, scaler, "train", cfg.train.batch_size, cfg.seed)
        held = elastic(loss, memory, strength) if memory and strength else loss
        fit(model, batches, held, cfg.train, folder, seed=cfg.seed, provenance=provenance([problem.shards]), description=problem.name)
        found[i, : i + 1] = [validation_r2(model, known, scaler) for known in problems[: i + 1]]
        if strength and problem is not problems[-1]:
            memory = remember(model, _information(cfg, model, problem, scaler), memory)
    return model, found


def _information(cfg: ContinualConfig, model: NeuroFMx, problem: Problem, scaler: Scaler) -> dict[str, Tensor]:
    batches = problem_batches(model, problem, scaler, "train", cfg.train.batch_size, cfg.seed)
    generator = torch.Generator().manual_seed(cfg.seed)
    return fisher_diagonal(model, (batch for _ in range(cfg.passes) for batch in batches.epoch()), decoded, generator)


def summary(turns: pd.DataFrame) -> dict[str, float]:
    """Mean R2 right after learning, R2 of all at the end, and what the earlier ones lost in between."""
    learned = turns[turns.after == turns.on].set_index("on").r2
    final = turns[turns.after == turns.after.iloc[-1]].set_index("on").r2
    lost = (learned - final).drop(turns.after.iloc[-1])
    return {"learned": float(learned.mean()), "final": float(final.mean()), "forgotten": float(lost.mean())}
