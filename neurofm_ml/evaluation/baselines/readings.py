"""What NeuroFMx says of activity, brought back to the samples of a block.

The model speaks of patches at a resolution of its own, in the scaler's z-scores, which are those of the training block, or in log
rates. Shapes: B windows, P patches (or horizons), C channels, S points of a patch, T samples.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch import Tensor, nn

from neurofm_ml.data.batches import Collate
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.data.windows import read_windows
from neurofm_ml.evaluation.tasks.signals import SignalCase
from neurofm_ml.models import NeuroFMx
from neurofm_ml.types import Array, Batch

BATCH_SIZE = 64
#: As in objectives.base.misfit.
MOST_LOG_RATE = 8.0


def windows_of(case: SignalCase, split: str, most: int | None = None) -> pd.DataFrame:
    """Rows of windows.parquet of a block of the recording; `most` of them, evenly spread, if there are more."""
    table = read_windows(case.shards)
    own = table[(table.recording == case.recording) & (table.split == split)].sort_values("start")
    if most is None or len(own) <= most:
        return own
    return own.iloc[np.linspace(0, len(own) - 1, most).astype(int)]


def signal_batches(model: NeuroFMx, case: SignalCase, split: str = "test", most: int | None = None) -> Iterator[tuple[Batch, Array]]:
    """`windows_of` a block with the case's signal alone, and the sample (B,) of the block at which each starts."""
    collate = Collate([case.shards], model.vocabulary, load_scaler(case.scaler), signals=(case.signal,))
    where = {"recording": [case.recording], "key": list(windows_of(case, split, most).key)}
    for batch in Loader([case.shards], split=split, batch_size=BATCH_SIZE, seed=0, where=where, collate=collate).epoch():
        starts = batch.starts.numpy() + batch.streams[case.signal].t0.double().numpy()
        yield batch, np.round((starts - case.start_s(split)) * case.sfreq).astype(int)


def in_samples(said: Tensor, case: SignalCase) -> Array:
    """Patches (B, P, C, S) as samples (B, P, samples of a patch, C): expected counts, or z-scores."""
    said = said if said.shape[-1] == case.patch else _resampled(said, case.patch)
    values: Array = said.transpose(2, 3).double().numpy()
    return np.exp(np.minimum(values, MOST_LOG_RATE)) if case.data.counts else values


def _resampled(said: Tensor, n: int) -> Tensor:
    flat = nn.functional.interpolate(said.flatten(0, 2)[:, None], size=n, mode="linear")
    return flat[:, 0].unflatten(0, said.shape[:3])


def stitched(pieces: list[tuple[int, Array]], n_times: int) -> Array:
    """(T, C) of overlapping pieces (first sample, (t, C)), weighted towards their middles; NaN where there is none."""
    total, weights = np.zeros((n_times, pieces[0][1].shape[1])), np.zeros((n_times, 1))
    for start, values in pieces:
        inside = values[: n_times - start]
        weight = (np.hanning(len(values) + 2)[1:-1, None] + 0.05)[: len(inside)]
        total[start : start + len(inside)] += weight * inside
        weights[start : start + len(inside)] += weight
    with np.errstate(invalid="ignore"):
        averaged: Array = total / weights
    return averaged
