"""Windows that stand in two splits of a run, in one dataset or in two: byte for byte, or near enough."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from neurofm_ml.data.shards import Reader, read_index
from neurofm_ml.data.splits import LEAST_CHANGES, SHOWN
from neurofm_ml.evaluation.audit.copies import Pairs, alike
from neurofm_ml.evaluation.audit.findings import Finding, Side
from neurofm_ml.evaluation.audit.traces import VIEWS, Traces
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.presets import SPLITS, AuditConfig
from neurofm_ml.types import Array

#: Traces shorter than this say nothing.
LEAST_SAMPLES = 8
#: Windows of a signal that tell how alike its windows are without being the same, and how far above them a copy must be.
USUAL, ABOVE_USUAL = 128, 1.5
#: So much alike are two windows of the same numbers only, in another unit.
EQUAL = 0.9999


def repeated_windows(cfg: AuditConfig, traces: Sequence[Traces]) -> list[Finding]:
    """One finding per pair of recordings, in two splits, that share windows of a signal."""
    found: dict[tuple[Side, Side], Finding] = {}
    for a in traces:
        for b in traces:
            if a.modality == b.modality:
                for finding in _between(cfg, a, b):
                    key = _without_window(finding.a), _without_window(finding.b)
                    if key not in found or found[key].value < finding.value:
                        found[key] = finding
    return list(found.values())


def _without_window(side: Side) -> Side:
    return Side(side.dataset, side.split, side.recording)


def _between(cfg: AuditConfig, a: Traces, b: Traces) -> Iterator[Finding]:
    """Windows of a later split of `b` that stand in an earlier one of `a`."""
    hz = min(a.hz, b.hz)
    a, b = (side if np.isclose(side.hz, hz, rtol=1e-3) else side.at(hz) for side in (a, b))
    if min(a.values.shape[1], b.values.shape[1]) < LEAST_SAMPLES:
        return
    for view in VIEWS.values():
        least = max(cfg.least_surprise, ABOVE_USUAL * usual(b, view, cfg.seed))
        for first, second in combinations(SPLITS, 2):
            early, late = a.of(first), b.of(second)
            pairs = alike(early, late, view, cfg.seed)
            same = (pairs.r >= cfg.least_r) & (pairs.surprise >= least) | (pairs.r >= EQUAL) & (pairs.surprise >= cfg.least_surprise / 2)
            if same.any():
                yield from _findings(early, late, Pairs(*(column[same] for column in pairs)), least)


def usual(traces: Traces, view: slice, seed: int) -> float:
    """Median surprise of the likest windows in two halves of the training windows: a heart beats alike without being copied."""
    windows = traces.used.windows.iloc[traces.rows]
    order = np.lexsort((windows.start, windows.recording))
    order = order[(windows.split.to_numpy() == "train")[order]]
    early, late = np.array_split(order, 2)
    if not len(early) or not len(late):
        return 0.0
    last = windows.iloc[early[-1]]
    apart = (windows.recording.iloc[late] != last.recording).to_numpy() | (windows.start.iloc[late] >= last.end).to_numpy()
    late = late[apart]
    late = late[np.linspace(0, len(late) - 1, min(USUAL, len(late))).astype(int)]
    pairs = alike(traces.take(early), traces.take(late), view, seed)
    best = np.zeros(len(late))
    np.maximum.at(best, pairs.b.astype(int), pairs.surprise)
    return float(np.median(best)) if len(best) else 0.0


def _findings(a: Traces, b: Traces, pairs: Pairs, least: float) -> Iterator[Finding]:
    left, right = (side.used.windows[["key", "recording", "start"]].iloc[side.rows[at]] for side, at in ((a, pairs.a), (b, pairs.b)))
    found: dict[tuple[str, str], list[int]] = {}
    for i, recordings in enumerate(zip(left.recording, right.recording, strict=True)):
        found.setdefault(recordings, []).append(i)
    for (recording_a, recording_b), own in found.items():
        best = max(own, key=lambda i: float(pairs.surprise[i]))
        (key_a, _, start_a), (key_b, _, start_b) = left.iloc[best], right.iloc[best]
        evidence = (
            f"{a.signal} and {b.signal}: r {pairs.r[best]:.3f}, {pairs.surprise[best]:.1f} deviations (at least {least:.1f}), "
            f"{start_a:.6g} s beside {start_b + pairs.lag[best] / b.hz:.6g} s"
        )
        one, other = (
            Side(a.used.card.name, a.splits[0], recording_a, window=key_a),
            Side(b.used.card.name, b.splits[0], recording_b, window=key_b),
        )
        yield Finding("window", one, other, len(np.unique(pairs.b[own])), float(pairs.r[best]), evidence)


# ---------------------------------------------------------------- byte for byte
def equal_windows(used: Sequence[Used]) -> list[Finding]:
    """One finding per pair of recordings, in two splits, that share the bytes of a measured signal."""
    members = pd.concat([_members(number, one) for number, one in enumerate(used)], ignore_index=True)
    copies = members[members.duplicated(["size", "xxh3_64"], keep=False)]
    found: dict[tuple[Side, Side], list[str]] = {}
    for same in (rows.to_dict("records") for _, rows in copies.groupby(["size", "xxh3_64"], sort=False)):
        if len({row["split"] for row in same}) > 1 and _says_something(used[same[0]["number"]], same[0]["key"], same[0]["field"]):
            for x, y in combinations(sorted(same, key=lambda row: SPLITS.index(row["split"])), 2):
                if x["split"] != y["split"]:
                    a, b = (Side(used[row["number"]].card.name, row["split"], row["recording"]) for row in (x, y))
                    found.setdefault((a, b), []).append(f"{x['key']} and {y['key']}")
    return [Finding("window", a, b, len(keys), 1.0, f"the same bytes: {keys[0]}") for (a, b), keys in found.items()]


def _members(number: int, used: Used) -> pd.DataFrame:
    """key, field, size, hash and place of what was measured."""
    index = read_index(used.shards)
    modality = {name: about["modality"] for signals in used.channels.values() for name, about in signals.items()}
    parts = []
    for column, name in enumerate(index.fields):
        if modality.get(name, SHOWN[0]) not in SHOWN:
            there = index.size[:, column] >= 0
            keys = np.array(index.keys.to_pylist())[there]
            parts.append(
                pd.DataFrame({"key": keys, "field": name, "size": index.size[there, column], "xxh3_64": index.xxh3[there, column]})
            )
    rows = pd.concat(parts) if parts else pd.DataFrame(columns=["key", "field", "size", "xxh3_64"])
    return rows.merge(used.windows[["key", "recording", "split"]], on="key").assign(number=number)


def _says_something(used: Used, key: str, field: str) -> bool:
    reader = Reader(read_index(used.shards))
    values: Array = reader.member(reader.index.row_of[key], field)
    return int(np.count_nonzero(values[1:] != values[:-1])) >= LEAST_CHANGES
