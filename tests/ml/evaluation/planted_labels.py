"""Label cases with known truth, without files: windows that differ between classes in rhythm, covariance, course or size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from scipy.signal import butter, lfilter

from neurofm_ml.evaluation.tasks.label_tasks import LabelCase
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array, Signal

COUNTS = {"train": 60, "validation": 30, "test": 40}


@dataclass(frozen=True, eq=False)
class Windows:
    """Stands for a LabelSource: one window (T, C) per row, the channels of each session, and the labels."""

    values: Sequence[Array]
    y: Array
    split: Array
    session: Array
    recording: Array
    modality: str
    sfreq: float
    names: dict[str, tuple[str, ...]]
    card: Any = field(default_factory=lambda: SimpleNamespace(name="toy", window_s=1.0, label_tasks=()))
    site: Any = None
    means: dict[Any, Any] = field(init=False, default_factory=dict)

    @property
    def channels(self) -> dict[str, dict[str, Any]]:
        return {session: {"x": {"ch_names": names, "modality": self.modality}} for session, names in self.names.items()}

    def rows(self, task: TaskSpec) -> tuple[pd.DataFrame, Array]:
        n = len(self.y)
        trial = self.recording if task.of_subject else np.array([f"t{k}" for k in range(n)])
        table = {
            "dataset": "toy", "key": [f"w{k}" for k in range(n)], "row": np.arange(n), "recording": self.recording, "session": self.session,
            "subject": self.recording, "family": self.recording, "site": self.site, "split": self.split, "start": np.arange(n) * 1.0,
            "end": np.arange(n) + 1.0, "unit": trial, "trial": trial, "onset": np.nan,
        }  # fmt: skip
        return pd.DataFrame(table), self.y

    def read(self, rows: pd.DataFrame, task: TaskSpec) -> Iterator[Signal]:
        for row, session in zip(rows.row, rows.session, strict=True):
            yield Signal(self.values[row], self.sfreq, self.modality, ch_names=self.names[session])


def case_of(windows: Windows, task: TaskSpec) -> LabelCase:
    return LabelCase("toy", "Homo sapiens", windows.modality, task, (windows,), ())  # type: ignore[arg-type]


def changed(case: LabelCase, **changes: Any) -> LabelCase:
    """The case with other windows."""
    return case_of(replace(case.sources[0], **changes), case.task)  # type: ignore[type-var]


def planted(modality: str, *, strength: float = 1.0, n_classes: int = 3, of_subject: bool = False, seed: int = 0) -> LabelCase:
    """Classes, or with `n_classes` 0 numbers from -1 to 1, that move what the modality is looked at for.

    Potentials: the size of a rhythm in the first channels, the correlation of the last two, a slow deflection; parcels: a
    correlation and a mean; units: rates.
    """
    rng = np.random.default_rng(seed)
    split = np.repeat(SPLITS, list(COUNTS.values()))
    recording = np.array([f"r{k // 2}" if of_subject else "r" for k in range(len(split))])
    drawn = rng.integers(0, n_classes, len(split)).astype(float) if n_classes else rng.uniform(-1, 1, len(split))
    y = np.array([drawn[np.argmax(recording == r)] for r in recording]) if of_subject else drawn
    level = strength * (y / (n_classes - 1) * 2 - 1 if n_classes else y)
    make = {"spikes": spikes, "calcium": spikes, "fmri": parcels}.get(modality, potentials)
    sfreq = {"spikes": 20.0, "calcium": 20.0, "fmri": 0.5}.get(modality, 256.0)
    names = tuple(f"c{k}" for k in range(5))
    windows = Windows([make(rng, k) for k in level], y, split, np.full(len(y), "s"), recording, modality, sfreq, {"s": names})
    task = TaskSpec(
        name="state",
        target="subject.diagnosis" if of_subject else "intervals.blocks",
        inputs=("x",),
        classes=tuple("abcdefgh"[:n_classes]),
        metric="balanced_accuracy" if n_classes else "r2",
    )
    return case_of(windows, task)


def potentials(rng: np.random.Generator, level: float) -> Array:
    """(256, 5)"""
    noise = rng.normal(size=(256, 5)) * 10
    rhythm = lfilter(*butter(2, (15, 40), "bandpass", fs=256), rng.normal(size=(456, 2)) * 30, axis=0)[200:]
    noise[:, :2] += rhythm * np.exp(level)
    noise[:, 4] += noise[:, 3] * level
    return np.asarray(noise + 3 * level * np.sin(np.linspace(0, 2 * np.pi, 256))[:, None])


def parcels(rng: np.random.Generator, level: float) -> Array:
    """(60, 5)"""
    series = lfilter(*butter(1, 0.12, fs=0.5), rng.normal(size=(90, 5)), axis=0)[30:]
    series[:, 4] += series[:, 3] * level * 1.5
    return np.asarray(series + 0.5 * level)


def spikes(rng: np.random.Generator, level: float) -> Array:
    """(20, 5)"""
    return rng.poisson(np.exp(1 + level * np.array([1, 1, 1, 0.5, 0.3])), (20, 5)).astype(float)
