"""What label decoders said, as predictions: the rows of ``labels.parquet`` that training wrote, held against the cases."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase


def method_of(family: str) -> str:
    """What the table calls a family's fitted decoders; only NeuroFMx needs no name."""
    return "fine_tuned" if family == "neurofmx" else f"{family}, fine_tuned"


def label_predictions(adapted: Path, cases: Sequence[LabelCase]) -> list[Prediction]:
    """One per case that the artifact answers on all test windows; cases of which it could not read some are no answers."""
    said = pd.read_parquet(adapted / "labels.parquet")
    said = said[said.split == "test"]
    found = []
    for case in cases:
        own = said[(said.dataset == case.dataset) & (said.task == case.task.name)].set_index(["recording", "start"])
        rows = case.data.rows[case.data.rows.split == "test"]
        wanted = pd.MultiIndex.from_frame(rows[["recording", "start"]])
        if len(own) and wanted.isin(own.index).all():
            decoder = adapted / "decoders" / case.dataset
            family, cost = (json.loads((decoder / name).read_text()) for name in ("model.json", "cost.json"))
            answers = np.stack(list(own.loc[wanted].said))
            found.append(case.prediction(method_of(family["family"]), family["family"], case.data.equalised(answers), **cost))
    return found
