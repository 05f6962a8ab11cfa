"""Scores of an order: areas under the ROC and the precision-recall curve, also for many weightings of the samples at once.

Of several classes each is set against the rest, and the mean is taken over those that occur.
Shapes: T samples, C classes, B weightings; y_true (T,) places among the classes (or booleans), score (T,), (T, 2), where the last
column counts, or (T, C).
"""

from collections.abc import Callable, Iterator

import numpy as np

from neurofm_ml.metrics.arrays import finite
from neurofm_ml.types import Array

#: (positive (T,), score (T,), weights (B, T)) -> (B,)
Weighted = Callable[[Array, Array, Array], Array]


def auroc(y_true: Array, score: Array) -> float:
    """Chance that a positive has a higher score than a negative, ties counted half (Mann and Whitney 1947)."""
    return _alone("AUROC", weighted_auroc, y_true, score)


def auprc(y_true: Array, score: Array) -> float:
    """Mean over positives of the precision at their score: average precision, no interpolation."""
    return _alone("AUPRC", weighted_auprc, y_true, score)


def _alone(name: str, weighted: Weighted, y_true: Array, score: Array) -> float:
    y, s = np.asarray(y_true), finite(score, "score")
    if len(classes := np.unique(y)) < 2:
        n_pos = int(np.sum(y == 1))
        raise ValueError(f"{name} needs both classes, got {n_pos} positives and {len(y) - n_pos} negatives.")
    found = [float(weighted(positive, s_c, np.ones((1, len(y))))[0]) for positive, s_c in one_against_rest(y, s)]
    assert len(classes) <= 2 or len(found) == len(classes)
    return float(np.mean(found))


def one_against_rest(y_true: Array, score: Array) -> Iterator[tuple[Array, Array]]:
    """(positive (T,), score (T,)) of the one question of two classes, or of each class that occurs."""
    s = score if score.ndim == 2 else score[:, None]
    if s.shape[1] <= 2:
        yield np.asarray(y_true, bool), s[:, -1]
        return
    for c in np.unique(y_true).astype(int):
        yield y_true == c, s[:, c]


def weighted_auroc(positive: Array, score: Array, weights: Array) -> Array:
    """NaN for a weighting without both classes."""
    w_pos, w_neg = weights[:, positive], weights[:, ~positive]
    order = np.argsort(score[~positive], kind="stable")
    below = np.zeros((len(weights), len(order) + 1))
    np.cumsum(w_neg[:, order], axis=1, out=below[:, 1:])
    left, right = (np.searchsorted(score[~positive][order], score[positive], side) for side in ("left", "right"))
    won = np.einsum("bi,bi->b", w_pos, below[:, left] + below[:, right]) / 2
    return _ratio(won, w_pos.sum(1) * w_neg.sum(1))


def weighted_auprc(positive: Array, score: Array, weights: Array) -> Array:
    """NaN for a weighting without both classes."""
    first, order = _descending(score)
    w = weights[:, order]
    true, said = (np.cumsum(v, axis=1)[:, first] for v in (w * positive[order], w))
    gain = np.einsum("bi,bi->b", w * positive[order], _ratio(true, said, 0.0))
    both = (true[:, -1] > 0) & (said[:, -1] > true[:, -1])
    return np.where(both, _ratio(gain, true[:, -1]), np.nan)


def auroc_influence(positive: Array, score: Array) -> Array:
    """(T,) derivative by each sample's weight, where all are 1 (the placements of DeLong et al. 1988)."""
    value = np.zeros(len(score))
    for own, sign in ((positive, 1.0), (~positive, -1.0)):
        other = np.sort(score[~own])
        left, right = (np.searchsorted(other, score[own], side) for side in ("left", "right"))
        placed = (left + right) / 2 / len(other)
        value[own] = (placed if sign > 0 else 1 - placed) / own.sum()
    area = value[positive].sum()
    return value - np.where(positive, area / positive.sum(), area / (~positive).sum())


def auprc_influence(positive: Array, score: Array) -> Array:
    """(T,) as `auroc_influence`."""
    first, order = _descending(score)
    true, said = np.cumsum(positive[order])[first], (first + 1).astype(float)
    n = positive.sum()
    precision = true / said
    # What a sample adds at the thresholds of all positives that are ranked as high or lower.
    tail = [np.cumsum((positive[order] * v)[::-1])[::-1] for v in (1 / said, -true / said**2)]
    start = _starts(score[order])
    lower, burden = (t[start] for t in tail)
    sorted_value = np.where(positive[order], precision - (positive[order] * precision).sum() / n + lower + burden, burden) / n
    value = np.empty(len(score))
    value[order] = sorted_value
    return value


def _descending(score: Array) -> tuple[Array, Array]:
    """Last place of the tie that each sorted sample is in, and the order, highest score first."""
    order = np.argsort(-score, kind="stable")
    ordered = -score[order]
    return np.searchsorted(ordered, ordered, "right") - 1, order


def _starts(ordered: Array) -> Array:
    """First place of the tie that each sample of a falling series is in."""
    return np.searchsorted(-ordered, -ordered, "left")


def _ratio(part: Array, whole: Array, otherwise: float = np.nan) -> Array:
    return np.divide(part, whole, out=np.full(np.shape(whole), otherwise), where=np.asarray(whole) > 0)
