"""The `fit_scaling` job: how the validation loss falls with parameters and with compute (Kaplan et al. 2020).

Shapes: S sizes, R seeds.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from neurofm_ml.config import patch
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.recordings import load_card
from neurofm_ml.presets import ScalingConfig
from neurofm_ml.training.budget import estimate
from neurofm_ml.training.pretrain import choose
from neurofm_ml.training.trial import Pretraining
from neurofm_ml.types import Array, Check, Report

LEVEL = 0.95
#: Exponents that are tried where there is a floor.
EXPONENTS = np.linspace(-3, 3, 1201)


class Law(NamedTuple):
    """loss = scale * size ** -exponent + floor, and the 95 % interval of the exponent."""

    exponent: float
    ci_low: float
    ci_high: float
    scale: float
    floor: float

    def __call__(self, size: Array) -> Array:
        return self.scale * size**-self.exponent + self.floor


def fit_scaling(cfg: ScalingConfig, shards: Sequence[Path], scaler: Sequence[Path], out: Path) -> Report:
    """Train every cell (width, seed) that `out` does not hold yet; writes ``cells.parquet`` and ``scaling.png``."""
    used, _ = choose(cfg.base.datasets, shards)
    paths = tuple(used.values())
    cells = [_cell(cfg, width, seed, paths, tuple(scaler), out / "cells") for width in cfg.widths for seed in cfg.seeds]
    table = pd.DataFrame(cells)
    table.to_parquet(out / "cells.parquet", index=False)
    return report(table, cfg.n_boot, out)


def _cell(cfg: ScalingConfig, width: int, seed: int, shards: tuple[Path, ...], scaler: tuple[Path, ...], home: Path) -> dict[str, Any]:
    """One pretraining run: how big it was, and its validation loss at the end."""
    base = patch(cfg.base, {"seed": seed, "model": {"d_model": width}})
    folder = home / f"width-{width}-seed-{seed}"
    run = Pretraining(base, shards, scaler, min(base.train.checkpoint_every, base.train.steps), cfg.validation_batches)
    loss = run({}, folder, base.train.steps)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the loss stands in the metrics
    took = estimate(base, **_windows(shards))
    return {"width": width, "seed": seed, "parameters": int(took["parameters"]), "flops": took["flops"], "loss": loss}


def _windows(shards: Sequence[Path]) -> dict[str, int]:
    """Bins and channels of a window, on average over datasets."""
    cards, vocabulary = [load_card(path) for path in shards], build_vocabulary(shards)
    channels = sum(map(len, vocabulary.channels.values())) / len(vocabulary.sessions)
    return {"bins": round(float(np.mean([card.window_s * card.grid_hz for card in cards]))), "channels": max(1, round(channels))}


def report(table: pd.DataFrame, n_boot: int, out: Path) -> Report:
    """The laws behind a table of cells, drawn and in numbers."""
    losses = table.pivot(index="width", columns="seed", values="loss").to_numpy()
    finite = bool(np.isfinite(losses).all())
    blocking = Check("loss_is_finite", finite, numbers={"cells": losses.size}, threshold="every cell finite")
    if not finite:
        return Report({}, (blocking, Check("loss_falls_with_size", False, "warn", note="a run diverged")))
    sizes = {name: table.groupby("width")[name].first().to_numpy(float) for name in ("parameters", "flops")}
    laws = {name: fit_law(size, losses, n_boot) for name, size in sizes.items()}
    law = laws["parameters"]
    plot(sizes, losses, laws, out / "scaling.png")
    falls = Check("loss_falls_with_size", law.ci_low > 0, "warn", {"exponent": law.exponent, "ci_low": law.ci_low}, "interval above 0")
    numbers = {"exponent": law.exponent, "ci_low": law.ci_low, "ci_high": law.ci_high, "floor": law.floor}
    compute = {f"compute_{name}": getattr(laws["flops"], name) for name in ("exponent", "ci_low", "ci_high")}
    means = {f"loss at {int(n):,} parameters": float(v) for n, v in zip(sizes["parameters"], losses.mean(1), strict=True)}
    return Report({**numbers, **compute, **means}, (blocking, falls), {"scaling law": "scaling.png", "cells": "cells.parquet"})


def fit_law(size: Array, loss: Array, n_boot: int = 1000, seed: int = 0) -> Law:
    """The power law of mean losses (S, R) over size (S,), by least squares: of logarithms for three sizes, else with a floor.

    Interval: Student's t with R - 1 degrees of freedom per size, times the deviation of the exponent over resampled seeds,
    which is corrected for how few they are. Raises ValueError for losses that are not positive.
    """
    from scipy import stats

    if not (loss > 0).all():
        raise ValueError(
            f"losses go down to {loss.min():g}, and a power law is positive; train for objectives that are, such as behaviour."
        )
    fitted: Callable[[Array, Array], Array] = _with_floor if len(size) > 3 else _straight
    rng, (n_sizes, n_seeds) = np.random.default_rng(seed), loss.shape
    drawn = np.take_along_axis(loss[None], rng.integers(n_seeds, size=(n_boot, n_sizes, n_seeds)), 2).mean(2)
    exponent, scale, floor = fitted(size, loss.mean(1)[None])[0]
    error = float(fitted(size, drawn)[:, 0].std()) * math.sqrt(n_seeds / (n_seeds - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n_sizes * (n_seeds - 1))) * error
    return Law(float(exponent), float(exponent - half), float(exponent + half), float(scale), float(floor))


def _straight(size: Array, loss: Array) -> Array:
    """(n, 3) exponent, scale and no floor of losses (n, S): a line through the logarithms."""
    x = np.log(size) - np.log(size).mean()
    y = np.log(loss)
    slope = y @ x / (x @ x)
    return np.stack([-slope, np.exp(y.mean(1) - slope * np.log(size).mean()), np.zeros(len(loss))], 1)


def _with_floor(size: Array, loss: Array) -> Array:
    """(n, 3) exponent, scale and floor of losses (n, S): for each exponent the others are a straight line; the best is kept."""
    middle = np.exp(np.log(size).mean())
    exponents = EXPONENTS[np.abs(EXPONENTS) > 1e-6]
    shape = (size / middle) ** -exponents[:, None]  # (G, S)
    centred = shape - shape.mean(1, keepdims=True)
    y = loss - loss.mean(1, keepdims=True)
    scale = np.maximum(y @ centred.T / (centred**2).sum(1), 0.0)  # (n, G)
    left = (y**2).sum(1, keepdims=True) - 2 * scale * (y @ centred.T) + scale**2 * (centred**2).sum(1)
    best = left.argmin(1)
    rows = np.arange(len(loss))
    exponent, scale = exponents[best], scale[rows, best]
    floor = loss.mean(1) - scale * shape.mean(1)[best]
    return np.stack([exponent, scale * middle**exponent, floor], 1)


def plot(sizes: dict[str, Array], losses: Array, laws: dict[str, Law], path: Path) -> None:
    """A panel per measure of size: every cell, and the law."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, (name, size) in zip(figure.subplots(1, len(sizes), sharey=True), sizes.items(), strict=True):
        law = laws[name]
        axis.loglog(np.repeat(size, losses.shape[1]), losses.ravel(), "o", markersize=4, alpha=0.6)
        line = np.geomspace(size.min(), size.max(), 50)
        axis.loglog(line, law(line), label=f"exponent {law.exponent:.3f} [{law.ci_low:.3f}, {law.ci_high:.3f}]")
        axis.set(xlabel=name, ylabel="validation loss")
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=120)
