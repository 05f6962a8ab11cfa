"""Scores of class labels, all functions of the table of true against said classes. Shapes: T samples, C classes."""

import numpy as np

from neurofm_ml.types import Array


def accuracy(y_true: Array, y_pred: Array) -> float:
    """Share of (T,) labels that agree."""
    return float(np.mean(y_true == y_pred))


def balanced_accuracy(y_true: Array, y_pred: Array) -> float:
    """Mean over the classes in `y_true` of the share of each that was recognised; (T,) labels."""
    return float(np.mean([np.mean(y_pred[y_true == c] == c) for c in np.unique(y_true)]))


def macro_f1(y_true: Array, y_pred: Array) -> float:
    """Mean over the classes that are true or said of the harmonic mean of precision and recall; (T,) labels."""
    return float(f1_of(confusion(y_true, y_pred)))


def kappa(y_true: Array, y_pred: Array) -> float:
    """Agreement beyond what the two frequencies of classes would give (Cohen 1960); (T,) labels."""
    table = confusion(y_true, y_pred)
    if (table.sum(0) == table.sum()).any() and (table.sum(1) == table.sum()).any():
        raise ValueError("one class alone is true and said: kappa is not defined; score more samples.")
    return float(kappa_of(table))


def confusion(y_true: Array, y_pred: Array) -> Array:
    """(C, C) counts, rows true, columns said, of the C labels that occur in either."""
    labels, places = np.unique(np.concatenate([y_true, y_pred]), return_inverse=True)
    table = np.zeros((len(labels), len(labels)))
    np.add.at(table, (places[: len(y_true)], places[len(y_true) :]), 1)
    return table


def accuracy_of(tables: Array) -> Array:
    """(..., C, C) -> (...), as are all that follow; NaN where a score is not defined."""
    return np.trace(tables, axis1=-2, axis2=-1) / tables.sum((-2, -1))


def balanced_accuracy_of(tables: Array) -> Array:
    return _mean_ratio(np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(-1))


def f1_of(tables: Array) -> Array:
    return _mean_ratio(2 * np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(-1) + tables.sum(-2))


def kappa_of(tables: Array) -> Array:
    n = tables.sum((-2, -1))
    expected = (tables.sum(-1) * tables.sum(-2)).sum(-1) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected < 1, (accuracy_of(tables) - expected) / (1 - expected), np.nan)


def _mean_ratio(part: Array, whole: Array) -> Array:
    """Mean over the classes (last axis) that occur."""
    return (part / np.where(whole > 0, whole, 1)).sum(-1) / (whole > 0).sum(-1)
