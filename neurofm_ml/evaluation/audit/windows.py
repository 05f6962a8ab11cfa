"""Windows that stand in two splits of a run, in one dataset or in two: byte for byte, or near enough."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from neurofm_ml.data.grid import BEHAVIOUR
from neurofm_ml.data.splits import LEAST_CHANGES, SHOWN
from neurofm_ml.evaluation.audit.copies import Coded, Pairs, alike, coded
from neurofm_ml.evaluation.audit.findings import Finding, Side
from neurofm_ml.evaluation.audit.traces import VIEWS, Traces
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.presets import SPLITS, AuditConfig
from neurofm_ml.types import Array

#: Samples in a frame; windows that are too short for it are compared by the second. Shorter ones say nothing.
FRAMES = (16, 8)
#: Windows of a signal that tell how alike its windows are without being the same, and how far above them a copy must be.
USUAL, ABOVE_USUAL = 128, 1.5
#: So much alike are two windows of the same numbers only, in another unit. Behaviour is of few shapes (reaches, saccades,
#: heartbeats), and nothing less is a copy there.
EQUAL = 0.9999
#: Rates that differ by less are one.
SAME_RATE = 1e-3


def repeated_windows(cfg: AuditConfig, traces: Sequence[Traces]) -> list[Finding]:
    """One finding per pair of recordings, in two splits, that share windows of a modality: the surest of each."""
    found: dict[tuple[Side, Side], Finding] = {}
    for modality in sorted({t.modality for t in traces}):
        own = [t for t in traces if t.modality == modality]
        for pool in _pools(own):
            for finding in _repeats(cfg, pool):
                key = replace(finding.a, window=""), replace(finding.b, window="")
                if key not in found or found[key].value < finding.value:
                    found[key] = finding
    return list(found.values())


@dataclass(frozen=True, eq=False)
class Pool:
    """Traces of one modality at one rate, end to end: values (N, T, K), length (N,), of which traces each window is, and its split."""

    traces: Sequence[Traces]
    native: Array
    hz: float
    frame: int

    @cached_property
    def length(self) -> Array:
        return np.concatenate([np.full(len(t.rows), t.values.shape[1]) for t in self.traces])

    @cached_property
    def values(self) -> Array:
        longest = int(self.length.max())
        return np.concatenate([np.pad(t.values, ((0, 0), (0, longest - t.values.shape[1]), (0, 0))) for t in self.traces])

    @cached_property
    def owner(self) -> Array:
        return np.repeat(np.arange(len(self.traces)), [len(t.rows) for t in self.traces])

    @cached_property
    def windows(self) -> pd.DataFrame:
        """key, recording, split, start and end of each."""
        columns = ["key", "recording", "split", "start", "end"]
        return pd.concat([t.used.windows[columns].iloc[t.rows] for t in self.traces], ignore_index=True)


def _pools(traces: Sequence[Traces]) -> Iterator[Pool]:
    """At the rate of each, it and what is faster; pairs that are all faster meet at a higher rate."""
    rates: list[float] = []
    for hz in sorted(t.hz for t in traces):
        if not rates or hz > rates[-1] * (1 + SAME_RATE):
            rates.append(hz)
    for hz in rates:
        native = [t for t in traces if abs(t.hz / hz - 1) <= SAME_RATE]
        faster = [t.at(hz) for t in traces if t.hz > hz * (1 + SAME_RATE) and t.values.shape[1] * hz / t.hz >= FRAMES[-1]]
        for frame, short in zip(FRAMES, (False, True), strict=True):
            long_enough = [t for t in (*native, *faster) if t.values.shape[1] >= frame]
            if long_enough and (not short or any(t.values.shape[1] < FRAMES[0] for t in long_enough)):
                yield Pool(long_enough, np.array([t in native for t in long_enough]), hz, frame)


def _repeats(cfg: AuditConfig, pool: Pool) -> Iterator[Finding]:
    """Windows of a later split that stand in an earlier one."""
    split = pool.windows.split.to_numpy()
    stereotyped = pool.traces[0].modality in BEHAVIOUR
    for view in VIEWS.values():
        of = coded(pool.values[:, :, view], pool.length, pool.frame, cfg.seed)
        least = np.full(len(pool.traces), np.inf)
        if not stereotyped:
            least = np.array([max(cfg.least_surprise, ABOVE_USUAL * _usual(pool, of, i)) for i in range(len(pool.traces))])
        for first, second in combinations(SPLITS, 2):
            pairs = alike(of, split == first, split == second)
            needed = least[pool.owner[pairs.b]]
            same = (pairs.r >= cfg.least_r) & (pairs.surprise >= needed) | (pairs.r >= EQUAL) & (pairs.surprise >= cfg.least_surprise / 2)
            same &= pool.native[pool.owner[pairs.a]] | pool.native[pool.owner[pairs.b]]
            yield from _findings(pool, Pairs(*(column[same] for column in pairs)))


def _usual(pool: Pool, of: Coded, owner: int) -> float:
    """Median surprise of the likest windows in two halves of the training windows of a signal, which are not the same."""
    windows = pool.windows
    own = np.flatnonzero((pool.owner == owner) & (windows.split == "train").to_numpy())
    own = own[np.lexsort((windows.start.to_numpy()[own], windows.recording.to_numpy()[own]))]
    early, late = np.array_split(own, 2)
    if not len(early):
        return 0.0
    last = windows.iloc[early[-1]]
    late = late[(windows.recording.iloc[late] != last.recording).to_numpy() | (windows.start.iloc[late] >= last.end).to_numpy()]
    late = late[np.linspace(0, len(late) - 1, min(USUAL, len(late))).astype(int)]
    pairs = alike(of, np.isin(np.arange(len(windows)), early), np.isin(np.arange(len(windows)), late))
    best = np.zeros(len(windows))
    np.maximum.at(best, pairs.b, pairs.surprise)
    return float(np.median(best[late])) if len(late) else 0.0


def _findings(pool: Pool, pairs: Pairs) -> Iterator[Finding]:
    """One per pair of recordings, with the number of windows and the surest."""
    columns = {name: pool.windows[name].to_numpy() for name in ("key", "recording", "split", "start")}
    found: dict[tuple[Side, Side], list[int]] = {}
    for i, (a, b) in enumerate(zip(pairs.a, pairs.b, strict=True)):
        sides = [Side(pool.traces[pool.owner[w]].used.card.name, columns["split"][w], columns["recording"][w]) for w in (a, b)]
        found.setdefault((sides[0], sides[1]), []).append(i)
    for (one, other), own in found.items():
        best = max(own, key=lambda i: float(pairs.surprise[i]))
        a, b = int(pairs.a[best]), int(pairs.b[best])
        evidence = (
            f"{pool.traces[pool.owner[a]].signal} and {pool.traces[pool.owner[b]].signal}: r {pairs.r[best]:.3f}, {pairs.surprise[best]:.1f} "
            f"deviations above chance, {columns['start'][a]:.6g} s beside {columns['start'][b] + pairs.lag[best] / pool.hz:.6g} s"
        )
        one, other = replace(one, window=columns["key"][a]), replace(other, window=columns["key"][b])
        yield Finding("window", one, other, len(np.unique(pairs.b[own])), float(pairs.r[best]), evidence)


# ---------------------------------------------------------------- byte for byte
def equal_windows(used: Sequence[Used]) -> list[Finding]:
    """One finding per pair of recordings, in two splits, that share the bytes of a measured signal."""
    members = pd.concat([_members(number, one) for number, one in enumerate(used)], ignore_index=True)
    copies = members[members.duplicated(["size", "xxh3_64"], keep=False)]
    found: dict[tuple[Side, Side], list[str]] = {}
    for same in (rows.to_dict("records") for _, rows in copies.groupby(["size", "xxh3_64"], sort=False)):
        if len({row["split"] for row in same}) > 1 and _says_something(used[same[0]["number"]], same[0]["key"], same[0]["field"]):
            once = {(row["number"], row["split"], row["recording"]): row for row in same}.values()
            for x, y in combinations(sorted(once, key=lambda row: SPLITS.index(row["split"])), 2):
                if x["split"] != y["split"]:
                    a, b = (Side(used[row["number"]].card.name, row["split"], row["recording"]) for row in (x, y))
                    found.setdefault((a, b), []).append(f"{x['key']} and {y['key']}")
    return [Finding("window", a, b, len(keys), 1.0, f"the same bytes: {keys[0]}") for (a, b), keys in found.items()]


def _members(number: int, used: Used) -> pd.DataFrame:
    """key, field, size, hash and place of what was measured."""
    index = used.reader.index
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
    values: Array = used.reader.member(used.reader.index.row_of[key], field)
    return int(np.count_nonzero(values[1:] != values[:-1])) >= LEAST_CHANGES
