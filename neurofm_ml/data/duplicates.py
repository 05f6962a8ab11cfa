"""What was recorded twice: exact copies and stretches, copies that were filtered, resampled or made noisy, and people scanned twice.

Three looks at the signals themselves, of which each recording keeps a sketch of a few hundred kilobytes:

marks        the order of the heights of sixteen turning points in a row, hashed. It is the same under a shift in
             time, another gain, offset or rounding, and hardly ever the same twice by chance; several marks of two
             recordings at one and the same lag are one stretch of data.
trace        a few random mixtures of the channels at a low rate, correlated at every lag: finds what marks do not,
             copies that were filtered, resampled, or made noisy.
connectome   correlations between the regions of a scan less the group's (Finn et al. 2015, Nat Neurosci 18:1664):
             two scans of one person resemble each other far more than either resembles anyone else.

Shapes: T times, C channels, K mixtures, R recordings.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np

from neurofm_ml.data.grid import BEHAVIOUR
from neurofm_ml.data.splits import SHOWN
from neurofm_ml.types import Array, Recording, Series, Signal, SpikeTrain

#: Turning points in a mark, of which so many differ in height, and the distance over which the first is the highest.
MARK, MARK_VALUES, MARK_REACH = 16, 8, 8
#: Channels that are marked, and samples of all of them together.
MARKED_CHANNELS, MARKED_SAMPLES = 64, 4_000_000
#: Marks that agree on a lag make a stretch; a mark that comes more often than this says nothing.
LEAST_MARKS, MOST_ALIKE = 5, 10
#: Mixtures, their highest rate in Hz and length in samples; with fewer channels than mixtures the channels serve.
MIXTURES, TRACE_HZ, TRACE_LENGTH = 8, 32.0, 4096
#: Unrelated scans reach 0.4 at their best lag, of people who watch the same film too; a copy with as much noise as
#: signal reaches 0.7. A few channels can be alike by their rhythm or their drift alone.
ALIKE, ALIKE_FEW = 0.7, 0.95
#: Two recordings must overlap by this share of the shorter to be compared at a lag, and by so many samples.
LEAST_OVERLAP, LEAST_SAMPLES = 0.5, 40
#: A scan has a connectome with this many regions, a group with this many people has a mean of its own, and two scans
#: are of one person when they resemble each other by this much more than either resembles any other person. Among
#: 409 people of ABIDE the margin of strangers stays below 0.17, that of half scans of one person has a median of 0.24.
LEAST_REGIONS, LEAST_PEOPLE, MARGIN = 50, 10, 0.2


@dataclass(frozen=True, eq=False)
class Sketch:
    """One signal of one recording in short: trace (T, K) at `hz`, marks (n,) and their times (n,), connectome or None."""

    recording: str
    subject: str
    signal: str
    n_chans: int
    hz: float
    trace: Array
    marks: Array
    mark_times: Array
    connectome: Array | None


@dataclass(frozen=True)
class Repeat:
    """Two recordings that hold the same: "stretch" (of `seconds`), "copy" (correlated by `likeness`) or "person" (margin)."""

    kind: Literal["stretch", "copy", "person"]
    a: str
    b: str
    subjects: tuple[str, str]
    signal: str
    likeness: float
    lag_s: float
    seconds: float

    def __str__(self) -> str:
        what = {
            "stretch": f"the same {self.seconds:.3g} s",
            "copy": f"copies (r = {self.likeness:.2f})",
            "person": f"one person (margin {self.likeness:.2f})",
        }[self.kind]
        who = f", of {' and '.join(self.subjects)}" if self.subjects[0] != self.subjects[1] else ""
        return f"{self.a} and {self.b}: {what}{f' {self.lag_s:+.3g} s apart' if self.lag_s else ''}{who}"


def find_repeats(recordings: Iterable[Recording]) -> list[Repeat]:
    """Everything that any two of the recordings share."""
    return repeats([found for recording in recordings for found in sketch(recording)])


def sketch(recording: Recording) -> list[Sketch]:
    """A sketch of each neural signal: what was shown or done may well be the same for many."""
    measured = {name: s for name, s in recording.signals.items() if s.modality not in (*BEHAVIOUR, *SHOWN)}
    return [_sketch(recording, name, series) for name, series in measured.items() if _length(series) >= LEAST_SAMPLES]


def _length(series: Series) -> int:
    return len(series.times if isinstance(series, SpikeTrain) else series.values)


def _sketch(recording: Recording, name: str, series: Series) -> Sketch:
    marks, times = _marks(series)
    trace, hz = _trace(series)
    n_chans = len(series.unit_ids) if isinstance(series, SpikeTrain) else len(series.ch_names)
    regions = isinstance(series, Signal) and series.modality == "fmri" and n_chans >= LEAST_REGIONS
    scan = _connectome(np.asarray(series.values, np.float64)) if regions and isinstance(series, Signal) else None
    return Sketch(recording.id, recording.subject.id, name, n_chans, hz, trace, marks, times, scan)


def repeats(sketches: list[Sketch]) -> list[Repeat]:
    """What any two of the sketches share, the surest kind of each pair. Signals of one name are compared."""
    found: dict[tuple[str, str], Repeat] = {}
    for _, group in groupby(sorted(sketches, key=lambda s: s.signal), key=lambda s: s.signal):
        alike = list(group)
        for repeat in (*_stretches(alike), *_copies(alike), *persons(alike)):
            found.setdefault((repeat.a, repeat.b), repeat)
    return list(found.values())


# ---------------------------------------------------------------- marks
def _marks(series: Series) -> tuple[Array, Array]:
    """Hashes (n,) and times (n,) of the marks of a series."""
    found = [_marks_of(values, times) for times, values in _channels(series)]
    return np.concatenate([f[0] for f in found] or [np.empty(0, np.uint64)]), np.concatenate([f[1] for f in found] or [np.empty(0)])


def _channels(series: Series) -> Iterator[tuple[Array, Array]]:
    """(times, values) of each channel that is marked; of a unit, the intervals between its spikes."""
    if isinstance(series, SpikeTrain):
        order = np.argsort(series.unit_index, kind="stable")
        units, times = np.asarray(series.unit_index)[order], np.asarray(series.times)[order]
        for own in np.split(times, np.flatnonzero(np.diff(units)) + 1):
            yield own[1:], np.diff(own)
        return
    c = len(series.ch_names)
    chosen = np.unique(np.linspace(0, c - 1, min(c, MARKED_CHANNELS)).astype(int))
    values = np.asarray(series.values[: max(MARKED_SAMPLES // len(chosen), 1)])[:, chosen]
    n = len(values)
    times = series.t0 + np.arange(n) / series.sfreq if isinstance(series, Signal) else series.times[:n]
    yield from ((times, column) for column in values.T)


def _marks_of(values: Array, times: Array) -> tuple[Array, Array]:
    """Marks of one channel (T,): ranks of MARK turning points from one that is the highest about it."""
    moves = np.flatnonzero(np.diff(values) != 0)
    slope = np.sign(np.diff(values)[moves])
    turns = moves[1:][slope[1:] != slope[:-1]]
    heights = values[turns]
    n = len(heights) - MARK
    if n <= MARK_REACH or not np.isfinite(values).all():
        return np.empty(0, np.uint64), np.empty(0)
    windows = np.lib.stride_tricks.sliding_window_view(heights, 2 * MARK_REACH + 1)
    first = np.flatnonzero(windows.argmax(axis=1) == MARK_REACH) + MARK_REACH
    rows = heights[first[first < n, None] + np.arange(MARK)]
    order = np.argsort(rows, axis=1, kind="stable")
    varied = (np.diff(np.take_along_axis(rows, order, axis=1), axis=1) != 0).sum(axis=1) >= MARK_VALUES
    weights = np.random.default_rng(0).integers(1, 2**63, MARK, dtype=np.uint64)
    return (order.astype(np.uint64) * weights).sum(axis=1)[varied], times[turns[first[first < n]]][varied]


def _stretches(sketches: list[Sketch]) -> Iterator[Repeat]:
    """Pairs with LEAST_MARKS marks at one lag: the longest such stretch of each pair."""
    longest: dict[tuple[int, int], tuple[float, list[float]]] = {}
    for (a, b, lag), at in _agreeing(sketches).items():
        if len(at) > len(longest.get((a, b), (0.0, []))[1]):
            longest[a, b] = lag / 1000, at
    for (a, b), (lag_s, at) in longest.items():
        if len(at) >= LEAST_MARKS:
            yield _repeat("stretch", sketches[a], sketches[b], 1.0, lag_s, max(at) - min(at))


def _agreeing(sketches: list[Sketch]) -> dict[tuple[int, int, int], list[float]]:
    """(first, second, lag in milliseconds) -> times, in the first, of the marks that the two share at that lag."""
    owner = np.repeat(np.arange(len(sketches)), [len(s.marks) for s in sketches])
    marks, times = (np.concatenate([getattr(s, what) for s in sketches]) for what in ("marks", "mark_times"))
    _, which, often = np.unique(marks, return_inverse=True, return_counts=True)
    kept = np.flatnonzero((often[which] > 1) & (often[which] <= MOST_ALIKE))
    kept = kept[np.argsort(which[kept], kind="stable")]
    which, times, owner = which[kept], times[kept], owner[kept]
    shared: dict[tuple[int, int, int], list[float]] = {}
    for shift in range(1, MOST_ALIKE):
        for i in np.flatnonzero((which[shift:] == which[:-shift]) & (owner[shift:] != owner[:-shift])).tolist():
            # Sketches are in order, and so are equal marks.
            a, b = int(owner[i]), int(owner[i + shift])
            lag = round(float(times[i + shift] - times[i]) * 1000)
            shared.setdefault((a, b, lag), []).append(float(times[i]))
    return shared


# ---------------------------------------------------------------- traces
def _trace(series: Series) -> tuple[Array, float]:
    """Mixtures (T, K) of the standardised channels of a series, and their rate."""
    if isinstance(series, SpikeTrain):
        hz, start = TRACE_HZ / 4, series.span[0]
        bins = np.floor((series.times - start) * hz).astype(int)
        inside = bins < TRACE_LENGTH
        values = np.zeros((int(bins[inside].max(initial=0)) + 1, len(series.unit_ids)))
        np.add.at(values, (bins[inside], np.asarray(series.unit_index)[inside]), 1.0)
        return _mixed(values), hz
    sfreq = series.sfreq if isinstance(series, Signal) else 1 / float(np.median(np.diff(series.times)))
    hz = min(sfreq, TRACE_HZ)
    values = np.nan_to_num(np.asarray(series.values[: round(TRACE_LENGTH * sfreq / hz)], np.float64))
    return _mixed(_at_rate(values, sfreq, hz)), hz


def _mixed(values: Array) -> Array:
    """(T, K) float32: what channels (T, C) share is taken out, so that a mixture is of what tells recordings apart."""
    c = values.shape[1]
    standard = _standard(values)
    if c < MIXTURES:
        return standard.astype(np.float32)
    mixing = np.random.default_rng(c).normal(size=(c, MIXTURES))
    return _standard((standard - standard.mean(axis=1, keepdims=True)) @ mixing).astype(np.float32)


def _standard(values: Array) -> Array:
    sd = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(sd > 0, sd, np.inf))


def _at_rate(values: Array, sfreq: float, hz: float) -> Array:
    """Means of values (T, C) over bins of ``1 / hz`` seconds."""
    n = int(len(values) * hz / sfreq + 1e-9)
    if n == len(values):
        return values
    total = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    edges = np.minimum(np.arange(n + 1) * sfreq / hz, len(values))
    at = np.stack([np.interp(edges, np.arange(len(total)), column) for column in total.T], axis=1)
    return np.asarray(np.diff(at, axis=0) * hz / sfreq)


def _copies(sketches: list[Sketch]) -> Iterator[Repeat]:
    """Pairs of as many channels whose traces correlate at some lag."""
    for _, group in groupby(sorted(sketches, key=lambda s: s.n_chans), key=lambda s: s.n_chans):
        yield from _copies_among(list(group))


def _copies_among(sketches: list[Sketch]) -> Iterator[Repeat]:
    hz = min(s.hz for s in sketches)
    traces = [_standard(_at_rate(s.trace.astype(np.float64), s.hz, hz)) for s in sketches]
    lengths = np.array([len(t) for t in traces])
    n = 2 ** int(np.ceil(np.log2(2 * lengths.max())))
    spectra = np.stack([np.fft.rfft(t, n, axis=0).astype(np.complex64) for t in traces])
    lags = np.arange(n) - n * (np.arange(n) > n // 2)
    limit = ALIKE if sketches[0].n_chans >= MIXTURES else ALIKE_FEW
    for i in range(len(sketches) - 1):
        product = np.einsum("fk,jfk->jf", spectra[i].conj(), spectra[i + 1 :])
        r = np.fft.irfft(product, n, axis=1) / traces[i].shape[1]
        overlap = np.minimum(lengths[i] + lags, lengths[i + 1 :, None]) - np.maximum(lags, 0)
        least = np.maximum(LEAST_OVERLAP * np.minimum(lengths[i], lengths[i + 1 :]), LEAST_SAMPLES)[:, None]
        r = np.where(overlap >= least, r / np.maximum(overlap, 1), 0.0)
        for j in np.flatnonzero(r.max(axis=1) >= limit):
            at = int(r[j].argmax())
            yield _repeat("copy", sketches[i], sketches[i + 1 + j], float(r[j, at]), lags[at] / hz, overlap[j, at] / hz)


# ---------------------------------------------------------------- people
def _connectome(values: Array) -> Array:
    """Fisher z of the correlations between all pairs of regions; values (T, C)."""
    standard = _standard(values)
    upper = np.triu_indices(values.shape[1], 1)
    return np.arctanh(np.clip((standard.T @ standard)[upper] / len(values), -0.999, 0.999)).astype(np.float32)


def persons(sketches: list[Sketch]) -> Iterator[Repeat]:
    """Pairs of subjects whose scans resemble each other more than either resembles anyone else, by MARGIN."""
    for _, group in groupby(sorted(sketches, key=lambda s: s.n_chans), key=lambda s: s.n_chans):
        scans = [s for s in group if s.connectome is not None]
        if len({s.subject for s in scans}) >= LEAST_PEOPLE:
            yield from _persons_among(scans)


def _persons_among(scans: list[Sketch]) -> Iterator[Repeat]:
    own = np.stack([s.connectome for s in scans if s.connectome is not None])
    own = own - own.mean(axis=0)
    own = own - own.mean(axis=1, keepdims=True)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    likeness = own @ own.T
    subjects = np.array([s.subject for s in scans])
    likeness[subjects[:, None] == subjects[None]] = -1.0
    best = likeness.argmax(axis=1)
    for i in np.flatnonzero(best[best] == np.arange(len(best))).tolist():
        j = int(best[i])
        if i < j:
            others = [likeness[k, ~np.isin(subjects, [subjects[i], subjects[j]])].max() for k in (i, j)]
            margin = float(likeness[i, j] - max(others))
            if margin >= MARGIN:
                yield _repeat("person", scans[i], scans[j], margin, 0.0, 0.0)


def _repeat(kind: Any, a: Sketch, b: Sketch, likeness: float, lag_s: float, seconds: float) -> Repeat:
    return Repeat(kind, a.recording, b.recording, (a.subject, b.subject), a.signal, likeness, float(lag_s), float(seconds))
