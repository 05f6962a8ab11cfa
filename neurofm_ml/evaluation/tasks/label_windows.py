"""Windows with a label: which those of a shards artifact are, what they hold, and which of them belong together.

Shapes: n windows with a known label, T times of a window, C channels.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from neurofm_ml.data.labels import answer_of, interval_around
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.shards import Index, Reader, read_index
from neurofm_ml.data.splits import family_of
from neurofm_ml.data.windows import read_channels, read_windows
from neurofm_ml.knowledge.cards import DatasetCard, TaskSpec
from neurofm_ml.types import Array, Signal

#: Windows' lengths after which a lasting state counts as one more trial: neighbours tell much the same.
STRETCH = 4
#: Columns of `LabelData.rows`. row: place in the index of the dataset's shards; unit: who or what is independent of the others; trial: what
#: has one label; onset: seconds from the window's start to that of its interval, NaN for people.
COLUMNS = (
    "dataset", "key", "row", "recording", "session", "subject", "family", "site", "split", "start", "end", "unit", "trial", "onset",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LabelSource:
    """The windows of one shards artifact, read once for all its tasks."""

    shards: Path
    #: Features of people, kept for the tasks and splits to come (`label_baselines.views`).
    means: dict[Any, dict[tuple[str, ...], tuple[Array, float]]] = field(init=False, default_factory=dict)

    @cached_property
    def card(self) -> DatasetCard:
        return load_card(self.shards)

    @cached_property
    def index(self) -> Index:
        return read_index(self.shards)

    @cached_property
    def channels(self) -> dict[str, dict[str, Any]]:
        return read_channels(self.shards)

    @cached_property
    def windows(self) -> pd.DataFrame:
        """windows.parquet with each window's place in the index."""
        table = read_windows(self.shards)
        return table.assign(dataset=self.card.name, row=[self.index.row_of[key] for key in table.key])

    @cached_property
    def metas(self) -> list[dict[str, Any]]:
        """What each of `windows` says of itself, its intervals too."""
        places = self.windows.row.to_numpy()
        reader = Reader(self.index, fields=("json",)).fetched(places)
        return [reader.sample(row)["json"] for row in places]

    def rows(self, task: TaskSpec) -> tuple[pd.DataFrame, Array]:
        """Rows (n) and labels (n,) of the windows that hold the task's inputs and have a label."""
        answer = answer_of(self.shards, task)
        metas = [{"recording": name} for name in self.windows.recording] if task.of_subject else self.metas
        said = [answer({"json": meta}) for meta in metas]
        y = np.array([_number(a, task) for a in said])
        held = np.all([self.index.sizes(name)[self.windows.row] >= 0 for name in task.inputs], axis=0)
        kept = np.flatnonzero(held & np.isfinite(y))
        return self._grouped(self.windows.iloc[kept], [metas[k] for k in kept], task), y[kept]

    def _grouped(self, rows: pd.DataFrame, metas: Sequence[dict[str, Any]], task: TaskSpec) -> pd.DataFrame:
        rows = rows.assign(family=[family_of(None if pd.isna(f) else f, s) for f, s in zip(rows.family, rows.subject, strict=True)])
        onset = np.array([np.nan if task.of_subject else _onset(meta, task) for meta in metas], float)
        trial = rows.subject if task.of_subject else rows.recording + "@" + self._trials(rows, onset)
        kind = self.card.split.kind
        unit = rows[kind] if kind != "block" else trial
        if task.of_subject and kind in ("block", "recording", "session"):
            unit = rows.subject
        return rows.assign(unit=self.card.name + "/" + unit, trial=self.card.name + "/" + trial, onset=onset)[list(COLUMNS)]

    def _trials(self, rows: pd.DataFrame, onset: Array) -> pd.Series:
        """Start of the interval, or of the recording where there is none, and how many stretches later the window's middle lies."""
        start = np.where(np.isfinite(onset), rows.start + onset, 0.0)
        late = ((rows.start + rows.end) / 2 - start) // (STRETCH * self.card.window_s)
        return pd.Series(
            [f"{s:.6f}+{k:g}" if f else f"none+{k:g}" for s, k, f in zip(start, late, np.isfinite(onset), strict=True)], rows.index
        )

    def read(self, rows: pd.DataFrame, task: TaskSpec) -> Iterator[Signal]:
        """The inputs of windows, in the order of `rows`, all or the part around the onset that holds the answer."""
        places = rows.row.to_numpy()
        reader = Reader(self.index, fields=(*task.inputs, "json")).fetched(places)
        for row, session, onset in zip(places, rows.session, rows.onset, strict=True):
            sample = reader.sample(row)
            signal = _beside([self._signal(sample, name, session) for name in task.inputs], task)
            yield signal if task.epoch is None else _cut(signal, sample["json"], onset, task)

    def _signal(self, sample: dict[str, Any], name: str, session: str) -> Signal:
        at, about = sample["json"]["signals"][name], self.channels[session][name]
        positions = None if about["positions"] is None else np.asarray(about["positions"])
        values = sample[name].astype(np.float64)
        return Signal(values, at["sfreq"], at["modality"], at["t0"], tuple(about["ch_names"]), positions, about["unit"])


# ---------------------------------------------------------------- one window
def _number(said: Any, task: TaskSpec) -> float:
    """Place among the classes, or the number; NaN where unknown."""
    if task.classes:
        return float(task.classes.index(str(said))) if str(said) in task.classes else math.nan
    return math.nan if said is None else float(said)


def _onset(meta: dict[str, Any], task: TaskSpec) -> float:
    """Seconds from a window's start to that of the interval around its middle; NaN where there is none."""
    name = task.target.partition(".")[2]
    found = interval_around(meta, task, name)
    return math.nan if found is None else float(meta["intervals"][name]["start"][found] - meta["start"])


def _beside(signals: Sequence[Signal], task: TaskSpec) -> Signal:
    first = signals[0]
    if len(signals) == 1:
        return first
    if any(s.sfreq != first.sfreq or len(s.values) != len(first.values) for s in signals):
        rates = ", ".join(f"{name!r} {s.sfreq:g} Hz" for name, s in zip(task.inputs, signals, strict=True))
        raise ValueError(f"task {task.name!r}: inputs have {rates}; name inputs of one rate.")
    names = tuple(f"{name}.{ch}" for name, s in zip(task.inputs, signals, strict=True) for ch in s.ch_names)
    return dataclasses.replace(first, values=np.concatenate([s.values for s in signals], axis=1), ch_names=names, positions=None)


def _cut(signal: Signal, meta: dict[str, Any], onset: float, task: TaskSpec) -> Signal:
    """The samples of the task's epoch, as many for every window; without an interval, as if one had begun where they mostly do."""
    (first_s, end_s), during = cast(tuple[float, float], task.epoch), cast(tuple[float, float], task.during)
    if math.isnan(onset):
        onset = (meta["end"] - meta["start"] - sum(during)) / 2
    n = round((end_s - first_s) * signal.sfreq)
    first = min(max(round((meta["start"] + onset + first_s - signal.t0) * signal.sfreq), 0), len(signal.values) - n)
    return dataclasses.replace(signal, values=signal.values[first : first + n], t0=signal.t0 + first / signal.sfreq)
