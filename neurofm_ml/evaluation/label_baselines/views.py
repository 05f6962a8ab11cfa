"""Ways to look at the windows of a task: what is taken from each, and how that becomes rows of features.

Channels that some recordings lack are never guessed. Features of channels stand in a column each, and where a window has no
such channel, or it never moves there, the column holds the mean of the training rows. Features of pairs of channels are taken
among those that all windows have. Units and implanted electrodes belong to their session; caps, parcels and armbands have
the same channels in every session, by name.

Shapes: n rows (windows; recordings, where a person is asked about), C channels, M matrices, F features.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.readouts.connectivity import TangentSpace
from neurofm_ml.evaluation.tasks.label_tasks import LabelData
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import OWN_CHANNELS, Array, Signal

#: Deviations of less than this share of the mean are rounding.
ROUNDING = 1e-12

Session = tuple[str, str]


@dataclass(frozen=True)
class View:
    """`of` takes from a window a row of numbers for each of its "channels" (C, B), features (F,) of the channels that all windows
    "share", their covariances (M, C, C) as "tangent" vectors, or features (F,) of the whole "window" whatever its channels. Of
    covariances of more than `most` channels so many principal components are taken."""

    name: str
    of: Callable[[Signal], Array]
    over: Literal["channels", "shared", "tangent", "window"]
    most: int = 64


@dataclass(frozen=True, eq=False)
class Table:
    """split -> features x (n, F) of its rows, the row `place` that each of its windows is of, the `first` window (n,) of each row;
    and the seconds that were spent on a window."""

    x: Mapping[str, Array]
    place: Mapping[str, Array]
    first: Mapping[str, Array]
    seconds: float


# ---------------------------------------------------------------- which channels there are
def channels_of(data: LabelData) -> dict[Session, tuple[str, ...]]:
    """(dataset, session) -> what its channels are called among all sessions of the task."""
    found = {}
    for dataset, session in data.rows[["dataset", "session"]].drop_duplicates().itertuples(index=False):
        about = data.sources[dataset].channels[session]
        names = [(name, ch) for name in data.task.inputs for ch in about[name]["ch_names"]]
        own = any(about[name]["modality"] in OWN_CHANNELS for name in data.task.inputs)
        found[dataset, session] = tuple("/".join((dataset, session, *name) if own else name) for name in names)
    return found


def shared_channels(data: LabelData) -> list[str]:
    """The channels that all windows have."""
    first, *others = channels_of(data).values()
    return [name for name in first if all(name in other for other in others)]


def are_known(data: LabelData) -> bool:
    """Whether every window has channels that training windows have."""
    channels = channels_of(data)
    sessions = {split: set(own.itertuples(index=False, name=None)) for split, own in data.rows.groupby("split")[["dataset", "session"]]}
    seen = {name for session in sessions["train"] for name in channels[session]}
    return all(seen & set(channels[session]) for split in SPLITS for session in sessions[split])


# ---------------------------------------------------------------- rows of features
@lru_cache(maxsize=6)
def look(data: LabelData, view: View) -> Table:
    """What a view makes of all windows; means, deviations and references are those of training rows. The last views of a case are kept,
    for several baselines look at them."""
    places, firsts, raw, reading = {}, {}, {}, 0.0
    for split in SPLITS:
        rows = data.rows[data.rows.split == split]
        places[split], firsts[split] = _groups(data, rows)
        raw[split], seconds = _of_people(data, view, rows, places[split]) if data.task.of_subject else _of_windows(data, view, rows)
        reading += seconds
    began = time.perf_counter()
    x = _tangent(raw, view.most) if view.over == "tangent" else {split: values.reshape(len(values), -1) for split, values in raw.items()}
    x = _standardised(x, alike=view.over in ("tangent", "shared"))
    return Table(x, places, firsts, (reading + time.perf_counter() - began) / len(data.y))


def _groups(data: LabelData, rows: pd.DataFrame) -> tuple[Array, Array]:
    """The row (n windows,) that each window is of, and the first window (n rows,) of each row: recordings, for people."""
    if not data.task.of_subject:
        return np.arange(len(rows)), np.arange(len(rows))
    _, first, place = np.unique((rows.dataset + "/" + rows.recording).to_numpy(), return_index=True, return_inverse=True)
    return place, first


def _of_windows(data: LabelData, view: View, rows: pd.DataFrame) -> tuple[Array, float]:
    """(n, ...) the view of each window, and the seconds that took."""
    began, spread = time.perf_counter(), _spread(data, view)
    seen = map(spread, _taken(data, view, rows), _sessions(rows))
    return _averaged(seen, np.arange(len(rows)), len(rows)), time.perf_counter() - began


def _of_people(data: LabelData, view: View, rows: pd.DataFrame, place: Array) -> tuple[Array, float]:
    """(n people, ...) mean of the view over the windows of each one's recording, and the seconds that took when it was done: once for
    whoever is asked several questions, or stands on either side of several splits. Where splits cut recordings in time, each part has
    a mean of its own."""
    shared = tuple(shared_channels(data)) if view.over in ("shared", "tangent") else ()
    people = [own for _, own in rows.groupby(place)]
    first = rows.iloc[np.unique(place, return_index=True)[1]]
    known = [data.sources[dataset].means.setdefault((view, data.task.inputs, shared), {}) for dataset in first.dataset]
    windows = [tuple(own.key) for own in people]
    new = [k for k, keys in enumerate(windows) if keys not in known[k]]
    for k, found in zip(new, _means(data, view, [people[k] for k in new]), strict=True):
        known[k][windows[k]] = found
    means, seconds = zip(*(of[keys] for of, keys in zip(known, windows, strict=True)), strict=True)
    return np.stack([*map(_spread(data, view), means, _sessions(first))]), sum(seconds)


def _means(data: LabelData, view: View, people: Sequence[pd.DataFrame]) -> list[tuple[Array, float]]:
    """Mean of the view over the windows of each one, whose channels may be as many as nobody else's, and the seconds that took."""
    if not people:
        return []
    began = time.perf_counter()
    seen = _taken(data, view, pd.concat(people))
    means = [_averaged(islice(seen, len(own)), np.zeros(len(own), int), 1)[0] for own in people]
    seconds = (time.perf_counter() - began) / sum(map(len, people))
    return [(mean, seconds * len(own)) for mean, own in zip(means, people, strict=True)]


def _sessions(rows: pd.DataFrame) -> Iterator[Session]:
    return zip(rows.dataset, rows.session, strict=True)


def _taken(data: LabelData, view: View, rows: pd.DataFrame) -> Iterator[Array]:
    """The view of each window, of its own channels or of those that all have."""
    if view.over in ("window", "channels"):
        yield from map(view.of, data.read(rows))
        return
    shared = shared_channels(data)
    narrow = {session: [own.index(name) for name in shared] for session, own in channels_of(data).items()}
    for signal, session in zip(data.read(rows), _sessions(rows), strict=True):
        yield view.of(Signal(signal.values[:, narrow[session]], signal.sfreq, signal.modality, signal.t0))


def _spread(data: LabelData, view: View) -> Callable[[Array, Session], Array]:
    """Puts features (C, B) of the channels of a session where these stand among those of all, with NaN for the others; what is not of
    each channel stays as it is."""
    channels = channels_of(data)
    names = list(dict.fromkeys(name for own in channels.values() for name in own))
    column = {name: k for k, name in enumerate(names)}
    wide = {session: [column[name] for name in own] for session, own in channels.items()}

    def spread(seen: Array, session: Session) -> Array:
        found = np.full((len(names), seen.shape[1]), np.nan)
        found[wide[session]] = seen
        return found

    return spread if view.over == "channels" else lambda seen, session: seen


def _averaged(seen: Iterator[Array], place: Array, n: int) -> Array:
    """(n, ...) mean of what is known of each row's windows, NaN where nothing is."""
    total, count = np.empty(0), np.empty(0, np.int32)
    for row, values in zip(place, seen, strict=True):
        known = np.isfinite(values)
        if not total.size:
            total, count = np.zeros((n, *values.shape)), np.zeros((n, *values.shape), np.int32)
        total[row] += np.where(known, values, 0.0)
        count[row] += known
    total /= np.maximum(count, 1)
    total[count == 0] = np.nan
    return total


def _standardised(x: dict[str, Array], alike: bool) -> dict[str, Array]:
    """Deviations from the training mean, in each column's deviation or, of columns that are `alike`, in their common one. What is not
    known is 0; columns that no training row knows, or that stand still there, are dropped."""
    known = np.isfinite(x["train"])
    n = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x["train"], 0.0).sum(axis=0) / n
    deviation = np.sqrt((np.where(known, x["train"] - mean, 0.0) ** 2).sum(axis=0) / n)
    kept = deviation > ROUNDING * np.abs(mean)
    scale = np.sqrt((deviation[kept] ** 2).mean()) if alike and kept.any() else deviation[kept]
    return {split: np.nan_to_num((values[:, kept] - mean[kept]) / scale, nan=0.0) for split, values in x.items()}


# ---------------------------------------------------------------- covariances
def _tangent(covariances: dict[str, Array], most: int) -> dict[str, Array]:
    """Covariances (n, M, C, C) as tangent vectors (n, F) at the mean of the training rows, matrix by matrix."""
    if covariances["train"].shape[2] > most:
        covariances = _reduced(covariances, most)
    found: dict[str, list[Array]] = {split: [] for split in covariances}
    for m in range(covariances["train"].shape[1]):
        space = TangentSpace.around(covariances["train"][:, m])
        for split, values in covariances.items():
            found[split].append(space(values[:, m]))
    return {split: np.concatenate(parts, axis=1) for split, parts in found.items()}


def _reduced(covariances: dict[str, Array], most: int) -> dict[str, Array]:
    """The same of the `most` principal components of the training rows, whose channels are brought to variance 1."""
    mean = covariances["train"].mean(axis=(0, 1))
    scale = 1 / np.sqrt(np.diagonal(mean))
    _, vectors = np.linalg.eigh(mean * scale * scale[:, None])
    basis = vectors[:, -most:] * scale[:, None]
    return {split: np.asarray(basis.T @ values @ basis) for split, values in covariances.items()}
