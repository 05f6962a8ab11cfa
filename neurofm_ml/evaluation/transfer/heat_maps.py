"""Heat maps of transfer: a panel per matrix, coloured by the distance from chance, so that what misleads is seen as such."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Scores further than this from chance have the strongest colour; the numbers in the cells are not cut.
REACH = 0.5
#: Matrices with more places have no numbers in their cells.
MOST_WRITTEN = 14
PER_ROW = 3
#: A q at or below this is a finding.
LEVEL = 0.05


def draw_matrices(table: pd.DataFrame, path: Path) -> None:
    """PNG of every matrix of a transfer table: rows are sources, columns targets; a star marks q <= .05."""
    from matplotlib.figure import Figure

    panels = list(table.assign(matrix=_matrix(table)).groupby(["axis", "matrix"], sort=False))
    n_rows = math.ceil(len(panels) / PER_ROW)
    figure = Figure(figsize=(5.2 * min(len(panels), PER_ROW), 4.6 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, min(len(panels), PER_ROW), squeeze=False).ravel()
    for one, ((axis, name), cells) in zip(axes, panels, strict=False):
        image = _draw(one, cells, f"{axis}: {name} ({'/'.join(cells.metric.unique())})")
    for one in axes[len(panels) :]:
        one.axis("off")
    figure.colorbar(image, ax=list(axes), label="score less chance", shrink=0.6)
    figure.savefig(path, dpi=110)


def _matrix(table: pd.DataFrame) -> pd.Series:
    """What a matrix is of: a task; on the axis of tasks, a dataset."""
    return table.task.where(table.axis != "task", table.target.str.split("/").str[0])


def _draw(axes: Any, cells: pd.DataFrame, title: str) -> Any:
    above = cells.assign(above=cells.value - cells.chance).pivot(index="source", columns="target", values="above")
    image = axes.imshow(np.clip(above, -REACH, REACH), cmap="RdBu_r", vmin=-REACH, vmax=REACH)
    names = [name.split("/", 1)[-1] for name in above.columns]
    axes.set(title=title, xlabel="scored on", ylabel="fitted on")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    if len(names) <= MOST_WRITTEN:
        stars = cells.pivot(index="source", columns="target", values="q") <= LEVEL
        written = cells.pivot(index="source", columns="target", values="value").map("{:.2f}".format) + stars.replace({True: "*", False: ""})
        for (row, column), text in np.ndenumerate(written.to_numpy()):
            dark = abs(above.to_numpy()[row, column]) > 0.6 * REACH
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    return image


def draw_missing(parts: pd.DataFrame, path: Path) -> None:
    """PNG of scores against how many modalities are there: by the readout of all together, and by the readout of each part itself."""
    from matplotlib.figure import Figure

    panels = list(parts.groupby(["source", "task"]))
    n_rows = math.ceil(len(panels) / PER_ROW)
    figure = Figure(figsize=(4 * min(len(panels), PER_ROW), 3.2 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, min(len(panels), PER_ROW), squeeze=False).ravel()
    for one, ((source, task), rows) in zip(axes, panels, strict=False):
        n = rows.target.str.count(r"\+") + 1
        one.plot(n - 0.05, rows.value, "o", label="readout of all together")
        one.plot(n + 0.05, rows.within, "x", color="0.5", label="readout of the part")
        one.set_title("\n".join((str(source).rsplit("/", 1)[0], str(task))), fontsize=7)
        one.set_xticks(sorted(n.unique()))
        one.axhline(rows.chance.iloc[0], color="0.6", linestyle=":", linewidth=0.8)
        one.set_ylim(max(-2.0, rows.value.min() - 0.1), 1.02)
    for one in axes[len(panels) :]:
        one.axis("off")
    axes[0].set(xlabel="modalities there", ylabel=rows.metric.iloc[0])
    axes[0].legend(fontsize=6)
    figure.savefig(path, dpi=110)
