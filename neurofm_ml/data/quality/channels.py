"""What channels show beside each other: how much they move, which are noisy, alone, or the same one twice.

Shapes: T times, C channels. The robust rules follow PREP (Bigdely-Shamlo et al. 2015, Front Neuroinform 9:16).
"""

import numpy as np

from neurofm_ml.types import Array

#: A channel is noisy when its log deviation is this many robust deviations above the others' ...
NOISY_Z = 5.0
#: ... of which one is at least this (channels of one array differ by a sixth anyway) ...
LEAST_SPREAD = 0.15
#: ... and no other channel resembles it this much: an eye channel is large too, but its neighbours see the eyes.
NOISY_R = 0.4
#: A channel is alone when nothing resembles it beyond chance in an array whose channels otherwise have such a neighbour.
ALONE_Z, NEIGHBOUR_R = 4.0, 0.5
#: Least channels for a channel to be called odd.
LEAST_CHANNELS = 8
#: Two channels are one when they correlate beyond this, whatever their gains.
SAME_R = 1 - 1e-6
#: Samples that channels are compared on.
N_COMPARED = 8192


def movement(parts: list[Array]) -> dict[str, float]:
    """Typical deviation in the signal's unit, and noise as a share of it (deviation of the steps over root two: 1 for
    white noise), both robust."""
    deviation = _robust_sd(np.concatenate(parts))
    steps = _robust_sd(np.concatenate([np.diff(part, axis=0) for part in parts]))
    return {
        "amplitude": float(np.median(deviation)),
        "noise": float(np.median(steps / np.maximum(deviation, 1e-300)) / np.sqrt(2)),
    }


def odd_channels(parts: list[Array], sensors: bool) -> dict[str, Array]:
    """Which channels (C,) repeat an earlier one and, where they are `sensors` in one field, which are noisy or alone."""
    values = _few(parts)
    n, c = values.shape
    if n < 3 or c < 2:
        return {}
    r = np.abs(np.corrcoef(values, rowvar=False))
    np.fill_diagonal(r, 0.0)
    odd = {"repeated": (np.triu(r) > SAME_R).any(axis=0)}
    if not sensors or c < LEAST_CHANNELS:
        return odd
    best, size = r.max(axis=0), np.log(np.maximum(_robust_sd(values), 1e-300))
    z = (size - np.median(size)) / max(float(_robust_sd(size[:, None])[0]), LEAST_SPREAD)
    chance = ALONE_Z / np.sqrt(n)
    alone = (best < chance) & (np.median(best) > max(NEIGHBOUR_R, 2 * chance))
    return {**odd, "noisy": (z > NOISY_Z) & (best < NOISY_R), "lone": alone}


def _few(parts: list[Array]) -> Array:
    """At most N_COMPARED rows: the beginning of each part."""
    rows = max(N_COMPARED // len(parts), 1)
    return np.concatenate([part[:rows] for part in parts])


def _robust_sd(values: Array) -> Array:
    """(C,) 1.4826 times the median absolute deviation."""
    return np.asarray(1.4826 * np.median(np.abs(values - np.median(values, axis=0)), axis=0))
