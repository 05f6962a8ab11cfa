"""Few factors that channels share, then ridge with lags: principal components, and factor analysis (Yu et al. 2009).

Both see activity alone, so their factors say what varies most, not what matters to the target. Shapes: T bins, N channels,
F factors, K target columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from neurofm_ml.evaluation.baselines.ridge import LAGS, RidgeFit, ScoreOf, fit_ridge
from neurofm_ml.evaluation.tasks.tasks import Blocks, DecodingData
from neurofm_ml.types import Array

#: Numbers of factors that are tried.
SIZES = (2, 4, 8, 16, 32)
#: No channel has less noise than this share of the mean.
QUIET = 0.01
#: (activity (T, N) less its mean, number of factors) -> loadings (N, F): factors are activity @ loadings.
Loadings = Callable[[Array, int], Array]


def principal_components(x: Array, n: int) -> Array:
    """(N, n) directions of greatest variance."""
    return np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :n]


def factor_analysis(x: Array, n: int) -> Array:
    """(N, n) of the posterior mean of factors, beside which every channel has noise of its own."""
    from sklearn.decomposition import FactorAnalysis

    fitted = FactorAnalysis(n, max_iter=200, random_state=0).fit(x)
    # A unit that is silent in training has no noise, and would outweigh all others once it fires.
    noise = np.maximum(fitted.noise_variance_, QUIET * fitted.noise_variance_.mean())
    weighed = fitted.components_ / noise
    loadings: Array = weighed.T @ np.linalg.inv(np.eye(n) + weighed @ fitted.components_.T)
    return loadings


@dataclass(frozen=True, eq=False)
class FactorFit:
    """mean (N,), loadings (N, F), and the ridge from factors to the target."""

    mean: Array
    loadings: Array
    readout: RidgeFit

    @property
    def parameters(self) -> int:
        return self.loadings.size + self.readout.parameters

    def factors(self, x: Array) -> Array:
        """(T, F) of features (T, N)."""
        factors: Array = (x - self.mean) @ self.loadings
        return factors

    def predict(self, x: Array) -> Array:
        """(T, K) from features (T, N)."""
        return self.readout.predict(self.factors(x))


def fit_factors(
    data: DecodingData, features: Blocks, loadings: Loadings, lags: Sequence[int] = LAGS, score_of: ScoreOf | None = None
) -> FactorFit:
    """Fitted on the training block; number of factors, lag and penalty are those with the best score on the validation block."""
    from threadpoolctl import threadpool_limits

    mean, score_of = features["train"].mean(0), score_of or data.r2
    sizes = [n for n in SIZES if n <= features["train"].shape[1]]
    if not sizes:
        raise ValueError(f"there is {len(mean)} channel; factors need {SIZES[0]} or more: leave the method out.")
    best: tuple[float, FactorFit] | None = None
    with threadpool_limits(1):
        for n in sizes:
            found = loadings(features["train"] - mean, n)
            factors = {split: (x - mean) @ found for split, x in features.items()}
            fit = FactorFit(mean, found, fit_ridge(data, factors, lags, score_of))
            score = score_of("validation", fit.readout.predict(factors["validation"]))
            if best is None or score > best[0]:
                best = score, fit
    assert best is not None
    return best[1]
