"""Small runs of two datasets without a leak, and ways to plant one of every kind.

Shapes: T times, C channels.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.config import to_dict
from neurofm_ml.data.scaler import fit
from neurofm_ml.data.shards import write_manifest, write_shards
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, datasets
from neurofm_ml.presets import SPLITS, ScalerConfig
from neurofm_ml.types import Array

HZ, N_CHANS = 32.0, 12
Change = Callable[[Array, np.random.Generator], Array]


@dataclass(frozen=True)
class Dataset:
    """One dataset before it is written: the table of windows, and values (T, C) of each key."""

    card: DatasetCard
    windows: pd.DataFrame
    values: Mapping[str, Array]
    people: Mapping[str, Mapping[str, Any]]
    ch_names: tuple[str, ...]

    @property
    def hz(self) -> float:
        return self.card.grid_hz

    def having(self, **columns: Any) -> "Dataset":
        """With other columns of the table."""
        return dataclasses.replace(self, windows=self.windows.assign(**columns))

    def rows(self, split: str) -> pd.DataFrame:
        return self.windows[self.windows.split == split]

    def used(self) -> Used:
        """As the audit sees it, without a file: for what looks at the table alone."""
        used = Used(Path())
        people = pd.DataFrame.from_dict(self.people, orient="index", columns=["age", "sex"])
        used.__dict__.update(card=self.card, windows=self.windows, people=people)
        return used

    def write(self, folder: Path) -> Path:
        """The shards artifact."""
        out = folder / self.card.name
        out.mkdir()
        modality = next(iter(self.card.signals.values())).modality
        signals = {"x": {"modality": modality, "sfreq": self.hz, "ch_names": self.ch_names, "positions": None, "unit": ""}}
        written = [
            write_shards(((row["key"], self._fields(row, modality)) for row in self.rows(split).to_dict("records")), out, split, 10**8)
            for split in SPLITS
        ]
        self.windows.to_parquet(out / "windows.parquet", index=False)
        about = {"channels": dict.fromkeys(self.windows.session.unique(), signals), "card": to_dict(self.card)}
        about["recordings"] = {name: {"subject": dict(self.people[name])} for name in self.windows.recording.unique()}
        for name, content in about.items():
            (out / f"{name}.json").write_text(json.dumps(content))
        write_manifest(out, written, {"layout": "multimodal"})
        return out

    def _fields(self, row: Mapping[Any, Any], modality: str) -> dict[str, Any]:
        signals = {"x": {"modality": modality, "t0": row["start"], "sfreq": self.hz}}
        return {"x": self.values[row["key"]], "json": {"signals": signals}}


def card(name: str, modality: str = "eeg", hz: float = HZ, **split: Any) -> DatasetCard:
    return dataclasses.replace(
        datasets()["simulation"],
        name=name,
        source=f"https://archive.org/{name}",
        signals={"x": SignalSpec(modality=modality)},
        tasks=(),
        grid_hz=hz,
        split=SplitSpec(**split),
    )


def eeg(rng: np.random.Generator, n: int, n_chans: int = N_CHANS) -> Array:
    """(n, n_chans) noise that falls with frequency, mixed to the electrodes in the same way for everyone."""
    spectrum = np.fft.rfft(rng.normal(size=(n, n_chans)), axis=0) / np.sqrt(np.maximum(np.fft.rfftfreq(n, 1 / HZ), 0.5))[:, None]
    mixing = np.random.default_rng(0).normal(size=(n_chans, n_chans)) + 2 * np.eye(n_chans)
    return np.asarray(np.fft.irfft(spectrum, n, axis=0) @ mixing, np.float32)


def counts(rng: np.random.Generator, n: int, n_chans: int = N_CHANS) -> Array:
    """(n, n_chans) spike counts of units with rates of their own that rise and fall together."""
    drive = np.repeat(rng.normal(size=(n // 4 + 1, 3)), 4, axis=0)[:n] @ rng.normal(size=(3, n_chans))
    return rng.poisson(np.exp(0.5 * drive + rng.normal(0, 0.5, n_chans))).astype(np.uint8)


def clean(name: str, seed: int, kind: str = "subject", make: Callable[..., Array] = eeg, n_recordings: int = 10, **more: Any) -> Dataset:
    """Recordings of 10 s, each of a person, session, family and site of its own, in windows of 2 s every second."""
    rng = np.random.default_rng([seed, *map(ord, name)])
    split_of = ["train"] * (n_recordings - 4) + ["validation"] * 2 + ["test"] * 2
    n, step, rows, values, people = round(2 * HZ), round(HZ), [], {}, {}
    for i in range(n_recordings):
        recording, x = f"r{i}", make(rng, round(10 * HZ))
        people[recording] = {"age": round(float(rng.uniform(18, 80)), 2), "sex": "female"}
        for k, start in enumerate(range(0, len(x) - n + 1, step)):
            split = split_of[i] if kind != "block" else ("train" if k < 4 else "validation" if k == 6 else "test" if k == 8 else "")
            key = f"{name}-{recording}-{k:03d}"
            who = {"recording": recording, "session": f"ses{i}", "subject": f"s{i}", "family": f"f{i}", "site": f"{name} {i}"}
            if split:
                rows.append({"key": key, **who, "split": split, "start": start / HZ, "end": (start + n) / HZ})
                values[key] = x[start : start + n]
    modality = "spikes" if make is counts else "eeg"
    return Dataset(card(name, modality, kind=kind, **more), pd.DataFrame(rows), values, people, tuple(f"ch{i}" for i in range(N_CHANS)))


# ---------------------------------------------------------------- what happens to a copy
def low_passed(x: Array, rng: np.random.Generator) -> Array:
    from scipy.signal import butter, sosfiltfilt

    return sosfiltfilt(butter(4, 0.6, output="sos"), x, axis=0)


def high_passed(x: Array, rng: np.random.Generator) -> Array:
    from scipy.signal import butter, sosfiltfilt

    return sosfiltfilt(butter(2, 0.05, "high", output="sos"), x, axis=0)


def noisy(share: float) -> Change:
    return lambda x, rng: x + share * x.std(axis=0) * rng.normal(size=x.shape)


def shifted(bins: int) -> Change:
    """The same stretch, so many bins later; what comes in is new."""
    return lambda x, rng: np.concatenate([x[bins:], eeg(rng, len(x))[:bins]])


def thinned(x: Array, rng: np.random.Generator) -> Array:
    """One spike in ten is lost."""
    return rng.binomial(x, 0.9).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "as it is": lambda x, rng: x,
    "rescaled": lambda x, rng: x * 250 - 3,
    "each channel rescaled": lambda x, rng: x * rng.uniform(0.2, 5, x.shape[1]) + rng.normal(size=x.shape[1]),
    "rounded": lambda x, rng: np.round(x / x.std() * 8),
    "a bin later": shifted(1),
    "ten bins later": shifted(10),
    "low-passed": low_passed,
    "high-passed": high_passed,
    "with a tenth of noise": noisy(0.1),
    "with a third of noise": noisy(0.33),
    "rescaled, low-passed, a bin later, with noise": lambda x, rng: noisy(0.1)(shifted(1)(low_passed(40 * x, rng), rng), rng),
}


def copied(a: Dataset, b: Dataset, changes: Mapping[str, Change], seed: int) -> tuple[Dataset, dict[str, tuple[str, str]]]:
    """`b`, of which a test window each is a training window of `a`, changed; and the two recordings of each change."""
    rng, values, where = np.random.default_rng(seed), dict(b.values), {}
    pairs = [(x, y) for y in b.rows("test").recording.unique() for x in a.rows("train").recording.unique()]
    assert len(changes) <= len(pairs)
    for k, ((name, change), (x, y)) in enumerate(zip(changes.items(), pairs, strict=False)):
        source = rng.choice(a.windows.key[a.windows.recording == x].to_numpy())
        target = b.windows.key[b.windows.recording == y].to_numpy()[k % 6]
        values[target] = change(np.asarray(a.values[source]), rng).astype(a.values[source].dtype)
        where[name] = (x, y)
    return dataclasses.replace(b, values=values), where


def fitted(shards: list[Path], folder: Path, modality: str = "eeg") -> Path:
    out = folder / "scaler"
    out.mkdir()
    fit(ScalerConfig(modality=modality), shards, out)
    return out
