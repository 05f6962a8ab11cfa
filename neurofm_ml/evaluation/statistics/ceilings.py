"""How well could a perfect model do? Noise ceilings from responses to repeats of the same stimulus.

A perfect model knows the signal that the repeats share, and not their noise. With r the reliability of a response (share of
its variance that is signal), its R2 is r, and its correlation is sqrt(r). Reliability is that of halves of the trials against each
other, brought to one trial or to the mean of all by the formula of Spearman and Brown (1910).

Shapes: R trials, T bins (stimuli), K columns, H random halvings.
"""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.statistics.resampling import LEVEL
from neurofm_ml.types import Array, Check

#: Random halvings of the trials.
HALVINGS = 200


class Ceiling(NamedTuple):
    """The best score that a model can have, with its 95 % interval."""

    value: float
    low: float
    high: float


def noise_ceiling(trials: Array, metric: Literal["r2", "pearson"], of: Literal["trial", "mean"] = "trial", seed: int = 0) -> Ceiling:
    """Ceiling of a prediction that is scored on single trials of (R, T, K), or on the mean over all; mean over columns.

    The interval is value +- t * SE with R - 1 degrees of freedom, SE by leaving out one trial after the other (a bootstrap would put
    a trial in both halves and find it reliable).
    """
    from scipy import stats

    n = len(trials)
    if n < 3:
        raise ValueError(f"there are {n} trials; a noise ceiling needs three, better ten, of the same stimulus.")
    products = _products(trials)
    found = _ceiling(products, metric, of, n, seed)
    kept = np.array([np.delete(np.arange(n), i) for i in range(n)])
    left_out = np.array([_ceiling(products[:, rows[:, None], rows], metric, of, n, seed) for rows in kept])
    error = np.sqrt((n - 1) * left_out.var())
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * error)
    return Ceiling(found, max(found - half, 0.0), min(found + half, 1.0))


def reliability(trials: Array, seed: int = 0) -> Array:
    """(K,) share of the variance of a single trial of (R, T, K) that is signal: the mean over random halvings of the correlation of
    the halves' means, brought to one trial."""
    return _reliability(_products(trials), seed)


def _products(trials: Array) -> Array:
    """(K, R, R) products over time of centred trials: all that halves need."""
    centred = np.asarray(trials, np.float64) - np.mean(trials, axis=1, keepdims=True)
    return np.einsum("rtk,stk->krs", centred, centred, optimize=True)


def _reliability(products: Array, seed: int) -> Array:
    n = products.shape[1]
    half = n // 2
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (HALVINGS, 1)), axis=1)
    a, b = (np.eye(n)[orders[:, part]].sum(1) for part in (slice(half), slice(half, 2 * half)))
    ab, aa, bb = (((v @ products) * w).sum(2) for v, w in ((a, b), (a, a), (b, b)))
    if not (aa * bb).all():
        raise ValueError("a column does not vary over time in half of the trials; leave it out or give more trials.")
    return spearman_brown((ab / np.sqrt(aa * bb)).mean(1), 1 / half)


def _ceiling(products: Array, metric: str, of: str, n: int, seed: int) -> float:
    """That of one trial or of the mean of `n`, whatever number there is."""
    per_trial = _reliability(products, seed)
    of_response = np.clip(per_trial if of == "trial" else spearman_brown(per_trial, n), 0, 1)
    return float(np.mean(np.sqrt(of_response) if metric == "pearson" else of_response))


def spearman_brown(reliability: Array, factor: float) -> Array:
    """Reliability of the mean of `factor` times as many trials."""
    return np.asarray(factor * reliability / (1 + (factor - 1) * reliability))


def not_above_ceiling(table: pd.DataFrame) -> Check:
    """Whether no score of a scores table lies above its noise ceiling, its whole interval included: such a one is a leak, or its
    ceiling is wrong (the reliability without its square root for a correlation)."""
    known = table[np.isfinite(table.noise_ceiling)]
    above = known[known.ci_low > known.noise_ceiling]
    numbers = {
        "with_ceiling": len(known),
        "above": len(above),
        "largest_excess": float((known.value - known.noise_ceiling).max()) if len(known) else 0.0,
    }
    note = "; ".join(
        f"{r.dataset}/{r.recording}/{r.task} {r.method}: {r.value:.3f} above {r.noise_ceiling:.3f}" for r in above.itertuples()
    )
    return Check("not_above_ceiling", not len(above), "warn", numbers, "interval reaches below the ceiling", note)
