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

from neurofm_ml.types import Array

#: Every so many samples, a frame of the windows that are looked for is looked up.
HOP = 4
#: Bits of a code, in words of 64; places it is sorted from; neighbours on either side; bits that may differ.
BITS, TREES, NEAR, MOST_DIFFERENT = 128, 16, 8, 44
#: Candidates that are correlated per window.
CANDIDATES = 16
#: Frames looked up at once.
CHUNK = 1 << 15
#: Correlations above this, .976, count no more: heartbeats and saccades are of few shapes, and two that are nearly equal
#: need as many independent samples as two that are alike.
MOST_Z = 2.2
#: Windows overlap by this share of the shorter one at least.
LEAST_OVERLAP = 0.5


class Coded(NamedTuple):
    """Traces and the codes of their frames: values (N, T, K), 0 past the length (N,) of each; codes (F, words), and window and offset (F, 2)."""

    values: Array
    length: Array
    codes: Array
    at: Array


class Pairs(NamedTuple):
    """Windows that were found alike: places (n,) among the traces, lag in samples, correlation, surprise."""

    a: Array
    b: Array
    lag: Array
    r: Array
    surprise: Array


def coded(values: Array, length: Array, frame: int, seed: int) -> Coded:
    """Frames of so many samples of values (N, T, K), from every sample on, on the sides of random planes."""
    n, t, k = values.shape
    planes = np.random.default_rng(seed).standard_normal((k * frame, BITS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(values, frame, axis=1)
    codes, places = [], []
    step = max(1, CHUNK // frames.shape[1])
    for i in range(0, n, step):
        part = frames[i : i + step]
        inside = np.arange(t - frame + 1) + frame <= length[i : i + step, None]
        window, offset = np.nonzero(inside & (np.abs(part).max(axis=(2, 3)) > 0))
        chosen = part[window, offset]
        bits = (chosen - chosen.mean(axis=2, keepdims=True)).reshape(-1, k * frame) @ planes > 0
        codes.append(np.packbits(bits, axis=1).view(np.uint64))
        places.append(np.stack([window + i, offset], axis=1).astype(np.int32))
    return Coded(values, length, np.concatenate(codes), np.concatenate(places))


def alike(of: Coded, early: Array, late: Array) -> Pairs:
    """The likest windows of each in `late` (N,) among those in `early` (N,): CANDIDATES at most, however like they are."""
    own = early[of.at[:, 0]]
    asked = np.flatnonzero(late[of.at[:, 0]] & (of.at[:, 1] % HOP == 0))
    found = [Pairs(*np.empty((3, 0), int), *np.empty((2, 0)))]
    if own.any():
        forest = _Forest(of.codes[own], of.at[own])
        for some in _by_window(asked, of.at[asked, 0]):
            found.append(_correlated(of, *_ranked(forest.near(of.codes[some], of.at[some]), 2 * of.values.shape[1])))
    return Pairs(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _by_window(frames: Array, window: Array) -> list[Array]:
    """Frames (n,) in parts of about CHUNK that divide no window."""
    starts = np.flatnonzero(np.diff(window, prepend=-1))
    return np.split(frames, np.unique(starts[np.searchsorted(starts, np.arange(CHUNK, len(frames), CHUNK), side="right") - 1]))


class _Forest:
    """Codes (F, words) of frames at (F, 2), sorted from each tree's place on."""

    def __init__(self, codes: Array, at: Array) -> None:
        self.codes, self.at = codes, at
        self.orders = [np.argsort(_rotated(codes, tree)).astype(np.int32) for tree in range(TREES)]
        self.keys = [_rotated(codes, tree)[order] for tree, order in enumerate(self.orders)]

    def near(self, codes: Array, at: Array) -> Array:
        """(n, 4): window here, window asked for, lag, bits in common, of frames that are near each other in some tree."""
        found = []
        for tree, (order, keys) in enumerate(zip(self.orders, self.keys, strict=True)):
            place = np.searchsorted(keys, _rotated(codes, tree))
            j = order[np.clip(place[:, None] + np.arange(-NEAR, NEAR), 0, len(order) - 1)]
            differ = np.bitwise_count(self.codes[j] ^ codes[:, None]).sum(axis=2)
            q, c = np.nonzero(differ <= MOST_DIFFERENT)
            left, right = self.at[j[q, c]], at[q]
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


def _correlated(of: Coded, a: Array, b: Array, lag: Array) -> Pairs:
    """Correlation and surprise of windows a and b, sample t of the former beside sample t + lag of the latter, where they overlap enough."""
    length_a, length_b = of.length[a], of.length[b]
    overlap = np.minimum(length_a, length_b - lag) - np.maximum(0, -lag)
    kept = overlap >= LEAST_OVERLAP * np.minimum(length_a, length_b)
    a, b, lag = a[kept], b[kept], lag[kept]
    r, surprise = np.zeros(len(a)), np.zeros(len(a))
    step = max(1, CHUNK // of.values.shape[1])
    for i in range(0, len(a), step):
        part = slice(i, i + step)
        r[part], surprise[part] = likeness(*_beside(of, a[part], b[part], lag[part]))
    return Pairs(a, b, lag, r, surprise)


def _beside(of: Coded, a: Array, b: Array, lag: Array) -> tuple[Array, Array, Array]:
    """Windows a and b with the latter moved by lag, (n, T, K) each, and where both are, (n, T)."""
    at = np.arange(of.values.shape[1])
    moved = at + lag[:, None]
    there = (at < of.length[a, None]) & (moved >= 0) & (moved < of.length[b, None])
    return of.values[a], of.values[b[:, None], np.clip(moved, 0, len(at) - 1)], there


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
