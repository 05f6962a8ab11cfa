"""Probes of people and sites that were not learned from: each is left out in turn, and intervals are over people.

Ridge on pooled features, with classes weighted alike in every fold: where they were not, leaving a person out would shift the
fit against that person's class, and areas under the curve fall below chance on noise. Answers of different folds still share
training people, which intervals over people do not know: few people at chance may lie far from it on either side. The penalty is the one that training
windows choose for validation windows. Shapes: n windows, D width, K classes (1 for a number).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.features.identity import codes
from neurofm_ml.evaluation.readouts.readout import Path, balanced, indicators
from neurofm_ml.evaluation.statistics.resampling import score_interval
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.metrics import SCORES
from neurofm_ml.types import Array

#: People or sites there must be to leave one out.
LEAST = 3


@dataclass(frozen=True, eq=False)
class Labelled:
    """Windows x (n, D) whose label y (n,) is known, and their table; features are in deviations over the training windows."""

    task: TaskSpec
    x: Array
    y: Array
    windows: pd.DataFrame

    @classmethod
    def of(cls, task: TaskSpec, x: Array, windows: pd.DataFrame) -> "Labelled":
        y = windows[task.name].to_numpy(float)
        known, train = np.isfinite(y), (windows.split == "train").to_numpy()
        std = x[known & train].std(0, dtype=np.float64)
        scaled = np.asarray(x[known], np.float64) / np.where(std > 0, std, np.inf)
        return cls(task, scaled, y[known], windows[known].reset_index(drop=True))

    def path(self, rows: Array) -> Path:
        """Readouts of these rows (n,), at all penalties."""
        y = self.y[rows]
        if self.task.classes:
            return Path.of(self.x[rows], indicators(y, len(self.task.classes)), balanced(y))
        return Path.of(self.x[rows], y[:, None])

    def answered(self, said: Array, rows: Array) -> tuple[Array, Array, Array]:
        """Truth (m, 1), answer (m, K) and person (m,) of these rows; what is asked of a person once for each recording."""
        people, y = codes(self.windows.subject)[rows], self.y[rows]
        if not self.task.target.startswith("subject."):
            return y[:, None], said, people
        recording = codes((self.windows.dataset + "/" + self.windows.recording)[rows])
        _, first = np.unique(recording, return_index=True)
        mean = np.stack([np.bincount(recording, column) for column in said.T], 1) / np.bincount(recording)[:, None]
        return y[first, None], mean, people[first]


def left_out_rows(data: Labelled, by: str, n_boot: int, seed: int) -> Iterator[dict[str, Any]]:
    """The score of every `by` ("subject", "site") left out in turn: all together, and each site."""
    groups, train = data.windows[by].astype(str).to_numpy(), (data.windows.split == "train").to_numpy()
    names = np.unique(groups)
    if len(names) < LEAST or len(np.unique(data.y[train])) < 2:
        return
    k, said = _penalty(data, train), np.full((len(data.y), max(1, len(data.task.classes))), np.nan)
    for name in names:
        out = groups == name
        if len(np.unique(data.y[~out])) > 1:
            said[out] = data.path(~out).readout(k)(data.x[out])
    answered = np.isfinite(said).all(1)
    parts: Mapping[str, Array] = {"all": answered} | ({name: answered & (groups == name) for name in names} if by == "site" else {})
    for name, rows in parts.items():
        if (row := _scored(data, said, rows, n_boot, seed)) is not None:
            yield {"task": data.task.name, "left_out": by, "group": name, "groups": len(names), **row}


def _penalty(data: Labelled, train: Array) -> int:
    """The place of the penalty that does best on validation windows; the middle one where there are none to tell apart."""
    rows = (data.windows.split == "validation").to_numpy()
    path, score = data.path(train), SCORES[data.task.metric]
    if len(np.unique(data.y[rows])) < 2:
        return len(path.penalties) // 2
    scores = [score.sign * score.value(*data.answered(said, rows)[:2]) for said in path.predictions(data.x[rows])]
    return len(scores) - 1 - int(np.argmax(scores[::-1]))


def _scored(data: Labelled, said: Array, rows: Array, n_boot: int, seed: int) -> dict[str, Any] | None:
    truth, answer, people = data.answered(said[rows], rows)
    if len(np.unique(truth)) < 2 or len(np.unique(people)) < LEAST:
        return None
    found = score_interval(data.task.metric, truth, answer, people, n_boot, seed)
    about = {"metric": data.task.metric, "chance": SCORES[data.task.metric].at_chance(truth), "people": len(np.unique(people))}
    return {**about, "value": found.value, "ci_low": found.low, "ci_high": found.high, "p": found.p}
