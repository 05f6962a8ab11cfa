"""Reconstruction of channels from the others, for any neural signal: baselines, and the model's own answer on the same rows.

The held-out channels of the test block are inferred from all of the block's other channels, past and future (of spikes:
co-smoothing, Pei et al. 2021). Shapes: T samples, R rows, N channels, H channels held out.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.baselines.factors import factor_analysis, fit_factors, principal_components
from neurofm_ml.evaluation.baselines.inferred import inferred
from neurofm_ml.evaluation.baselines.readings import in_samples, signal_batches, stitched
from neurofm_ml.evaluation.baselines.ridge import Fit, ScoreOf, fit_ridge
from neurofm_ml.evaluation.tasks.signals import LEAST_CHANNELS, Effort, SignalCase, answer, best_floor, held_out
from neurofm_ml.evaluation.tasks.tasks import Blocks, DecodingData
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import BaselinesConfig
from neurofm_ml.registry import Registry
from neurofm_ml.types import Array, Batch

Reconstruction = Callable[[SignalCase, BaselinesConfig, Path], Prediction]
RECONSTRUCTIONS: Registry[Reconstruction] = Registry("reconstruction baseline")
#: Half-widths in samples of the windows of lags that are tried; rows of a block that are fitted to, and scored, at most, evenly spread.
LAGS = (0, 1, 2, 4)
MOST_FITTED, MOST_ROWS = 6000, 1500


def too_few_channels(case: SignalCase) -> str:
    """Why a signal is not reconstructed; empty where it is."""
    live = int(case.data.live.sum())
    return f"{live} of its channels vary in every block, and {LEAST_CHANNELS} are needed" if live < LEAST_CHANNELS else ""


def rows(case: SignalCase, split: str) -> Array:
    """(R,) samples of a block that are fitted to or scored."""
    n = len(case.data.times[split])
    return np.unique(np.linspace(0, n - 1, min(n, MOST_ROWS if split == "test" else MOST_FITTED)).astype(int))


def targets(case: SignalCase, cfg: BaselinesConfig) -> tuple[DecodingData, Blocks]:
    """The held-out channels as targets (NaN at samples that are not among the rows), and the others as features (T, N - H)."""
    held, data = held_out(case, cfg), case.data
    y = {split: np.full((len(x), held.sum()), np.nan) for split, x in data.x.items()}
    for split, values in y.items():
        values[rows(case, split)] = data.x[split][rows(case, split)][:, held]
    x = {split: values[:, ~held] for split, values in case.features.items()}
    return DecodingData(x, y, data.times, np.full((~held).sum(), data.counts)), x


def linear(method: str, fit: Callable[[DecodingData, Blocks, ScoreOf], Fit]) -> Reconstruction:
    """A closed-form method as a baseline; of counts its guess is kept above a floor."""

    def reconstruct(case: SignalCase, cfg: BaselinesConfig, out: Path) -> Prediction:
        data, features = targets(case, cfg)
        mean = np.nanmean(data.y["train"], 0)

        def scored(split: str, guess: Array) -> tuple[float, Callable[[Array], Array]]:
            return best_floor(case, mean, data.y[split][data.known[split]], guess[data.known[split]])

        began = time.perf_counter()
        fitted = fit(data, features, lambda split, guess: scored(split, guess)[0])
        floor = scored("validation", fitted.predict(features["validation"]))[1]
        trained = time.perf_counter()
        guess = floor(fitted.predict(features["test"]))
        effort = Effort(fitted.parameters, trained - began, len(guess) / (time.perf_counter() - trained))
        return reconstructed(case, cfg, method, "baseline", guess, effort)

    return reconstruct


RECONSTRUCTIONS.add("ridge", linear("ridge", lambda data, x, score: fit_ridge(data, x, LAGS, score)))
RECONSTRUCTIONS.add("pca", linear("pca", lambda data, x, score: fit_factors(data, x, principal_components, LAGS, score)))
RECONSTRUCTIONS.add("factor_analysis", linear("factor_analysis", lambda data, x, score: fit_factors(data, x, factor_analysis, LAGS, score)))


def _inferring(method: str) -> Reconstruction:
    """LFADS or NDT, fitted to all channels of the training block, is shown the others alone."""

    def reconstruct(case: SignalCase, cfg: BaselinesConfig, out: Path) -> Prediction:
        found = inferred(case, method, cfg, out)
        guess = np.exp(found.hidden) if case.data.counts else found.hidden
        return reconstructed(case, cfg, method, "baseline", guess, Effort(found.parameters, found.train_seconds, found.samples_per_second))

    return reconstruct


RECONSTRUCTIONS.add("lfads", _inferring("lfads"))
RECONSTRUCTIONS.add("ndt", _inferring("ndt"))


@torch.no_grad()
def model_reconstruction(model: NeuroFMx, case: SignalCase, cfg: BaselinesConfig, seed: int) -> Prediction:
    """What the activity head says of the held-out channels when they are silent, in every window of the test block.

    The model must know the recording's channels; it was fitted to no particular channels to be held out. `cfg` is that of the
    baselines, so that the channels are the same.
    """
    held = held_out(case, cfg)
    began = time.perf_counter()
    pieces = []
    for batch, starts in signal_batches(model, case):
        said = model.eval()(silenced(batch, case.signal, held), wanted=("activity",)).activity[case.signal]
        values = in_samples(said, case)[..., held]
        pieces += [(start, own.reshape(-1, own.shape[-1])) for start, own in zip(starts, values, strict=True)]
    guess = stitched(pieces, len(case.data.times["test"]))
    speed = len(guess) / (time.perf_counter() - began)
    return reconstructed(case, cfg, "reconstructed", "neurofmx", guess, Effort(model.n_parameters(), float("nan"), speed), seed)


def silenced(batch: Batch, signal: str, held: Array) -> Batch:
    """The batch with the channels at 0, their mean, as dropped channels are in training."""
    stream = batch.streams[signal]
    values = stream.values.clone()
    values[..., torch.from_numpy(np.flatnonzero(held))] = 0.0
    return dataclasses.replace(batch, streams={signal: dataclasses.replace(stream, values=values)})


def reconstructed(
    case: SignalCase, cfg: BaselinesConfig, method: str, family: str, guess: Array, effort: Effort, seed: int | None = None
) -> Prediction:
    """guess (T, H) on the whole test block."""
    data, chosen = case.data, rows(case, "test")
    chosen_rows = data.x["test"][chosen][:, held_out(case, cfg)], guess[chosen], data.times["test"][chosen]
    return answer(case, method, family, chosen_rows, effort, cfg.seed if seed is None else seed)
