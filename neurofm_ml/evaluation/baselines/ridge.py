"""Ridge regression with lags (a Wiener filter), in closed form.

For one window of lags the Gram matrix is diagonalised once; every penalty is then a division. The
smaller of the two Gram matrices (features or bins) is taken. Shapes: T bins, N channels, F
features = N * (2 lag + 1), K target columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from neurofm_ml.evaluation.tasks.tasks import Blocks, DecodingData
from neurofm_ml.types import Array

#: Half-widths in bins of the symmetric windows of lags that are tried.
LAGS = (0, 1, 2, 4, 8, 16)
#: Penalties that are tried, per training bin and unit of mean feature variance.
ALPHAS = tuple(10.0 ** np.arange(-4, 3.1, 0.5))


class Fit(Protocol):
    """What a closed-form method returns: it predicts (T, K) from the (T, N) it was fitted on."""

    @property
    def parameters(self) -> int: ...

    def predict(self, x: Array) -> Array: ...


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """weights (F, K) on the lagged features less `mean` (N,), intercept (K,)."""

    lag: int
    alpha: float
    mean: Array
    weights: Array
    intercept: Array

    @property
    def parameters(self) -> int:
        return self.weights.size + self.intercept.size

    def predict(self, x: Array) -> Array:
        """(T, K) from features (T, N)."""
        return lagged(x - self.mean, self.lag) @ self.weights + self.intercept


def lagged(x: Array, lag: int) -> Array:
    """(T, N * (2 lag + 1)): each bin beside its neighbours, zeros beyond the ends."""
    padded = np.pad(x, ((lag, lag), (0, 0)))
    return np.concatenate([padded[i : i + len(x)] for i in range(2 * lag + 1)], axis=1)


#: (split, prediction (T, K)) -> how good it is; the mean R2 where none is given.
ScoreOf = Callable[[str, Array], float]


def fit_ridge(data: DecodingData, features: Blocks, lags: Sequence[int] = LAGS, score_of: ScoreOf | None = None) -> RidgeFit:
    """Fitted on the training block; lag and penalty are those with the best score on the validation block."""
    from threadpoolctl import threadpool_limits

    score_of = score_of or data.r2
    best: tuple[float, RidgeFit] | None = None
    # Eigenvectors of matrices this small come several times sooner from one thread than from many on a busy machine.
    with threadpool_limits(1):
        for lag in lags:
            path = _path(features["train"], data.y["train"], data.known["train"], lag)
            score, alpha = max((score_of("validation", guess), a) for a, guess in path.predictions(features["validation"]))
            if best is None or score > best[0]:
                best = score, path.fit(alpha)
    assert best is not None
    return best[1]


class _Path(NamedTuple):
    """All ridge solutions for one window: weights = basis @ (target / (values + penalty))."""

    lag: int
    mean: Array
    intercept: Array
    basis: Array
    values: Array
    target: Array
    unit: float

    def predictions(self, x: Array) -> list[tuple[float, Array]]:
        """(alpha, prediction (T, K)) for every penalty."""
        projected = lagged(x - self.mean, self.lag) @ self.basis
        return [(alpha, projected @ self._shrunk(alpha) + self.intercept) for alpha in ALPHAS]

    def fit(self, alpha: float) -> RidgeFit:
        return RidgeFit(self.lag, alpha, self.mean, self.basis @ self._shrunk(alpha), self.intercept)

    def _shrunk(self, alpha: float) -> Array:
        return self.target / (self.values + alpha * self.unit)[:, None]


def _path(x: Array, y: Array, known: Array, lag: int) -> _Path:
    mean, intercept = x.mean(0), y[known].mean(0)
    features, target = lagged(x - mean, lag)[known], y[known] - intercept
    unit = float((features**2).sum() / features.shape[1])
    wide = features.shape[0] < features.shape[1]
    gram = features @ features.T if wide else features.T @ features
    values, vectors = np.linalg.eigh(gram)
    basis, projected = (features.T @ vectors, vectors.T @ target) if wide else (vectors, vectors.T @ (features.T @ target))
    return _Path(lag, mean, intercept, basis, np.maximum(values, 0.0), projected, unit)
