"""What training logs: ``metrics.csv`` (step, name, value), the curves read back from it, and their plot.

Rows are long, not wide, because the parts of a loss may differ from step to step. The file holds no
times, so two runs that train alike write it alike.
"""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np

from neurofm_ml.types import Array

Curves = dict[str, tuple[Array, Array]]
HEADER = "step,name,value\n"


class MetricsLog:
    """Appends to a metrics file, after dropping the rows past `step` that an interrupted run left.

    Of several processes one has `writing` set; for the others this does nothing.
    """

    def __init__(self, path: Path, step: int, writing: bool) -> None:
        self._file: TextIO | None = None
        if not writing:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        partial.write_text("".join([HEADER, *(row for row in _complete_rows(path) if int(row.split(",", 1)[0]) <= step)]))
        partial.replace(path)
        self._file = path.open("a", newline="")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file:
            self._file.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row per value."""
        if self._file:
            csv.writer(self._file, lineterminator="\n").writerows((step, name, repr(float(value))) for name, value in values.items())

    def sync(self) -> None:
        """Rows written so far are on the disk when this returns."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


def _complete_rows(path: Path) -> list[str]:
    """Rows that end in a newline: a killed writer may have left a part of one."""
    return [line for line in path.read_text().splitlines(keepends=True)[1:] if line.endswith("\n")] if path.exists() else []


def read_curves(path: Path) -> Curves:
    """Every logged quantity as (steps, values), in the order of the steps."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, name, value in csv.reader(_complete_rows(path)):
        found.setdefault(name, []).append((int(step), float(value)))
    return {name: (np.array([s for s, _ in rows]), np.array([v for _, v in rows])) for name, rows in found.items()}


def plot_curves(curves: Curves, path: Path, title: str) -> None:
    """PNG of the training loss, with the validation curves below it when there are any."""
    from matplotlib.figure import Figure

    validation = {name: curve for name, curve in curves.items() if name.startswith("validation/")}
    figure = Figure(figsize=(7, 3.2 * (2 if validation else 1)), layout="constrained")
    panels = figure.subplots(2 if validation else 1, sharex=True, squeeze=False)[:, 0]
    panels[0].plot(*curves["loss"])
    panels[0].set(ylabel="training loss", title=title)
    for name, curve in validation.items():
        panels[-1].plot(*curve, marker=".", label=name.removeprefix("validation/"))
        panels[-1].legend(fontsize="small")
    panels[-1].set_xlabel("update")
    figure.savefig(path, dpi=120)
