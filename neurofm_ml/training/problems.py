"""Decoding problems: the tasks of one recording that read the same inputs, and where their labels are."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.data.shards import read_manifest
from neurofm_ml.data.windows import read_channels
from neurofm_ml.files import git_revision
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array


@dataclass(frozen=True)
class Problem:
    """What one decoder answers. `labelled` are the only seconds [start, end) of the training block whose
    targets may be used; None: all of it."""

    shards: Path
    dataset: str
    recording: str
    session: str
    inputs: tuple[str, ...]
    tasks: tuple[TaskSpec, ...]
    labelled: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        return "-".join((self.dataset, self.recording, *self.inputs))

    def task_names(self) -> list[str]:
        """The tasks as the vocabulary spells them."""
        return [f"{self.dataset}/{task.name}" for task in self.tasks]

    def windows(self, split: str) -> dict[str, Collection[str]]:
        """Filter of the windows to read: those of the recording, for training only those with a label in them."""
        if self.labelled is None or split != "train":
            return {"recording": [self.recording]}
        table = pd.read_parquet(self.shards / "windows.parquet", columns=["key", "recording", "start", "end"])
        start, end = self.labelled
        return {"key": list(table.key[(table.recording == self.recording) & (table.start < end) & (table.end > start)])}


def find_problems(shards: Path) -> Iterator[Problem]:
    """Every decoding problem of a dataset whose recordings are split in time, so that each has blocks to test on."""
    card = load_card(shards)
    table = pd.read_parquet(shards / "windows.parquet", columns=["recording", "session", "split"])
    for (recording, session), rows in table.groupby(["recording", "session"]):
        if set(SPLITS) <= set(rows["split"]):
            tasks = card.series_tasks_of(str(recording))
            for inputs in dict.fromkeys(task.inputs for task in tasks):
                yield Problem(shards, card.name, str(recording), str(session), inputs, tuple(t for t in tasks if t.inputs == inputs))


def provenance(shards: Sequence[Path]) -> dict[str, str]:
    """What a checkpoint says it was trained on: the hash of each dataset's index of shards, and the commit of the code."""
    return {**{load_card(path).name: read_manifest(path)["index"] for path in shards}, "git_revision": git_revision()}


def target_names(problem: Problem, task: TaskSpec) -> tuple[str, ...]:
    """Names of the columns a task predicts."""
    return task.channels or tuple(read_channels(problem.shards)[problem.session][task.target]["ch_names"])


def target_scale(problem: Problem, task: TaskSpec, scaler: Scaler) -> tuple[Array, Array]:
    """Mean and deviation (K,) of a task's columns over training windows, in their own unit."""
    names = read_channels(problem.shards)[problem.session][task.target]["ch_names"]
    columns = [names.index(name) for name in target_names(problem, task)]
    mean, std = scaler(problem.dataset, problem.session, task.target)
    return mean[columns], std[columns]
