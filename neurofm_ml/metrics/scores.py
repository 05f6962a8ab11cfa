"""SCORES: the metrics that a task can be scored by, in a form that can be resampled.

A resample of the samples is a weight for each of them, how often it was drawn. Most scores are functions of sums over
samples (`Sums`), so that a resample costs one product of matrices; areas under curves are functions of an order (`Ranks`).

Shapes: T samples, K columns, C classes, B weightings, M sums. Of "numbers" and "counts" y_true, y_pred (T, K); of "classes"
y_true (T, 1) places among the classes and y_pred (T, C) scores of each, whose largest is the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neurofm_ml.metrics import classes, ranking
from neurofm_ml.metrics.arrays import finite
from neurofm_ml.metrics.counts import LEAST_RATE
from neurofm_ml.registry import Registry
from neurofm_ml.types import Array

#: Step of the numerical derivative by a sum, relative to the mean size of what is summed.
STEP = 1e-6


@dataclass(frozen=True)
class Sums:
    """A function `of_sums` ((B, M) -> (B,)) of sums over samples of `moments` (y_true, y_pred -> (T, M))."""

    moments: Callable[[Array, Array], Array]
    of_sums: Callable[[Array], Array]

    def weighted(self, y_true: Array, y_pred: Array, weights: Array) -> Array:
        """weights (B, T) -> (B,); not finite where the score is not defined."""
        return self.of_sums(weights @ self.moments(y_true, y_pred))

    def influence(self, y_true: Array, y_pred: Array) -> Array:
        """(T,) derivative of the score by each sample's weight, times T."""
        moments = self.moments(y_true, y_pred)
        sums, step = moments.sum(0), STEP * np.diag(np.maximum(np.abs(moments).sum(0), 1.0))
        slopes = (self.of_sums(sums + step) - self.of_sums(sums - step)) / (2 * np.diag(step))
        return len(moments) * (moments @ slopes)


@dataclass(frozen=True)
class Ranks:
    """The mean of an `area` over questions, and its `slope` (positive (T,), score (T,) -> (T,))."""

    area: ranking.Area
    slope: Callable[[Array, Array], Array]

    def weighted(self, y_true: Array, y_pred: Array, weights: Array) -> Array:
        """weights (B, T) -> (B,), over the classes that occur in each weighting; NaN where only one does."""
        return self.prepared(y_true, y_pred)(weights)

    def prepared(self, y_true: Array, y_pred: Array) -> Callable[[Array], Array]:
        """`weighted` of this truth and prediction."""
        areas = [self.area(*question) for question in ranking.one_against_rest(y_true[:, 0], y_pred)]

        def weighted(weights: Array) -> Array:
            found = np.stack([area(weights) for area in areas])
            n = np.isfinite(found).sum(0)
            return np.where(n > 0, np.nansum(found, 0) / np.maximum(n, 1), np.nan)

        return weighted

    def influence(self, y_true: Array, y_pred: Array) -> Array:
        """(T,) derivative of the score by each sample's weight, times T."""
        return len(y_true) * np.mean([self.slope(*question) for question in ranking.one_against_rest(y_true[:, 0], y_pred)], axis=0)


@dataclass(frozen=True)
class Score:
    """One metric. `chance` is what an answer without knowledge gets, NaN where that depends on the truth: `at_chance` says it
    then. `least` and `most` are the values that cannot be passed."""

    name: str
    of: Literal["numbers", "classes", "counts"]
    chance: float
    statistic: Sums | Ranks
    least: float = -np.inf
    most: float = 1.0
    lower_is_better: bool = False
    chance_of: Callable[[Array], float] | None = None

    @property
    def sign(self) -> float:
        """Times this, higher is better."""
        return -1.0 if self.lower_is_better else 1.0

    def value(self, y_true: Array, y_pred: Array, weights: Array | None = None) -> float:
        """The score of a prediction; weights (T,) count each sample so many times."""
        w = np.ones(len(y_true)) if weights is None else weights
        y, p = finite(y_true, "y_true"), finite(y_pred, "y_pred")
        if self.of == "classes" and not (y.shape == (len(p), 1) and y.max() < p.shape[1]):
            raise ValueError(
                f"{self.name} needs y_true (T, 1) places and y_pred (T, C) scores of all classes, got {y.shape} and {p.shape}."
            )
        if self.of != "classes" and y.shape != p.shape:
            raise ValueError(f"y_true has shape {y.shape} and y_pred {p.shape}; {self.name} needs a guess for each number.")
        found = float(self.statistic.weighted(y, p, w[None])[0])
        if not np.isfinite(found):
            raise ValueError(f"{self.name} is not defined here: a column of y_true is constant or only one class occurs; leave it out.")
        return found

    def at_chance(self, y_true: Array) -> float:
        """What an answer without knowledge gets on this truth."""
        return self.chance if self.chance_of is None else self.chance_of(y_true)


SCORES: Registry[Score] = Registry("metric")


# ---------------------------------------------------------------- numbers: sums of 1, y, y^2, ... in columns
def _r2_moments(y_true: Array, y_pred: Array) -> Array:
    mean = y_true.mean(0)
    y, p = y_true - mean, y_pred - mean
    return np.concatenate([np.ones((len(y), 1)), y, y**2, (p - y) ** 2], axis=1)


def _r2(sums: Array) -> Array:
    n, y, yy, errors = _parts(sums, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (1 - errors / (yy - y**2 / n)).mean(1)


class _R2(Sums):
    def influence(self, y_true: Array, y_pred: Array) -> Array:
        """In closed form, without the constant."""
        y, errors = y_true - y_true.mean(0), (y_pred - y_true) ** 2
        variance = (y**2).mean(0)
        return (((errors.mean(0) / variance) * y**2 - errors) / variance).mean(1)


def _pearson_moments(y_true: Array, y_pred: Array) -> Array:
    y, p = y_true - y_true.mean(0), y_pred - y_pred.mean(0)
    return np.concatenate([np.ones((len(y), 1)), y, p, y**2, p**2, y * p], axis=1)


def _pearson(sums: Array) -> Array:
    n, y, p, yy, pp, yp = _parts(sums, 5)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (yp - y * p / n) / np.sqrt((yy - y**2 / n) * (pp - p**2 / n))
    flat = (pp - p**2 / n <= 1e-12 * pp) & (yy - y**2 / n > 0)  # an answer that is always the same goes with nothing
    return np.where(flat, 0.0, found).mean(1)


def _mae_moments(y_true: Array, y_pred: Array) -> Array:
    return np.stack([np.ones(len(y_true)), np.abs(y_pred - y_true).mean(1)], axis=1)


def _parts(sums: Array, n_kinds: int) -> list[Array]:
    """(B, 1) and `n_kinds` arrays (B, K)."""
    k = (sums.shape[1] - 1) // n_kinds
    return np.split(sums, [1 + k * i for i in range(n_kinds)], axis=1)


def _error_of_median(y_true: Array) -> float:
    return float(np.abs(y_true - np.median(y_true, axis=0)).mean())


# ---------------------------------------------------------------- counts
def _bits_moments(counts: Array, rates: Array) -> Array:
    if (rates < 0).any():
        raise ValueError(f"rates go down to {rates.min():g}; expected counts cannot be negative.")
    r = np.maximum(rates, LEAST_RATE)
    return np.concatenate([np.ones((len(r), 1)), (counts * np.log(r) - r).sum(1, keepdims=True), counts], axis=1)


def _bits(sums: Array) -> Array:
    n, said, counts = sums[:, :1], sums[:, 1], sums[:, 2:]
    flat = np.maximum(counts / n, LEAST_RATE)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (said - (counts * np.log(flat) - n * flat).sum(1)) / counts.sum(1) / np.log(2)


# ---------------------------------------------------------------- classes: sums are the cells of the table of true against said
def _cells(y_true: Array, y_pred: Array) -> Array:
    n = y_pred.shape[1]
    return np.eye(n * n)[(y_true[:, 0] * n + y_pred.argmax(1)).astype(int)]


def _of_table(score: Callable[[Array], Array]) -> Sums:
    def of_sums(sums: Array) -> Array:
        n = round(sums.shape[1] ** 0.5)
        return score(sums.reshape(-1, n, n))

    return Sums(_cells, of_sums)


def _one_of_classes(y_true: Array) -> float:
    return 1 / len(np.unique(y_true))


def _largest_share(y_true: Array) -> float:
    return float(np.unique(y_true, return_counts=True)[1].max() / len(y_true))


def _mean_share(y_true: Array) -> float:
    """Mean share of the positives: of two classes that of the last, of several 1 / their number."""
    return float(np.mean(y_true)) if y_true.max() <= 1 else _one_of_classes(y_true)


for _score in (
    Score("r2", "numbers", 0.0, _R2(_r2_moments, _r2)),
    Score("pearson", "numbers", 0.0, Sums(_pearson_moments, _pearson), least=-1.0),
    Score(
        "mae", "numbers", np.nan, Sums(_mae_moments, lambda s: s[:, 1] / s[:, 0]),
        least=0.0, most=np.inf, lower_is_better=True, chance_of=_error_of_median,
    ),
    Score("bits_per_spike", "counts", 0.0, Sums(_bits_moments, _bits), most=np.inf),
    Score("accuracy", "classes", np.nan, _of_table(classes.accuracy_of), least=0.0, chance_of=_largest_share),
    Score("balanced_accuracy", "classes", np.nan, _of_table(classes.balanced_accuracy_of), least=0.0, chance_of=_one_of_classes),
    Score("macro_f1", "classes", np.nan, _of_table(classes.f1_of), least=0.0, chance_of=_one_of_classes),
    Score("kappa", "classes", 0.0, _of_table(classes.kappa_of), least=-1.0),
    Score("auroc", "classes", 0.5, Ranks(ranking.auroc_area, ranking.auroc_influence), least=0.0),
    Score("auprc", "classes", np.nan, Ranks(ranking.auprc_area, ranking.auprc_influence), least=0.0, chance_of=_mean_share),
):  # fmt: skip
    SCORES.add(_score.name, _score)
