"""What is kept of each window to find it again: a few short series of its channels, blind to gain, offset and slow drift.

Two views of a signal, because cards may name channels alike or not:

mixed   random mixtures of the standardised channels less what all share; the weight of a channel follows from its name,
        so that another order, or a few channels less, give the same mixtures
whole   the mean of the channels and their spread, which do not ask who is who

About a kilobyte per window is kept, whatever its size.
Shapes: N windows, T samples of a trace, C channels, K series.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from neurofm_ml.data.shards import Reader
from neurofm_ml.data.splits import LEAST_CHANGES, SHOWN
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.types import Array

#: Series of each view, as columns of a trace.
VIEWS = {"mixed": slice(0, 6), "whole": slice(6, 8)}
#: A trace has at most twice so many samples; drift slower than HIGH_PASS samples is taken out.
SAMPLES, HIGH_PASS = 64, 16
#: A channel whose deviation is below this share of its mean is constant.
CONSTANT = 1e-6


@dataclass(frozen=True, eq=False)
class Traces:
    """Windows of one signal of one dataset: values (N, T, K) float32 at `hz`, and their places (N,) in the table of windows."""

    used: Used
    signal: str
    modality: str
    hz: float
    rows: Array
    values: Array

    @property
    def splits(self) -> Array:
        """(N,) names of splits."""
        return np.asarray(self.used.windows.split)[self.rows]

    def of(self, split: str) -> "Traces":
        """The windows of one split."""
        return self.take(self.splits == split)

    def take(self, which: Array) -> "Traces":
        """Some of the windows."""
        return dataclasses.replace(self, rows=self.rows[which], values=self.values[which])

    def at(self, hz: float) -> "Traces":
        """The same at a lower rate: means over the longer samples."""
        n, t, k = self.values.shape
        length = int(t * hz / self.hz + 1e-6)
        total = np.concatenate([np.zeros((n, 1, k)), np.cumsum(self.values, axis=1, dtype=np.float64)], axis=1)
        edges = np.arange(length + 1) * self.hz / hz
        low = np.minimum(edges.astype(int), t - 1)
        part = (edges - low)[None, :, None]
        at = total[:, low] * (1 - part) + total[:, low + 1] * part
        values = _high_passed(np.diff(at, axis=1)).astype(np.float32)
        return dataclasses.replace(self, hz=hz, values=values)


def read_traces(used: Used) -> list[Traces]:
    """Traces of every measured signal of a dataset; its windows are read one by one."""
    found: dict[tuple[str, float, int], list[tuple[int, Array]]] = {}
    modalities = {name: about["modality"] for signals in used.channels.values() for name, about in signals.items()}
    measured = sorted(name for name, modality in modalities.items() if modality not in SHOWN)
    for row, session, name, values in _measured(used, measured):
        about = used.channels[session][name]
        pool = max(1, len(values) // SAMPLES)
        made = trace(values, tuple(about["ch_names"]), pool, about["modality"] == "spikes")
        if made is not None:
            found.setdefault((name, about["sfreq"] / pool, len(made)), []).append((row, made))
    return [
        Traces(used, name, modalities[name], hz, np.array([row for row, _ in own]), np.stack([made for _, made in own]))
        for (name, hz, _), own in found.items()
    ]


def _measured(used: Used, names: list[str]) -> Iterator[tuple[int, str, str, Array]]:
    """(place in the table, session, signal, values (T, C)) of every window."""
    reader = Reader(used.reader.index, fields=names)
    for row, (key, session) in enumerate(zip(used.windows.key, used.windows.session, strict=True)):
        for name, values in reader.sample(reader.index.row_of[key]).items():
            yield row, session, name, values


def trace(values: Array, ch_names: tuple[str, ...], pool: int, counts: bool) -> Array | None:
    """(T // pool, K) of values (T, C); None where hardly anything changes, so that windows are equal by chance."""
    x = np.asarray(values, np.float32)
    x = np.sqrt(x) if counts else x
    finite = np.isfinite(x)
    if not finite.all():
        known = np.where(finite, x, 0)
        x = np.where(finite, x, known.sum(axis=0) / np.maximum(finite.sum(axis=0), 1))
    if np.count_nonzero(x[1:] != x[:-1]) < LEAST_CHANGES:
        return None
    mean, std = x.mean(axis=0), x.std(axis=0)
    varying = std > CONSTANT * np.abs(mean)
    z = np.where(varying, (x - mean) / np.where(varying, std, 1), 0)
    common = z.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.mean((z - common) ** 2, axis=1, keepdims=True))
    series = np.concatenate([(z - common) @ _weights(ch_names), common, spread], axis=1)
    n = len(series) // pool
    return _high_passed(series[: n * pool].reshape(1, n, pool, -1).mean(axis=2))[0]


@lru_cache(maxsize=256)
def _weights(ch_names: tuple[str, ...]) -> Array:
    """(C, K) normal numbers that follow from the names."""
    seeds = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in ch_names]
    return np.stack([np.random.default_rng(seed).standard_normal(6) for seed in seeds]).astype(np.float32) / np.sqrt(len(ch_names))


def _high_passed(values: Array) -> Array:
    """values (N, T, K) less their running mean, and of unit power in each series; 0 where there is none."""
    n = values.shape[1]
    total = np.concatenate([np.zeros_like(values[:, :1]), np.cumsum(values, axis=1)], axis=1)
    start = np.maximum(np.arange(n) - HIGH_PASS // 2, 0)
    end = np.minimum(np.arange(n) + HIGH_PASS // 2 + 1, n)
    rest = values - (total[:, end] - total[:, start]) / (end - start)[:, None]
    power = np.sqrt((rest**2).mean(axis=1, keepdims=True))
    return np.where(power > 1e-6, rest / np.maximum(power, 1e-6), 0)
