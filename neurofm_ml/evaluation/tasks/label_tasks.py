"""Label tasks as arrays: which windows have a label, what they hold, what they are called, and which belong together.

A case is one label task of one dataset, or of several that share it (`pools`). Its windows keep the splits of their shards.

Shapes: n windows with a known label, T times of a window, C channels, K classes (1 for a number).
"""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.tasks.label_windows import LabelSource
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.knowledge.pools import POOLS
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array, Signal

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelData:
    """Windows with a known label: `rows` (label_windows.COLUMNS), split by split, and `y` (n,) their place among `classes`, or the number."""

    task: TaskSpec
    sources: dict[str, LabelSource]
    rows: pd.DataFrame
    y: Array

    @property
    def classes(self) -> tuple[str, ...]:
        return self.task.classes

    def labels(self, split: str) -> Array:
        """(n,) labels of a split."""
        return self.y[self.rows.split == split]

    def windows(self, split: str) -> Iterator[Signal]:
        """What `read` gives of the windows of a split."""
        return self.read(self.rows[self.rows.split == split])

    def read(self, rows: pd.DataFrame) -> Iterator[Signal]:
        """The inputs of each of these `rows`, in their order: values (T, C) float64 as they were recorded. Inputs of one rate stand side
        by side; of a task with an epoch, T are its times alone."""
        read = {str(name): self.sources[str(name)].read(own, self.task) for name, own in rows.groupby("dataset", sort=False)}
        return (next(read[name]) for name in rows.dataset)

    def with_permuted_labels(self, seed: int) -> "LabelData":
        """The same windows with labels exchanged between trials (people, intervals) of each split: nothing is left to learn."""
        rng, y = np.random.default_rng(seed), self.y.copy()
        for split in SPLITS:
            at = np.flatnonzero(self.rows.split == split)
            _, first, trial = np.unique(self.rows.trial.to_numpy()[at], return_index=True, return_inverse=True)
            y[at] = rng.permutation(self.y[at[first]])[trial]
        return dataclasses.replace(self, y=y)

    def equalised(self, said: Array) -> Array:
        """Probabilities (n, K) as if classes were equally frequent in training; numbers as they are."""
        if not self.classes:
            return said
        weighted = said / np.maximum(np.bincount(self.labels("train").astype(int), minlength=len(self.classes)), 1)
        return np.asarray(weighted / weighted.sum(axis=1, keepdims=True))

    def answered(self, split: str, said: Array) -> tuple[Array, Array, pd.DataFrame]:
        """Truth (n, 1), answer (n, K) and rows of a split, as they are scored; said (n, K) of its windows.

        What is asked of a person is answered once per recording, by the mean over its windows.
        """
        rows, y = self.rows[self.rows.split == split], self.labels(split)
        if len(said) != len(rows):
            raise ValueError(f"task {self.task.name!r}: {len(said)} answers for the {len(rows)} windows of split {split!r}; give each one.")
        if not self.task.of_subject:
            return y[:, None], said, rows
        names = (rows.dataset + "/" + rows.recording).to_numpy()
        _, first, group = np.unique(names, return_index=True, return_inverse=True)
        mean = np.stack([np.bincount(group, column) for column in said.T], axis=1) / np.bincount(group)[:, None]
        order = np.argsort(first)
        return y[first[order], None], mean[order], rows.iloc[first[order]]

    def score(self, split: str, said: Array) -> float:
        """The task's metric of answers (n, K) to the windows of a split."""
        truth, answer, _ = self.answered(split, said)
        return SCORES[self.task.metric].value(truth, answer)


@dataclass(frozen=True, eq=False)
class LabelCase:
    """One label task of one dataset, or of several pooled; `left_out` is the site whose people alone are tested on."""

    dataset: str
    species: str
    modality: str
    task: TaskSpec
    sources: tuple[LabelSource, ...]
    scaler: tuple[Path, ...]
    left_out: str = ""

    @property
    def shards(self) -> tuple[Path, ...]:
        """The shards artifacts of its datasets: one, but for pooled ones."""
        return tuple(source.shards for source in self.sources)

    @property
    def key(self) -> tuple[str, str, str]:
        """(dataset, recording, task), where the recording is "all" or says which site is left out."""
        return self.dataset, f"without_{self.left_out}" if self.left_out else "all", self.task.name

    @cached_property
    def data(self) -> LabelData:
        """Rows and labels, read once."""
        parts = [source.rows(self.task) for source in self.sources]
        rows, y = pd.concat([rows for rows, _ in parts], ignore_index=True), np.concatenate([y for _, y in parts])
        if self.left_out:
            others = rows.split.where(rows.split == "validation", "train")
            rows["split"] = others.mask(rows.site.eq(self.left_out).fillna(False), "test")
        rows = rows.assign(unit=pd.factorize(rows.unit)[0], trial=pd.factorize(rows.trial)[0])
        order = rows.split.map(SPLITS.index).argsort(kind="stable").to_numpy()
        named = {source.card.name: source for source in self.sources}
        return LabelData(self.task, named, rows.iloc[order].reset_index(drop=True), y[order])

    def prediction(
        self,
        method: str,
        family: str,
        said: Array,
        *,
        seed: int,
        parameters: int,
        train_seconds: float,
        samples_per_second: float,
        control: float = math.nan,
        k_shot: float = math.nan,
        trained_on: str = "",
    ) -> Prediction:
        """What was said (n, K) of the test windows: scores of each class, or the number, as `LabelData.answered` counts them."""
        truth, answer, rows = self.data.answered("test", said)
        return Prediction(
            *self.key,
            method=method,
            family=family,
            y_true=truth,
            y_pred=answer,
            times=rows.start.to_numpy(),
            mask=np.ones(len(rows), bool),
            units=rows.unit.to_numpy(),
            parameters=parameters,
            train_seconds=train_seconds,
            samples_per_second=samples_per_second,
            trained_on=trained_on or self.dataset,
            seed=seed,
            metric=self.task.metric,
            control=control,
            k_shot=k_shot,
        )


# ---------------------------------------------------------------- the cases there are
def find_label_cases(shards: Path, scaler: Sequence[Path]) -> list[LabelCase]:
    """Every label task of a shards artifact; those that a split cannot be scored on are left out, and the log says so."""
    source = LabelSource(shards)
    cases = [pool(source.card.name, [source], task, scaler) for task in source.card.label_tasks]
    return [case for case in cases if can_be_scored(case)]


def can_be_scored(case: LabelCase) -> bool:
    """Whether every split has two labels to tell apart; otherwise the log says which has not."""
    lacking = [split for split in SPLITS if len(np.unique(case.data.labels(split))) < 2]
    if lacking:
        _LOG.warning("%s/%s is left out: all windows of %s have one label or none.", case.dataset, case.task.name, ", ".join(lacking))
    return not lacking


def find_pooled_cases(shards: Sequence[Path], scaler: Sequence[Path]) -> list[LabelCase]:
    """Every task of every pool all of whose datasets are among these shards artifacts."""
    sources = {source.card.name: source for source in map(LabelSource, shards)}
    here = {name: POOLS[name] for name in POOLS if set(POOLS[name].datasets) <= set(sources)}
    cases = []
    for name, own in here.items():
        parts = [sources[dataset] for dataset in own.datasets]
        cases += [pool(name, parts, task, scaler) for task in own.specs([part.card for part in parts])]
    return [case for case in cases if can_be_scored(case)]


def pool(name: str, sources: Sequence[LabelSource], task: TaskSpec, scaler: Sequence[Path]) -> LabelCase:
    """A task of several datasets as one case called `name`."""
    card = sources[0].card
    return LabelCase(name, card.species, card.modality_of(task), task, tuple(sources), tuple(scaler))


def leave_sites_out(case: LabelCase) -> list[LabelCase]:
    """The case once for each site, tested on all its people and trained on none of them; validation windows stay as they are.

    Which site somebody is from cannot be told so.
    """
    if case.task.target == "subject.site":
        return []
    cases = [dataclasses.replace(case, left_out=site) for site in sorted(case.data.rows.site.dropna().unique())]
    return [one for one in cases if can_be_scored(one)]
