"""What is fitted to few examples: a ridge tuned on these alone, and a network from scratch; each also on exchanged labels.

Shapes: S draws, n test rows, K targets or classes.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from neurofm_ml.evaluation.readouts.readout import Path, Readout
from neurofm_ml.evaluation.shots.scratch import HIDDEN, components, fit_networks
from neurofm_ml.evaluation.shots.shots import folds, kept, shuffled
from neurofm_ml.evaluation.transfer.examples import Examples
from neurofm_ml.evaluation.transfer.places import errors_of
from neurofm_ml.types import Array

Draws = Sequence[list[str] | None]


class Answer(NamedTuple):
    """said (S, n, K) of test rows after each draw; control (S, n, K) the same with labels exchanged; seconds are of one draw."""

    said: Array
    control: Array
    parameters: int
    train_seconds: float
    samples_per_second: float


def ridge(views: Sequence[Examples], draws: Draws, seed: int) -> Answer:
    """The best of the views at the best penalty, by leaving out parts of what was drawn."""
    test = [view.split("test").x for view in views]
    said, control, seconds, parameters = [], [], 0.0, 0
    for s, trials in enumerate(draws):
        rows = [kept(view, trials) for view in views]
        start = time.perf_counter()
        place, readout = choose(rows)
        seconds += time.perf_counter() - start
        said.append(readout(test[place]))
        parameters = max(parameters, readout.parameters)
        place, readout = choose([shuffled(view, [seed, s]) for view in rows])
        control.append(readout(test[place]))
    start = time.perf_counter()
    readout(test[place])
    return Answer(np.stack(said), np.stack(control), parameters, seconds / len(draws), len(test[0]) / (time.perf_counter() - start))


def choose(views: Sequence[Examples]) -> tuple[int, Readout]:
    """Place of the best view, and its readout at the best penalty."""
    paths = [Path.of(view.x, view.targets, view.weights) for view in views]
    errors = np.stack([_errors(path, view) for path, view in zip(paths, views, strict=True)])
    place, penalty = np.unravel_index(int(errors.argmin()), errors.shape)
    return int(place), paths[place].readout(int(penalty))


def _errors(path: Path, view: Examples) -> Array:
    """(P,) error of each penalty on rows left out; of a single row nothing can be."""
    return errors_of(path.left_out(folds(view)), view) if len(view.y) > 1 else np.zeros(len(path.penalties))


def network(view: Examples, draws: Draws, seed: int) -> Answer:
    """A network per draw, all trained at once."""
    small = replace(view, x=components(view))
    test = small.split("test").x
    rows = [kept(small, trials) for trials in draws]
    rows += [shuffled(part, [seed, s]) for s, part in enumerate(rows)]
    start = time.perf_counter()
    said = fit_networks([r.x for r in rows], [r.targets for r in rows], [r.weights for r in rows], test, bool(view.task.classes), seed)
    seconds = (time.perf_counter() - start) / len(rows)
    parameters = (test.shape[1] + 1) * HIDDEN + (HIDDEN + 1) * said.shape[2]
    return Answer(said[: len(draws)], said[len(draws) :], parameters, seconds, len(test) / seconds)
