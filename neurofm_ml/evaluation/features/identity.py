"""How much of an embedding is who was recorded, and how much is what is asked of it?

Variance is divided in sequence: subjects, sessions within subjects, then a label of windows within both; a label of persons is
part of what is theirs. A factor with many groups explains much of any noise, so the shares are also given adjusted for
chance. Neighbouring windows are alike whoever was recorded: what is exchanged to find the chance of a share are whole
recordings where groups have several, else quarters of them, and labels are exchanged between stretches of equal label.

Shapes: n windows, D width, G groups, U units of exchange, C classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.readouts.readout import Path, balanced, indicators
from neurofm_ml.evaluation.statistics.permutation import permutation_p
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.metrics import balanced_accuracy
from neurofm_ml.types import Array

#: Parts of a recording that are exchanged where each subject has one recording.
QUARTERS = 4
#: Directions of a label smaller than this, by the root of the number of windows, are rounding.
ROUNDING = 1e-8


@dataclass(frozen=True)
class Share:
    """A factor's share of the variance, the same adjusted for chance, and the p of the share; what was exchanged."""

    factor: str
    share: float
    adjusted: float
    p: float
    n_groups: int
    exchanged: str


# ---------------------------------------------------------------- variance
def variance_shares(x: Array, windows: pd.DataFrame, label: Array | None, of_subject: bool, n_perm: int, seed: int) -> list[Share]:
    """Shares of the variance of x (n, D); label (n, J) are columns that stand for it, without NaN. A factor that has one group, or
    none within the groups of the factor before it, is left out."""
    x, rng = x - x.mean(0), np.random.default_rng(seed)
    subject, nobody = codes(windows.subject), np.zeros(len(x), int)
    cell = codes(windows.subject.astype(str) + "/" + windows.session.astype(str))
    found = [_of_groups(x, "subject", subject, nobody, exchange_units(windows, subject), n_perm, rng)] if subject.max() else []
    if cell.max() > subject.max():
        found.append(_of_groups(x, "session", cell, subject, exchange_units(windows, cell), n_perm, rng))
    if label is not None and of_subject:
        found.append(_of_label(x, label, nobody, (subject, "subjects"), nobody, n_perm, rng))
    elif label is not None:
        runs, recording = label_runs(label, windows), codes(windows.recording)
        within = recording if runs.max() > recording.max() else nobody  # a recording of one state can change only with another
        found.append(_of_label(x, label, cell, (runs, "stretches"), within, n_perm, rng))
    return found


def _of_groups(
    x: Array, factor: str, group: Array, within: Array, unit_of: tuple[Array, str], n_perm: int, rng: np.random.Generator
) -> Share:
    """Share of `group` (n,) within the coarser groups `within` (n,), which its units are exchanged in; x (n, D) is centred."""
    units, exchanged = unit_of
    _, first, place = np.unique(units, return_index=True, return_inverse=True)
    sums, counts = np.zeros((len(first), x.shape[1])), np.bincount(place).astype(float)
    np.add.at(sums, place, x)
    own, stratum = group[first], within[first]

    def explained(groups: Array) -> float:
        of_group, sizes = np.zeros((groups.max() + 1, x.shape[1])), np.bincount(groups, counts)
        np.add.at(of_group, groups, sums)
        return float(((of_group**2).sum(1) / np.maximum(sizes, 1)).sum())

    null = np.array([explained(own[exchange(stratum, rng)]) for _ in range(n_perm)])
    before, most = explained(stratum), explained(np.arange(len(first)))
    return _share(factor, explained(own) - before, null - before, most - before, x, len(np.unique(group)), exchanged)


def _of_label(
    x: Array, label: Array, cell: Array, unit_of: tuple[Array, str], within: Array, n_perm: int, rng: np.random.Generator
) -> Share:
    """Share of label (n, J) within cells (n,); units, which have one label each, exchange it within `within` (n,)."""
    units, exchanged = unit_of
    _, first, place = np.unique(units, return_index=True, return_inverse=True)
    left, stratum = less_means(x, cell), within[first]

    def explained(columns: Array) -> float:
        basis, sizes, _ = np.linalg.svd(less_means(columns, cell), full_matrices=False)
        kept = basis[:, sizes > ROUNDING * len(x) ** 0.5]
        return float(((kept.T @ left) ** 2).sum())

    null = np.array([explained(label[first[exchange(stratum, rng)]][place]) for _ in range(n_perm)])
    most = float(((left - less_means(left, place)) ** 2).sum())
    return _share("label", explained(label), null, most, x, max(label.shape[1], 2), exchanged)


def _share(factor: str, value: float, null: Array, most: float, x: Array, n_groups: int, exchanged: str) -> Share:
    """`most` is what differences between units are in all; of U units in G groups chance explains (G - 1) / (U - 1), so that the
    adjusted share is epsilon squared (Kelley 1935) with units in the place of windows."""
    total, chance = float((x**2).sum()), float(null.mean())
    room = (most - chance) / most
    adjusted = (value - chance) / room / total if room > ROUNDING else np.nan
    return Share(factor, value / total, adjusted, permutation_p(value, null), n_groups, exchanged)


def exchange(stratum: Array, rng: np.random.Generator) -> Array:
    """(U,) whose place each unit takes: another's of its own stratum (U,)."""
    source = np.arange(len(stratum))
    for name in np.unique(stratum):
        own = np.flatnonzero(stratum == name)
        source[own] = rng.permutation(own)
    return source


def less_means(values: Array, group: Array) -> Array:
    """values (n, J) less the mean of each group (n,)."""
    sums = np.zeros((group.max() + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return np.asarray(values - (sums / np.maximum(np.bincount(group), 1)[:, None])[group])


def exchange_units(windows: pd.DataFrame, group: Array) -> tuple[Array, str]:
    """(n,) what can be exchanged between groups (n,), and what it is called."""
    if windows.recording.nunique() > len(np.unique(group)):
        return codes(windows.recording), "recordings"
    rank = windows.groupby("recording").start.rank(pct=True, method="first")
    quarter = np.minimum((rank * QUARTERS).astype(int), QUARTERS - 1)
    return codes(windows.recording.astype(str) + "/" + quarter.astype(str)), "quarters"


def label_runs(label: Array, windows: pd.DataFrame) -> Array:
    """(n,) stretches of a recording that have the same label (n, J)."""
    order = np.lexsort((windows.start.to_numpy(), codes(windows.recording)))
    ordered, recording = label[order], codes(windows.recording)[order]
    changes = (ordered[1:] != ordered[:-1]).any(1) | (recording[1:] != recording[:-1])
    runs = np.empty(len(label), int)
    runs[order] = np.concatenate([[0], np.cumsum(changes)])
    return runs


def codes(values: pd.Series) -> Array:
    """(n,) integers, equal where the values are."""
    return np.asarray(pd.factorize(values)[0])


def label_columns(values: Array, task: TaskSpec) -> Array:
    """(n, J) what stands for a label (n,): indicators of its classes, or the number."""
    return indicators(values, len(task.classes)) if task.classes else values[:, None]


# ---------------------------------------------------------------- identification
def identification(x: Array, windows: pd.DataFrame) -> tuple[float, int] | None:
    """Balanced accuracy with which windows are told by whose they are, and the number of people; None for fewer than two.

    Learned from the first recordings of each person and asked of the last, where each has several; else from the first 60 % of a
    recording, asked of windows that begin after its last such window has ended.
    """
    first = earlier(windows)
    last = ~first & ~_overlapping(windows, first)
    people = sorted(set(windows.subject[first]) & set(windows.subject[last]))
    if len(people) < 2:
        return None
    place = windows.subject.map({name: k for k, name in enumerate(people)})
    train, test = (rows & place.notna().to_numpy() for rows in (first, last))
    y = place.fillna(-1).to_numpy(int)
    return classified(x[train], y[train], codes(windows.key[train]), x[test], y[test], len(people)), len(people)


def earlier(windows: pd.DataFrame) -> Array:
    """(n,) True for windows to learn a person from."""
    several = windows.groupby("subject").recording.nunique().min() > 1
    group = "subject" if several else "recording"
    order = windows.groupby("subject").recording.transform(lambda names: pd.factorize(names, sort=True)[0]) if several else windows.start
    share = order.groupby(windows[group]).rank(pct=True, method="dense" if several else "first")
    return np.asarray(share <= (0.5 if several else 0.6))


def _overlapping(windows: pd.DataFrame, first: Array) -> Array:
    """(n,) True for windows that begin before the end of what was learned from in their recording."""
    ends = windows.end.where(first).groupby(windows.recording).transform("max")
    return np.asarray(windows.start < ends)


def classified(x: Array, y: Array, groups: Array, asked: Array, truth: Array, n_classes: int) -> float:
    """Balanced accuracy of ridge classification (every class counts alike), the penalty chosen on groups (n,) left out in turn."""
    std = x.std(0)
    scale = np.where(std > 0, std, np.inf)
    path = Path.of(x / scale, indicators(y, n_classes), balanced(y))
    scores = [balanced_accuracy(y, said.argmax(1)) for said in path.left_out(groups)]
    k = len(scores) - 1 - int(np.argmax(scores[::-1]))
    return balanced_accuracy(truth, path.readout(k)(asked / scale).argmax(1))


def task_accuracy(x: Array, values: Array, windows: pd.DataFrame, task: TaskSpec) -> float | None:
    """Balanced accuracy of a task with classes by the same method, from training to test windows; None where these lack a class."""
    train, test = ((windows.split == split).to_numpy() & np.isfinite(values) for split in ("train", "test"))
    if min(len(np.unique(values[rows])) for rows in (train, test)) < 2:
        return None
    return classified(x[train], values[train], codes(windows.subject[train]), x[test], values[test], len(task.classes))


def identity_rows(x: Array, windows: pd.DataFrame, tasks: tuple[TaskSpec, ...]) -> Iterator[dict[str, Any]]:
    """For each task with classes: how well windows tell the person, and the task, as shares of the way from chance to 1."""
    found = identification(x, windows)
    if found is None:
        return
    identity, people = found
    for task in (task for task in tasks if task.classes):
        accuracy = task_accuracy(x, windows[task.name].to_numpy(float), windows, task)
        if accuracy is not None:
            above = _above(identity, people), _above(accuracy, len(task.classes))
            yield {
                **{"task": task.name, "people": people, "identity": identity, "accuracy": accuracy},
                **{"identity_above_chance": above[0], "accuracy_above_chance": above[1], "encodes_identity_more": above[0] > above[1]},
            }


def _above(value: float, n: int) -> float:
    return (value - 1 / n) / (1 - 1 / n)
