"""From windows to tensors: the vocabulary of channels and sessions, and the collate function.

Padding is explicit: a batch may hold sessions with different units, and every padded channel or
time step is False in a mask. Nothing here decides what a model does with it.

Shapes: B batch, T times, C channels, L grid bins, K target columns.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurofm_ml.data.domains import Domains
from neurofm_ml.data.events import event_modality, events
from neurofm_ml.data.labels import Labels, classes_of
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler, standardised
from neurofm_ml.data.shards import read_index
from neurofm_ml.data.windows import read_channels
from neurofm_ml.knowledge.cards import DatasetCard, TaskSpec
from neurofm_ml.presets import READ, SIDE
from neurofm_ml.types import MODALITIES, OWN_CHANNELS, Array, Batch, StreamBatch

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Vocabulary:
    """Names behind the rows of the embedding tables. Row 0 is nobody: unknown and padding.

    channels: modality -> ``dataset/session/signal/channel``; sessions: ``dataset/session``;
    tasks: ``dataset/task`` -> number of target columns; labels: ``dataset/task`` -> classes, none where the label is a number.
    modalities: those of the signals and events there are, behaviour and stimulus too (default: those with channels).
    domains: "species", "subject" -> the classes that a discriminator learns to tell apart (default: it has none to tell).
    """

    channels: dict[str, tuple[str, ...]]
    sessions: tuple[str, ...]
    tasks: dict[str, int]
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    domains: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        present = self.modalities or self.channels
        object.__setattr__(self, "modalities", tuple(m for m in MODALITIES if m in present))

    @cached_property
    def _channel_rows(self) -> dict[str, dict[str, int]]:
        return {modality: {name: i + 1 for i, name in enumerate(names)} for modality, names in self.channels.items()}

    @cached_property
    def _session_rows(self) -> dict[str, int]:
        return {name: i + 1 for i, name in enumerate(self.sessions)}

    def channel_std(self, modality: str) -> Array:
        """(n_channels,) one over the root of the number of channels in each channel's population."""
        populations = [tuple(name.split("/")[:3]) for name in self.channels.get(modality, ())]
        sizes = Counter(populations)
        return np.array([sizes[p] ** -0.5 for p in populations], np.float32)

    def channel_rows(self, modality: str, prefix: str, ch_names: Sequence[str]) -> list[int]:
        """Rows of ``prefix/ch_name`` in the modality's table."""
        rows = self._channel_rows.get(modality, {})
        return [rows.get(f"{prefix}/{name}", 0) for name in ch_names]

    def session_row(self, session: str) -> int:
        return self._session_rows.get(session, 0)

    def union(self, other: "Vocabulary") -> "Vocabulary":
        """This vocabulary followed by what only `other` knows: rows in use keep their place."""
        modalities = dict.fromkeys((*self.channels, *other.channels))
        return Vocabulary(
            {m: tuple(dict.fromkeys((*self.channels.get(m, ()), *other.channels.get(m, ())))) for m in modalities},
            tuple(dict.fromkeys((*self.sessions, *other.sessions))),
            {**self.tasks, **other.tasks},
            {**self.labels, **other.labels},
            (*self.modalities, *other.modalities),
            {d: tuple(dict.fromkeys((*self.domains.get(d, ()), *classes))) for d, classes in {**self.domains, **other.domains}.items()},
        )


def build_vocabulary(shards: Sequence[Path]) -> Vocabulary:
    """Vocabulary of some shards artifacts, in their order. Electrodes and parcels with a position need no rows.

    Raises ValueError for a task whose target is not on the grid, or not of one width in all sessions.
    """
    channels: dict[str, list[str]] = {}
    sessions: list[str] = []
    tasks: dict[str, int] = {}
    modalities: set[str] = set()
    for artifact in shards:
        card, table = load_card(artifact), read_channels(artifact)
        modalities |= {event_modality(name) for name in card.intervals}
        for session, signals in table.items():
            sessions.append(f"{card.name}/{session}")
            for name in (n for n in (*neural_signals(card), *side_signals(card)) if n in signals):
                modalities.add(signals[name]["modality"])
                if unplaced := _unplaced(signals[name]):
                    channels.setdefault(signals[name]["modality"], []).extend(f"{card.name}/{session}/{name}/{ch}" for ch in unplaced)
        tasks |= {f"{card.name}/{task.name}": _width(card, task, table) for task in card.series_tasks}
    labels = classes_of([load_card(artifact) for artifact in shards])
    return Vocabulary({m: tuple(names) for m, names in channels.items()}, tuple(sessions), tasks, labels, tuple(modalities))


def _unplaced(about: Mapping[str, Any]) -> list[str]:
    """Channels of a signal that no place of their own tells from the others: they need rows."""
    if about["modality"] not in PLACED or about["positions"] is None:
        return list(about["ch_names"])
    places = [tuple(place) for place in about["positions"]]
    shared = Counter(places)
    return [ch for ch, place in zip(about["ch_names"], places, strict=True) if shared[place] > 1 or not np.isfinite(place).all()]


def _width(card: DatasetCard, task: TaskSpec, table: Mapping[str, Any]) -> int:
    """Number of columns of a task's target, the same in every session."""
    targets = [signals[task.target] for signals in table.values() if task.target in signals]
    if off := [t["sfreq"] for t in targets if not np.isclose(t["sfreq"], card.grid_hz, rtol=1e-6)]:
        raise ValueError(
            f"task {task.name!r} of {card.name!r}: target {task.target!r} has {off[0]:g} Hz, the grid {card.grid_hz:g} Hz; "
            "give the card the target's rate as grid_hz."
        )
    widths = {len(task.channels or target["ch_names"]) for target in targets}
    if len(widths) > 1:
        raise ValueError(
            f"task {task.name!r} of {card.name!r}: target {task.target!r} has {' or '.join(map(str, sorted(widths)))} channels, "
            "depending on the session; name those to decode in the task's `channels`."
        )
    return widths.pop()


#: Modalities whose channels are known by their position, where they have one.
PLACED = ("lfp", "eeg", "meg", "ecog", "ieeg", "fmri")


def neural_signals(card: DatasetCard, modalities: Collection[str] = READ) -> tuple[str, ...]:
    """Names of the card's signals that models of these modalities take as input, in the card's order: never the target of a task."""
    targets = {task.target for task in card.series_tasks}
    return tuple(name for name, spec in card.signals.items() if spec.modality in modalities and name not in targets)


def side_signals(card: DatasetCard) -> tuple[str, ...]:
    """Names of the card's signals of behaviour and stimulus, targets too, in the card's order: they stand beside the input."""
    return tuple(name for name, spec in card.signals.items() if spec.modality in SIDE)


def readable(shards: Path, modalities: Collection[str] = READ) -> dict[str, list[str]]:
    """Filter for a Loader of the windows that hold a signal that models of these modalities read; empty where all do."""
    index = read_index(shards)
    holds = np.any([index.sizes(name) >= 0 for name in neural_signals(load_card(shards), modalities)], axis=0)
    return {} if holds.all() else {"key": [index.key(int(row)) for row in np.flatnonzero(holds)]}


class Collate:
    """Samples of one or several shards artifacts -> Batch.

    `signals` limits which inputs are taken (None: every neural signal), `tasks` which targets (None:
    every task of the vocabulary). `labelled` maps recordings, ``dataset/recording``, to the only
    seconds [start, end) whose targets are shown. `side` adds behaviour and stimulus: signals by their
    names, intervals as ``<name>_intervals``.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        vocabulary: Vocabulary,
        scaler: Scaler,
        signals: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        labelled: Mapping[str, tuple[float, float]] | None = None,
        side: bool = False,
    ) -> None:
        self.vocabulary, self.scaler, self.signals, self.labelled, self.side = vocabulary, scaler, signals, labelled or {}, side
        self.tasks = {name: vocabulary.tasks[name] for name in tasks or vocabulary.tasks}
        self.cards = {card.name: card for card in map(load_card, shards)}
        self.channels = {load_card(path).name: read_channels(path) for path in shards}
        self.read_labels = Labels(shards, vocabulary.labels)
        self.read_domains = Domains({name: card.species for name, card in self.cards.items()}, vocabulary.domains)

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
            targets=self._targets(samples, length),
            labels=self.read_labels(samples),
            side=self._side(samples) if self.side else {},
            domains=self.read_domains(samples),
        )

    def _inputs(self, samples: Sequence[Sample]) -> list[str]:
        return _present(self.signals or self._named(neural_signals, samples), samples)

    def _named(self, which: Callable[[DatasetCard], tuple[str, ...]], samples: Sequence[Sample]) -> list[str]:
        return [name for dataset in dict.fromkeys(s["json"]["dataset"] for s in samples) for name in which(self.cards[dataset])]

    def _side(self, samples: Sequence[Sample]) -> dict[str, StreamBatch]:
        intervals = dict.fromkeys(name for sample in samples for name in sample["json"].get("intervals", {}))
        streams = {name: self._stream(name, samples) for name in _present(self._named(side_signals, samples), samples)}
        return streams | {f"{name}_intervals": events(name, samples) for name in intervals}

    def _stream(self, name: str, samples: Sequence[Sample]) -> StreamBatch:
        """Samples that lack the signal stay False in its mask and take the sampling step of the others."""
        present = [(i, sample, self._about(name, sample)) for i, sample in enumerate(samples) if name in sample]
        modality = _modality(name, [about for _, _, about in present])
        n, length = len(samples), max(len(sample[name]) for _, sample, _ in present)
        width = max(sample[name].shape[1] for _, sample, _ in present)
        values, counts = np.zeros((n, length, width), np.float32), np.zeros((n, length, width), np.float32)
        mask, channel_mask = np.zeros((n, length), bool), np.zeros((n, width), bool)
        ids, positions = np.zeros((n, width), np.int64), np.zeros((n, width, 3), np.float32)
        t0, dt = np.zeros(n, np.float32), np.full(n, 1 / present[0][2]["sfreq"], np.float32)
        seen = np.zeros((n, length, width), bool)
        for i, sample, about in present:
            t, c = sample[name].shape
            counts[i, :t, :c] = sample[name]
            values[i, :t, :c] = standardised(sample[name], modality, *self._scale(name, sample))
            seen[i, :t, :c] = modality not in SIDE or np.isfinite(sample[name])
            mask[i, :t], channel_mask[i, :c] = seen[i, :t].any(1), True
            ids[i, :c] = self.vocabulary.channel_rows(modality, f"{_session(sample)}/{name}", about["ch_names"])
            positions[i, :c] = np.nan if about["positions"] is None else about["positions"]
            signal = sample["json"]["signals"][name]
            t0[i], dt[i] = signal["t0"] - sample["json"]["start"], 1 / signal["sfreq"]
        placed = any(about["positions"] is not None for _, _, about in present)
        return StreamBatch(
            modality=modality,
            values=torch.from_numpy(np.where(seen, values, 0)),
            mask=torch.from_numpy(mask),
            times=torch.from_numpy(t0[:, None] + np.arange(length, dtype=np.float32) * dt[:, None]),
            t0=torch.from_numpy(t0),
            dt=torch.from_numpy(dt),
            ids=torch.from_numpy(ids),
            channel_mask=torch.from_numpy(channel_mask),
            positions=torch.from_numpy(positions) if placed else None,
            counts=torch.from_numpy(counts) if modality == "spikes" else None,
            seen=torch.from_numpy(seen) if modality in SIDE else None,
        )

    def _about(self, name: str, sample: Sample) -> dict[str, Any]:
        about: dict[str, Any] = self.channels[sample["json"]["dataset"]][sample["json"]["session"]][name]
        return about

    def _scale(self, name: str, sample: Sample) -> tuple[Array, Array]:
        about = self._about(name, sample)
        # Units of one session are not those of another that have the same name.
        names = [""] * len(about["ch_names"]) if about["modality"] in OWN_CHANNELS else about["ch_names"]
        return self.scaler(sample["json"]["dataset"], sample["json"]["session"], name, names)

    def _targets(self, samples: Sequence[Sample], length: int) -> dict[str, torch.Tensor]:
        targets: dict[str, Array] = {}
        for i, sample in enumerate(samples):
            meta = sample["json"]
            for task in self.cards[meta["dataset"]].series_tasks:
                name = f"{meta['dataset']}/{task.name}"
                if name in self.tasks and task.target in sample:
                    values = self._target(sample, task.target, task.channels)
                    full = targets.setdefault(name, np.full((len(samples), length, self.tasks[name]), np.nan, np.float32))
                    full[i, : len(values)] = values
        return {name: torch.from_numpy(values) for name, values in targets.items()}

    def _target(self, sample: Sample, target: str, channels: Sequence[str]) -> Array:
        meta = sample["json"]
        names = self._about(target, sample)["ch_names"]
        mean, std = self._scale(target, sample)
        columns = [names.index(ch) for ch in channels or names]
        z: Array = (sample[target][:, columns] - mean[columns]) / std[columns]
        start, end = self.labelled.get(f"{meta['dataset']}/{meta['recording']}", (-np.inf, np.inf))
        times = meta["grid"]["t0"] + (np.arange(len(z)) + 0.5) / meta["grid"]["hz"]
        return np.where(((times >= start) & (times < end))[:, None], z, np.nan)


def _present(names: Iterable[str], samples: Sequence[Sample]) -> list[str]:
    return [name for name in dict.fromkeys(names) if any(name in sample for sample in samples)]


def _modality(name: str, abouts: Sequence[Mapping[str, Any]]) -> str:
    found = sorted({about["modality"] for about in abouts})
    if len(found) > 1:
        raise ValueError(f"signal {name!r} is {' and '.join(found)} in one batch; batch one dataset at a time.")
    return found[0]


def _session(sample: Sample) -> str:
    return f"{sample['json']['dataset']}/{sample['json']['session']}"
