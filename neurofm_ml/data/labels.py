"""Labels of windows: one answer for a whole window, from who was recorded or from the interval around its middle.

Shapes: B windows.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.stores import open_files
from neurofm_ml.knowledge.cards import DatasetCard, TaskSpec

Sample = Mapping[str, Any]
#: What a window says of itself, as its source spells it; None where it says nothing.
Answer = Callable[[Sample], Any]


def classes_of(cards: Sequence[DatasetCard]) -> dict[str, tuple[str, ...]]:
    """``dataset/task`` of every label task -> its classes in order; none where the label is a number."""
    return {f"{card.name}/{task.name}": task.classes for card in cards for task in card.label_tasks}


class Labels:
    """The labels of samples of some shards artifacts, for the tasks that `classes` names."""

    def __init__(self, shards: Sequence[Path], classes: Mapping[str, tuple[str, ...]]) -> None:
        self.classes = classes
        self.answers: dict[str, dict[str, Answer]] = {}
        for path in shards:
            card = load_card(path)
            named = {f"{card.name}/{task.name}": task for task in card.label_tasks}
            self.answers[card.name] = {name: answer_of(path, task) for name, task in named.items() if name in classes}

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Tasks of the samples' datasets -> (B,): int64 places among the classes, -1 where unknown; numbers are float32, NaN
        where unknown."""
        present = [name for dataset in dict.fromkeys(s["json"]["dataset"] for s in samples) for name in self.answers[dataset]]
        return {name: self._column(name, samples) for name in present}

    def _column(self, name: str, samples: Sequence[Sample]) -> Tensor:
        answers = [self.answers[s["json"]["dataset"]].get(name, _silent)(s) for s in samples]
        classes = self.classes[name]
        if classes:
            return torch.tensor([classes.index(str(a)) if str(a) in classes else -1 for a in answers])
        return torch.tensor([float("nan") if a is None else float(a) for a in answers])


def _silent(sample: Sample) -> None:
    """The answer of a window that its task is not for."""


def answer_of(shards: Path, task: TaskSpec) -> Answer:
    """What each window of a shards artifact says to a task."""
    kind, _, of = task.target.partition(".")
    if kind == "intervals":
        return partial(interval_label, task=task, name=of)
    recordings = json.loads(open_files(shards).read("recordings.json"))
    known = {recording: about["subject"][of] for recording, about in recordings.items()}
    return lambda sample: known[sample["json"]["recording"]]


def interval_label(sample: Sample, task: TaskSpec, name: str) -> Any:
    """Label, or the task's column, of the interval that `interval_around` finds; without one, the class "" where there is such."""
    meta = sample["json"]
    found = interval_around(meta, task, name)
    if found is None:
        return "" if "" in task.classes else None
    listed = meta["intervals"][name]
    columns = {"": listed["labels"], **listed["columns"]}
    if not columns.get(task.column):
        have = ", ".join(name for name, values in columns.items() if name and values) or "none"
        raise ValueError(
            f"task {task.name!r}: intervals {name!r} have no {f'column {task.column!r}' if task.column else 'labels'}; name one of their "
            f"columns ({have}) in the task's `column`."
        )
    return columns[task.column][found]


def interval_around(meta: Mapping[str, Any], task: TaskSpec, name: str) -> int | None:
    """Place, among those that the window lists, of the interval around its middle; of several, of the one that began last."""
    listed = meta["intervals"].get(name, {"start": [], "end": []})
    middle = (meta["start"] + meta["end"]) / 2
    bounds = list(zip(listed["start"], listed["end"], strict=True))
    if task.during:
        bounds = [(start + task.during[0], start + task.during[1]) for start, _ in bounds]
    around = [k for k, (start, end) in enumerate(bounds) if start <= middle < end]
    return max(around, key=lambda k: bounds[k]) if around else None
