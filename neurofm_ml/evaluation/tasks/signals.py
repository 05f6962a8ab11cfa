"""Neural signals as tasks of their own: activity to be forecast, and channels to be reconstructed from the others.

Every recording that is split in time asks both of each of its neural signals. Spike counts are scored in bits per spike, all
else as z-scores of the training block by R2. Shapes: T samples of a block, N channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from neurofm_ml.data.batches import neural_signals
from neurofm_ml.data.predictions import Prediction
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.windows import load_block, read_channels
from neurofm_ml.evaluation.tasks.tasks import Blocks
from neurofm_ml.knowledge.task_table import forecast_name, reconstruction_name
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import SPLITS, BaselinesConfig
from neurofm_ml.tokenizers import TOKENIZERS
from neurofm_ml.types import Array, Signal

#: Counts are never expected below a share of their mean; the share is tuned among these.
FLOORS = (0.05, 0.2, 0.5, 1.0)
#: Signals with fewer channels have too few to learn one from the others.
LEAST_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class Activity:
    """Split -> x (T, N), counts or z-scores; times (T,) seconds, the middle of each sample; live (N,) True for channels that vary
    in every block."""

    x: Blocks
    times: Blocks
    counts: bool
    live: Array


@dataclass(frozen=True)
class SignalCase:
    """One neural signal of one recording, and what is asked of it: of a forecast, `horizon_s` seconds after the last sample seen."""

    shards: Path
    scaler: tuple[Path, ...]
    dataset: str
    recording: str
    species: str
    modality: str
    signal: str
    sfreq: float
    category: Literal["forecasting", "reconstruction"]
    horizon_s: float = 0.0

    @property
    def task(self) -> str:
        return forecast_name(self.signal, self.horizon_s) if self.category == "forecasting" else reconstruction_name(self.signal)

    @property
    def key(self) -> tuple[str, str, str]:
        """(dataset, recording, task)"""
        return self.dataset, self.recording, self.task

    @property
    def metric(self) -> str:
        return "bits_per_spike" if self.modality == "spikes" else "r2"

    @property
    def patch(self) -> int:
        """Samples of a patch, in which models see the signal: horizons are whole ones."""
        return max(1, round(TOKENIZERS[self.modality].patch_s * self.sfreq))

    @property
    def lead(self) -> int:
        """Samples between the end of what is seen and the sample to forecast, which begins the first patch at or after the horizon."""
        return int(np.ceil(self.horizon_s * self.sfreq / self.patch - 1e-3)) * self.patch

    @cached_property
    def data(self) -> Activity:
        """The three blocks, read once."""
        blocks = {split: cast(Signal, load_block(self.shards, self.recording, split).signals[self.signal]) for split in SPLITS}
        x = {split: signal.values.astype(np.float64) for split, signal in blocks.items()}
        live = np.all([np.ptp(values, axis=0) > 0 for values in x.values()], axis=0)
        counts = self.modality == "spikes"
        mean, std = (0.0, 1.0) if counts else (x["train"].mean(0), np.where(live, x["train"].std(0), 1.0))
        times = {split: signal.times + 0.5 / signal.sfreq for split, signal in blocks.items()}
        return Activity({split: (values - mean) / std for split, values in x.items()}, times, counts, live)

    def start_s(self, split: str) -> float:
        """When the first sample of a block was taken, seconds of the recording."""
        return float(self.data.times[split][0] - 0.5 / self.sfreq)

    @property
    def features(self) -> Blocks:
        """Activity as linear methods read it: counts square-rooted."""
        return {split: np.sqrt(x) if self.data.counts else x for split, x in self.data.x.items()}

    def score(self, truth: Array, guess: Array) -> float:
        """The case's metric of a prediction (T, K)."""
        return SCORES[self.metric].value(truth, guess)


@dataclass(frozen=True, eq=False)
class Floor:
    """Makes expected counts of any guess: never below a share of the mean counts (K,). Leaves z-scores alone."""

    least: Array | None

    def __call__(self, guess: Array) -> Array:
        return guess if self.least is None else np.maximum(guess, self.least)


def best_floor(case: SignalCase, mean: Array, truth: Array, guess: Array) -> tuple[float, Floor]:
    """The floor with the best score on validation rows, and the score; mean (K,) counts of the training block."""
    floors = [Floor(share * mean) for share in FLOORS] if case.data.counts else [Floor(None)]
    return max(((case.score(truth, floor(guess)), floor) for floor in floors), key=lambda scored: scored[0])


def find_signals(shards: Path, scaler: Sequence[Path], horizons_s: Sequence[float]) -> list[SignalCase]:
    """Forecasts of every neural signal, and reconstruction of those with enough channels; none where recordings are split whole.

    Of horizons that a signal is sampled too slowly to tell apart the longest stands for all.
    """
    card, channels = load_card(shards), read_channels(shards)
    table = pd.read_parquet(shards / "windows.parquet", columns=["recording", "session", "split"])
    cases: list[SignalCase] = []
    for (recording, session), rows in table.groupby(["recording", "session"]):
        if set(SPLITS) <= set(rows["split"]):
            for name in (n for n in neural_signals(card) if n in channels[str(session)]):
                about = channels[str(session)][name]
                place = (shards, tuple(scaler), card.name, str(recording), card.species)
                cases += _asked(SignalCase(*place, about["modality"], name, about["sfreq"], "reconstruction"), about, horizons_s)
    return cases


def _asked(case: SignalCase, about: Mapping[str, Any], horizons_s: Sequence[float]) -> Iterator[SignalCase]:
    forecasts = (replace(case, category="forecasting", horizon_s=h) for h in sorted(horizons_s))
    yield from {forecast.lead: forecast for forecast in forecasts}.values()
    if len(about["ch_names"]) >= LEAST_CHANNELS:
        yield case


def held_out(case: SignalCase, cfg: BaselinesConfig) -> Array:
    """(N,) True for the channels to reconstruct: a share of those that live, drawn by the seed."""
    live = np.flatnonzero(case.data.live)
    n = max(1, round(cfg.held_out * len(live)))
    chosen: Array = np.zeros(len(case.data.live), bool)
    chosen[np.random.default_rng(cfg.seed).permutation(live)[:n]] = True
    return chosen


@dataclass(frozen=True)
class Effort:
    """What an answer cost: fitted numbers, seconds of fitting, rows answered a second."""

    parameters: int
    train_seconds: float
    samples_per_second: float


def answer(case: SignalCase, method: str, family: str, rows: tuple[Array, Array, Array], effort: Effort, seed: int) -> Prediction:
    """Rows (truth (T, K), guess (T, K), times (T,)) of the test block as a Prediction."""
    truth, guess, times = rows
    return Prediction(
        *case.key,
        method=method,
        family=family,
        y_true=truth,
        y_pred=guess,
        times=times,
        mask=np.ones(len(truth), bool),
        parameters=effort.parameters,
        train_seconds=effort.train_seconds,
        samples_per_second=effort.samples_per_second,
        trained_on=f"{case.dataset}/{case.recording}",
        seed=seed,
        metric=case.metric,
    )
