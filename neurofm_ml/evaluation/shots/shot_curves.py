"""Few-shot curves: score against labelled examples, a panel per task, with all labels at the right end."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from neurofm_ml.metrics import SCORES

PER_ROW = 4
#: Scores below this are cut in the picture (the table is not): an R2 has no lower bound.
LEAST_SHOWN = -0.5


def draw_curves(table: pd.DataFrame, path: Path) -> None:
    """PNG of every task of a few-shot table; dotted: chance."""
    from matplotlib.figure import Figure

    names = table.dataset + "/" + table.recording + "/" + table.task
    panels = [((p.dataset.iloc[0], p.recording.iloc[0], p.task.iloc[0]), p) for _, p in table.groupby(names)]
    n_rows, n_columns = math.ceil(len(panels) / PER_ROW), min(len(panels), PER_ROW)
    figure = Figure(figsize=(3.6 * n_columns, 3.1 * n_rows + 0.4), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for one, (key, rows) in zip(axes, panels, strict=False):
        _draw(one, rows, "\n".join((f"{key[0]}/{key[1]}", key[2])))
    for one in axes[len(panels) :]:
        one.axis("off")
    axes[0].legend(fontsize=6)
    figure.savefig(path, dpi=110)


def _draw(axes: Any, rows: pd.DataFrame, title: str) -> None:
    metric = rows.metric.iloc[0]
    everything = 2 * rows.k_shot.max() if rows.k_shot.notna().any() else 1.0
    for k, (method, part) in enumerate(rows.assign(at=rows.k_shot.fillna(everything)).sort_values("at").groupby("method")):
        errors = [part.value - part.ci_low, part.ci_high - part.value]
        axes.errorbar(part["at"] * 1.04**k, part.value, yerr=errors, marker="o", markersize=3, capsize=2, linewidth=1, label=method)
    axes.axhline(SCORES[metric].chance, color="0.6", linestyle=":", linewidth=0.8)
    axes.set_xscale("log")
    ticks = sorted(rows.k_shot.dropna().unique())
    axes.set_xticks([*ticks, everything], [*(f"{k:g}" for k in ticks), "all"], minor=False)
    axes.minorticks_off()
    if (rows.ci_low < LEAST_SHOWN).any():
        axes.set_ylim(LEAST_SHOWN, 1.02)
    axes.set_title(title, fontsize=7)
    axes.set_ylabel(metric, fontsize=7)
