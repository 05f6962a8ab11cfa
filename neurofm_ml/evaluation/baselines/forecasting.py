"""Forecasts of any neural signal: baselines, and the model's own answer on the same rows.

A row is a moment of the test block, its origin: what ends by then is seen, and the sample that begins the first patch at or after
the horizon is foretold. Origins lie in the second half of the test windows, so that the model has half a window to look back on.
Shapes: R rows, N live channels, P samples of the past, F features, G groups of channels that are regressed together.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.data.recordings import load_card
from neurofm_ml.evaluation.baselines.readings import in_samples, signal_batches, windows_of
from neurofm_ml.evaluation.baselines.ridge import ALPHAS
from neurofm_ml.evaluation.tasks.signals import Effort, SignalCase, answer, best_floor
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import SPLITS, BaselinesConfig
from neurofm_ml.registry import Registry
from neurofm_ml.types import Array

Forecast = Callable[[SignalCase, BaselinesConfig, Path], Prediction]
FORECASTS: Registry[Forecast] = Registry("forecast baseline")
#: Samples of the past that autoregression tries, and the features and training rows it takes at most.
ORDERS = (1, 2, 4, 8, 16, 32, 64, 128)
MOST_FEATURES, MOST_FITTED = 600, 6000
#: Orders above this are tried where all channels have fewer features, each by itself: fast signals have few channels.
LONG, MOST_LONG = 16, 8192
#: Rows of the test block at most.
MOST_ROWS = 400
#: Blocks with fewer rows are not scored.
LEAST_ROWS = 20


# ---------------------------------------------------------------- rows
@dataclass(frozen=True, eq=False)
class Origins:
    """Of each window's start (sample of the test block), the samples after it at which something is foretold: both sorted."""

    windows: Array
    after: Array
    lead: int
    n_times: int

    @property
    def samples(self) -> Array:
        """(R,) origins, as samples of the block; those whose future the block does not hold are left out."""
        every = np.unique(self.windows[:, None] + self.after)
        samples: Array = every[every + self.lead < self.n_times]
        return samples


def origins(case: SignalCase, split: str = "test", most_windows: int | None = None, most_rows: int | None = None) -> Origins:
    """Where a block is forecast from: the same in the test block for every method; of the others `most_windows`, evenly spread."""
    card, own = load_card(case.shards), windows_of(case, split, most_windows)
    windows = np.unique(np.ceil((own.start - case.start_s(split)) * case.sfreq - 1e-3).astype(int))
    length = int(np.floor((own.end - own.start).min() * case.sfreq + 1e-3))
    stride = min(card.stride_s or card.window_s, card.window_s / 2) * case.sfreq
    first = max(length // 2 // case.patch, 1) * case.patch
    after = np.arange(first, min(first + max(stride, case.patch), length + 1), case.patch).astype(int)
    thinned = after[:: -(-len(after) * len(windows) // (most_rows or MOST_ROWS))]
    return Origins(windows, thinned, case.lead, len(case.data.times[split]))


def too_few_rows(case: SignalCase) -> str:
    """Why a signal is not forecast; empty where it is."""
    if not case.data.live.any():
        return "none of its channels varies in every block"
    fewest = min(len(case.data.times[split]) - case.lead for split in SPLITS)
    if min(fewest, len(origins(case).samples)) < LEAST_ROWS:
        return f"its blocks leave fewer than {LEAST_ROWS} rows at that horizon"
    return ""


def _fitted_rows(case: SignalCase, split: str) -> Array:
    """(R,) origins of the training or validation block, evenly spread."""
    last = len(case.data.times[split]) - case.lead
    return np.unique(np.linspace(1, last - 1, min(last - 1, MOST_FITTED)).astype(int))


def future(case: SignalCase, split: str, at: Array) -> Array:
    """(R, N) what happens `lead` after the origins, channels that live alone."""
    future: Array = case.data.x[split][at + case.lead][:, case.data.live]
    return future


# ---------------------------------------------------------------- baselines
@FORECASTS.register("mean")
def mean(case: SignalCase, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Every channel at its mean over the training block."""
    level = case.data.x["train"].mean(0)[case.data.live]
    return _measured(case, cfg, "mean", lambda: (level.size, lambda split, at: np.repeat(level[None], len(at), 0)))


@FORECASTS.register("copy_last")
def copy_last(case: SignalCase, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Nothing changes: the last sample seen. Of counts with one bin at their mean beside it, lest a silent bin stays silent for ever."""
    level = case.data.x["train"].mean(0)[case.data.live]

    def last(split: str, at: Array) -> Array:
        values: Array = case.data.x[split][at - 1][:, case.data.live]
        return (values + level) / 2 if case.data.counts else values

    return _measured(case, cfg, "copy_last", lambda: (0, last))


@FORECASTS.register("autoregression")
def autoregression(case: SignalCase, cfg: BaselinesConfig, out: Path) -> Prediction:
    """Ridge from the past of each channel, or of all, straight to the horizon; order, penalty and which are tuned on validation."""
    return _measured(case, cfg, "autoregression", lambda: _fit_autoregression(case))


Guess = Callable[[str, Array], Array]


def _measured(case: SignalCase, cfg: BaselinesConfig, method: str, fit: Callable[[], tuple[int, Guess]]) -> Prediction:
    """Fit, time, foretell the test rows; counts are kept above a floor that is tuned on validation rows."""
    began = time.perf_counter()
    parameters, guess = fit()
    level, rows = case.data.x["train"].mean(0)[case.data.live], _fitted_rows(case, "validation")
    floor = best_floor(case, level, future(case, "validation", rows), guess("validation", rows))[1]
    trained = time.perf_counter()
    at = origins(case).samples
    said = floor(guess("test", at))
    effort = Effort(parameters, trained - began, len(at) / (time.perf_counter() - trained))
    times = case.data.times["test"][at + case.lead]
    return answer(case, method, "baseline", (future(case, "test", at), said, times), effort, cfg.seed)


def _fit_autoregression(case: SignalCase) -> tuple[int, Guess]:
    from threadpoolctl import threadpool_limits

    n = int(case.data.live.sum())
    tried = [(order, False) for order in ORDERS if order <= LONG or n * order <= MOST_LONG]
    tried += [(order, True) for order in ORDERS if n * order <= MOST_FEATURES]
    with threadpool_limits(1):
        found = [_solved(case, order, together) for order, together in tried]
    _, parameters, guess = max(found, key=lambda scored: scored[0])
    return parameters, guess


def _solved(case: SignalCase, order: int, together: bool) -> tuple[float, int, Guess]:
    """The best score on validation over penalties, the number of weights, and the forecast."""
    rows = {split: _fitted_rows(case, split) for split in ("train", "validation")}
    mean = case.features["train"].mean(0)[case.data.live]
    x, y = _past(case, "train", rows["train"], order, together, mean), future(case, "train", rows["train"])
    level = y.mean(0)
    values, vectors = np.linalg.eigh(x.mT @ x)
    groups = (y - level)[None] if together else (y - level).T[..., None]
    target = vectors.mT @ (x.mT @ groups)
    unit = (x**2).sum() / (x.shape[0] * x.shape[2])
    truth, ahead = future(case, "validation", rows["validation"]), _past(case, "validation", rows["validation"], order, together, mean)
    projected = ahead @ vectors

    def shrunk(alpha: float) -> Array:
        return target / (np.maximum(values, 0) + alpha * unit)[..., None]

    score, alpha = max((best_floor(case, level, truth, _joined(projected @ shrunk(a)) + level)[0], a) for a in ALPHAS)
    weights = vectors @ shrunk(alpha)
    return score, weights.size, lambda split, at: _joined(_past(case, split, at, order, together, mean) @ weights) + level


def _past(case: SignalCase, split: str, at: Array, order: int, together: bool, mean: Array) -> Array:
    """(G, R, F) features of the last `order` samples before each origin, zeros before the block: one group of all channels, or one
    of each."""
    features = case.features[split][:, case.data.live] - mean
    padded = np.pad(features, ((order, 0), (0, 0)))
    past = np.stack([padded[at + k] for k in range(order)], 2)
    return past.reshape(1, len(at), -1) if together else past.transpose(1, 0, 2)


def _joined(groups: Array) -> Array:
    """(G, R, K) -> (R, N)."""
    joined: Array = groups[0] if len(groups) == 1 else groups[..., 0].T
    return joined


# ---------------------------------------------------------------- the model
@torch.no_grad()
def model_forecast(model: NeuroFMx, case: SignalCase, seed: int) -> Prediction:
    """What the forecast head says, asked at the same origins; the model must know the recording's channels and the horizon."""
    if case.horizon_s not in model.cfg.horizons_s:
        raise ValueError(f"the model forecasts by {model.cfg.horizons_s} s, not by {case.horizon_s:g}; choose among them.")
    asked = origins(case)
    at = asked.samples
    began = time.perf_counter()
    said = _said(model.eval(), case, asked)
    guess = np.stack([said[sample] for sample in at.tolist()])[:, case.data.live]
    effort = Effort(model.n_parameters(), float("nan"), len(at) / (time.perf_counter() - began))
    rows = future(case, "test", at), guess, case.data.times["test"][at + case.lead]
    return answer(case, "forecast", "neurofmx", rows, effort, seed)


def _said(model: NeuroFMx, case: SignalCase, asked: Origins) -> dict[int, Array]:
    """Origin -> (N all,) forecast, of the window that looks back longest."""
    horizon, found = model.cfg.horizons_s.index(case.horizon_s), dict[int, Array]()
    for batch, starts in signal_batches(model, case):
        stream = batch.streams[case.signal]
        for after in asked.after.tolist():
            said = model(batch, wanted=("forecast",), forecast_from=stream.t0 + after * stream.dt).forecast[case.signal]
            values = in_samples(said, case)[:, horizon, 0]
            found |= dict(zip((starts + after).tolist(), values, strict=True))
    return found
