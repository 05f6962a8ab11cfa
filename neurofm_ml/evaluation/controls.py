"""Controls: what would a decoder score that knows nothing of the target at that time?

Two forms, both keep the slow time course of neural activity and behaviour:

- fitted again (`rolled`): labels are rolled by half of each block, and the whole method, tuning
  included, is run on them. It finds leaks in the pipeline. Used wherever fitting is cheap.
- shifted predictions (`shifted_r2`): the predictions of a fitted decoder against the target at every
  circular shift. Its null gives the p of every row. Plain R2 would punish a shifted prediction for
  having any variance, so as a control value each shift is rescaled to fit best (`best_r2`): chance
  is then 1 / (effective number of bins), just above 0.

Shapes: T bins, K target columns.
"""

import numpy as np

from neurofm_ml.data.predictions import Prediction
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
    """Control score, and the p of the score against circular shifts of the predictions.

    The control is the one fitted again where the prediction has it, else that of the shifts.
    """
    plain, best = shifted_r2(*prediction.scored)
    least = max(int(LEAST_SHIFT * len(plain)), 1)
    null = slice(least, len(plain) - least + 1)
    control = prediction.control if np.isfinite(prediction.control) else float(best[null].mean())
    return control, float((1 + (plain[null] >= plain[0]).sum()) / (1 + len(plain[null])))
