"""Decoders: a model fitted to the decoding tasks of one recording, and what it predicts block by block.

Shapes: T grid bins of a block, K target columns.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neurofm_ml.config import config, from_dict, to_dict
from neurofm_ml.data.batches import Collate, build_vocabulary
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.data.windows import read_channels
from neurofm_ml.models import NeuroFMx
from neurofm_ml.models.neurofmx import Prediction
from neurofm_ml.presets import AugmentConfig, NeuroFMxConfig, TrainConfig
from neurofm_ml.training.history import History
from neurofm_ml.training.loop import fit
from neurofm_ml.training.problems import Problem, provenance, target_names, target_scale
from neurofm_ml.training.saved import extend, load_described, save_model
from neurofm_ml.training.steps import weighted_loss
from neurofm_ml.training.tuning import embed_by_tuning
from neurofm_ml.types import Array, Batch


def fit_decoder(
    model: NeuroFMx, problem: Problem, scaler: Scaler, cfg: TrainConfig, augment: AugmentConfig, out: Path, seed: int
) -> History:
    """Train `model` in place on the training windows of one problem."""
    batches = problem_batches(model, problem, scaler, "train", cfg.batch_size, seed)
    loss, made_from = weighted_loss(augment, {"behaviour": 1.0}), provenance([problem.shards])
    return fit(model, batches, loss, cfg, out, seed=seed, provenance=made_from, description=problem.name)


@dataclass(frozen=True)
class Block:
    """Truth and guess (T, K) of one task on one contiguous block, in the target's own unit; times (T,) of the bins."""

    truth: Array
    guess: Array
    times: Array


def predict_block(model: NeuroFMx, problem: Problem, scaler: Scaler, split: str) -> dict[str, Block]:
    """Task -> predictions on a whole block."""
    tasks, batches = problem.task_names(), problem_batches(model, problem, scaler, split, batch_size=64, seed=0)

    def answered(batch: Batch, said: Prediction) -> Tensor:
        return torch.cat([*(batch.targets[t] for t in tasks), *(said.behaviour[t] for t in tasks)], -1)

    model.eval()
    values, times = stitched(((b, answered(b, model(b))) for b in batches.epoch()), grid_step(problem))
    columns = np.split(values, np.cumsum([model.vocabulary.tasks[t] for t in tasks * 2])[:-1], axis=1)
    truths, guesses = columns[: len(tasks)], columns[len(tasks) :]
    scales = [target_scale(problem, task, scaler) for task in problem.tasks]
    return {
        task.name: Block(truth * std + mean, guess * std + mean, times)
        for task, truth, guess, (mean, std) in zip(problem.tasks, truths, guesses, scales, strict=True)
    }


def block_latents(model: NeuroFMx, problem: Problem, scaler: Scaler, split: str) -> Array:
    """Latents (T, D) of a whole block, for probes."""
    batches = problem_batches(model.eval(), problem, scaler, split, batch_size=64, seed=0)
    return stitched(((b, model.encode(b).values) for b in batches.epoch()), grid_step(problem))[0]


def grid_step(problem: Problem) -> float:
    """Seconds between the bins of a problem's grid."""
    return 1 / load_card(problem.shards).grid_hz


@torch.no_grad()
def stitched(windows: Iterable[tuple[Batch, Tensor]], dt: float) -> tuple[Array, Array]:
    """Values (B, L, F) of the bins of a block's windows, as (T, F) on the block's grid of `dt` seconds, and the times (T,) of
    its bins.

    Overlapping windows are averaged, weighted towards their middles, where a bin has both past and future.
    """
    times, values, weights = [], [], []
    for batch, read in windows:
        valid = batch.mask
        weight = torch.hann_window(valid.shape[1] + 2, periodic=False)[1:-1] + 0.05
        times.append((batch.starts[:, None] + batch.times)[valid].numpy())
        values.append(read[valid].double().numpy())
        weights.append(weight.expand(valid.shape)[valid].double().numpy())
    time, value, share = np.concatenate(times), np.concatenate(values), np.concatenate(weights)
    place = np.round((time - time.min()) / dt).astype(int)
    n = int(place.max()) + 1
    total, weight_sum = np.zeros((n, value.shape[1])), np.zeros(n)
    np.add.at(total, place, value * share[:, None])
    np.add.at(weight_sum, place, share)
    return total / weight_sum[:, None], time.min() + np.arange(n) * dt


def problem_batches(model: NeuroFMx, problem: Problem, scaler: Scaler, split: str, batch_size: int, seed: int) -> Loader:
    """Windows of a problem: endless, or one epoch; for training only those with labels, and these alone."""
    labelled = {f"{problem.dataset}/{problem.recording}": problem.labelled} if problem.labelled and split == "train" else None
    collate = Collate([problem.shards], model.vocabulary, scaler, problem.inputs, problem.task_names(), labelled)
    return Loader([problem.shards], split=split, batch_size=batch_size, seed=seed, where=problem.windows(split), collate=collate)


def from_scratch(cfg: NeuroFMxConfig, problem: Problem, scaler: Scaler, seed: int) -> NeuroFMx:
    """A fresh model of one problem, its units starting from their tuning maps."""
    torch.manual_seed(seed)
    model = NeuroFMx(cfg, build_vocabulary([problem.shards]))
    embed_by_tuning(model, [problem], scaler)
    return model


def adapted_to(base: NeuroFMx, problems: Sequence[Problem], scaler: Scaler, seed: int) -> NeuroFMx:
    """A copy of `base` that can be fitted to any of `problems`; sessions it has never seen start from their tuning maps."""
    model = extend(base, build_vocabulary(list(dict.fromkeys(problem.shards for problem in problems))), seed)
    unseen = [problem for problem in problems if not base.vocabulary.session_row(f"{problem.dataset}/{problem.session}")]
    embed_by_tuning(model, unseen, scaler)
    return model


@config
class DecoderAbout:
    """What a decoder needs to be run by itself: its input's scale and rows, its targets' names and units.

    ids, mean, std have one entry per channel of `signal` (of the square root, for spikes); target_*
    one per output column; dt is the width of a bin in seconds.
    """

    name: str
    dataset: str
    recording: str
    signal: str
    modality: str
    dt: float
    session_row: int
    ch_names: tuple[str, ...]
    ids: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tasks: tuple[str, ...]
    target_names: tuple[str, ...]
    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]


@dataclass(frozen=True)
class Decoder:
    """A fitted model and what it decodes."""

    model: NeuroFMx
    about: DecoderAbout


def describe(model: NeuroFMx, problem: Problem, scaler: Scaler) -> DecoderAbout:
    """The `about` of a decoder of one population."""
    (signal,) = problem.inputs
    channels = read_channels(problem.shards)[problem.session]
    mean, std = scaler(problem.dataset, problem.session, signal)
    units = [target_scale(problem, task, scaler) for task in problem.tasks]
    session = f"{problem.dataset}/{problem.session}"
    names = [f"{task.name}/{name}" for task in problem.tasks for name in target_names(problem, task)]
    return DecoderAbout(
        name=problem.name,
        dataset=problem.dataset,
        recording=problem.recording,
        signal=signal,
        modality=channels[signal]["modality"],
        dt=1 / channels[signal]["sfreq"],
        session_row=model.vocabulary.session_row(session),
        ch_names=tuple(channels[signal]["ch_names"]),
        ids=tuple(model.vocabulary.channel_rows(channels[signal]["modality"], f"{session}/{signal}", channels[signal]["ch_names"])),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        tasks=tuple(problem.task_names()),
        target_names=tuple(names),
        target_mean=tuple(float(x) for m, _ in units for x in m),
        target_std=tuple(float(x) for _, s in units for x in s),
    )


def save_decoder(folder: Path, decoder: Decoder) -> None:
    """Weights, configuration, vocabulary and `about` in one folder."""
    save_model(folder, decoder.model, {"about": to_dict(decoder.about)})


def load_decoders(artifact: Path) -> Iterator[Decoder]:
    """Every decoder of an adapted artifact, in the order of their names."""
    for path in sorted((artifact / "decoders").glob("*/model.json")):
        model, description = load_described(path.parent)
        yield Decoder(model, from_dict(DecoderAbout, description["about"]))
