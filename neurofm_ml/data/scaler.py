"""Scalers: mean and deviation of every channel over the training windows, and nothing else.

The windows are read one after the other; samples that two windows share count once. Spike counts
are square-rooted first, which makes the deviation of a Poisson count about one half at any rate.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.shards import Reader, read_index
from neurofm_ml.data.windows import read_channels
from neurofm_ml.presets import ScalerConfig
from neurofm_ml.types import Array, Check, Report

Key = tuple[str, str, str]
#: A deviation below this share of the mean is the rounding of a constant.
CONSTANT = 1e-7
#: Deviations that spike counts are held within.
SPIKE_LIMIT = 3.0


@dataclass(frozen=True)
class Scaler:
    """`table`: (dataset, session, signal) -> mean (C,), std (C,) float32, in the order of the session's channels. `together`:
    (dataset, signal) -> name of a channel -> its mean and std over the training windows of all sessions; "" is any channel."""

    table: Mapping[Key, tuple[Array, Array]]
    together: Mapping[tuple[str, str], Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    def __call__(self, dataset: str, session: str, signal: str, ch_names: Sequence[str] = ()) -> tuple[Array, Array]:
        """A session that is held out, and so has no training windows, is scaled as channels of these names are in the others; a name
        that the others do not have, as all channels are."""
        if (key := (dataset, session, signal)) in self.table:
            return self.table[key]
        others = self.together.get((dataset, signal))
        if others is None or not ch_names:
            raise ValueError(
                f"no scaler for signal {signal!r} of session {session!r} of {dataset!r}: it was not fitted, or the session has no "
                "training window; run fit_scaler for its modality with this dataset's shards."
            )
        mean, std = np.array([others.get(name, others[""]) for name in ch_names], np.float32).T
        return mean, std


def standardised(values: Array, modality: str, mean: Array, std: Array) -> Array:
    """z-scores (T, C) as models read them.

    Spike counts are square-rooted first, as the scaler was, and held within +- SPIKE_LIMIT: a unit
    that fires once in a hundred bins would else speak louder than the whole population.
    """
    if modality != "spikes":
        return (values - mean) / std
    # Without a dtype, numpy takes the root of one-byte counts in half precision.
    z: Array = ((np.sqrt(values, dtype=np.float32) - mean) / std).clip(-SPIKE_LIMIT, SPIKE_LIMIT)
    return z


def load_scaler(artifacts: Iterable[Path]) -> Scaler:
    """One lookup over the scaler artifacts of several modalities."""
    table: dict[Key, tuple[Array, Array]] = {}
    together: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for artifact in artifacts:
        rows = pd.read_parquet(artifact / "scaler.parquet")
        for (dataset, signal), own in _together(rows).groupby(["dataset", "signal"], sort=False):
            together[str(dataset), str(signal)] = dict(zip(own.channel, zip(own["mean"], own["std"], strict=True), strict=True))
        for (dataset, session, signal), own in rows.groupby(["dataset", "session", "signal"], sort=False):
            table[str(dataset), str(session), str(signal)] = (own["mean"].to_numpy(np.float32), own["std"].to_numpy(np.float32))
    return Scaler(table, together)


def _together(rows: pd.DataFrame) -> pd.DataFrame:
    """dataset, signal, channel, mean, std of channels that vary, all sessions together; and of channel "", all together."""
    by = ["dataset", "signal", "channel"]
    rows = pd.concat([rows[~rows.constant], rows[~rows.constant].assign(channel="")], ignore_index=True)
    mean = (rows.n * rows["mean"]).groupby([rows[name] for name in by]).transform("sum") / rows.groupby(by).n.transform("sum")
    sums = rows.assign(squares=rows.n * (rows["std"] ** 2 + (rows["mean"] - mean) ** 2), mean=mean).groupby(by, sort=False)
    found = sums.agg(n=("n", "sum"), mean=("mean", "first"), squares=("squares", "sum")).reset_index()
    return found.assign(std=np.sqrt(found.squares / found.n))


def fit(cfg: ScalerConfig, shards: list[Path], out: Path) -> Report:
    """Job `fit_scaler`: shards of every dataset -> `scaler.parquet` for the signals of one modality."""
    rows: list[dict[str, Any]] = []
    for artifact in shards:
        dataset, channels = load_card(artifact).name, read_channels(artifact)
        for (session, signal), moments in training_moments(artifact, channels, cfg.modality).items():
            names = channels[session][signal]["ch_names"]
            rows += [{"dataset": dataset, "session": session, "signal": signal, **row} for row in moments.rows(names)]
    if not rows:
        raise ValueError(
            f"no training window of {', '.join(map(str, shards))} holds {cfg.modality!r}; choose a modality of these datasets."
        )
    table = pd.DataFrame(rows)
    table.to_parquet(out / "scaler.parquet", index=False)
    return _report(table)


def _report(table: pd.DataFrame) -> Report:
    constant, unseen = int(table.constant.sum()), int((table.n == 0).sum())
    bad = int((~np.isfinite(table[["mean", "std"]])).any(axis=1).sum())
    metrics = {
        "datasets": table.dataset.nunique(),
        "channels": len(table),
        "constant_channels": constant,
        "channels_without_a_value": unseen,
    }
    return Report(metrics, (Check("scaler_is_finite", not bad, numbers={"not_finite": bad}, threshold="0"),), {"scaler": "scaler.parquet"})


def training_moments(artifact: Path, channels: Mapping[str, Any], modality: str) -> "dict[tuple[str, str], Moments]":
    """(session, signal) -> moments over the training windows of one artifact."""
    wanted = {name for signals in channels.values() for name, about in signals.items() if about["modality"] == modality}
    found: dict[tuple[str, str], Moments] = {}
    for session, signal, values in _training_samples(artifact, wanted):
        moments = found.setdefault((session, signal), Moments(values.shape[1]))
        moments.add(np.sqrt(values) if modality == "spikes" else values)
    return found


def _training_samples(artifact: Path, wanted: Iterable[str]) -> Iterator[tuple[str, str, Array]]:
    """(session, signal, values (T, C) float64): every training sample once, window by window."""
    reader = Reader(read_index(artifact))
    table = pd.read_parquet(artifact / "windows.parquet")
    for _, windows in table[table.split == "train"].sort_values("start").groupby("recording", sort=False):
        seen: dict[str, float] = {}
        for window in windows.itertuples():
            row = reader.index.row_of[str(window.key)]
            signals = reader.member(row, "json")["signals"]
            for name in sorted(set(wanted) & set(signals)):
                t0, sfreq = signals[name]["t0"], signals[name]["sfreq"]
                values = reader.member(row, name)
                new = values[max(0, round((seen.get(name, t0) - t0) * sfreq)) :]
                seen[name] = max(seen.get(name, t0), t0 + len(values) / sfreq)
                yield str(window.session), name, new.astype(np.float64)


class Moments:
    """Running count, mean and sum of squared deviations per channel, NaN left out.

    Chunks are merged by the formula of Chan, Golub & LeVeque 1979: no difference of large sums.
    """

    def __init__(self, n_chans: int) -> None:
        self.n = np.zeros(n_chans)
        self.mean = np.zeros(n_chans)
        self.m2 = np.zeros(n_chans)

    def add(self, values: Array) -> None:
        """values (T, C) float64."""
        finite = np.isfinite(values)
        n = finite.sum(0)
        safe = np.maximum(n, 1)
        mean = np.where(finite, values, 0.0).sum(0) / safe
        m2 = (np.where(finite, values - mean, 0.0) ** 2).sum(0)
        total = np.maximum(self.n + n, 1)
        delta = mean - self.mean
        self.m2 += np.where(n > 0, m2 + delta**2 * self.n * n / total, 0.0)
        self.mean += np.where(n > 0, delta * n / total, 0.0)
        self.n += n

    def rows(self, ch_names: Iterable[str]) -> list[dict[str, Any]]:
        """One row per channel: mean, std (1 where constant or never seen), n."""
        std = np.sqrt(self.m2 / np.maximum(self.n, 1))
        constant = std <= CONSTANT * np.abs(self.mean)
        std[constant] = 1.0
        columns = zip(ch_names, self.mean, std, self.n.astype(int), constant, strict=True)
        return [{"channel": c, "mean": m, "std": s, "n": n, "constant": k} for c, m, s, n, k in columns]
