"""Windows that hold the same stretch of data, whatever was done to it: looked up by hashes of short frames, proven by correlation.

Frames of a few samples are turned into bits by random planes (Charikar 2002), and each frame looks at its nearest
neighbours among the sorted codes, from several places of the code on (LSH forest: Bawa, Condie & Ganesan 2005): the cost
grows with the number of windows, not its square. Each pair of windows found so is correlated where it overlaps. Two series
that rise and fall slowly correlate by chance, so a pair counts by its surprise: the correlation in deviations of what
unrelated series of these autocorrelations give (Bartlett 1946; Clifford, Richardson & Hemon 1989).

Shapes: N windows, T samples of a trace, K series, F frames.
"""

from typing import NamedTuple

import numpy as np

from neurofm_ml.evaluation.audit.traces import Traces
from neurofm_ml.types import Array

#: Samples in a frame; every so many samples a frame of the windows that are looked for.
FRAME, HOP = 16, 4
#: Bits of a code, in words of 64; places it is sorted from; neighbours on either side; bits that may differ.
BITS, TREES, NEAR, MOST_DIFFERENT = 128, 8, 8, 44
#: Candidates that are correlated per window.
CANDIDATES = 8
#: Frames looked up at once.
CHUNK = 1 << 15
#: Correlations above this, .976, count no more: heartbeats and saccades are of few shapes, and two that are nearly equal
#: need as many independent samples as two that are alike.
MOST_Z = 2.2
#: Windows overlap by this share of the shorter one at least.
LEAST_OVERLAP = 0.5


class Pairs(NamedTuple):
    """Windows that were found alike: places (n,) among the traces of either side, lag in samples, correlation, surprise."""

    a: Array
    b: Array
    lag: Array
    r: Array
    surprise: Array


def alike(a: Traces, b: Traces, view: slice, seed: int) -> Pairs:
    """The likest windows of `b` in `a`: CANDIDATES of each at most, whatever their likeness. Both are of one rate."""
    x, y = a.values[:, :, view], b.values[:, :, view]
    length = min(FRAME, x.shape[1], y.shape[1])
    own, at_a = _frames(x, length, 1)
    asked, at_b = _frames(y, length, HOP)
    if not len(at_a) or not len(at_b):
        return Pairs(*(np.empty(0) for _ in Pairs._fields))
    planes = np.random.default_rng(seed).standard_normal((length * x.shape[2], BITS), np.float32)
    found = _ranked(_neighbours(_codes(own, planes), _codes(asked, planes), at_a, at_b), x.shape[1] + y.shape[1])
    return _correlated(x, y, *found)


def _frames(values: Array, length: int, hop: int) -> tuple[Array, Array]:
    """Frames as a view (N, n, K, length), and (F, 3): window, offset, place in the view, of those in which anything changes."""
    frames = np.lib.stride_tricks.sliding_window_view(values, length, axis=1)[:, ::hop]
    alive = np.abs(frames).max(axis=(2, 3)) > 0
    window, place = np.nonzero(alive)
    return frames, np.stack([window, place * hop, place], axis=1).astype(np.int32)


def _codes(frames: Array, planes: Array) -> Array:
    """(N, n, BITS // 64) uint64: on which side of each plane a centred frame lies."""
    n, m, k, length = frames.shape
    codes = np.empty((n, m, BITS // 64), np.uint64)
    step = max(1, CHUNK // m)
    for i in range(0, n, step):
        part = frames[i : i + step] - frames[i : i + step].mean(axis=3, keepdims=True)
        bits = part.reshape(-1, k * length) @ planes > 0
        codes[i : i + step] = np.packbits(bits, axis=1).view(np.uint64).reshape(-1, m, BITS // 64)
    return codes


def _neighbours(own: Array, asked: Array, at_a: Array, at_b: Array) -> Array:
    """(n, 4): window of a, window of b, lag, bits in common, of frames that are near each other in some tree."""
    own, asked = own[at_a[:, 0], at_a[:, 2]], asked[at_b[:, 0], at_b[:, 2]]
    found = []
    for tree in range(TREES):
        keys, wanted = _rotated(own, tree), _rotated(asked, tree)
        order = np.argsort(keys)
        place = np.searchsorted(keys[order], wanted)
        for i in range(0, len(wanted), CHUNK):
            near = np.clip(place[i : i + CHUNK, None] + np.arange(-NEAR, NEAR), 0, len(order) - 1)
            j = order[near]
            differ = np.bitwise_count(own[j] ^ asked[i : i + CHUNK, None]).sum(axis=2)
            q, c = np.nonzero(differ <= MOST_DIFFERENT)
            left, right = at_a[j[q, c]], at_b[i + q]
            found.append(np.stack([left[:, 0], right[:, 0], right[:, 1] - left[:, 1], BITS - differ[q, c]], axis=1))
    return np.concatenate(found).astype(np.int64)


def _rotated(codes: Array, tree: int) -> Array:
    """(F,) the first 64 bits of a code read from the tree's place on, as numbers that sort by their leading bits."""
    start = tree * BITS // TREES
    raw = np.roll(codes.view(np.uint8), -(start // 8), axis=1)[:, :8]
    return np.ascontiguousarray(raw).view(">u8")[:, 0].astype(np.uint64)


def _ranked(found: Array, span: int) -> tuple[Array, Array, Array]:
    """(a, b, lag) of the CANDIDATES for each window of b whose frames have most bits in common, all frames together."""
    if not len(found):
        return found[:, 0], found[:, 1], found[:, 2]
    a, b, lag, common = found.T
    n_a = int(a.max()) + 1
    key = (b * n_a + a) * (2 * span) + lag + span
    keys, which = np.unique(key, return_inverse=True)
    votes = np.bincount(which, common - (BITS - MOST_DIFFERENT) + 1)
    pair, lag = keys // (2 * span), keys % (2 * span) - span
    b, a = pair // n_a, pair % n_a
    order = np.lexsort((-votes, b))
    first = np.searchsorted(b[order], b[order])
    kept = order[np.arange(len(order)) - first < CANDIDATES]
    return a[kept], b[kept], lag[kept]


def _correlated(x: Array, y: Array, a: Array, b: Array, lag: Array) -> Pairs:
    """Correlation and surprise of x[a] and y[b], sample t of the former beside sample t + lag of the latter.

    Pairs that overlap by too little, or are not alike, have neither.
    """
    overlap = np.minimum(x.shape[1], y.shape[1] - lag) - np.maximum(0, -lag)
    kept = overlap >= LEAST_OVERLAP * min(x.shape[1], y.shape[1])
    a, b, lag = a[kept], b[kept], lag[kept]
    r, surprise = np.zeros(len(a)), np.zeros(len(a))
    step = max(1, CHUNK // x.shape[1])
    for i in range(0, len(a), step):
        part = slice(i, i + step)
        r[part], surprise[part] = likeness(*_beside(x, y, a[part], b[part], lag[part]))
    return Pairs(a, b, lag, r, surprise)


def _beside(x: Array, y: Array, a: Array, b: Array, lag: Array) -> tuple[Array, Array, Array]:
    """x[a] and y[b] with the latter moved by lag, (n, T, K) each, and where both are, (n, T)."""
    at = np.arange(x.shape[1]) + lag[:, None]
    there = (at >= 0) & (at < y.shape[1])
    return x[a], y[b[:, None], np.clip(at, 0, y.shape[1] - 1)], there


def likeness(x: Array, y: Array, there: Array) -> tuple[Array, Array]:
    """Correlation (N,) over series and the samples `there` (N, T) of x and y (N, T, K), and its surprise (N,)."""
    samples = there.sum(axis=1)
    x, y = (np.where(there[..., None], v - (v * there[..., None]).sum(1, keepdims=True) / samples[:, None, None], 0) for v in (x, y))
    product = x * y
    total = product.sum((1, 2))
    r = total / np.sqrt(np.maximum((x**2).sum((1, 2)) * (y**2).sum((1, 2)), 1e-30))
    surprise = np.zeros(len(r))
    near = np.flatnonzero(r > 0)
    # A few large coincidences are no more than that many.
    terms = total[near] ** 2 / np.maximum((product[near] ** 2).sum((1, 2)), 1e-30)
    n = np.minimum(_independent(x[near], y[near], samples[near]), terms)
    surprise[near] = np.minimum(np.arctanh(np.clip(r[near], 0, 0.9999)), MOST_Z) * np.sqrt(np.maximum(n - 3, 0))
    return r, surprise


def _independent(x: Array, y: Array, samples: Array) -> Array:
    """(N,) independent pairs of numbers in x and y (N, T, K): 1 / variance of their correlation, were they unrelated."""
    rho_x, rho_y = _autocorrelation(x), _autocorrelation(y)
    in_time = samples / np.maximum(1 + 2 * (rho_x * rho_y).sum(axis=1), 1)
    cov_x, cov_y = (v.swapaxes(1, 2) @ v for v in (x, y))
    traces = np.trace(cov_x, axis1=1, axis2=2) * np.trace(cov_y, axis1=1, axis2=2)
    return np.asarray(in_time * traces / np.maximum((cov_x * cov_y).sum((1, 2)), 1e-30))


def _autocorrelation(x: Array) -> Array:
    """(N, T - 1) from lag 1 on, of all series together, damped as the number of terms."""
    t = x.shape[1]
    spectrum = np.fft.rfft(x, 2 * t, axis=1)
    rho = np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=2), 2 * t, axis=1)[:, :t]
    return np.asarray(rho[:, 1:] / np.maximum(rho[:, :1], 1e-30))
