"""Intervals of windows as events: words, trials and cues at their own times, for a batch.

Shapes: B batch, T events.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from neurofm_ml.types import Array, StreamBatch

#: Intervals whose labels are language; those of others name events of a task.
SPOKEN = ("words", "phones")


def event_modality(intervals: str) -> str:
    """Modality of the events that intervals of this name are."""
    return "language" if intervals in SPOKEN else "task"


def events(name: str, samples: Sequence[Mapping[str, Any]]) -> StreamBatch:
    """The intervals of one name that overlap each window, each at its own start, which may lie before the window's.

    An interval without a label bears the name of them all.
    """
    listed = [sample["json"]["intervals"].get(name, {"start": [], "end": [], "labels": []}) for sample in samples]
    length = max(len(own["start"]) for own in listed)
    start = np.stack([_filled(own["start"], length) for own in listed])
    end = np.stack([_filled(own["end"], length) for own in listed])
    mask = np.arange(length) < np.array([[len(own["start"])] for own in listed])
    began = np.array([[sample["json"]["start"]] for sample in samples])
    n = len(samples)
    return StreamBatch(
        modality=event_modality(name),
        values=torch.from_numpy(np.where(mask, end - start, 0).astype(np.float32))[..., None],
        mask=torch.from_numpy(mask),
        times=torch.from_numpy(np.where(mask.any(1, keepdims=True), start - began, 0).astype(np.float32)),
        t0=torch.zeros(n),
        dt=torch.full((n,), torch.nan),
        ids=torch.zeros(n, 1, dtype=torch.long),
        channel_mask=torch.ones(n, 1, dtype=torch.bool),
        labels=tuple(tuple(own["labels"] or [name] * len(own["start"])) for own in listed),
    )


def _filled(times: Sequence[float], length: int) -> Array:
    """(length,) the times, the last one repeated: padding stays in order."""
    return np.pad(np.array(times, np.float64), (0, length - len(times)), mode="edge") if times else np.zeros(length)
