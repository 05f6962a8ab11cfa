"""Meta-learning: weights from which a few updates on a new recording go far.

An update of the outer loop is one episode: a copy of the model is fitted to a few batches of one recording, and
the model is moved towards it (Reptile: Nichol et al. 2018), or along the gradient that the copy finds on a batch it has
not seen (first-order MAML: Finn et al. 2017). Both are directions, handed to the loop's optimiser as gradients, so that
the loop saves and resumes them like any others.

Rows of units and sessions are not moved: every episode begins as a new session would, from its tuning maps.
"""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurofm_ml.data.batches import Collate, Sample
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.mixture import Mixture
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import MetaConfig
from neurofm_ml.training.adapt import decoding_problems
from neurofm_ml.training.decoders import adapted_to
from neurofm_ml.training.loop import LossFunction, fit
from neurofm_ml.training.problems import Problem, provenance
from neurofm_ml.training.saved import load_model, save_model
from neurofm_ml.training.steps import weighted_loss
from neurofm_ml.training.tuning import embed_by_tuning
from neurofm_ml.types import Report


@dataclass(frozen=True)
class Episode:
    """Batches of one task: one per inner update, then one to judge by."""

    batches: tuple[Any, ...]

    def to(self, device: torch.device) -> "Episode":
        return Episode(tuple(batch.to(device) for batch in self.batches))


def episodic(inner: LossFunction, cfg: MetaConfig) -> LossFunction:
    """A loss of episodes whose gradient is the direction of the outer update, and whose value the copy's loss on the last batch."""

    def loss(model: nn.Module, episode: Episode, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        *shown, unseen = episode.batches
        learner = copy.deepcopy(model).requires_grad_(True)
        # Without momentum: the copy has no past (Nichol et al.).
        optimizer = torch.optim.Adam(learner.parameters(), lr=cfg.inner_lr, betas=(0.0, 0.999))
        before = inner(learner, unseen, generator, progress)[0].detach()
        for batch in shown:
            optimizer.zero_grad()
            inner(learner, batch, generator, progress)[0].backward()
            optimizer.step()
        optimizer.zero_grad()
        after = inner(learner, unseen, generator, progress)[0]
        if cfg.method == "maml":
            after.backward()
        along = [
            (p * _direction(p, fast, cfg)).sum()
            for p, fast in zip(model.parameters(), learner.parameters(), strict=True)
            if p.requires_grad
        ]
        gradient = torch.stack(along).sum()
        return gradient - gradient.detach() + after.detach(), {"before": before}

    return loss


def _direction(p: Tensor, fast: Tensor, cfg: MetaConfig) -> Tensor:
    if cfg.method == "maml":
        return torch.zeros_like(p) if fast.grad is None else fast.grad
    return (p - fast).detach() / (cfg.inner_steps * cfg.inner_lr)


# ---------------------------------------------------------------- the job
def meta_train(cfg: MetaConfig, pretrained: Path, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Go on from a pretrained model; what is written can be adapted like it."""
    scale, problems = load_scaler(scaler), decoding_problems(cfg.datasets, shards)
    model = as_new(load_model(pretrained), problems, scale, cfg.seed)
    loss = episodic(weighted_loss(cfg.augment, {"behaviour": 1.0}), cfg)
    made_from = provenance(list(dict.fromkeys(problem.shards for problem in problems)))
    history = fit(
        model, episodes(cfg, model, problems, scale), loss, cfg.train, out, seed=cfg.seed, provenance=made_from, description=cfg.method
    )
    save_model(out, model.requires_grad_(True))
    return Report({**history.metrics, "recordings": len(problems), "parameters": model.n_parameters()}, history.checks, history.shown)


def as_new(base: NeuroFMx, problems: Sequence[Problem], scaler: Scaler, seed: int) -> NeuroFMx:
    """`base` with every session as if it had never been seen, and the tables that say so frozen."""
    model = adapted_to(base, problems, scaler, seed)
    embed_by_tuning(model, problems, scaler)
    nn.init.zeros_(model.session.weight)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)
    return model


def episodes(cfg: MetaConfig, model: NeuroFMx, problems: Sequence[Problem], scaler: Scaler) -> Mixture:
    """Endless episodes, each of one problem's training windows, every problem drawn equally often."""
    size, loaders = cfg.train.batch_size, {}
    for problem in problems:
        collate = Collate([problem.shards], model.vocabulary, scaler, problem.inputs, problem.task_names())
        loaders[problem.name] = Loader(
            [problem.shards],
            split="train",
            batch_size=size * (cfg.inner_steps + 1),
            seed=cfg.seed,
            where=problem.windows("train"),
            collate=functools.partial(_episode, collate, size),
        )
    return Mixture(loaders, dict.fromkeys(loaders, 1.0), cfg.seed)


def _episode(collate: Collate, size: int, samples: Sequence[Sample]) -> Episode:
    return Episode(tuple(collate(samples[i : i + size]) for i in range(0, len(samples), size)))
