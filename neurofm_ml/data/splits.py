"""Splits: which stretch of time or which whole recordings are trained on, validated on, tested on.

And the proof: `certificate` looks at a finished window table alone and says what no two splits share.
"""

import hashlib
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.knowledge.cards import DatasetCard, SplitSpec
from neurofm_ml.presets import SPLITS

#: Column that tells recordings apart under each kind of split.
UNIT = {"subject": "subject", "recording": "recording", "block": "recording"}
Blocks = dict[str, tuple[int, int]]


def blocks(n_bins: int, card: DatasetCard) -> Blocks:
    """split -> [start, end) in bins, for contiguous blocks of time with a gap at each border."""
    spec = card.split
    gap = int(np.ceil(spec.gap_s * card.grid_hz - 1e-6))
    b1, b2 = int(spec.train * n_bins), int((spec.train + spec.validation) * n_bins)
    bounds = {"train": (0, b1 - gap), "validation": (b1, b2 - gap), "test": (b2, n_bins)}
    return {split: (start, end) for split, (start, end) in bounds.items() if end > start}


def assign(ids: Iterable[str], spec: SplitSpec) -> dict[str, str]:
    """id -> split for whole subjects or recordings: the same ids and seed give the same answer in any order."""
    ranked = sorted(set(ids), key=lambda name: hashlib.sha256(f"{spec.seed}:{name}".encode()).digest())
    n_test = max(round((1 - spec.train - spec.validation) * len(ranked)), min(1, len(ranked) - 1))
    n_validation = max(round(spec.validation * len(ranked)), min(1, len(ranked) - n_test - 1)) if spec.validation else 0
    names = ["test"] * n_test + ["validation"] * n_validation
    return {name: names[i] if i < len(names) else "train" for i, name in enumerate(ranked)}


def certificate(table: pd.DataFrame, spec: SplitSpec) -> dict[str, Any]:
    """What the window table proves: for each pair of splits, the subjects or recordings they share and the least time between them.

    `disjoint` is True when whole units (subject, recording) are never shared, or, for blocks, when
    windows of two splits of one recording are at least ``gap_s`` apart.
    """
    pairs = [_pair(table[table.split == a], table[table.split == b], spec, a, b) for a, b in combinations(SPLITS, 2)]
    return {"kind": spec.kind, "gap_s": spec.gap_s, "windows": len(table), "disjoint": all(p["disjoint"] for p in pairs), "pairs": pairs}


def _pair(a: pd.DataFrame, b: pd.DataFrame, spec: SplitSpec, name_a: str, name_b: str) -> dict[str, Any]:
    shared = sorted(set(a[UNIT[spec.kind]]) & set(b[UNIT[spec.kind]]))
    gaps = [_least_gap(a[a.recording == r], b[b.recording == r]) for r in sorted(set(a.recording) & set(b.recording))]
    least = min(gaps, default=None)
    # Times are rounded sums of bins; a microsecond is far below any bin.
    apart = least is None or least >= spec.gap_s - 1e-6
    return {
        "splits": [name_a, name_b],
        "shared": shared,
        "least_gap_s": least,
        "disjoint": apart if spec.kind == "block" else not shared,
    }


def _least_gap(a: pd.DataFrame, b: pd.DataFrame) -> float:
    """Smallest distance in seconds between an interval of `a` and one of `b`; negative where they overlap."""
    gap = np.maximum(a.start.to_numpy()[:, None] - b.end.to_numpy()[None], b.start.to_numpy()[None] - a.end.to_numpy()[:, None])
    return float(gap.min())
