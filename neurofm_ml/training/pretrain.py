"""The `pretrain` job: one model learns from every dataset that is here."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from neurofm_ml import gang
from neurofm_ml.data.batches import Collate, build_vocabulary, readable
from neurofm_ml.data.loader import Loader, Mixture
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import PretrainConfig
from neurofm_ml.training.decoders import save_model
from neurofm_ml.training.loop import fit, rank_and_world
from neurofm_ml.training.problems import Problem, find_problems, provenance
from neurofm_ml.training.steps import weighted_loss
from neurofm_ml.training.tuning import embed_by_tuning
from neurofm_ml.types import Report

log = logging.getLogger(__name__)


def pretrain(cfg: PretrainConfig, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Train from scratch on the training windows of `shards`; no validation or test bin is read.

    Datasets that `cfg.datasets` names and that are not here, or have no training window, are left out by name.
    """
    here = {load_card(path).name: path for path in shards}
    wanted = cfg.datasets or tuple(here)
    used = {name: here[name] for name in wanted if name in here and _has_training_windows(here[name])}
    missing = sorted(set(wanted) - set(used))
    if missing:
        log.warning("left out of pretraining, without training windows here: %s", ", ".join(missing))
    if not used:
        raise ValueError(f"none of the datasets {', '.join(wanted)} has training windows; materialise shards of at least one.")
    paths = list(used.values())
    _check_objectives(cfg, paths)
    problems = [problem for path in paths for problem in find_problems(path)]
    model, batches = build(cfg, problems, paths, load_scaler(scaler))
    history = fit(
        model,
        batches,
        weighted_loss(cfg.augment, cfg.objectives),
        cfg.train,
        out,
        seed=cfg.seed,
        provenance=provenance(paths),
        description="pretrain",
    )
    if gang.rank() == 0:
        save_model(out, model)
        shutil.rmtree(out / "checkpoints")  # the finished weights stand beside them
    metrics = {**history.metrics, "parameters": model.n_parameters(), "datasets": ", ".join(used), "left_out": ", ".join(missing)}
    return Report(metrics, history.checks, history.shown)


def _has_training_windows(shards: Path) -> bool:
    table = pd.read_parquet(shards / "windows.parquet", columns=["key", "split"])
    return bool(((table.split == "train") & table.key.isin(readable(shards).get("key", table.key))).any())


def _check_objectives(cfg: PretrainConfig, shards: Sequence[Path]) -> None:
    """Refuse datasets that no objective could learn from."""
    idle = [card.name for card in map(load_card, shards) if not card.tasks]
    if idle and not cfg.objectives.get("masked"):
        raise ValueError(
            f"PretrainConfig.objectives is {cfg.objectives}, which finds nothing to learn in {', '.join(idle)}, without tasks; "
            'give "masked" a weight, or name the other datasets in `datasets`.'
        )


def build(cfg: PretrainConfig, problems: Sequence[Problem], shards: Sequence[Path], scaler: Scaler) -> tuple[NeuroFMx, Mixture]:
    """A fresh model and the mixture of its datasets' training windows, each dataset of a kind drawn equally often.

    The targets of a problem are shown only where it is labelled.
    """
    vocabulary = build_vocabulary(shards)
    torch.manual_seed(cfg.seed)
    model = NeuroFMx(cfg.model, vocabulary)
    embed_by_tuning(model, problems, scaler)
    labelled = {f"{p.dataset}/{p.recording}": p.labelled for p in problems if p.labelled}
    collate = Collate(shards, vocabulary, scaler, labelled=labelled)
    rank, world = rank_and_world(cfg.train)
    common: dict[str, Any] = {
        "split": "train",
        "batch_size": cfg.train.batch_size,
        "seed": cfg.seed,
        "rank": rank,
        "world": world,
        "collate": collate,
    }
    loaders = {load_card(path).name: Loader([path], where=readable(path), **common) for path in shards}
    return model, Mixture(loaders, sampling_weights(shards, cfg.labelled_share), cfg.seed)


def sampling_weights(shards: Sequence[Path], labelled_share: float) -> dict[str, float]:
    """Dataset -> its share of the updates: equal among those with tasks, which get `labelled_share`, and among the others."""
    cards = [load_card(path) for path in shards]
    n_labelled = sum(bool(card.tasks) for card in cards)
    if n_labelled in (0, len(cards)):
        return dict.fromkeys((card.name for card in cards), 1.0)
    shares = {True: labelled_share / n_labelled, False: (1 - labelled_share) / (len(cards) - n_labelled)}
    return {card.name: shares[bool(card.tasks)] for card in cards}
