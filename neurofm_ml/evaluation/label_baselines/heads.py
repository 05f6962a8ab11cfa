"""What is fitted to rows of features: linear readouts, nearest neighbours, boosted trees; each at a handful of settings.

A head gives its fits in order, the most restrained first: 8 penalties, 8 numbers of neighbours, 16 sizes and numbers of trees. Shapes: n rows, F features, K answers (scores of classes; 1 for a number).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from neurofm_ml.evaluation.baselines.knn import neighbours
from neurofm_ml.evaluation.readouts.logistic import logistic_readouts
from neurofm_ml.evaluation.readouts.readout import PENALTIES, Path, Readout, balanced, indicators
from neurofm_ml.types import Array

#: Places of the penalties among those of a path, the largest first.
_PENALTIES = range(len(PENALTIES) - 1, -1, -2)
NEIGHBOURS = (50, 30, 20, 12, 8, 5, 3, 1)
#: Leaves of a tree, and trees.
LEAVES, TREES = (2, 3, 5, 8), (5, 10, 20, 40)
#: Share of a tree's answer that is added, rows that a leaf needs, and places where a feature may be cut.
_RATE, _ROWS, _BINS = 0.2, 5, 32


class Fit(Protocol):
    """It answers (n, K) from features (n, F)."""

    @property
    def parameters(self) -> int: ...

    def __call__(self, x: Array) -> Array: ...


#: (features (n, F), labels (n,), number of classes or 0 for a number, seed) -> fits.
Head = Callable[[Array, Array, int, int], Iterator[Fit]]


# ---------------------------------------------------------------- linear
class Probabilities(NamedTuple):
    """Log-odds as probabilities."""

    readout: Readout

    @property
    def parameters(self) -> int:
        return self.readout.parameters

    def __call__(self, x: Array) -> Array:
        from scipy.special import softmax

        return np.asarray(softmax(self.readout(x), axis=1))


def linear(x: Array, y: Array, n_classes: int, seed: int) -> Iterator[Fit]:
    """Multinomial logistic regression with classes weighted alike, or ridge for a number."""
    if not n_classes:
        yield from ridge(x, y, n_classes, seed)
        return
    rows = Path.of(x, indicators(y, n_classes))
    yield from map(Probabilities, logistic_readouts(rows, y.astype(int), n_classes, _PENALTIES))


def ridge(x: Array, y: Array, n_classes: int, seed: int) -> Iterator[Fit]:
    """Ridge; of classes on their indicators, which count alike."""
    path = Path.of(x, indicators(y, n_classes), balanced(y)) if n_classes else Path.of(x, y[:, None])
    yield from (path.readout(k) for k in _PENALTIES)


# ---------------------------------------------------------------- neighbours
class Neighbours(NamedTuple):
    """The mean over the `k` training rows that are nearest, of targets (n, K)."""

    seen: Array
    target: Array
    k: int

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return self.seen.size + self.target.size

    def __call__(self, x: Array) -> Array:
        return np.asarray(self.target[neighbours(self.seen, x, self.k)].mean(axis=1))


def nearest(x: Array, y: Array, n_classes: int, seed: int) -> Iterator[Fit]:
    """k nearest neighbours, each counting for its class as much as that is rare."""
    target = indicators(y, n_classes) * balanced(y)[:, None] * len(y) / n_classes if n_classes else y[:, None]
    yield from (Neighbours(x, target, k) for k in NEIGHBOURS if k <= len(x))


# ---------------------------------------------------------------- trees
@dataclass(frozen=True)
class Boosted:
    """The first `trees` of a boosted model; `frequency` (K,) of each class among its rows, by which probabilities are divided."""

    model: Any
    trees: int
    leaves: int
    frequency: Array

    @property
    def parameters(self) -> int:
        """A value per leaf, a feature and a threshold per split; of more than two classes each has trees of its own."""
        n = int(np.count_nonzero(self.frequency))
        return self.trees * (n if n > 2 else 1) * (3 * self.leaves - 2)

    def __call__(self, x: Array) -> Array:
        classes = self.frequency.any()
        stages = self.model.staged_predict_proba(x) if classes else self.model.staged_predict(x)
        said = np.asarray(next(stage for k, stage in enumerate(stages, 1) if k == self.trees))
        if not classes:
            return said[:, None]
        seen, wide = self.frequency > 0, np.zeros((len(x), len(self.frequency)))
        wide[:, seen] = said / self.frequency[seen]
        return wide / wide.sum(axis=1, keepdims=True)


def boosting(x: Array, y: Array, n_classes: int, seed: int) -> Iterator[Fit]:
    """Gradient boosting of small trees on binned features (Ke et al. 2017)."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    grower = HistGradientBoostingClassifier if n_classes else HistGradientBoostingRegressor
    grower = partial(grower, learning_rate=_RATE, max_iter=TREES[-1], min_samples_leaf=_ROWS, max_bins=_BINS, early_stopping=False)
    frequency = np.bincount(y.astype(int), minlength=n_classes) if n_classes else np.zeros(0)
    for leaves in LEAVES:
        model = grower(max_leaf_nodes=leaves, random_state=seed).fit(x, y.astype(int) if n_classes else y)
        yield from (Boosted(model, trees, leaves, frequency) for trees in TREES)
