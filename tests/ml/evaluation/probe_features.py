"""Features as `extract` writes them, of people and sites that are planted."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.config import to_dict
from neurofm_ml.evaluation.features.features import COLUMNS, Features
from neurofm_ml.files import write_json
from neurofm_ml.knowledge.cards import DatasetCard, TaskSpec, datasets
from neurofm_ml.types import Array

STATE = TaskSpec(name="state", target="intervals.states", inputs=("eeg",), classes=("a", "b"), metric="auroc")
AGE = TaskSpec(name="age", target="subject.age", inputs=("eeg",))


def write_features(folder: Path, name: str, values: Array, table: dict[str, Any], tasks: tuple[TaskSpec, ...] = (STATE,)) -> Features:
    """values (n, N, D); `table` has the columns that matter here and the labels of `tasks`."""
    out = folder / name
    out.mkdir(parents=True)
    n = len(values)
    given = {"key": [f"w{i:04d}" for i in range(n)], "row": np.arange(n), "dataset": name, "species": "Homo sapiens", "split": "train"}
    empty = dict.fromkeys(COLUMNS)
    pd.DataFrame({**empty, **given, "start": np.arange(n) * 1.0, "end": np.arange(n) + 1.0, **table}).to_parquet(out / "windows.parquet")
    np.save(out / "pooled.npy", values.astype(np.float32))
    write_json(out / "layers.json", ["tokens", "latents"][-values.shape[1] :])
    write_json(folder / "about.json", {"family": "neurofmx"})
    (out / "card.json").write_text(json.dumps(to_dict(card(name, tasks))))
    return Features(out)


def card(name: str, tasks: tuple[TaskSpec, ...]) -> DatasetCard:
    """A card of a dataset with one EEG signal."""
    base = datasets()["simulation"]
    return dataclasses.replace(base, name=name, signals={"eeg": base.signals["eeg"]}, tasks=tasks, expected={})
