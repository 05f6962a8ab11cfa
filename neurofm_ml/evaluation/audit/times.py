"""Windows of two splits of one recording that overlap in time, or are closer than the gap that the card promises.

Two cards that read the same files hold the same recording under two names.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

import numpy as np

from neurofm_ml.data.splits import SHOWN
from neurofm_ml.evaluation.audit.findings import Finding, Side
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array

#: Times are rounded sums of bins; a microsecond is far below any bin.
ROUNDING_S = 1e-6


def overlaps(used: Sequence[Used]) -> list[Finding]:
    """One finding per recording and pair of splits that are too close."""
    own = [f for one in used for f in _between(one, one)]
    return own + [f for a, b in permutations(used, 2) if _files(a.card) & _files(b.card) for f in _between(a, b)]


def _files(card: DatasetCard) -> set[tuple[str, ...]]:
    """What of which files the card reads as measured signals; nothing where there are none, as in a simulation."""
    signals = [s for s in card.measured.values() if s.modality not in SHOWN]
    return {(card.root, s.file or card.pattern) for s in signals if s.file or card.pattern}


def _between(a: Used, b: Used) -> Iterator[Finding]:
    """Of an earlier split of `a` and a later one of `b`."""
    split = b.card.split
    gap_s = split.gap_s if split.kind == "block" else 0.0
    own, theirs = _blocks(a), _blocks(b)
    for (name, first), x in own.items():
        for second in SPLITS[SPLITS.index(first) + 1 :]:
            if (name, second) in theirs:
                sides = Side(a.card.name, first, name), Side(b.card.name, second, name)
                yield from _too_close(*sides, x, theirs[name, second], gap_s)


class _Block(NamedTuple):
    """Windows of one split of one recording: key, start and end (n,)."""

    key: Array
    start: Array
    end: Array


def _blocks(used: Used) -> dict[tuple[str, str], _Block]:
    """(recording, split) -> its windows."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, place in enumerate(zip(used.windows.recording, used.windows.split, strict=True)):
        found.setdefault(place, []).append(row)
    columns = [used.windows[c].to_numpy() for c in _Block._fields]
    return {place: _Block(*(c[rows] for c in columns)) for place, rows in found.items()}


def _too_close(a: Side, b: Side, x: _Block, y: _Block, gap_s: float) -> Iterator[Finding]:
    gaps, nearest = least_gaps(x.start, x.end, y.start, y.end)
    close = gaps < gap_s - ROUNDING_S
    if close.any():
        j = int(gaps.argmin())
        how = f"overlap by {-gaps[j]:.4g} s" if gaps[j] < 0 else f"are {gaps[j]:.4g} s apart"
        a, b = replace(a, window=str(x.key[nearest[j]])), replace(b, window=str(y.key[j]))
        yield Finding("time", a, b, int(close.sum()), float(gaps[j]), f"windows {how}; the gap is {gap_s:g} s")


def least_gaps(start_a: Array, end_a: Array, start_b: Array, end_b: Array) -> tuple[Array, Array]:
    """(m,) seconds from each interval of b to the nearest of a, negative where they overlap, and which that is."""
    order = np.argsort(start_a)
    starts, latest = start_a[order], np.maximum.accumulate(end_a[order])
    # Of those that begin no later, the one that lasts longest; of those that begin later, the first.
    before = np.searchsorted(starts, start_b, side="right") - 1
    who = np.maximum.accumulate(np.where(end_a[order] == latest, np.arange(len(order)), 0))
    gap_before = np.where(before >= 0, start_b - latest[np.maximum(before, 0)], np.inf)
    after = np.minimum(before + 1, len(order) - 1)
    gap_after = np.where(before + 1 < len(order), starts[after] - end_b, np.inf)
    nearest = np.where(gap_before <= gap_after, who[np.maximum(before, 0)], after)
    return np.minimum(gap_before, gap_after), order[nearest]
