"""Scores of an order: areas under the ROC and the precision-recall curve, also for many weightings of the samples at once.

Of several classes each is set against the rest, and the mean is taken over those that occur.
Shapes: T samples, C classes, B weightings; y_true (T,) places among the classes (or booleans), score (T,), (T, 2), where the last
column counts, or (T, C).
"""

from collections.abc import Callable, Iterator

import numpy as np

from neurofm_ml.metrics.arrays import finite
from neurofm_ml.types import Array

#: (positive (T,), score (T,)) -> (weights (B, T) -> (B,)): what needs no weights is done once.
Area = Callable[[Array, Array], Callable[[Array], Array]]


def auroc(y_true: Array, score: Array) -> float:
    """Chance that a positive has a higher score than a negative, ties counted half (Mann and Whitney 1947)."""
    return _alone("AUROC", auroc_area, y_true, score)


def auprc(y_true: Array, score: Array) -> float:
    """Mean over positives of the precision at their score: average precision, no interpolation."""
    return _alone("AUPRC", auprc_area, y_true, score)


def _alone(name: str, area: Area, y_true: Array, score: Array) -> float:
    y, s = np.asarray(y_true), finite(score, "score")
    if len(np.unique(y)) < 2:
        n_pos = int(np.sum(y == 1))
        raise ValueError(f"{name} needs both classes, got {n_pos} positives and {len(y) - n_pos} negatives.")
    found = [float(area(positive, s_c)(np.ones((1, len(y))))[0]) for positive, s_c in one_against_rest(y, s)]
    return float(np.mean(found))


def one_against_rest(y_true: Array, score: Array) -> Iterator[tuple[Array, Array]]:
    """(positive (T,), score (T,)) of the one question of two classes, or of each class that occurs."""
    s = score if score.ndim == 2 else score[:, None]
    if s.shape[1] <= 2:
        yield np.asarray(y_true, bool), s[:, -1]
        return
    for c in np.unique(y_true).astype(int):
        yield y_true == c, s[:, c]


def auroc_area(positive: Array, score: Array) -> Callable[[Array], Array]:
    """NaN for a weighting without both classes."""
    ours, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    others = others[np.argsort(score[others], kind="stable")]
    left, right = (np.searchsorted(score[others], score[ours], side) for side in ("left", "right"))
    edges = (left, right) if (left != right).any() else (left,)  # without ties both are the same

    def weighted(weights: Array) -> Array:
        below = np.zeros((len(weights), len(others) + 1))
        np.cumsum(weights.take(others, axis=1), axis=1, out=below[:, 1:])
        w = weights.take(ours, axis=1)
        won = sum(np.einsum("bi,bi->b", w, below.take(edge, axis=1)) for edge in edges) / len(edges)
        return _ratio(won, w.sum(1) * below[:, -1])

    return weighted


def auprc_area(positive: Array, score: Array) -> Callable[[Array], Array]:
    """NaN for a weighting without both classes."""
    last, order = _descending(score)
    ours = positive[order]

    def weighted(weights: Array) -> Array:
        w = weights.take(order, axis=1)
        true, said = (np.cumsum(v, axis=1).take(last, axis=1) for v in (w * ours, w))
        gain = np.einsum("bi,bi->b", w * ours, _ratio(true, said, 0.0))
        both = (true[:, -1] > 0) & (said[:, -1] > true[:, -1])
        return np.where(both, _ratio(gain, true[:, -1]), np.nan)

    return weighted


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
    last, order = _descending(score)
    true, said = np.cumsum(positive[order])[last], (last + 1).astype(float)
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
