"""What a score is worth against chance: nulls that keep what rows of one unit share, p values, and their false discovery rate.

Shapes: T rows, U units, n permutations.
"""

from itertools import product

import numpy as np

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.statistics.resampling import CHUNK
from neurofm_ml.metrics import Score
from neurofm_ml.metrics.scores import Ranks
from neurofm_ml.types import Array

#: Nulls of up to so many classes are scored all at once.
FEW_CLASSES = 10


def permutation_p(observed: float, null: Array) -> float:
    """Chance of so high a value under a null (n,), the observed one being one of them (Phipson and Smyth 2010); never 0."""
    return float((1 + np.sum(np.asarray(null) >= observed)) / (1 + len(null)))


def benjamini_hochberg(p: Array) -> Array:
    """q-values of p (any shape): the least false discovery rate at which each is found (Benjamini and Hochberg 1995). NaN stays NaN
    and does not count."""
    p = np.asarray(p, np.float64)
    known = np.isfinite(p)
    order = np.argsort(-p[known])
    ranks = np.arange(len(order), 0, -1)
    falling = np.minimum(np.minimum.accumulate(p[known][order] * len(order) / ranks), 1.0)
    found, q = np.full(len(order), np.nan), np.full(p.shape, np.nan)
    found[order] = falling
    q[known] = found
    return q


def null_scores(prediction: Prediction, n: int = 500, seed: int = 0) -> Array:
    """Scores of the prediction against truths that it does not know, higher better; those not defined are left out.

    Each unit gets the truth of another one, from a random row on and round its end: exact where all rows of a unit have the same
    label, and time courses are kept where not.
    """
    score = prediction.score
    y_true, y_pred = prediction.scored
    orders = unit_orders(prediction.scored_units, len(y_true), n, seed)
    if score.of == "classes" and y_pred.shape[1] <= FEW_CLASSES:
        values = _of_classes(score, y_true, y_pred, orders)
    else:
        once = np.ones((1, len(y_true)))
        values = np.concatenate([score.statistic.weighted(y_true[order], y_pred, once) for order in orders])
    return score.sign * values[np.isfinite(values)]


def _of_classes(score: Score, y_true: Array, y_pred: Array, orders: Array) -> Array:
    """(n,) scores under each order, all at once: every row is there once with each class, and counts where that is its truth."""
    n_rows, places = len(y_true), np.arange(y_pred.shape[1])
    truth, said = np.repeat(places, n_rows)[:, None], np.tile(y_pred, (len(places), 1))
    chunks = np.array_split(y_true[:, 0][orders], max(1, orders.size * len(places) // CHUNK))
    weights = ((chunk[:, None] == places[:, None]).reshape(len(chunk), -1).astype(float) for chunk in chunks)
    return np.concatenate([score.statistic.weighted(truth, said, w) for w in weights])


def unit_orders(units: Array | None, n_rows: int, n: int, seed: int) -> Array:
    """(n, T) the row whose truth each row gets; without units all rows are rolled, by a tenth of them at least, each roll at most
    once: a few drawn again and again would make p smaller than they can show."""
    rng = np.random.default_rng(seed)
    if units is None:
        least = max(n_rows // 10, 1)
        rolls = rng.permutation(np.arange(least, n_rows - least + 1))[:n]
        return (np.arange(n_rows) - rolls[:, None]) % n_rows
    place, sizes = np.unique(units, return_inverse=True, return_counts=True)[1:]
    rows, first = np.argsort(place, kind="stable"), np.cumsum(sizes) - sizes
    position = np.empty(n_rows, int)
    position[rows] = np.arange(n_rows) - np.repeat(first, sizes)
    source = rng.permuted(np.tile(np.arange(len(sizes)), (n, 1)), axis=1)[:, place]
    rolls = rng.integers(0, n_rows, (n, len(sizes)))[:, place]
    return np.asarray(rows[first[source] + (position + rolls) % sizes[source]])


def swap_p(a: Prediction, b: Prediction) -> float:
    """Two-sided p of the difference of scores under every pattern in which the answers of both to whole units are swapped.

    For few units: there are 2^U patterns. Scores of classes whose order counts are ranked within each method before, because the
    two may have other scales.
    """
    assert a.units is not None
    both, score = a.mask & b.mask, a.score
    place = np.unique(a.units[both], return_inverse=True)[1]
    guesses = [p.y_pred[both] for p in (a, b)]
    if isinstance(score.statistic, Ranks):
        guesses = [_ranks(guess) for guess in guesses]
    swapped = np.array(list(product((0.0, 1.0), repeat=int(place.max() + 1))))[:, place]
    y, stacked = np.concatenate([b.y_true[both]] * 2), np.concatenate(guesses)
    sides = (np.concatenate(w, axis=1) for w in ((1 - swapped, swapped), (swapped, 1 - swapped)))
    of_a, of_b = (score.statistic.weighted(y, stacked, weights) for weights in sides)
    found = np.abs(of_a - of_b)  # the first pattern is the one observed
    return float(np.mean(found >= found[0] * (1 - 1e-9)))


def _ranks(guess: Array) -> Array:
    """(T, C) mean ranks of each column."""
    from scipy.stats import rankdata

    ranks: Array = rankdata(guess, axis=0)
    return ranks
