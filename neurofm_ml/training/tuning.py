"""Unit embeddings that start as tuning maps, so that they mean the same thing in every session.

A unit's map is its mean activity around each of D fixed points of the (z-scored) behaviour: a
closed form over training bins. Units of two sessions that are tuned alike start out alike, and what
a backbone learns of one session serves the next: with random rows every session begins by learning
its own code. The points are the same for every session with as many behavioural columns.

Shapes: T training samples, N units, K behavioural columns, D width.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

import numpy as np
import torch

from neurofm_ml.data.scaler import Scaler, standardised
from neurofm_ml.data.windows import load_block
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.models import NeuroFMx
from neurofm_ml.tokenizers import SpikeTokenizer
from neurofm_ml.training.problems import Problem, target_names, target_scale
from neurofm_ml.types import Array, Recording, Signal

#: The points reach this many deviations from the mean of each behavioural column.
REACH = 2.2
#: Bins of no activity mixed into each point of a map, which shrinks it where the animal never was.
PRIOR_BINS = 20.0


def tuning_maps(activity: Array, behaviour: Array, d_model: int) -> Array:
    """activity (T, N) and behaviour (T, K), both z-scored -> maps (N, D), Frobenius norm sqrt(D)."""
    points = spread(d_model, behaviour.shape[1])
    width = 2 * REACH / d_model ** (1 / behaviour.shape[1])
    # Column by column: a (T, D, K) array would not fit where recordings are long.
    distance = sum((behaviour[:, k, None] - points[:, k]) ** 2 for k in range(points.shape[1]))
    weights = np.exp(-distance / (2 * width**2))
    maps = activity.T @ weights / (weights.sum(0) + PRIOR_BINS)
    scaled: Array = maps * np.sqrt(d_model) / max(np.linalg.norm(maps), 1e-12)
    return scaled.astype(np.float32)


def spread(n: int, k: int) -> Array:
    """(n, k) points that fill the box of +- REACH evenly: a grid where n is a k-th power, else a Sobol sequence."""
    side = round(n ** (1 / k))
    if side**k == n:
        axes = np.meshgrid(*[np.linspace(-REACH, REACH, side)] * k, indexing="ij")
        return np.stack([a.ravel() for a in axes], 1)
    from scipy.stats import qmc

    # A whole power of two is drawn: a Sobol sequence cut elsewhere is the same, but scipy warns of it.
    return qmc.scale(qmc.Sobol(k, scramble=False).random_base2((n - 1).bit_length())[:n], -REACH, REACH)


def embed_by_tuning(model: NeuroFMx, problems: Iterable[Problem], scaler: Scaler) -> None:
    """Set the rows of every population (spikes, calcium) the problems read to its tuning maps.

    Recordings of a session count together; where problems read one population for different tasks, the first decides.
    """
    populations: dict[tuple[str, str, str], list[tuple[Array, Array]]] = defaultdict(list)
    about: dict[tuple[str, str, str], Signal] = {}
    tasks: dict[tuple[str, str, str], tuple[TaskSpec, ...]] = {}
    for problem in problems:
        block = load_block(problem.shards, problem.recording, "train")
        for name in problem.inputs:
            key, signal = (problem.dataset, problem.session, name), cast(Signal, block.signals[name])
            is_population = isinstance(model.tokenizer(signal.modality), SpikeTokenizer)
            if is_population and tasks.setdefault(key, problem.tasks) == problem.tasks:
                populations[key].append(_labelled(problem, name, block, scaler))
                about[key] = signal
    for key, parts in populations.items():
        activity, behaviour = (np.concatenate(part) for part in zip(*parts, strict=True))
        _set_rows(model, "/".join(key), about[key], tuning_maps(activity, behaviour, model.cfg.d_model))


def _labelled(problem: Problem, name: str, block: Recording, scaler: Scaler) -> tuple[Array, Array]:
    """z-scored activity (T, N) and behaviour (T, K) of the samples whose behaviour is known and may be used."""
    signal = cast(Signal, block.signals[name])
    columns = []
    for task in problem.tasks:
        target = cast(Signal, block.signals[task.target])
        mean, std = target_scale(problem, task, scaler)
        columns.append((target.values[:, [target.ch_names.index(n) for n in target_names(problem, task)]] - mean) / std)
    start, end = problem.labelled or (-np.inf, np.inf)
    times = signal.times + 0.5 / signal.sfreq
    bins = np.floor((times - target.t0) * target.sfreq).astype(int).clip(0, len(target.values) - 1)
    behaviour = np.concatenate(columns, 1)[bins]
    use = np.isfinite(behaviour).all(1) & (times >= start) & (times < end)
    activity = standardised(signal.values, signal.modality, *scaler(problem.dataset, problem.session, name))
    return activity[use], behaviour[use]


@torch.no_grad()
def _set_rows(model: NeuroFMx, population: str, signal: Signal, maps: Array) -> None:
    rows = model.vocabulary.channel_rows(signal.modality, population, signal.ch_names)
    table = model.tokenizer(signal.modality).channels.table.weight
    table[torch.tensor(rows)] = torch.from_numpy(maps).to(table)
