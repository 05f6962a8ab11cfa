"""Linear probes of forecasts and reconstructions: ridges from frozen latents that see no more than is asked, on the rows of the baselines.

To forecast, whatever follows the origin is hidden, and the last latents before it are read; to reconstruct, the held-out channels are
silent, and each patch is read from the latent its middle lies in. Fitted on windows of the training block; penalty, and floor of
counts, are those that do best on the validation block. One pass of the model serves all horizons.

Shapes: R rows, P patches of a window, S samples of a patch, N channels, H channels held out, D width.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.baselines.forecasting import future, origins
from neurofm_ml.evaluation.baselines.readings import signal_batches, stitched
from neurofm_ml.evaluation.baselines.reconstruction import reconstructed, silenced
from neurofm_ml.evaluation.features.probe import METHOD, standardised
from neurofm_ml.evaluation.readouts.readout import Path, Readout
from neurofm_ml.evaluation.tasks.signals import Effort, Floor, SignalCase, answer, best_floor, held_out
from neurofm_ml.evaluation.tasks.tasks import Blocks
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import SPLITS, BaselinesConfig
from neurofm_ml.types import Array

#: Latents before an origin that are read.
LOOK_BACK = 4
#: Windows of a block that are read, and origins in them, at most; of the test block all that are asked for.
MOST_WINDOWS = {"train": 200, "validation": 100, "test": None}
MOST_ROWS = {"train": 1000, "validation": 300, "test": None}


@dataclass(frozen=True, eq=False)
class Past:
    """Origins at (R,) samples of a block, in order, and the latents before each, x (R, LOOK_BACK * D)."""

    at: Array
    x: Array


@dataclass(frozen=True, eq=False)
class Fitted:
    """A readout of standardised latents (R, F), the shape of what it says of each, and the floor of that."""

    readout: Readout
    shape: tuple[int, ...]
    floor: Floor

    def __call__(self, x: Array) -> Array:
        return self.floor(self.readout(x).reshape(len(x), *self.shape))


# ---------------------------------------------------------------- forecasts
def probe_forecasts(model: NeuroFMx, cases: Sequence[SignalCase], seed: int) -> list[Prediction]:
    """Probes of all horizons of one signal of a recording."""
    began = time.perf_counter()
    pasts = {split: _past(model, cases[0], split) for split in SPLITS}
    reading = (time.perf_counter() - began) / sum(len(past.at) for past in pasts.values())
    return [_forecast(case, pasts, reading, seed) for case in cases]


def _forecast(case: SignalCase, pasts: Mapping[str, Past], reading: float, seed: int) -> Prediction:
    """`reading`: seconds that the latents of a row took."""
    began = time.perf_counter()
    there = {split: past.at + case.lead < len(case.data.times[split]) for split, past in pasts.items()}
    at = {split: past.at[there[split]] for split, past in pasts.items()}
    x = standardised({split: past.x[there[split]] for split, past in pasts.items()})
    y = {split: future(case, split, rows) for split, rows in at.items()}
    fitted = _fit(case, x, y, case.data.x["train"].mean(0)[case.data.live])
    said = fitted(x["test"])
    seconds = time.perf_counter() - began
    effort = Effort(fitted.readout.parameters, seconds + reading * (len(at["train"]) + len(at["validation"])), 1 / reading)
    rows = y["test"], said, case.data.times["test"][at["test"] + case.lead]
    return answer(case, METHOD, "neurofmx", rows, effort, seed)


@torch.no_grad()
def _past(model: NeuroFMx, case: SignalCase, split: str) -> Past:
    """The latents before each origin of a block, of the window that looks back longest."""
    asked = origins(case, split, MOST_WINDOWS[split], MOST_ROWS[split])
    found: dict[int, Array] = {}
    for batch, starts in signal_batches(model, case, split, MOST_WINDOWS[split]):
        stream = batch.streams[case.signal]
        for after in asked.after.tolist():
            origin = stream.t0 + after * stream.dt
            latents = model.encode(batch, model.hide_after(batch, origin, {}))
            last = model.read_before(latents, batch, origin, LOOK_BACK).flatten(1).double().numpy()
            found |= dict(zip((starts + after).tolist(), last, strict=True))
    at = np.array(sorted(found))
    at = at[at < asked.n_times]
    return Past(at, np.stack([found[sample] for sample in at.tolist()]))


# ---------------------------------------------------------------- reconstructions
def probe_reconstruction(model: NeuroFMx, case: SignalCase, cfg: BaselinesConfig, seed: int) -> Prediction:
    """The probe of the channels that `cfg`, that of the baselines, holds out."""
    began, held = time.perf_counter(), held_out(case, cfg)
    read = {split: _patches(model, case, held, split) for split in SPLITS}
    reading = (time.perf_counter() - began) / sum(len(starts) for starts, _ in read.values())
    x = standardised({split: latents for split, (_, latents) in read.items()})
    y = {split: _samples(case, held, split, read[split][0]) for split in ("train", "validation")}
    kept = {split: np.isfinite(values).all(axis=(1, 2)) for split, values in y.items()}
    known_x, known_y = ({split: values[split][rows] for split, rows in kept.items()} for values in (x, y))
    fitted = _fit(case, known_x, known_y, case.data.x["train"].mean(0)[held])
    # Neighbouring windows overlap; what they say is averaged.
    pieces = [(int(start), own) for start, own in zip(read["test"][0], fitted(x["test"]), strict=True)]
    effort = Effort(fitted.readout.parameters, time.perf_counter() - began, 1 / reading)
    return reconstructed(case, cfg, METHOD, "neurofmx", stitched(pieces, len(case.data.times["test"])), effort, seed)


@torch.no_grad()
def _patches(model: NeuroFMx, case: SignalCase, held: Array, split: str) -> tuple[Array, Array]:
    """First samples (R,) of patches of a block, and the latents (R, D) their middles lie in, the held-out channels silent."""
    first, read = [], []
    for batch, starts in signal_batches(model, case, split, MOST_WINDOWS[split]):
        quiet = silenced(batch, case.signal, held)
        values = model.read_patches(model.encode(quiet), quiet, quiet.streams[case.signal])
        first.append((starts[:, None] + np.arange(values.shape[1]) * case.patch).ravel())
        read.append(values.flatten(0, 1).double().numpy())
    return np.concatenate(first), np.concatenate(read)


def _samples(case: SignalCase, held: Array, split: str, starts: Array) -> Array:
    """(R, S, H) what the held-out channels do in each patch, NaN where the block has ended."""
    x = case.data.x[split][:, held]
    padded = np.concatenate([x, np.full((case.patch, x.shape[1]), np.nan)])
    return np.asarray(padded[np.minimum(starts[:, None] + np.arange(case.patch), len(x))])


# ---------------------------------------------------------------- both
def _fit(case: SignalCase, x: Blocks, y: Blocks, mean: Array) -> Fitted:
    """Ridge from latents x (R, F) to y (R, ..., K), at the penalty and floor with the best score on validation rows; mean (K,) over
    training."""
    shape, truth = y["train"].shape[1:], y["validation"].reshape(-1, mean.size)
    path = Path.of(x["train"], y["train"].reshape(len(y["train"]), -1))
    guesses = (guess.reshape(-1, mean.size) for guess in path.predictions(x["validation"]))
    scored = [(*best_floor(case, mean, truth, guess), k) for k, guess in enumerate(guesses)]
    _, floor, k = max(scored, key=lambda one: one[0])
    return Fitted(path.readout(k), shape, floor)
