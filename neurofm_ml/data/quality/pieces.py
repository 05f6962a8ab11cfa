"""Long signals looked at piece by piece: memory stays the same however long a recording is."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from neurofm_ml.types import Array

#: Values (rows times channels) in memory at once: 32 MB as float64.
PIECE_VALUES = 4_000_000
#: Parts that a long signal is sampled in, evenly from its start to its end.
N_PARTS = 32


def pieces(values: Any) -> Iterator[Array]:
    """All of `values` (T, C), in order, some rows at a time."""
    rows = max(PIECE_VALUES // max(values.shape[1], 1), 1)
    for start in range(0, len(values), rows):
        yield np.asarray(values[start : start + rows])


def excerpt(values: Any, channels: Array) -> list[Array]:
    """`channels` of `values` (T, C) as contiguous float64 parts: one part when it is short, else N_PARTS spread evenly."""
    rows = PIECE_VALUES // max(values.shape[1], 1)
    if len(values) <= rows:
        return [_part(values, 0, len(values), channels)]
    length = max(rows // N_PARTS, 1)
    starts = np.linspace(0, len(values) - length, N_PARTS).astype(int)
    return [_part(values, start, start + length, channels) for start in starts]


def _part(values: Any, start: int, end: int, channels: Array) -> Array:
    return np.asarray(values[start:end])[:, channels].astype(np.float64)
