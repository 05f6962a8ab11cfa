"""Few labels: a share of a training block's targets, and targets scaled by these alone."""

import dataclasses
from typing import cast

import numpy as np
import pandas as pd

from neurofm_ml.data.scaler import Scaler
from neurofm_ml.data.windows import load_block
from neurofm_ml.training.problems import Problem
from neurofm_ml.types import Signal


def with_share(problem: Problem, share: float) -> Problem:
    """The problem with the last `share` of its training block as its only labels."""
    table = pd.read_parquet(problem.shards / "windows.parquet", columns=["recording", "split", "start", "end"])
    rows = table[(table.recording == problem.recording) & (table.split == "train")]
    start, end = float(rows.start.min()), float(rows.end.max())
    return dataclasses.replace(problem, labelled=(end - share * (end - start), end))


def scaled_by_labels(scaler: Scaler, problem: Problem) -> Scaler:
    """The scaler with mean and deviation of the problem's targets taken from its labels. Raises ValueError where these stand still."""
    assert problem.labelled is not None
    block, (start, end), table = load_block(problem.shards, problem.recording, "train"), problem.labelled, dict(scaler.table)
    for name in {task.target for task in problem.tasks}:
        target = cast(Signal, block.signals[name])
        times = target.times + 0.5 / target.sfreq
        known = target.values[(times >= start) & (times < end)]
        if not np.isfinite(known).any(0).all() or not np.nanstd(known, 0).all():
            raise ValueError(
                f"the {end - start:.3g} labelled seconds of {problem.name} hold no change of {name!r}; raise AdaptConfig.label_share."
            )
        scale = np.nanmean(known, 0).astype(np.float32), np.nanstd(known, 0).astype(np.float32)
        table[problem.dataset, problem.session, name] = scale
    return Scaler(table)
