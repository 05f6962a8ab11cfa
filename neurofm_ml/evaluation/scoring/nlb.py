"""Scores of the Neural Latents Benchmark (Pei et al. 2021, arXiv 2109.04463), as its own evaluation defines them.

Shapes: B trials, T bins, N units, K behaviours, C conditions. Bins that are not to be scored hold NaN counts or behaviour.
"""

from collections.abc import Sequence

import numpy as np

from neurofm_ml import metrics
from neurofm_ml.types import Array

#: Penalties among which the velocity decoder chooses, by 5-fold cross-validation on the training trials.
PENALTIES = np.logspace(-4, 0, 9)


def co_bps(counts: Array, rates: Array) -> float:
    """Bits per spike of units (B, T, N) that the model did not see (co-smoothing); rates in expected spikes per bin.

    The same of all units in bins after those seen is forward prediction, fp-bps.
    """
    flat, said = (np.asarray(v, np.float64).reshape(-1, v.shape[-1]) for v in (counts, rates))
    return metrics.bits_per_spike(flat, said, mask=np.asarray(np.isfinite(flat).all(1)))


def velocity_r2(train_rates: Array, train_velocity: Array, rates: Array, velocity: Array) -> float:
    """Mean R2 over the K columns of velocity (B, T, K) decoded by ridge from the rates of all units (B, T, N) in the same bin."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    decoder = GridSearchCV(Ridge(), {"alpha": PENALTIES}).fit(*_known(train_rates, train_velocity))
    x, y = _known(rates, velocity)
    return metrics.r2(y, decoder.predict(x))


def _known(rates: Array, behaviour: Array) -> tuple[Array, Array]:
    """(bins, N) and (bins, K) where behaviour is known."""
    x, y = (np.asarray(v, np.float64).reshape(-1, v.shape[-1]) for v in (rates, behaviour))
    known = np.isfinite(y).all(1)
    return x[known], y[known]


def psth_r2(psth: Array, rates: Array, trials: Sequence[Array]) -> float:
    """Mean R2 over units of rates (B, T, N), averaged over the test trials of each condition, against the responses psth (C, T, N)
    of all conditions end to end. trials[c]: places of the trials of condition c; conditions without any are left out."""
    pairs = [(true, rates[places].mean(0)) for true, places in zip(psth, trials, strict=True) if len(places)]
    y, p = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return metrics.r2(y, p, mask=np.isfinite(y).all(1))


def nlb_scores(
    heldout: tuple[Array, Array],
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    forward: tuple[Array, Array] | None = None,
    psth: tuple[Array, Sequence[Array]] | None = None,
) -> dict[str, float]:
    """The benchmark's figures by their names.

    heldout: counts and rates of held-out units on test trials; train, test: rates of all units and velocity; forward: counts
    and rates of all units in the bins that follow; psth: responses, and the test trials of each condition.
    """
    scores = {"co-bps": co_bps(*heldout), "vel R2": velocity_r2(*train, *test)}
    if psth is not None:
        scores["psth R2"] = psth_r2(psth[0], test[0], psth[1])
    if forward is not None:
        scores["fp-bps"] = co_bps(*forward)
    return scores
