"""What the values themselves show: missing, flat, frozen, clipped, and numbers that stand for "no value".

Shapes: T times, C channels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurofm_ml.data.quality.pieces import excerpt, pieces
from neurofm_ml.types import Array

#: A channel is clipped where it stays at its highest or lowest value for at least this many samples.
CLIP_RUN = 5
#: All channels are frozen where none moves for this many samples over their number: one coarse channel often stays the
#: same by chance, sixteen do not.
FROZEN_RUN = 16
#: A channel takes at least this many values before one of them can be called a placeholder (it is no code, no switch).
LEAST_VALUES = 20
#: A placeholder comes at least this often, and is never most of the channel.
LEAST_REPEATS, MOST_PLACEHOLDERS = 3, 0.5


@dataclass
class Range:
    """One pass over a signal: lowest and highest finite value per channel (C,), samples that are NaN or infinite (C,),
    and steps in time within a run in which no channel moves."""

    low: Array
    high: Array
    missing: Array
    infinite: Array
    still: int
    n: int

    @property
    def flat(self) -> Array:
        """(C,) channels that never change; one without any value does not."""
        return self.high <= self.low

    @property
    def alive(self) -> Array:
        """(C,) channels that change and have a value throughout."""
        return ~self.flat & (self.missing + self.infinite == 0)


def range_of(values: Any) -> Range:
    """The range of `values` (T, C)."""
    c = values.shape[1]
    found = Range(np.full(c, np.inf), np.full(c, -np.inf), np.zeros(c, int), np.zeros(c, int), 0, len(values))
    run = max(FROZEN_RUN // max(c, 1), 1)
    last = np.full((1, c), np.nan)
    for piece in pieces(values):
        nan, infinite = np.isnan(piece), np.isinf(piece)
        bad = nan | infinite
        found.missing += nan.sum(axis=0)
        found.infinite += infinite.sum(axis=0)
        found.low = np.minimum(found.low, np.where(bad, np.inf, piece).min(axis=0))
        found.high = np.maximum(found.high, np.where(bad, -np.inf, piece).max(axis=0))
        still = (np.concatenate([last, piece[:-1]]) == piece).all(axis=1)
        found.still += int(_in_runs(still[:, None], run)[0])
        last = piece[-1:]
    return found


def value_numbers(found: Range) -> dict[str, float]:
    """Shares of values that are NaN and infinite, share of channels that are flat, number that are flat at zero."""
    total = max(found.n * len(found.low), 1)
    return {
        "missing": float(found.missing.sum()) / total,
        "infinite": float(found.infinite.sum()) / total,
        "flat_share": float(found.flat.mean()),
        "zero": int((found.flat & (found.low == 0) & (found.high == 0)).sum()),
    }


def edge_numbers(values: Any, found: Range) -> dict[str, float]:
    """Placeholders: largest share of a channel that sits at one lonely extreme value. Clipped: largest share of a
    channel that stays at its extremes."""
    c = len(found.low)
    below, above = np.full(c, np.inf), np.full(c, -np.inf)
    at_low, at_high, clipped = np.zeros(c, int), np.zeros(c, int), np.zeros(c, int)
    for piece in pieces(values):
        low, high = piece == found.low, piece == found.high
        at_low += low.sum(axis=0)
        at_high += high.sum(axis=0)
        clipped += _in_runs(low, CLIP_RUN) + _in_runs(high, CLIP_RUN)
        finite = np.isfinite(piece)
        below = np.minimum(below, np.where(finite & ~low, piece, np.inf).min(axis=0))
        above = np.maximum(above, np.where(finite & ~high, piece, -np.inf).max(axis=0))
    with np.errstate(invalid="ignore"):
        lonely_low = (below - found.low > found.high - below) & (found.high > below)
        lonely_high = (found.high - above > above - found.low) & (above > found.low)
    held = np.where(lonely_low, at_low, 0) + np.where(lonely_high, at_high, 0)
    share = held / max(found.n, 1)
    share[(held < LEAST_REPEATS) | (share > MOST_PLACEHOLDERS)] = 0.0
    return {
        "placeholder": max((float(share[k]) for k in np.flatnonzero(share) if _many_valued(values, int(k))), default=0.0),
        "clipped": float(np.where(found.alive, clipped, 0).max(initial=0)) / max(found.n, 1),
    }


def _in_runs(at: Array, run: int) -> Array:
    """(C,) samples of `at` (T, C) that lie in runs of at least `run`."""
    n = len(at) - run + 1
    if n < 1:
        return np.zeros(at.shape[1], int)
    starts = np.logical_and.reduce([at[k : n + k] for k in range(run)])
    inside = np.zeros_like(at)
    for k in range(run):
        inside[k : n + k] |= starts
    return np.asarray(inside.sum(axis=0))


def _many_valued(values: Any, channel: int) -> bool:
    part = np.concatenate(excerpt(values, np.array([channel])))
    return len(np.unique(part[np.isfinite(part)])) >= LEAST_VALUES
