"""A baseline of labels: views of the windows, a head, and the choice among their settings on the validation windows.

Budget: 16 settings for each baseline. Linear readouts and neighbours have 8 of two views (fewer neighbours where there are fewer rows,
and one view of populations of unknown units), trees 16 of one. Kept is the setting with the best value of the
task's own metric on the validation windows; the first such, and heads begin with the most restrained. Nothing is fitted again on
training and validation windows together, and the test windows are predicted once.

Shapes: n windows, K answers (scores of classes; 1 for a number).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.label_baselines.heads import Fit, Head
from neurofm_ml.evaluation.label_baselines.views import Table, View, look
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, LabelData
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import BaselinesConfig
from neurofm_ml.types import Array


@dataclass(frozen=True)
class FeatureBaseline:
    """`views` of a case (none where it does not apply) read by `head`. The control is a mean over permutations: on the test windows of a
    few people one says little."""

    name: str
    views: Callable[[LabelCase], Sequence[View]]
    head: Head
    n_controls: int = 3

    def applies(self, case: LabelCase) -> bool:
        return bool(self.views(case))

    def __call__(self, case: LabelCase, cfg: BaselinesConfig, out: Path) -> Prediction:
        """Fit, tune, predict the test windows; then the same on permuted labels, as a control."""
        data, tables = case.data, {view.name: look(case.data, view) for view in self.views(case)}
        began = time.perf_counter()
        chosen = choose(data, tables, self.head, cfg.seed)
        seconds = time.perf_counter() - began
        said, per_window = _timed(chosen)
        looking = sum(table.seconds for table in tables.values())
        n_fitted = int((data.rows.split != "test").sum())
        return case.prediction(
            self.name,
            "baseline",
            said,
            seed=cfg.seed,
            parameters=chosen.fit.parameters,
            train_seconds=seconds + looking * n_fitted,
            samples_per_second=1 / (per_window + chosen.table.seconds),
            control=self._control(data, tables, cfg.seed),
        )

    def _control(self, data: LabelData, tables: Mapping[str, Table], seed: int) -> float:
        """The mean score of the same on permuted labels."""
        shuffled = [data.with_permuted_labels(seed + k) for k in range(self.n_controls)]
        return float(np.mean([s.score("test", choose(s, tables, self.head, seed).answer("test")) for s in shuffled]))


@dataclass(frozen=True)
class Chosen:
    """A fit and the table of the view that it reads."""

    fit: Fit
    table: Table

    def answer(self, split: str) -> Array:
        """(n, K) of the windows of a split."""
        return self.fit(self.table.x[split])[self.table.place[split]]


def choose(data: LabelData, tables: Mapping[str, Table], head: Head, seed: int) -> Chosen:
    """The fit to the training rows that says most of the validation windows."""
    from threadpoolctl import threadpool_limits

    best: tuple[float, Chosen] | None = None
    # Matrices and trees this small are done sooner by one thread than by many on a busy machine.
    with threadpool_limits(1):
        for table in tables.values():
            y = data.labels("train")[table.first["train"]]
            for fit in head(table.x["train"], y, len(data.classes), seed):
                candidate = Chosen(fit, table)
                value = _value(data, candidate.answer("validation"))
                if best is None or value > best[0]:
                    best = value, candidate
    assert best is not None
    return best[1]


def _value(data: LabelData, said: Array) -> float:
    """The task's metric of what was said (n, K) of the validation windows, higher is better; least where it is not defined, as a
    correlation is of answers that are all alike."""
    score = SCORES[data.task.metric]
    truth, answer, _ = data.answered("validation", said)
    value = score.sign * float(score.statistic.weighted(truth, answer, np.ones((1, len(truth))))[0])
    return value if np.isfinite(value) else -np.inf


def _timed(chosen: Chosen) -> tuple[Array, float]:
    """What is said (n, K) of the test windows, and the seconds that a window took."""
    began = time.perf_counter()
    said = chosen.answer("test")
    return said, (time.perf_counter() - began) / len(said)
