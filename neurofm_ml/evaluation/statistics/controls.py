"""Controls: what would a decoder score that knows nothing of the target at that time?

All forms keep the slow time course of neural activity and behaviour:

- fitted again (`rolled`): labels are rolled by half of each block, and the whole method, tuning
  included, is run on them. It finds leaks in the pipeline. Used wherever fitting is cheap.
- predictions as they are against truths that they do not know: those of other units, or of another time
  (`permutation.null_scores`). Chance is then that of the metric; its null gives the p of every row.
- of R2 of a series, at every circular shift (`shifted_r2`). Plain R2 would punish a shifted prediction for having any
  variance, so as a control value each shift is rescaled to fit best: chance is then 1 / (effective number of bins), just
  above 0.

Shapes: T bins, K target columns.
"""

import numpy as np

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.statistics.permutation import null_scores, permutation_p
from neurofm_ml.types import Array

#: Shifts shorter than this share of the block (either way round) still carry the true alignment.
LEAST_SHIFT = 0.1


def rolled(values: Array) -> Array:
    """Values (T, ...) rolled in time by half their length."""
    return np.roll(values, len(values) // 2, axis=0)


def shifted_r2(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Mean R2 over columns, as it is and rescaled to fit best, of `y_pred` (T, K) at every circular shift.

    Both (T,); entry s has ``np.roll(y_pred, s, axis=0)``, entry 0 is no shift.
    """
    y, p = (np.asarray(v, np.float64) - v.mean(0) for v in (y_true, y_pred))
    offset = len(y) * (np.mean(y_true, 0) - np.mean(y_pred, 0)) ** 2
    cross = np.fft.irfft(np.fft.rfft(y, axis=0) * np.conj(np.fft.rfft(p, axis=0)), len(y), axis=0)
    yy, pp = (y**2).sum(0), (p**2).sum(0)
    plain = 1 - (yy + pp + offset - 2 * cross) / yy
    best = cross**2 / (yy * np.maximum(pp, np.finfo(np.float64).tiny))
    return plain.mean(1), best.mean(1)


def control_and_p(prediction: Prediction) -> tuple[float, float]:
    """Control score, and the p of the score against chance.

    The control is the one fitted again where the prediction has it, else what the predictions get against truths that they do not
    know: at every circular shift for R2 of a series, else under `permutation.null_scores`.
    """
    if prediction.metric == "r2" and prediction.units is None:
        plain, best = shifted_r2(*prediction.scored)
        least = max(int(LEAST_SHIFT * len(plain)), 1)
        among = slice(least, len(plain) - least + 1)
        observed, null, unfitted = float(plain[0]), plain[among], float(best[among].mean())
    else:
        observed, null = prediction.score.sign * prediction.value, null_scores(prediction)
        unfitted = prediction.score.sign * float(null.mean())
    return prediction.control if np.isfinite(prediction.control) else unfitted, permutation_p(observed, null)


def above_chance(prediction: Prediction) -> float:
    """How far the control that was fitted again lies above chance, in deviations of the null; 0 without one.

    Chance is what an answer without knowledge gets, or, where that is more, the mean of the null.
    """
    sign, null = prediction.score.sign, null_scores(prediction)
    chance = max(sign * prediction.score.at_chance(prediction.scored[0]), float(null.mean()))
    excess = sign * prediction.control - chance
    return 0.0 if not excess > 0 else float(excess / max(null.std(), np.finfo(float).tiny))
