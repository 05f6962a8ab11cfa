"""k nearest neighbours on smoothed activity: the mean target of the training bins that looked most alike.

Shapes: T bins, N channels, K target columns.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from neurofm_ml.evaluation.tasks.tasks import DecodingData
from neurofm_ml.types import Array

#: Widths (standard deviation in bins) of the Gaussian that smooths activity.
WIDTHS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80)


@dataclass(frozen=True)
class View:
    """How bins are compared: smoothed by `width` bins, counts square-rooted or not, by distance or by angle."""

    width: float
    root: bool
    angle: bool

    def of(self, x: Array, counts: Array) -> Array:
        """(T, N) what distances are taken between; counts (N,) True for spike counts."""
        from scipy.ndimage import gaussian_filter1d

        seen = gaussian_filter1d(x, self.width, axis=0, mode="nearest") if self.width else x
        seen = np.where(counts, np.sqrt(np.maximum(seen, 0.0)), seen) if self.root else seen
        return seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-9) if self.angle else seen


@dataclass(frozen=True, eq=False)
class KNNFit:
    """The training bins themselves: seen (T, N), y (T, K)."""

    view: View
    k: int
    counts: Array
    seen: Array
    y: Array

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return self.seen.size + self.y.size

    def predict(self, x: Array) -> Array:
        """(T, K) from activity (T, N)."""
        return self.y[neighbours(self.seen, self.view.of(x, self.counts), self.k)].mean(1)


def fit_knn(data: DecodingData) -> KNNFit:
    """Training bins as neighbours; view and k are those with the best mean R2 on the validation block."""
    known = data.known["train"]
    best: tuple[float, KNNFit] | None = None
    for view in (View(*choice) for choice in product(WIDTHS, _roots(data), (False, True))):
        seen = view.of(data.x["train"], data.counts)[known]
        score, k = best_k(data, seen, view.of(data.x["validation"], data.counts))
        if best is None or score > best[0]:
            best = score, KNNFit(view, k, data.counts, seen, data.y["train"][known])
    assert best is not None
    return best[1]


def best_k(data: DecodingData, seen: Array, query: Array) -> tuple[float, int]:
    """The best mean R2 on the validation block and its k, from where its bins (T, N) and the known training bins lie."""
    y = data.y["train"][data.known["train"]]
    ks = [k for k in NEIGHBOURS if k <= len(y)]
    found = y[neighbours(seen, query, ks[-1])]
    return max((data.r2("validation", found[:, :k].mean(1)), k) for k in ks)


def _roots(data: DecodingData) -> tuple[bool, ...]:
    return (False, True) if data.counts.any() else (False,)


def neighbours(seen: Array, query: Array, k: int) -> Array:
    """(n_query, k) rows of `seen` (T, N) nearest to each row of `query`, nearest first."""
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # as in ridge.py: threads that wait for each other cost more than they give
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(seen)
        rows: Array = search.kneighbors(query, return_distance=False)
    return rows
