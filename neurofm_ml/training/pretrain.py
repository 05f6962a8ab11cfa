"""The `pretrain` job: one model learns from every dataset that is here."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from neurofm_ml.data.batches import Collate, build_vocabulary
from neurofm_ml.data.loader import Loader, Mixture
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import PretrainConfig
from neurofm_ml.training.decoders import save_model
from neurofm_ml.training.loop import fit
from neurofm_ml.training.problems import find_problems
from neurofm_ml.training.steps import weighted_loss
from neurofm_ml.training.tuning import embed_by_tuning
from neurofm_ml.types import Report

log = logging.getLogger(__name__)


def pretrain(cfg: PretrainConfig, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Train from scratch on the training windows of `shards`; no validation or test bin is read.

    Datasets that `cfg.datasets` names and that are not here are left out by name.
    """
    here = {load_card(path).name: path for path in shards}
    wanted = cfg.datasets or tuple(here)
    missing = sorted(set(wanted) - set(here))
    if missing:
        log.warning("left out of pretraining, not here: %s", ", ".join(missing))
    used = {name: here[name] for name in wanted if name in here}
    if not used:
        raise ValueError(f"none of the datasets {', '.join(wanted)} has shards; materialise shards of at least one.")
    model, batches = build(cfg, list(used.values()), scaler)
    history = fit(model, batches, weighted_loss(cfg.augment, cfg.objectives), cfg.train, out, seed=cfg.seed, description="pretrain")
    save_model(out, model)
    shutil.rmtree(out / "checkpoints")  # the finished weights stand beside them
    metrics = {**history.metrics, "parameters": model.n_parameters(), "datasets": ", ".join(used), "left_out": ", ".join(missing)}
    return Report(metrics, history.checks, history.shown)


def build(cfg: PretrainConfig, shards: Sequence[Path], scaler: Sequence[Path]) -> tuple[NeuroFMx, Mixture]:
    """A fresh model and the mixture of its datasets' training windows, drawn by the root of their number."""
    vocabulary = build_vocabulary(shards)
    torch.manual_seed(cfg.seed)
    model, scale = NeuroFMx(cfg.model, vocabulary), load_scaler(scaler)
    embed_by_tuning(model, (problem for path in shards for problem in find_problems(path)), scale)
    collate = Collate(shards, vocabulary, scale)
    loaders = {
        load_card(path).name: Loader([path], split="train", batch_size=cfg.train.batch_size, seed=cfg.seed, collate=collate)
        for path in shards
    }
    return model, Mixture(loaders, {name: len(loader) ** 0.5 for name, loader in loaders.items()}, cfg.seed)
