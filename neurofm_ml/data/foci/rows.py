"""Peaks one by one, as formats give them, gathered to Foci."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neurofm_ml.types import Foci


class Row(NamedTuple):
    """One peak: millimetres as published; `statistic` whose sign is the direction, `sample_size` people, NaN where not said."""

    study: str
    contrast: str
    space: str
    xyz: tuple[float, float, float]
    statistic: float = np.nan
    sample_size: float = np.nan


def as_foci(rows: Sequence[Row], source: str) -> Foci:
    if not rows:
        raise ValueError(f"{source} holds no peak; get it again, or name another file.")
    studies, contrasts, spaces, xyz, statistics, sizes = zip(*rows, strict=True)
    return Foci(
        xyz=np.array(xyz, float),
        study=np.array(studies),
        contrast=np.array(contrasts),
        direction=direction_of(np.array(statistics, float)),
        space=np.array(spaces),
        source=source,
        sample_size=np.array(sizes, float),
    )


def direction_of(statistic: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> "np.ndarray[tuple[int], np.dtype[np.str_]]":
    """(n,) "activation", "deactivation" or, where no statistic is given, "unknown"."""
    return np.select([statistic > 0, statistic < 0], ["activation", "deactivation"], "unknown")
