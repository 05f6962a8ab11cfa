"""A pretraining run that stops after any update, is judged on validation windows, and goes on: what searches and scaling laws try."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from neurofm_ml.config import patch
from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary, readable
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler, load_scaler
from neurofm_ml.presets import PretrainConfig
from neurofm_ml.training import neurofmx  # noqa: F401 (adds itself to FAMILIES)
from neurofm_ml.training.checkpoints import identity, latest_checkpoint, save_checkpoint
from neurofm_ml.training.curriculum import Curriculum
from neurofm_ml.training.curves import read_curves
from neurofm_ml.training.families import FAMILIES
from neurofm_ml.training.loop import Diverged, ResumableIterable, Validation, fit

#: What training has and validation has not: learned weights, stages. Augmentation ends by itself, in eval mode.
PLAIN = {"weighting": "fixed", "curriculum": []}
JUDGED = "validation/loss"


class Objective(Protocol):
    """What is tried: a run in a folder of its own, with some changes to a config."""

    def __call__(self, changes: Mapping[str, Any], folder: Path, until: int) -> float:
        """Loss after update `until`, going on from what the folder holds; infinite where training diverged."""

    def inherit(self, changes: Mapping[str, Any], folder: Path, parent: Path) -> None:
        """Fill an empty folder so that a run with `changes` goes on from where the one in `parent` stands."""


@dataclass(frozen=True)
class Pretraining:
    """Pretraining of NeuroFMx on the training windows of `shards`, judged by its own loss on validation windows of each, without
    augmentation. `every` updates it can stop; the number of all updates is a multiple of it."""

    base: PretrainConfig
    shards: tuple[Path, ...]
    scaler: tuple[Path, ...]
    every: int
    validation_batches: int = 16

    def config(self, changes: Mapping[str, Any]) -> PretrainConfig:
        """The base with some leaves changed."""
        return patch(patch(self.base, changes), {"train": {"checkpoint_every": self.every, "keep": 1}})

    def __call__(self, changes: Mapping[str, Any], folder: Path, until: int) -> float:
        if (known := judged_at(folder, until)) is not None:
            return known
        cfg, scaler = self.config(changes), load_scaler(self.scaler)
        vocabulary, family = build_vocabulary(self.shards), FAMILIES["neurofmx"]
        torch.manual_seed(cfg.seed)
        model: Any = family.build(cfg, vocabulary, self.shards, scaler)
        found = latest_checkpoint(folder / "checkpoints")
        left = until - (found.step if found else 0)
        batches = family.read(cfg, vocabulary, self.shards, scaler)
        observe = batches.observe if isinstance(batches, Curriculum) else None
        how: dict[str, Any] = {"seed": cfg.seed, "validate": self._validation(model.vocabulary, scaler), "description": folder.name}
        try:
            with suppress(Ended), family.beside(cfg, model):
                fit(model, Ending(batches, left * cfg.train.accumulate), family.loss(cfg), cfg.train, folder, observe=observe, **how)
        except Diverged:
            return math.inf
        loss = judged_at(folder, until)
        assert loss is not None, f"{folder} was not judged at update {until}"
        return loss

    def inherit(self, changes: Mapping[str, Any], folder: Path, parent: Path) -> None:
        found, cfg = latest_checkpoint(parent / "checkpoints"), self.config(changes)
        assert found is not None, f"{parent} holds no checkpoint"
        mine = {**found.state, "config": identity(cfg.train, cfg.seed, world=1)}
        save_checkpoint(folder / "checkpoints", replace(found, state=mine), keep=1)
        shutil.copy(parent / "metrics.csv", folder)

    def _validation(self, vocabulary: Vocabulary, scaler: Scaler) -> Validation:
        loss, collate = FAMILIES["neurofmx"].loss(patch(self.base, PLAIN)), Collate(self.shards, vocabulary, scaler, side=True)
        loaders = validation_loaders(self.shards, collate, self.base.train.batch_size, self.validation_batches)

        def validate(model: Any) -> dict[str, float]:
            means = [self._mean(model, loss, loader) for loader in loaders]
            return {JUDGED.partition("/")[2]: sum(means) / len(means)}

        return validate

    def _mean(self, model: Any, loss: Any, loader: Loader) -> float:
        """Mean over windows of one dataset; what is hidden is the same every time."""
        device, total, n = next(model.parameters()).device, 0.0, 0
        for k, batch in enumerate(loader.epoch()):
            size = len(batch.rows)
            total += size * float(loss(model, batch.to(device), torch.Generator(device).manual_seed(k), 1.0)[0])
            n += size
        return total / n


def judged_at(folder: Path, step: int) -> float | None:
    """The validation loss that a folder's metrics state for an update, None where they do not."""
    if not (folder / "metrics.csv").exists():
        return None
    steps, values = read_curves(folder / "metrics.csv").get(JUDGED, ((), ()))
    return next((float(value) for at, value in zip(steps, values, strict=True) if at == step), None)


def validation_loaders(shards: Sequence[Path], collate: Collate, batch_size: int, n_batches: int) -> list[Loader]:
    """One per dataset that has validation windows: at most `n_batches`, spread evenly over all of them."""
    loaders = []
    for path in shards:
        table = pd.read_parquet(path / "windows.parquet", columns=["key", "split"])
        keys = table.key[(table.split == "validation") & table.key.isin(readable(path).get("key", table.key))].to_numpy()
        if len(keys):
            spread = np.linspace(0, len(keys) - 1, min(len(keys), n_batches * batch_size)).round().astype(int)
            where = {"key": list(keys[spread])}
            loaders.append(Loader([path], split="validation", batch_size=batch_size, seed=0, where=where, collate=collate))
    if not loaders:
        names = ", ".join(load_card(path).name for path in shards)
        raise ValueError(f"none of the datasets {names} has validation windows to judge by; materialise shards of one that has.")
    return loaders


class Ended(Exception):  # noqa: N818 (an agreed end, not an error)
    """Raised by `Ending` when all batches that it was to give are given."""


class Ending:
    """Batches that end after `count`, where `fit` has just written its checkpoint."""

    def __init__(self, batches: ResumableIterable, count: int) -> None:
        self.batches, self.count = batches, count

    def __iter__(self) -> Iterator[Any]:
        yield from islice(iter(self.batches), self.count)
        raise Ended

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state)
