"""From windows to tensors: the vocabulary of channels and sessions, and the collate function.

Padding is explicit: a batch may hold sessions with different units, and every padded channel or
time step is False in a mask. Nothing here decides what a model does with it.

Shapes: B batch, T times, C channels, L grid bins, K target columns.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Batch, StreamBatch

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Vocabulary:
    """Names behind the rows of the embedding tables. Row 0 is nobody: unknown and padding.

    channels: ``dataset/session/signal/channel``; sessions: ``dataset/session``;
    tasks: ``dataset/task`` -> number of target columns.
    """

    channels: tuple[str, ...]
    sessions: tuple[str, ...]
    tasks: dict[str, int]

    @cached_property
    def _channel_rows(self) -> dict[str, int]:
        return {name: i + 1 for i, name in enumerate(self.channels)}

    @cached_property
    def _session_rows(self) -> dict[str, int]:
        return {name: i + 1 for i, name in enumerate(self.sessions)}

    @property
    def channel_std(self) -> Array:
        """(n_channels,) one over the root of the number of channels in each channel's population."""
        populations = [name.rsplit("/", 1)[0] for name in self.channels]
        sizes = Counter(populations)
        return np.array([sizes[p] ** -0.5 for p in populations], np.float32)

    def channel_rows(self, prefix: str, ch_names: Sequence[str]) -> list[int]:
        return [self._channel_rows.get(f"{prefix}/{name}", 0) for name in ch_names]

    def session_row(self, session: str) -> int:
        return self._session_rows.get(session, 0)

    def union(self, other: "Vocabulary") -> "Vocabulary":
        """This vocabulary followed by what only `other` knows: rows in use keep their place."""
        return Vocabulary(
            (*self.channels, *(c for c in other.channels if c not in self._channel_rows)),
            (*self.sessions, *(s for s in other.sessions if s not in self._session_rows)),
            {**self.tasks, **other.tasks},
        )


def build_vocabulary(shards: Iterable[Path]) -> Vocabulary:
    """Vocabulary of some shards artifacts, in their order. Channels placed in space need no rows."""
    channels, sessions, tasks = [], [], {}
    for artifact in shards:
        card, table = load_card(artifact), read_channels(artifact)
        inputs = {name for task in card.tasks for name in task.inputs} | set(neural_signals(card))
        for session, signals in table.items():
            sessions.append(f"{card.name}/{session}")
            for name in sorted(inputs & set(signals)):
                if signals[name]["positions"] is None:
                    channels += [f"{card.name}/{session}/{name}/{ch}" for ch in signals[name]["ch_names"]]
        for task in card.tasks:
            names = next((s[task.target]["ch_names"] for s in table.values() if task.target in s), [])
            tasks[f"{card.name}/{task.name}"] = len(task.channels or names)
    return Vocabulary(tuple(channels), tuple(sessions), tasks)


def read_channels(artifact: Path) -> dict[str, dict[str, Any]]:
    """channels.json of a shards artifact: session -> signal -> its channels."""
    table: dict[str, dict[str, Any]] = json.loads((artifact / "channels.json").read_text())
    return table


NEURAL = ("spikes", "calcium", "eeg", "fmri")


def neural_signals(card: DatasetCard) -> tuple[str, ...]:
    """Names of the card's signals that models take as input, in the card's order."""
    return tuple(name for name, spec in card.signals.items() if spec.modality in NEURAL)


class Collate:
    """Samples of one or several shards artifacts -> Batch.

    `signals` limits which inputs are taken (None: every neural signal).
    """

    def __init__(self, shards: Iterable[Path], vocabulary: Vocabulary, scaler: Scaler, signals: Sequence[str] | None = None) -> None:
        self.vocabulary, self.scaler, self.signals = vocabulary, scaler, signals
        self.cards = {card.name: card for card in map(load_card, shards)}
        self.channels = {load_card(path).name: read_channels(path) for path in shards}

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        grids = [sample["json"]["grid"] for sample in samples]
        length = max(grid["n"] for grid in grids)
        times = np.zeros((len(samples), length), np.float32)
        mask = np.zeros((len(samples), length), bool)
        for i, (sample, grid) in enumerate(zip(samples, grids, strict=True)):
            times[i] = grid["t0"] - sample["json"]["start"] + (np.arange(length) + 0.5) / grid["hz"]
            mask[i, : grid["n"]] = True
        return Batch(
            streams={name: self._stream(name, samples) for name in self._inputs(samples)},
            times=torch.from_numpy(times),
            dt=torch.tensor([1 / grid["hz"] for grid in grids]),
            mask=torch.from_numpy(mask),
            session=torch.tensor([self.vocabulary.session_row(_session(s)) for s in samples]),
            rows=torch.tensor([s["__row__"] for s in samples]),
            starts=torch.tensor([s["json"]["start"] for s in samples], dtype=torch.float64),
            keys=tuple(s["__key__"] for s in samples),
            targets=self._targets(samples, length),
        )

    def _inputs(self, samples: Sequence[Sample]) -> list[str]:
        wanted = self.signals or [n for d in dict.fromkeys(s["json"]["dataset"] for s in samples) for n in neural_signals(self.cards[d])]
        return [name for name in dict.fromkeys(wanted) if any(name in sample for sample in samples)]

    def _stream(self, name: str, samples: Sequence[Sample]) -> StreamBatch:
        """Samples that lack the signal stay False in its mask."""
        abouts = {s["__key__"]: self.channels[s["json"]["dataset"]][s["json"]["session"]].get(name) for s in samples if name in s}
        n, length = len(samples), max(len(s[name]) for s in samples if name in s)
        width = max(s[name].shape[1] for s in samples if name in s)
        modality = next(iter(abouts.values()))["modality"]
        values, counts = np.zeros((n, length, width), np.float32), np.zeros((n, length, width), np.float32)
        mask, channel_mask = np.zeros((n, length), bool), np.zeros((n, width), bool)
        ids, positions = np.zeros((n, width), np.int64), np.zeros((n, width, 3), np.float32)
        t0, dt = np.zeros(n, np.float32), np.ones(n, np.float32)
        for i, sample in enumerate(samples):
            about = abouts.get(sample["__key__"])
            if about is None:
                continue
            t, c = sample[name].shape
            counts[i, :t, :c] = sample[name]
            values[i, :t, :c] = self._standardised(name, sample, modality)
            mask[i, :t], channel_mask[i, :c] = True, True
            ids[i, :c] = self.vocabulary.channel_rows(f"{_session(sample)}/{name}", about["ch_names"])
            positions[i, :c] = about["positions"] or 0
            signal = sample["json"]["signals"][name]
            t0[i], dt[i] = signal["t0"] - sample["json"]["start"], 1 / signal["sfreq"]
        placed = any(about["positions"] is not None for about in abouts.values())
        return StreamBatch(
            modality=modality,
            values=torch.from_numpy(values),
            mask=torch.from_numpy(mask),
            times=torch.from_numpy(t0[:, None] + np.arange(length, dtype=np.float32) * dt[:, None]),
            t0=torch.from_numpy(t0),
            dt=torch.from_numpy(dt),
            ids=torch.from_numpy(ids),
            channel_mask=torch.from_numpy(channel_mask),
            positions=torch.from_numpy(positions) if placed else None,
            counts=torch.from_numpy(counts) if modality == "spikes" else None,
        )

    def _standardised(self, name: str, sample: Sample, modality: str) -> Array:
        mean, std = self.scaler(sample["json"]["dataset"], sample["json"]["session"], name)
        values = np.sqrt(sample[name]) if modality == "spikes" else sample[name]
        z: Array = (values - mean) / std
        return z

    def _targets(self, samples: Sequence[Sample], length: int) -> dict[str, torch.Tensor]:
        targets: dict[str, Array] = {}
        for i, sample in enumerate(samples):
            meta = sample["json"]
            for task in self.cards[meta["dataset"]].tasks:
                name = f"{meta['dataset']}/{task.name}"
                if name in self.vocabulary.tasks and task.target in sample:
                    values = self._target(sample, task.target, task.channels)
                    full = targets.setdefault(name, np.full((len(samples), length, self.vocabulary.tasks[name]), np.nan, np.float32))
                    full[i, : len(values)] = values
        return {name: torch.from_numpy(values) for name, values in targets.items()}

    def _target(self, sample: Sample, target: str, channels: Sequence[str]) -> Array:
        meta = sample["json"]
        names = self.channels[meta["dataset"]][meta["session"]][target]["ch_names"]
        mean, std = self.scaler(meta["dataset"], meta["session"], target)
        columns = [names.index(ch) for ch in channels or names]
        z: Array = (sample[target][:, columns] - mean[columns]) / std[columns]
        return z


def _session(sample: Sample) -> str:
    return f"{sample['json']['dataset']}/{sample['json']['session']}"
