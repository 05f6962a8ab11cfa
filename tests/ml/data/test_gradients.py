"""Functional gradients: against the random walk written out, on planted communities, from training windows alone."""

import numpy as np
import pandas as pd
import pytest
from parcel_shards import DATA, communities, write_real, write_series

from neurofm_ml.data.gradients import compute_gradients, connectivity, diffusion_map
from neurofm_ml.types import Array


def by_hand(connections: Array, n: int) -> Array:
    """The same, parcel by parcel, with the eigenvectors of the random walk itself."""
    size = len(connections)
    strong = np.zeros_like(connections)
    for i, row in enumerate(connections):
        for j in np.flatnonzero(row >= np.percentile(row, 90)):
            strong[i, j] = max(row[j], 0)
    alike = np.ones((size, size))
    for i in range(size):
        for j in range(size):
            cosine = strong[i] @ strong[j] / np.linalg.norm(strong[i]) / np.linalg.norm(strong[j])
            alike[i, j] = 1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi
    density = np.diag(alike.sum(1) ** -0.5)
    walk = density @ alike @ density
    walk = walk / walk.sum(1, keepdims=True)
    values, vectors = np.linalg.eig(walk)
    order = np.argsort(-values.real)[: n + 1]
    modes = vectors[:, order].real / vectors[:, order[:1]].real
    return modes[:, 1:] / modes[:, 1:].std(0)


def test_equals_the_random_walk_written_out():
    z = connectivity(communities()[0])
    found, expected = diffusion_map(z, 3), by_hand(z, 3)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)
    np.testing.assert_array_equal(np.abs(found).max(0), found.max(0))


def test_planted_communities_are_told_apart():
    values, community = communities(200)
    gradients = diffusion_map(connectivity(values), 2)
    centres = np.stack([gradients[community == k].mean(0) for k in range(3)])
    nearest = np.linalg.norm(gradients[:, None] - centres, axis=2).argmin(1)
    assert (nearest == community).all()
    within = np.mean([gradients[community == k].std(0).max() for k in range(3)])
    assert np.linalg.norm(centres[0] - centres[1]) > 5 * within


def test_connectivity_of_a_constant_parcel_is_unknown():
    values, _ = communities(per_community=2)
    values[:, 1] = 3.0
    z = connectivity(values)
    assert np.isnan(z[1]).all()
    keep = np.arange(6) != 1
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(values.T)
    off = keep[:, None] & keep & ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(np.tanh(z[off]), expected[off], atol=1e-9)


# ---------------------------------------------------------------- from shards
def test_training_windows_alone_tell(tmp_path):
    """People outside of training have other communities: nothing of them is seen."""
    rng, (first, community) = np.random.default_rng(0), communities()
    places = rng.uniform(-60, 60, size=(24, 3))
    shards = write_series(tmp_path, "a", [communities(seed=i)[0] for i in range(12)], places)
    found = compute_gradients([shards], 2)
    train = set(pd.read_parquet(shards / "windows.parquet").query("split == 'train'").recording)
    others = [communities(seed=i)[0] if f"p{i:02d}" in train else rng.permuted(first, axis=1) for i in range(12)]
    again = compute_gradients([write_series(tmp_path, "b", others, places)], 2)
    assert {f"p{i:02d}" for i in range(12)} - train
    np.testing.assert_array_equal(found.values, again.values)
    np.testing.assert_allclose(found.places, places, rtol=1e-6)
    np.testing.assert_allclose(found.values.std(0), 1, rtol=1e-5)
    assert np.linalg.norm(found.values[community == 0].mean(0) - found.values[community == 1].mean(0)) > 1


def test_the_reference_is_the_placed_pool_with_most_windows_and_names_carry_the_rest(tmp_path):
    rng = np.random.default_rng(0)
    few = write_series(tmp_path, "few", [communities(40, 2, seed=i)[0] for i in range(3)], rng.uniform(-60, 60, size=(6, 3)))
    places = rng.uniform(-60, 60, size=(24, 3))
    shared = [write_series(tmp_path, name, [communities(seed=i)[0] for i in range(3)], places) for name in ("one", "two")]
    bare = write_series(tmp_path, "bare", [np.c_[communities(80, 2, seed=i)[0], np.zeros(80)] for i in range(3)], None)
    found = compute_gradients([few, bare, *shared], 8)
    np.testing.assert_allclose(found.places, places, rtol=1e-6)
    assert set(found.named) == {f"bare/one/bold/{i}" for i in range(6)}, "the seventh never varies"
    own = np.stack(list(found.named.values()))
    np.testing.assert_allclose(own.std(0), [1] * 5 + [0] * 3, atol=1e-4)


def test_a_parcel_whose_place_is_unknown_lends_nothing(tmp_path):
    places = np.random.default_rng(0).uniform(-60, 60, size=(24, 3))
    places[5] = np.nan
    found = compute_gradients([write_series(tmp_path, "a", [communities(seed=i)[0] for i in range(3)], places)], 2)
    np.testing.assert_allclose(found.places, np.delete(places, 5, 0), rtol=1e-6)
    assert found.values.shape == (23, 2)


@pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
def test_homologous_parcels_of_real_people_lie_together(tmp_path):
    """Parcels and their mirror images in the other hemisphere stand closer in gradients than parcels do by chance."""
    shards = write_real(tmp_path, "abide_nyu", [f"00509{i}" for i in range(52, 60)])
    found = compute_gradients([shards], 5)
    mirror = np.linalg.norm(found.places[:, None] * [-1, 1, 1] - found.places, axis=2)
    pairs = (np.abs(found.places[:, 0]) > 15) & (mirror.min(1) < 12)
    apart = np.linalg.norm(found.values[:, None] - found.values, axis=2)
    assert pairs.sum() > 40
    assert np.median(apart[pairs, mirror.argmin(1)[pairs]]) < 0.6 * np.median(apart[np.ix_(pairs, pairs)])
