"""Splits: which stretch of time or which whole recordings are trained on, validated on, tested on.

And the proof: `certificate` looks at a finished window table and at the hashes of what was written, and
says what two splits share, how far apart they are, and which windows stand in both.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from neurofm_ml.knowledge.cards import DatasetCard, SplitSpec
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array

#: What recordings can have in common, from the smallest to the largest.
UNITS = ("recording", "session", "subject", "family", "site")
#: Modalities that were shown or asked for, not measured: the same film is shown to everybody.
SHOWN = ("task", "video", "audio", "language")
#: A window in which fewer values differ from the one before may equal another by chance.
LEAST_CHANGES = 16

Blocks = dict[str, tuple[int, int]]


def blocks(n_bins: int, card: DatasetCard) -> Blocks:
    """split -> [start, end) in bins, for contiguous blocks of time with a gap at each border."""
    spec = card.split
    gap = int(np.ceil(spec.gap_s * card.grid_hz - 1e-6))
    b1, b2 = int(spec.train * n_bins), int((spec.train + spec.validation) * n_bins)
    bounds = {"train": (0, b1 - gap), "validation": (b1, b2 - gap), "test": (b2, n_bins)}
    return {split: (start, end) for split, (start, end) in bounds.items() if end > start}


def assign(ids: Iterable[str], spec: SplitSpec) -> dict[str, str]:
    """id -> split for whole recordings, subjects, ...: the same ids and seed give the same answer in any order."""
    ranked = sorted(set(ids), key=lambda name: hashlib.sha256(f"{spec.seed}:{name}".encode()).digest())
    n_test = max(round((1 - spec.train - spec.validation) * len(ranked)), min(1, len(ranked) - 1))
    n_validation = max(round(spec.validation * len(ranked)), min(1, len(ranked) - n_test - 1)) if spec.validation else 0
    names = ["test"] * n_test + ["validation"] * n_validation
    return {name: names[i] if i < len(names) else "train" for i, name in enumerate(ranked)}


def family_of(family: str | None, subject: str) -> str:
    """The family; a subject without a known one is a family of their own."""
    return f"of {subject}" if family is None else family


# ---------------------------------------------------------------- the proof
class Repeat(NamedTuple):
    """Windows of a signal with the same content in two splits: the two recordings, and how many pairs."""

    signal: str
    splits: tuple[str, str]
    recordings: tuple[str, str]
    windows: int


def certificate(table: pd.DataFrame, spec: SplitSpec, repeats: Sequence[Repeat] = (), excepted: int = 0) -> dict[str, Any]:
    """What the window table proves: for each pair of splits, what they share and the least time between them.

    The rule holds when units of the split's kind are never shared, or, for blocks, when windows of two splits of one
    recording are at least ``gap_s`` apart. `disjoint` says that it does, and that no window stands in two splits.
    """
    pairs = [_pair(table[table.split == a], table[table.split == b], spec, a, b) for a, b in combinations(SPLITS, 2)]
    return {
        "kind": spec.kind,
        "gap_s": spec.gap_s,
        "windows": len(table),
        "disjoint": all(pair["rule_holds"] for pair in pairs) and not repeats,
        "pairs": pairs,
        "repeated": [repeat._asdict() for repeat in repeats],
        "excepted": {"windows": excepted, "reason": f"fewer than {LEAST_CHANGES} values differ from the one before: equal by chance"},
    }


def _pair(a: pd.DataFrame, b: pd.DataFrame, spec: SplitSpec, name_a: str, name_b: str) -> dict[str, Any]:
    shared = {unit: sorted(_present(a, unit) & _present(b, unit)) for unit in UNITS}
    gaps = [_least_gap(a[a.recording == r], b[b.recording == r]) for r in shared["recording"]]
    least = min(gaps, default=None)
    # Times are rounded sums of bins; a microsecond is far below any bin.
    apart = least is None or least >= spec.gap_s - 1e-6
    holds = apart if spec.kind == "block" else not shared[spec.kind]
    return {"splits": [name_a, name_b], "shared": shared, "least_gap_s": least, "rule_holds": holds}


def _present(rows: pd.DataFrame, unit: str) -> set[str]:
    if unit == "family":
        return {family_of(None if pd.isna(f) else f, s) for f, s in zip(rows.family, rows.subject, strict=True)}
    return set(rows[unit].dropna())


def _least_gap(a: pd.DataFrame, b: pd.DataFrame) -> float:
    """Smallest distance in seconds between an interval of `a` and one of `b`; negative where they overlap."""
    gap = np.maximum(a.start.to_numpy()[:, None] - b.end.to_numpy()[None], b.start.to_numpy()[None] - a.end.to_numpy()[:, None])
    return float(gap.min())


def find_repeats(
    members: pd.DataFrame, table: pd.DataFrame, measured: Collection[str], read: Callable[[str, str], Array]
) -> tuple[list[Repeat], int]:
    """Windows of the `measured` signals whose bytes stand in two splits, and the number excepted as equal by chance.

    `members` has key, field, size and xxh3_64 of everything written; ``read(key, field)`` gives the values (T, C).
    """
    rows = members[members.field.isin(list(measured))].merge(table[["key", "recording", "split"]], on="key")
    content = ["field", "size", "xxh3_64"]
    copies = rows[rows.duplicated(content, keep=False)]
    several = copies[copies.groupby(content).split.transform("nunique") > 1]
    found: Counter[tuple[str, tuple[str, str], tuple[str, str]]] = Counter()
    excepted = 0
    for _, same in several.groupby(content, sort=False):
        signal = str(same.field.iloc[0])
        if _changes(read(same.key.iloc[0], signal)) < LEAST_CHANGES:
            excepted += len(same)
            continue
        standing = Counter(zip(same.split, same.recording, strict=True))
        for (a, n), (b, m) in combinations(sorted(standing.items(), key=lambda item: SPLITS.index(item[0][0])), 2):
            if a[0] != b[0]:
                found[signal, (a[0], b[0]), (a[1], b[1])] += n * m
    return [Repeat(*key, n) for key, n in sorted(found.items())], excepted


def _changes(values: Array) -> int:
    """How many values (T, C) differ from the one before them in time."""
    before, after = values[:-1], values[1:]
    return int(np.sum((before != after) & ~((before != before) & (after != after))))
