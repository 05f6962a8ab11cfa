"""What a decoder said about one held-out block: the file format that training writes and evaluation reads.

One npz per (recording, task, method), named `<dataset>-<recording>-<task>-<method>.npz`. Its
arrays are `y_true, y_pred, times, mask`; everything else is one row of JSON in its entry `row`.
"""

import dataclasses
import json
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurofm_ml.types import Array


@dataclass(frozen=True, eq=False)
class Prediction:
    """Truth and guess on the test block of one recording, in the target's own unit.

    y_true, y_pred (T, K); times (T,) seconds, the middle of each bin; mask (T,) True = to be scored.
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

    @property
    def case(self) -> tuple[str, str, str]:
        """(dataset, recording, task): what it is an answer to."""
        return self.dataset, self.recording, self.task

    @property
    def scored(self) -> tuple[Array, Array]:
        """y_true and y_pred where the mask is True."""
        return self.y_true[self.mask], self.y_pred[self.mask]


_ARRAYS = ("y_true", "y_pred", "times", "mask")


def save_prediction(prediction: Prediction, folder: Path) -> Path:
    """Write one prediction to `folder` (made when missing) and return its path."""
    row = {f.name: getattr(prediction, f.name) for f in dataclasses.fields(prediction) if f.name not in _ARRAYS}
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join((*prediction.case, prediction.method))
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.npz"
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        np.savez(file, row=np.array(json.dumps(row)), **{name: getattr(prediction, name) for name in _ARRAYS})
    partial.replace(path)
    return path


def load_predictions(folder: Path) -> list[Prediction]:
    """Every prediction in `folder`, sorted by file name."""
    return [_load(path) for path in sorted(folder.glob("*.npz"))]


def _load(path: Path) -> Prediction:
    try:
        with np.load(path) as file:
            return Prediction(**json.loads(str(file["row"])), **{name: file[name] for name in _ARRAYS})
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no whole prediction ({error}); delete its artifact and run the job again.") from None
