"""Activity inferred by LFADS and NDT, once per population, for decoding and for reconstruction alike.

Shapes: T bins, N channels, H channels held out.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.evaluation.baselines.lfads import LFADS
from neurofm_ml.evaluation.baselines.ndt import NDT
from neurofm_ml.evaluation.baselines.rates import MakeNetwork, RatesFit, fit_rates
from neurofm_ml.evaluation.tasks.signals import SignalCase, find_signals, held_out
from neurofm_ml.evaluation.tasks.tasks import Blocks, Case
from neurofm_ml.presets import SPLITS, BaselinesConfig
from neurofm_ml.types import Array

NETWORKS: dict[str, MakeNetwork] = {"lfads": LFADS, "ndt": NDT}
#: What they are made for: populations of cells.
POPULATIONS = ("spikes", "calcium")


@dataclass(frozen=True, eq=False)
class Inferred:
    """Split -> guess (T, N), log rates of counts or values; hidden (T, H), what was said of the held-out channels of the test block
    when they were not shown; numbers of the fit."""

    guess: Blocks
    hidden: Array
    parameters: int
    train_seconds: float
    samples_per_second: float


def population_of(case: Case) -> SignalCase | None:
    """The population that a decoding task reads, where it reads one alone."""
    found = (s for s in find_signals(case.shards, case.scaler, ()) if s.recording == case.recording and (s.signal,) == case.task.inputs)
    return next((signal for signal in found if signal.modality in POPULATIONS), None)


def inferred(case: SignalCase, method: str, cfg: BaselinesConfig, out: Path) -> Inferred:
    """What `method` makes of a population, fitted now or taken from where an earlier call left it."""
    path = out / "fits" / f"{case.dataset}-{case.recording}-{case.signal}-{method}.npz"
    if not path.exists():
        data = case.data
        fit = fit_rates(NETWORKS[method], data.x["train"], data.x["validation"], data.counts, cfg.rates, cfg.seed)
        _save(path, _asked(fit, case, cfg))
    with np.load(path) as file:
        parameters, seconds, speed = file["numbers"].tolist()
        return Inferred({split: file[split] for split in SPLITS}, file["hidden"], int(parameters), seconds, speed)


def _asked(fit: RatesFit, case: SignalCase, cfg: BaselinesConfig) -> Inferred:
    x, hidden = case.data.x, held_out(case, cfg)
    began = time.perf_counter()
    guess = {split: fit.guess(values) for split, values in x.items()}
    speed = sum(map(len, x.values())) / (time.perf_counter() - began)
    return Inferred(guess, fit.guess(x["test"], hidden)[:, hidden], fit.parameters, fit.seconds, speed)


def _save(path: Path, found: Inferred) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {**found.guess, "hidden": found.hidden}
    arrays["numbers"] = np.array([found.parameters, found.train_seconds, found.samples_per_second])
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)
