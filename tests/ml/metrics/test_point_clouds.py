"""Geometry of embeddings and samples against loops, scikit-learn, scipy and closed forms."""

import numpy as np
import pytest
from scipy import linalg
from scipy.spatial.distance import cdist
from sklearn import metrics as reference
from sklearn.neighbors import NearestNeighbors

from neurofm_ml import metrics

RNG = np.random.default_rng(0)


def test_retrieval_counts_partners_among_the_most_similar() -> None:
    similarity = RNG.normal(size=(30, 30)) + 1.5 * np.eye(30)
    expected = np.mean([i in np.argsort(-row)[:5] for i, row in enumerate(similarity)])
    assert metrics.retrieval_top_k(similarity, 5) == expected
    assert metrics.retrieval_top_k(np.zeros((30, 30)), 5) == pytest.approx(5 / 30)  # ties give no advantage
    assert metrics.retrieval_top_k(np.eye(3), 1) == 1


def test_silhouette_agrees_with_its_reference() -> None:
    x, labels = RNG.normal(size=(60, 3)) + 100, RNG.integers(0, 4, 60)
    x[labels == 2] += 3
    labels[0] = 9  # alone
    assert metrics.silhouette(x, labels) == pytest.approx(reference.silhouette_score(x, labels), rel=1e-9)


@pytest.mark.parametrize("n", [500, 8])
def test_participation_ratio_is_that_of_the_eigenvalues(n: int) -> None:
    x = RNG.normal(size=(n, 20)) * np.linspace(1, 3, 20)
    values = np.linalg.eigvalsh(np.cov(x.T))
    assert metrics.participation_ratio(x) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-9)
    line = RNG.normal(size=(n, 1)) * np.ones(20)
    assert metrics.participation_ratio(line) == pytest.approx(1)
    assert metrics.participation_ratio(np.concatenate([np.eye(7), -np.eye(7)])) == pytest.approx(7)


def test_frechet_distance_agrees_with_matrix_roots_and_its_closed_form() -> None:
    x, y = RNG.normal(size=(200, 4)) @ RNG.normal(size=(4, 4)), 1 + RNG.normal(size=(150, 4)) @ RNG.normal(size=(4, 4))
    a, b = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)
    # Stretched by s and moved by m along each axis: (s - 1)^2 of the variance, and m^2.
    stretched = x * 3 + 2
    moved = ((stretched.mean(0) - x.mean(0)) ** 2).sum()
    assert metrics.frechet_distance(x, stretched) == pytest.approx(4 * np.trace(a) + moved, rel=1e-8)
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_precision_and_recall_agree_with_a_loop_over_neighbours() -> None:
    real, made = RNG.normal(size=(80, 2)), RNG.normal(size=(60, 2)) * 0.4 + 0.5

    def share_inside(points: np.ndarray, of: np.ndarray) -> float:
        reach = NearestNeighbors(n_neighbors=4).fit(of).kneighbors(of)[0][:, 3]  # the first neighbour is the point itself
        return float(np.mean([any(cdist(p[None], of)[0] <= reach) for p in points]))

    precision, recall = metrics.precision_recall(real, made, k=3)
    assert (precision, recall) == (share_inside(made, real), share_inside(real, made))
    assert precision > recall + 0.2  # a narrow generator is precise and misses much
    assert metrics.precision_recall(real, made + 50) == (0, 0)
    assert metrics.precision_recall(real, real) == (1, 1)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.retrieval_top_k(np.zeros((3, 2)), 1), "a column for each row"),
        (lambda: metrics.retrieval_top_k(np.eye(3), 4), "k is 4"),
        (lambda: metrics.silhouette(np.eye(3), np.zeros(3)), "two labels at least"),
        (lambda: metrics.participation_ratio(np.ones((4, 2))), "no direction has variance"),
        (lambda: metrics.precision_recall(np.eye(3), np.eye(3), k=3), "smaller than both"),
        (lambda: metrics.frechet_distance(np.full((3, 2), np.nan), np.eye(2)), "6 NaN"),
    ],
)
def test_clouds_without_a_score_are_refused(call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
