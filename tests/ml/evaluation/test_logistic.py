"""Multinomial logistic regression against scikit-learn."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from neurofm_ml.evaluation.readouts.logistic import UNSEEN, logistic_readouts
from neurofm_ml.evaluation.readouts.readout import Path, indicators


@pytest.mark.parametrize(("n", "f"), [(90, 6), (40, 70)])
@pytest.mark.parametrize("n_seen", [2, 3])
def test_probabilities_are_those_of_scikit_learn(n: int, f: int, n_seen: int) -> None:
    """With more rows than features and with fewer; one class of those there are has no row."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, f)) * np.exp(rng.normal(size=f)) + 5
    places = np.argmax(x[:, :n_seen] + rng.normal(size=(n, n_seen)) - 5, axis=1) + 1
    rows, which = Path.of(x, indicators(places, n_seen + 1)), range(4, 15, 2)
    for k, found in zip(which, logistic_readouts(rows, places, n_seen + 1, which), strict=True):
        # Of two classes scikit-learn has one vector of weights, half of which each of ours has.
        strength = (2 if n_seen == 2 else 1) / rows.penalties[k]
        twin = LogisticRegression(C=strength, class_weight="balanced", tol=1e-8, max_iter=5000).fit(x - x.mean(0), places)
        said = softmax(found(x), axis=1)
        np.testing.assert_allclose(said[:, 1:], twin.predict_proba(x - x.mean(0)), atol=1e-3)
        assert said[:, 0].max() < np.exp(UNSEEN / 2)
