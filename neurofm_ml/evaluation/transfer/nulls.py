"""Scores under the null: what would the same predictions score if truth had nothing to do with them? All permutations at once.

Series: truth and predictions of each recording are shifted against each other, circularly, so both keep their time course.
Labels: where each unit (person, trial) has one label, labels are exchanged between units; where labels change within units,
between the trials of each (Winkler et al. 2015).

Shapes: n rows, K target columns, C classes, P permutations.
"""

from collections.abc import Sequence

import numpy as np

from neurofm_ml.evaluation.statistics.controls import LEAST_SHIFT
from neurofm_ml.evaluation.transfer.examples import Examples
from neurofm_ml.types import Array


def judged_by(n_classes: int) -> str:
    """R2 of numbers (no classes), AUROC of two classes, balanced accuracy of more."""
    return "r2" if not n_classes else "auroc" if n_classes == 2 else "balanced_accuracy"


def null_scores(examples: Examples, said: Array, n_perm: int, seed: Sequence[int]) -> Array:
    """(1 + P,) scores, by `judged_by`, of what was said of the examples: (n, K) numbers or (n, C) scores of classes; the first is
    the score as it is."""
    if not examples.task.is_label:
        return shifted_scores(examples.y, said, examples.groups("recording"), n_perm, seed)
    y = examples.y[:, 0]
    others = permuted_labels(y, examples.groups("trial"), examples.groups("unit"), n_perm, seed)
    score = {"r2": _r2, "auroc": _auroc, "balanced_accuracy": _balanced_accuracy}[judged_by(len(examples.task.classes))]
    return score(np.concatenate([y[None], others]), said)


def shifted_scores(y: Array, said: Array, blocks: Array, n_perm: int, seed: Sequence[int]) -> Array:
    """(1 + P,) mean R2 over columns of `said` (n, K), first as it is, then with each block (n,) of it shifted in time.

    One block has each of its shifts once, since a few drawn again and again would make p smaller than they can show.
    """
    rng = np.random.default_rng(seed)
    names = np.unique(blocks)
    left = np.zeros((1, y.shape[1]))
    for block in names:
        errors = _shifted_errors(y[blocks == block], said[blocks == block])
        n = len(errors)
        least = max(int(LEAST_SHIFT * n), 1)
        shifts = np.arange(least, n - least + 1) if len(names) == 1 else rng.integers(least, max(n - least, least) + 1, n_perm)
        left = left + errors[np.append(0, shifts % n)]
    return np.asarray((1 - left / ((y - y.mean(0)) ** 2).sum(0)).mean(1))


def _shifted_errors(y: Array, said: Array) -> Array:
    """(n, K) sum of squared errors of `said` (n, K) at every circular shift."""
    cross = np.fft.irfft(np.fft.rfft(y, axis=0) * np.conj(np.fft.rfft(said, axis=0)), len(y), axis=0)
    return np.asarray((y**2).sum(0) + (said**2).sum(0) - 2 * cross)


def permuted_labels(y: Array, trials: Array, units: Array, n_perm: int, seed: Sequence[int]) -> Array:
    """(P, n) labels y (n,) exchanged between units (n,) or, where these have several, between the trials (n,) of each."""
    first, place = np.unique(units, return_index=True, return_inverse=True)[1:]
    within = np.zeros(len(first))
    if (y != y[first][place]).any() and len(np.unique(trials)) > len(first):
        first, place = np.unique(trials, return_index=True, return_inverse=True)[1:]
        within = units[first]
    order = np.argsort(within, kind="stable")
    drawn = np.empty((n_perm, len(first)))
    drawn[:, order] = y[first][(np.random.default_rng(seed).random((n_perm, len(first))) + within).argsort(1)]
    return drawn[:, place]


def _r2(y: Array, said: Array) -> Array:
    errors = (y**2).sum(1) + (said**2).sum() - 2 * y @ said[:, 0]
    return np.asarray(1 - errors / (y.var(1) * y.shape[1]))


def _auroc(y: Array, said: Array) -> Array:
    _, inverse, counts = np.unique(said[:, -1], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n_pos = y.sum(1)
    return np.asarray((y @ ranks - n_pos * (n_pos + 1) / 2) / (n_pos * (y.shape[1] - n_pos)))


def _balanced_accuracy(y: Array, said: Array) -> Array:
    answer = said.argmax(1)
    return np.mean([(y == c) @ (answer == c).astype(float) / (y == c).sum(1) for c in np.unique(y)], axis=0)
