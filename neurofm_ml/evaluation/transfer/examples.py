"""Examples: features beside the answer to one task, row by row, whatever the features are and wherever the rows come from.

A row is a bin of a series, a window with a label, or, for what is asked of a person, a recording (its windows averaged). Rows
of one `trial` have one label: a second of a series, a stretch of an interval, a person. Trials of one `unit` are not independent
of each other: those of a person, where whole people are held out.

Shapes: n rows, D features, K target columns.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.readouts.readout import balanced, indicators
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.types import Array

ABOUT = ("dataset", "recording", "session", "subject", "species", "modality", "split", "unit", "trial", "time")


@dataclass(frozen=True, eq=False)
class Examples:
    """x (n, D), y (n, K) numbers or, for classes, (n, 1) places among them; about: one row each, columns ABOUT, time in seconds;
    columns: the K targets of a series with their unit, as in "x [cm]"; labels have none."""

    task: TaskSpec
    x: Array
    y: Array
    about: pd.DataFrame
    columns: tuple[str, ...] = ()

    def where(self, rows: Array) -> "Examples":
        """The rows that (n,) names or marks True."""
        at = np.flatnonzero(rows) if rows.dtype == bool else rows
        return dataclasses.replace(self, x=self.x[at], y=self.y[at], about=self.about.iloc[at].reset_index(drop=True))

    def split(self, name: str) -> "Examples":
        return self.where((self.about.split == name).to_numpy())

    def groups(self, of: str) -> Array:
        """(n,) places of the rows' units, trials, recordings, sessions or subjects among all there are; datasets share none."""
        outer, inner = (pd.factorize(self.about[name])[0] for name in ("dataset", of))
        return np.unique(outer * (len(inner) + 1) + inner, return_inverse=True)[1]

    @property
    def targets(self) -> Array:
        """What a readout is fitted to: (n, K) numbers, or (n, C) indicators of the classes."""
        return indicators(self.y[:, 0], len(self.task.classes)) if self.task.classes else self.y

    @property
    def weights(self) -> Array:
        """(n,) weights of rows: classes count alike."""
        return balanced(self.y[:, 0]) if self.task.classes else np.ones(len(self.y))

    @property
    def signature(self) -> tuple[str, bool, tuple[str, ...], tuple[str, ...]]:
        """What a readout of this task answers: examples with the same can be read by one readout."""
        return self.task.name, self.task.is_label, self.task.classes, self.columns


def joined(parts: Sequence[Examples]) -> Examples:
    """Examples of one signature, one after the other."""
    first = parts[0]
    about = pd.concat([p.about for p in parts], ignore_index=True)
    return dataclasses.replace(first, x=np.concatenate([p.x for p in parts]), y=np.concatenate([p.y for p in parts]), about=about)


def averaged(examples: Examples) -> Examples:
    """One row per recording: the mean over its windows."""
    blocks = examples.groups("recording")
    _, first, counts = np.unique(blocks, return_index=True, return_counts=True)
    total = np.zeros((len(first), examples.x.shape[1]))
    np.add.at(total, blocks, examples.x)
    about = examples.about.iloc[first].reset_index(drop=True)
    return dataclasses.replace(examples, x=total / counts[:, None], y=examples.y[first], about=about)
