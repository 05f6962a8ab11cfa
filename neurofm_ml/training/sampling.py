"""Sources of training windows and how often each is drawn: datasets, read through some of their modalities.

A batch comes from one source, so its windows hold the same kinds of signals; which source gives batch k is a pure
function of (seed, k).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.batches import Collate, neural_signals
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.mixture import Mixture
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.shards import read_index
from neurofm_ml.data.windows import read_windows
from neurofm_ml.presets import NEURAL, SamplingConfig, StageConfig, TrainConfig
from neurofm_ml.training.strategies import rank_and_world
from neurofm_ml.types import Array


@dataclass(frozen=True)
class Source:
    """The training windows of one dataset that hold some modalities, by key; `signals` are those to read of them."""

    shards: Path
    dataset: str
    labelled: bool
    modalities: tuple[str, ...]
    signals: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.dataset}:{'+'.join(self.modalities)}"


def sources(shards: Sequence[Path], stage: StageConfig) -> list[Source]:
    """Every source that a stage draws from. Raises ValueError where there is none."""
    found = [source for path in shards for source in _sources_of(path, stage.kind, stage.modalities, stage.pairs)]
    if not found:
        asked = ", ".join(map("+".join, stage.pairs)) or ", ".join(stage.modalities) or "any modality"
        raise ValueError(f"no training window serves the {stage.kind} stage of {asked}; leave the stage out, or add datasets.")
    return found


def whole(shards: Sequence[Path], modalities: Sequence[str]) -> list[Source]:
    """Each dataset as one source of whatever its windows hold of the modalities."""
    return [source for path in shards for source in _sources_of(path, "multimodal", modalities)]


def _sources_of(path: Path, kind: str, modalities: Sequence[str], pairs: Sequence[tuple[str, str]] = ()) -> list[Source]:
    card, (keys, held) = load_card(path), _held(path)
    allowed = [m for m in NEURAL if m in held and m in (modalities or NEURAL)]
    sets: dict[str, list[tuple[str, ...]]] = {
        "unimodal": [(m,) for m in allowed],
        "pairwise": [tuple(sorted(pair, key=NEURAL.index)) for pair in pairs] or list(combinations(allowed, 2)),
        "multimodal": [tuple(allowed)] if allowed else [],
    }
    found = []
    for several in sets[kind]:
        each = np.array([held.get(m, np.zeros(len(keys), bool)) for m in several])
        rows = np.flatnonzero(each.any(0) if kind == "multimodal" else each.all(0))
        if len(rows):
            named = tuple(keys[row] for row in rows)
            found.append(Source(path, card.name, bool(card.series_tasks), several, neural_signals(card, several), named))
    return found


def _held(path: Path) -> tuple[list[str], dict[str, Array]]:
    """Keys of the n training windows, and modality -> (n,) whether each holds it, for those that any holds."""
    card, index, table = load_card(path), read_index(path), read_windows(path)
    keys = index.keys.to_pylist()
    train = np.isin(keys, table.loc[table.split == "train", "key"])
    held: dict[str, Array] = {}
    for name in neural_signals(card):
        modality = card.signals[name].modality
        held[modality] = held.get(modality, False) | (index.sizes(name) >= 0)[train]
    return [keys[row] for row in np.flatnonzero(train)], {m: there for m, there in held.items() if there.any()}


def groups(found: Sequence[Source], cfg: SamplingConfig, labelled_share: float) -> list[dict[str, float]]:
    """Source -> weight, in one group or, for "round_robin", one group per set of modalities: see `SamplingConfig`."""
    per_set = Counter[tuple[str, ...]]()
    for source in found:
        per_set[source.modalities] += len(source.keys)
    if cfg.rule == "round_robin":
        return [{s.name: float(len(s.keys)) for s in found if s.modalities == modalities} for modalities in sorted(per_set)]
    if cfg.rule == "labelled":
        shares = dataset_weights({s.dataset: s.labelled for s in found}, labelled_share)
        parts = Counter(s.dataset for s in found)
        return [{s.name: shares[s.dataset] / parts[s.dataset] for s in found}]
    root = 1.0 if cfg.rule == "proportional" else 1 / cfg.temperature
    return [{s.name: per_set[s.modalities] ** (root - 1) * len(s.keys) for s in found}]


def dataset_weights(labelled: Mapping[str, bool], labelled_share: float) -> dict[str, float]:
    """Dataset -> its share of the updates: equal among those with tasks, which get `labelled_share`, and among the others."""
    n_labelled = sum(labelled.values())
    if n_labelled in (0, len(labelled)):
        return dict.fromkeys(labelled, 1.0)
    shares = {True: labelled_share / n_labelled, False: (1 - labelled_share) / (len(labelled) - n_labelled)}
    return {name: shares[with_tasks] for name, with_tasks in labelled.items()}


def evenly(found: Sequence[Source]) -> list[dict[str, float]]:
    """Every source as often as any other."""
    return [{source.name: 1.0 for source in found}]


def mixture(
    found: Sequence[Source], weights: Sequence[Mapping[str, float]], collate: Callable[[Source], Collate], cfg: TrainConfig, seed: int
) -> Mixture:
    """Batches of some sources, from loaders of this process's share.

    Each source has a collate of its own: what is an input of one dataset may be the target of another.
    """
    rank, world = rank_and_world(cfg)
    common: dict[str, Any] = {"split": "train", "batch_size": cfg.batch_size, "seed": seed, "rank": rank, "world": world}
    loaders = {s.name: Loader([s.shards], where={"key": s.keys}, collate=collate(s), **common) for s in found}
    return Mixture(loaders, weights, seed)
