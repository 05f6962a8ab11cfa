"""What a decoder said about held-out rows: the file format that training writes and evaluation reads.

One npz per (recording, task, method), named `<dataset>-<recording>-<task>-<method>.npz`. Its
arrays are `y_true, y_pred, times, mask`, and `units` where there are; everything else is one row of JSON in its entry `row`.
"""

import dataclasses
import json
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurofm_ml.metrics import SCORES, Score
from neurofm_ml.types import Array


@dataclass(frozen=True, eq=False)
class Prediction:
    """Truth and guess on the test block of one recording, in the target's own unit, or on the test windows of a task with labels.

    Of a series: y_true, y_pred (T, K); times (T,) seconds, the middle of each bin. Of numbers of windows the same, times their
    starts. Of classes: y_true (T, 1) places among the classes, y_pred (T, C) scores of each class in the card's order, whose
    largest is the answer and whose last is that of the positive one of two. Labels have the recording "all", and what is asked
    of a person has one row per recording. mask (T,) True = to be scored. units (T,) integers: the independent unit (person,
    trial, ...) of each row; None for a series, whose rows are alike as far as they are near in time. `metric` is one of
    `metrics.SCORES`.
    `family` is "baseline" for what a model has to beat. `control` is the score of the same method
    fitted and tuned again on labels that were rolled in time; NaN when that was not done.
    `parameters` counts fitted numbers, `samples_per_second` bins decoded. `k_shot` is the number
    of labelled training bins; NaN for all there are.
    """

    dataset: str
    recording: str
    task: str
    method: str
    family: str
    y_true: Array
    y_pred: Array
    times: Array
    mask: Array
    parameters: int
    train_seconds: float
    samples_per_second: float
    trained_on: str
    seed: int
    metric: str
    control: float = math.nan
    k_shot: float = math.nan
    units: Array | None = None

    @property
    def case(self) -> tuple[str, str, str]:
        """(dataset, recording, task): what it is an answer to."""
        return self.dataset, self.recording, self.task

    @property
    def score(self) -> Score:
        """The metric it is scored by."""
        return SCORES[self.metric]

    @property
    def value(self) -> float:
        """Its score."""
        return self.score.value(*self.scored)

    @property
    def scored(self) -> tuple[Array, Array]:
        """y_true and y_pred where the mask is True."""
        return self.y_true[self.mask], self.y_pred[self.mask]

    @property
    def scored_units(self) -> Array | None:
        """units where the mask is True."""
        return None if self.units is None else self.units[self.mask]


_ARRAYS = ("y_true", "y_pred", "times", "mask", "units")


def save_prediction(prediction: Prediction, folder: Path) -> Path:
    """Write one prediction to `folder` (made when missing) and return its path."""
    row = {f.name: getattr(prediction, f.name) for f in dataclasses.fields(prediction) if f.name not in _ARRAYS}
    arrays = {name: array for name in _ARRAYS if (array := getattr(prediction, name)) is not None}
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join((*prediction.case, prediction.method))
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.npz"
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        np.savez(file, row=np.array(json.dumps(row)), **arrays)
    partial.replace(path)
    return path


def load_predictions(folder: Path) -> list[Prediction]:
    """Every prediction in `folder`, sorted by file name."""
    return [_load(path) for path in sorted(folder.glob("*.npz"))]


def _load(path: Path) -> Prediction:
    try:
        with np.load(path) as file:
            return Prediction(**json.loads(str(file["row"])), **{name: file[name] for name in _ARRAYS if name in file})
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no whole prediction ({error}); delete its artifact and run the job again.") from None
