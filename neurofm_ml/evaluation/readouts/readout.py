"""Linear readouts in closed form: every penalty from one factorisation, with what each would say of rows left out.

A readout is a ridge with an unpenalised intercept; classes are read as indicators, one column each, with rows weighted so
that every class counts alike (Hastie, Tibshirani and Buja 1994). What a fit without one group of rows would predict for
these rows follows from the fit with them: with H the matrix that takes targets to predictions, the error of group g left
out is (I - H_gg)^-1 times its error (Cook and Weisberg 1982). So a penalty can be chosen where there is nothing but a few
labels.

Shapes: n rows, D features, r <= min(n, D) directions, K target columns, P penalties.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from neurofm_ml.types import Array

#: Penalties that are tried, per row and unit of mean variance of a feature.
PENALTIES = 10.0 ** np.arange(-4, 3.1, 0.5)
#: Directions with less than this share of the largest variance are rounding.
LEAST = 1e-10


class Readout(NamedTuple):
    """predictions = x @ weights + intercept; weights (D, K), intercept (K,)."""

    weights: Array
    intercept: Array

    def __call__(self, x: Array) -> Array:
        """x (n, D) -> (n, K)"""
        return np.asarray(x @ self.weights + self.intercept)

    @property
    def parameters(self) -> int:
        return self.weights.size + self.intercept.size


@dataclass(frozen=True, eq=False)
class Path:
    """Readouts of all penalties: directions (D, r) of the centred rows, left (n, r) the rows along them in unit length, values
    (r,) squared lengths, penalties (P,), root (n,) of the rows' weights, target (n, K) centred and weighted."""

    mean: Array
    offset: Array
    directions: Array
    left: Array
    values: Array
    penalties: Array
    root: Array
    target: Array

    @classmethod
    def of(cls, x: Array, y: Array, weights: Array | None = None) -> "Path":
        """Fit y (n, K) from x (n, D); weights (n,) of rows, default 1 each."""
        w = np.ones(len(x)) if weights is None else weights * (len(x) / weights.sum())
        mean, offset, root = w @ x / len(x), w @ y / len(x), np.sqrt(w)
        z, target = (x - mean) * root[:, None], (y - offset) * root[:, None]
        left, values, directions = _factorised(z)
        unit = float((z**2).sum()) / z.shape[1]
        return cls(mean, offset, directions, left, values, PENALTIES * unit, root, target)

    @cached_property
    def shrinkage(self) -> Array:
        """(P, r) share of each direction that is kept."""
        return np.asarray(self.values / (self.values + self.penalties[:, None]))

    def predictions(self, x: Array) -> Array:
        """(P, n, K) of each penalty for other rows x (n, D)."""
        projected = (x - self.mean) @ self.directions
        coefficients = self.shrinkage[:, :, None] * (self.left.T @ self.target / np.sqrt(self.values)[:, None])
        return np.asarray(projected @ coefficients + self.offset)

    def left_out(self, groups: Array) -> Array:
        """(P, n, K) what a fit without a row's group (n,) says of it; where there is one group, each row is its own."""
        names = groups if len(np.unique(groups)) > 1 else np.arange(len(groups))
        said, coefficients = np.empty((len(self.penalties), *self.target.shape)), self.left.T @ self.target
        for name in np.unique(names):
            at = names == name
            errors = self.target[at] - self.left[at] @ (self.shrinkage[:, :, None] * coefficients)
            said[:, at] = (self.target[at] - self._without(at, errors)) / self.root[at, None]
        return said + self.offset

    def _without(self, at: Array, errors: Array) -> Array:
        """(P, g, K) errors of a group of rows `at` (n,) where it is left out, from those (P, g, K) where it is not. Groups of more rows than
        there are directions are solved along these (Woodbury 1950)."""
        basis = np.column_stack([self.left[at], self.root[at] / np.sqrt(len(self.root))])
        kept = np.column_stack([self.shrinkage, np.ones(len(self.penalties))])
        if len(basis) <= basis.shape[1]:
            return np.asarray(np.linalg.solve(np.eye(len(basis)) - basis * kept[:, None] @ basis.T, errors))
        inner = np.eye(basis.shape[1]) / kept[:, None] - basis.T @ basis
        return np.asarray(errors + basis @ np.linalg.solve(inner, basis.T @ errors))

    def readout(self, k: int) -> Readout:
        """The readout of penalty `k`."""
        weights = self.directions @ (self.shrinkage[k][:, None] * (self.left.T @ self.target / np.sqrt(self.values)[:, None]))
        return Readout(weights, self.offset - self.mean @ weights)


def _factorised(z: Array) -> tuple[Array, Array, Array]:
    """Left directions (n, r), squared lengths (r,) and right directions (D, r) of z (n, D), from the smaller of its products."""
    wide = z.shape[0] < z.shape[1]
    values, vectors = np.linalg.eigh(z @ z.T if wide else z.T @ z)
    kept = values > LEAST * max(values[-1], np.finfo(float).tiny)
    values, vectors = values[kept], vectors[:, kept]
    other = (z.T @ vectors if wide else z @ vectors) / np.sqrt(values)
    return (vectors, values, other) if wide else (other, values, vectors)


def indicators(y: Array, n_classes: int) -> Array:
    """(n, C) 1 in the column of each place among the classes y (n,)."""
    return np.asarray(np.eye(n_classes)[y.astype(int)])


def balanced(y: Array) -> Array:
    """(n,) weights that let every class of y (n,) that is present count alike."""
    _, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[place])
