"""Few labels: which training rows keep theirs. The same ones for every method, so that curves can be compared.

An example is a trial: a second of a series, a stretch of an interval, a person. All rows of a trial are drawn together, and
test rows are of other units, since those are what splits hold apart.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.transfer.examples import Examples
from neurofm_ml.types import Array

#: Parts of a series that are left out in turn.
FOLDS = 5


def draw(examples: Examples, k: int, seed: list[int]) -> list[str] | None:
    """Names of the trials of `k` training examples of each class, or `k` in all where the answer is a number (of one alone nothing can
    be learned); None where there are not so many."""
    train = examples.split("train")
    names = trials_of(train)
    first = ~names.duplicated().to_numpy()
    of_class = train.y[first, 0] if train.task.classes else np.zeros(first.sum())
    pools = [names[first][of_class == c].sort_values().to_numpy() for c in np.unique(of_class)]
    least = 2 if train.task.is_label and not train.task.classes else 1
    if min(map(len, pools)) < k or len(pools) < len(train.task.classes) or k < least:
        return None
    rng = np.random.default_rng(seed)
    return [str(name) for pool in pools for name in rng.choice(pool, k, replace=False)]


def trials_of(examples: Examples) -> pd.Series:
    """(n,) names of the rows' trials, which no two datasets share."""
    return examples.about.dataset + "/" + examples.about.trial.astype(str)


def kept(examples: Examples, trials: list[str] | None) -> Examples:
    """The training rows of these trials; None: all."""
    rows = (examples.about.split == "train").to_numpy()
    return examples.where(rows if trials is None else rows & trials_of(examples).isin(trials).to_numpy())


def folds(examples: Examples) -> Array:
    """(n,) what is left out together when a penalty is chosen among few labels: fifths of a series in time, whose neighbours are
    alike; whole units of labels where there are three or more, as in testing, else trials."""
    if not examples.task.is_label:
        return np.argsort(np.argsort(examples.about.time, kind="stable")) * FOLDS // len(examples.y)
    units = examples.groups("unit")
    return units if len(np.unique(units)) > 2 else examples.groups("trial")


def shuffled(examples: Examples, seed: list[int]) -> Examples:
    """A control: the same rows with answers of others. A series is rolled by half, labels are exchanged between trials."""
    if not examples.task.is_label:
        return replace(examples, y=np.roll(examples.y, len(examples.y) // 2, axis=0))
    _, first, place = np.unique(examples.groups("trial"), return_index=True, return_inverse=True)
    return replace(examples, y=np.random.default_rng(seed).permutation(examples.y[first])[place])


def same_rows(examples: Examples, of: Examples) -> Examples:
    """The rows of `examples` that `of` has too, in its order."""
    names = ["dataset", "recording"] if of.task.of_subject else ["dataset", "recording", "time"]
    place = pd.Series(np.arange(len(examples.y)), pd.MultiIndex.from_frame(examples.about[names]))
    return examples.where(np.asarray(place[pd.MultiIndex.from_frame(of.about[names])], int))
