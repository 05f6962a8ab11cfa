"""Connectivity against numpy and scikit-learn; tangent space by its geometry; filters by sines."""

import numpy as np
import pytest

from neurofm_ml.evaluation.readouts.connectivity import TangentSpace, band_passed, correlations, covariance, without_global_signal


@pytest.fixture
def scan() -> np.ndarray:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(90, 6)) @ rng.normal(size=(6, 6))
    return mixed * 50 + 1000


def test_correlations_are_numpys(scan):
    expected = np.arctanh(np.corrcoef(scan.T)[np.triu_indices(6, 1)])
    assert np.allclose(correlations(scan), expected)


def test_a_region_that_never_moves_goes_with_nobody(scan):
    scan[:, 2] = 7.0
    found = correlations(scan)
    rows, columns = np.triu_indices(6, 1)
    assert not found[(rows == 2) | (columns == 2)].any()
    assert found[(rows != 2) & (columns != 2)].all()


@pytest.mark.parametrize("n", [8, 90])
def test_covariance_is_shrunk_as_by_scikit_learn(scan, n):
    from sklearn.covariance import ledoit_wolf

    short = scan[:n]
    z = (short - short.mean(0)) / short.std(0)
    expected, _ = ledoit_wolf(z, assume_centered=True)
    assert np.allclose(covariance(short), expected)


def covariances(n: int, r: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.cov(rng.normal(size=(r, 40))) for _ in range(n)]


def test_around_the_identity_it_is_the_logarithm():
    (c,) = covariances(1, 4)
    values, vectors = np.linalg.eigh(c)
    log = vectors @ np.diag(np.log(values)) @ vectors.T
    vector = TangentSpace(np.eye(4))([c])[0]
    assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(log))
    assert np.allclose(vector[[0, 4, 7, 9]], np.diag(log))


def test_the_reference_is_the_origin_and_mixing_channels_keeps_distances():
    """A linear mixing of the channels turns the space and changes no length (affine invariance)."""
    them = covariances(5, 4)
    mixing = np.random.default_rng(1).normal(size=(4, 4))
    mixed = [mixing @ c @ mixing.T for c in them]
    own, other = TangentSpace.around(them), TangentSpace.around(mixed)
    assert np.allclose(own([np.mean(them, 0)]), 0, atol=1e-10)
    assert np.allclose(np.linalg.norm(own(them), axis=1), np.linalg.norm(other(mixed), axis=1))


def test_without_its_global_signal_a_scan_does_not_go_with_it(scan):
    z = (scan - scan.mean(0)) / scan.std(0)
    rest = without_global_signal(scan)
    assert np.allclose(rest.T @ z.mean(1), 0, atol=1e-9)


def test_a_band_holds_its_own_sines():
    times = np.arange(300) * 2.0
    inside, below, above = (np.sin(2 * np.pi * hz * times) for hz in (0.05, 0.005, 0.2))
    found = band_passed(np.stack([inside + above + below, inside], 1), sfreq=0.5)
    assert np.corrcoef(found[:, 0], inside)[0, 1] > 0.999
