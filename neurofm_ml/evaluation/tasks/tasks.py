"""Decoding tasks as arrays: which recordings can be decoded, from what, to what.

Shapes: T bins of a block, N input channels, K target columns.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from neurofm_ml import metrics
from neurofm_ml.data.preprocess.base import ELECTRIC
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.windows import load_block
from neurofm_ml.evaluation.statistics.controls import rolled
from neurofm_ml.evaluation.tasks.bands import band_amplitudes
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array, Recording, Signal

Blocks = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class DecodingData:
    """The three blocks of one recording: split -> array.

    x (T, N): spike counts as they are, other signals z-scored on the training block; counts (N,)
    tells which is which. y (T, K) in its own unit, NaN where unknown; times (T,) seconds, the
    middle of each bin.
    """

    x: Blocks
    y: Blocks
    times: Blocks
    counts: Array

    @cached_property
    def known(self) -> Blocks:
        """(T,) True where every column of the target is known."""
        return {split: np.asarray(np.isfinite(y).all(1)) for split, y in self.y.items()}

    def r2(self, split: str, y_pred: Array) -> float:
        """Mean R2 over columns of a prediction (T, K) of one block."""
        return metrics.r2(self.y[split], y_pred, mask=self.known[split])

    def with_rolled_labels(self) -> "DecodingData":
        """The same neural activity with labels of another time."""
        return dataclasses.replace(self, y={split: rolled(y) for split, y in self.y.items()})


@dataclass(frozen=True)
class Case:
    """One task of one recording: where its shards lie, and what the scores table says of it."""

    shards: Path
    scaler: tuple[Path, ...]
    dataset: str
    recording: str
    species: str
    modality: str
    task: TaskSpec

    @property
    def key(self) -> tuple[str, str, str]:
        """(dataset, recording, task)"""
        return self.dataset, self.recording, self.task.name

    @cached_property
    def data(self) -> DecodingData:
        """Inputs and targets, read once."""
        blocks = {split: load_block(self.shards, self.recording, split) for split in SPLITS}
        inputs = {split: [_signal(block, name) for name in self.task.inputs] for split, block in blocks.items()}
        targets = {split: _signal(block, self.task.target) for split, block in blocks.items()}
        parts = {
            split: [self._on_grid(n, s, targets[split]) for n, s in zip(self.task.inputs, signals, strict=True)]
            for split, signals in inputs.items()
        }
        counts = np.concatenate([np.full(x.shape[1], s.modality == "spikes") for x, s in zip(parts["train"], inputs["train"], strict=True)])
        x = {split: np.concatenate(columns, axis=1, dtype=np.float64) for split, columns in parts.items()}
        y = {split: np.asarray(_columns(target, self.task), np.float64) for split, target in targets.items()}
        self._require_variance(y)
        times = {split: target.times + 0.5 / target.sfreq for split, target in targets.items()}
        return DecodingData(_scaled(x, counts), y, times, counts)

    def score(self, data: DecodingData, guess: Array) -> float:
        """The task's metric of a guess (T, K) at the targets of the test block of `data`: its own, or the same with other labels."""
        known = data.known["test"]
        return SCORES[self.task.metric].value(data.y["test"][known], guess[known])

    def _on_grid(self, name: str, signal: Signal, target: Signal) -> Array:
        """(T, N) an input in the bins of the target; of potentials that were sampled faster, their amplitude in bands."""
        if np.isclose(signal.sfreq, target.sfreq) and len(signal.values) == len(target.values):
            return np.asarray(signal.values)
        if signal.modality in ELECTRIC and len(amplitudes := band_amplitudes(signal, target.sfreq)) == len(target.values):
            return amplitudes
        raise ValueError(
            f"task {self.task.name!r} of {self.dataset}: input {name!r} has {signal.sfreq:g} Hz and {self.task.target!r} {target.sfreq:g} Hz; "
            "the baselines need both on the grid, or potentials of a whole number of samples a bin: set grid_hz of the card accordingly."
        )

    def _require_variance(self, y: Blocks) -> None:
        for split, values in y.items():
            known = values[np.isfinite(values).all(1)]
            if not len(known) or (known == known[0]).all(0).any():
                raise ValueError(
                    f"task {'/'.join(self.key)}: a column of {self.task.target!r} is constant or unknown in the whole {split} block, so "
                    "there is nothing to decode; choose other channels or another span for the recording in its card."
                )


def find_cases(shards: Path, scaler: Sequence[Path]) -> list[Case]:
    """Every series task of every recording of a shards artifact that has all three blocks; none where recordings are split whole."""
    card = load_card(shards)
    return [
        Case(shards, tuple(scaler), card.name, recording, card.species, card.modality_of(task), task)
        for recording in _whole_recordings(shards)
        for task in card.series_tasks_of(recording)
    ]


def find_encoding_cases(shards: Path, scaler: Sequence[Path]) -> list[Case]:
    """The same of the tasks that tell activity from a stimulus or behaviour; their modality is that of the activity."""
    card = load_card(shards)
    return [
        Case(shards, tuple(scaler), card.name, recording, card.species, card.modality_of(task), task)
        for recording in _whole_recordings(shards)
        for task in card.encoding_tasks
    ]


def _whole_recordings(shards: Path) -> list[str]:
    """Recordings that have all three blocks."""
    table = pd.read_parquet(shards / "windows.parquet", columns=["recording", "split"])
    return [str(recording) for recording, rows in table.groupby("recording") if set(SPLITS) <= set(rows["split"])]


def _signal(block: Recording, name: str) -> Signal:
    return cast(Signal, block.signals[name])


def _columns(target: Signal, task: TaskSpec) -> Array:
    return target.values[:, [target.ch_names.index(c) for c in task.channels or target.ch_names]]


def _scaled(x: Blocks, counts: Array) -> Blocks:
    mean, std = np.where(counts, 0.0, x["train"].mean(0)), np.where(counts, 1.0, x["train"].std(0))
    return {split: (values - mean) / np.where(std > 0, std, 1.0) for split, values in x.items()}
