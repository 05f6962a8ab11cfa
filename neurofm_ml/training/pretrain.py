"""The pretraining job of every family: one model learns from every dataset that is here."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from neurofm_ml import gang
from neurofm_ml.data.batches import build_vocabulary, readable
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.presets import READ
from neurofm_ml.training import brain_jepa, brainlm, eegnet, meg_transformer, neurofmx  # noqa: F401 (each adds itself to FAMILIES)
from neurofm_ml.training.curriculum import Curriculum
from neurofm_ml.training.families import FAMILIES
from neurofm_ml.training.history import History
from neurofm_ml.training.loop import fit
from neurofm_ml.training.pictures import draw_window
from neurofm_ml.training.problems import provenance
from neurofm_ml.training.replay import LAST, resume_is_exact
from neurofm_ml.training.saved import save_model
from neurofm_ml.types import Report

log = logging.getLogger(__name__)


def pretrain(name: str, cfg: Any, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Train the family `name` from scratch on the training windows of `shards`; no validation or test bin is read.

    Datasets that `cfg.datasets` names and that are not here, or have no training window, are left out by name.
    """
    family = FAMILIES[name]
    used, missing = choose(cfg.datasets, shards, family.modalities, family.shortest_s(cfg))
    paths, scales = list(used.values()), load_scaler(scaler)
    vocabulary = build_vocabulary(paths)

    def trained(folder: Path, **how: Any) -> tuple[Any, History]:
        torch.manual_seed(cfg.seed)
        model: Any = family.build(cfg, vocabulary, paths, scales)
        batches = family.read(cfg, vocabulary, paths, scales)
        observe = batches.observe if isinstance(batches, Curriculum) else None
        told: dict[str, Any] = {"seed": cfg.seed, "provenance": provenance(paths), "description": f"pretrain {name}", "observe": observe}
        with family.beside(cfg, model):
            return model, fit(model, batches, family.loss(cfg), cfg.train, folder, **told, **how)

    model, history = trained(out, checkpoint_at=[cfg.train.steps - LAST])
    exact = resume_is_exact(lambda folder: trained(folder, quiet=True)[0].state_dict(), model.state_dict(), out)
    if gang.rank() == 0:
        save_model(out, model)
        draw_window(model, next(iter(family.evenly(cfg, vocabulary, paths, scales))), out / "window.png")
    metrics = {**history.metrics, "parameters": model.n_parameters(), "datasets": ", ".join(used), "left_out": ", ".join(missing)}
    return Report(metrics, (*history.checks, exact, *family.checks(history)), {**history.shown, "a window and its latents": "window.png"})


def choose(
    wanted: Sequence[str] | None, shards: Sequence[Path], modalities: Sequence[str] = READ, shortest_s: float = 0.0
) -> tuple[Mapping[str, Path], list[str]]:
    """The datasets to learn from, and the names of those wanted that cannot be used: not here, or without training windows that
    hold one of the modalities and last `shortest_s` seconds."""
    here = {load_card(path).name: path for path in shards}
    wanted = wanted or tuple(here)
    used = {name: here[name] for name in wanted if name in here and _has_training_windows(here[name], modalities, shortest_s)}
    missing = sorted(set(wanted) - set(used))
    if missing:
        log.warning("left out of training, without training windows here: %s", ", ".join(missing))
    if not used:
        raise ValueError(
            f"none of the datasets {', '.join(wanted)} has training windows of {', '.join(modalities)} of {shortest_s:g} s or more; "
            "materialise shards of one that has."
        )
    return used, missing


def _has_training_windows(shards: Path, modalities: Sequence[str], shortest_s: float) -> bool:
    if load_card(shards).window_s < shortest_s:
        return False
    table = pd.read_parquet(shards / "windows.parquet", columns=["key", "split"])
    return bool(((table.split == "train") & table.key.isin(readable(shards, modalities).get("key", table.key))).any())
