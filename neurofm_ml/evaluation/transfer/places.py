"""Places: where a readout can be fitted and where it can be scored, and the matrix of all pairs.

A place has training, validation and test rows of one task. Its readout is fitted on the first, the penalty chosen on the
second, and scored on the third, its own or another's. N places are N factorisations; a cell is one product of matrices, and
its permutations another.

Shapes: n rows, D features, K target columns or classes, P penalties.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.readouts.readout import Path, Readout
from neurofm_ml.evaluation.statistics.permutation import benjamini_hochberg, permutation_p
from neurofm_ml.evaluation.transfer.examples import Examples
from neurofm_ml.evaluation.transfer.nulls import judged_by, null_scores
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array

#: Whose training rows say what mean and deviation of features are: the place's own, or those of the readout's source.
Standardise = Literal["own", "source"]
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Place:
    """Examples of one place, split -> rows, and what is fitted to them once."""

    name: str
    splits: Mapping[str, Examples]

    @classmethod
    def of(cls, name: str, examples: Examples) -> "Place":
        return cls(name, {split: examples.split(split) for split in SPLITS})

    @cached_property
    def scale(self) -> tuple[Array, Array]:
        """Mean and deviation (D,) of the features of training rows."""
        x = self.splits["train"].x
        std = x.std(0)
        return x.mean(0), np.where(std > 0, std, 1.0)

    @cached_property
    def readout(self) -> Readout:
        """Of features as this place scales them."""
        return fit_readout(*(scaled(self.splits[split], self.scale) for split in ("train", "validation")))

    @cached_property
    def recordings(self) -> set[tuple[str, ...]]:
        """(species, subject, recording, dataset) of all rows."""
        about = pd.concat([part.about for part in self.splits.values()])
        return set(about[["species", "subject", "recording", "dataset"]].astype(str).itertuples(index=False, name=None))

    def same_as(self, other: "Place") -> bool:
        """Whether two datasets hold one recording, under the same name: neither is new to the other."""
        own, others = ({names[:3]: names[3] for names in place.recordings} for place in (self, other))
        return any(others.get(names, dataset) != dataset for names, dataset in own.items())

    @property
    def lacks(self) -> str:
        """Why it can be no place; empty where it can."""
        for split, part in self.splits.items():
            if not len(part.y):
                return f"no {split} rows"
            if split != "validation" and (part.y == part.y[0]).all(0).any():
                return f"one answer in all {split} rows"
        return ""


def scaled(examples: Examples, scale: tuple[Array, Array]) -> Examples:
    mean, std = scale
    return dataclasses.replace(examples, x=(examples.x - mean) / std)


def fit_readout(train: Examples, validation: Examples) -> Readout:
    """Fitted on training rows with the penalty that errs least on validation rows."""
    path = Path.of(train.x, train.targets, train.weights)
    return path.readout(int(errors_of(path.predictions(validation.x), validation).argmin()))


def errors_of(said: Array, examples: Examples) -> Array:
    """(P,) error of each of the predictions (P, n, K), in units of the variance of each column; classes count alike."""
    targets, weights = examples.targets, examples.weights / examples.weights.sum()
    spread = weights @ (targets - weights @ targets) ** 2
    errors = (weights[:, None] * (said - targets) ** 2).sum(1) / np.where(spread > 0, spread, 1.0)
    return np.asarray(errors.mean(1))


# ---------------------------------------------------------------- matrices
def matrix(places: Sequence[Place], standardise: Standardise, n_perm: int, seed: int) -> list[Row]:
    """Each place's readout scored on each: a cell per pair, source by source; none where two datasets hold the same recordings."""
    return finished(
        _cell(source.name, target, said_of(source, target, standardise), n_perm, [seed, t])
        for source in places
        for t, target in enumerate(places)
        if not source.same_as(target)
    )


def said_of(source: Place, target: Place, standardise: Standardise) -> Array:
    """(n, K) what the source's readout says of the target's test rows."""
    scale = target.scale if standardise == "own" else source.scale
    return source.readout(scaled(target.splits["test"], scale).x)


def task_matrix(places: Sequence[Place], n_perm: int, seed: int) -> list[Row]:
    """How much of each place's task can be read from what another's readout alone makes of its features."""
    return finished(
        _cell(source.name, target, _through(source, target), n_perm, [seed, t]) for source in places for t, target in enumerate(places)
    )


def _through(source: Place, target: Place) -> Array:
    """(n, K) the target's test answers, read from what the source's readout says of the target's rows."""
    said = {name: dataclasses.replace(part, x=source.readout(scaled(part, source.scale).x)) for name, part in target.splits.items()}
    return fit_readout(said["train"], said["validation"])(said["test"].x)


def missing(whole: Place, parts: Sequence[Place], standardise: Standardise, n_perm: int, seed: int) -> list[Row]:
    """The readout of a place that has everything, scored on places that have a part of it; `within` is a part's own readout."""
    rows = [_cell(whole.name, part, said_of(whole, part, standardise), n_perm, [seed, k]) for k, part in enumerate(parts)]
    own = [_cell(part.name, part, said_of(part, part, standardise), n_perm, [seed, k])["value"] for k, part in enumerate(parts)]
    q = benjamini_hochberg(np.array([row["p"] for row in rows]))
    return [{**row, "within": own[k], "q": float(q[k])} for k, row in enumerate(rows)]


def _cell(source: str, target: Place, said: Array, n_perm: int, seed: Sequence[int]) -> Row:
    test = target.splits["test"]
    metric, scores = judged_by(len(test.task.classes)), null_scores(test, said, n_perm, seed)
    return {
        "source": source,
        "target": target.name,
        "task": test.task.name,
        "metric": metric,
        "value": float(scores[0]),
        "chance": SCORES[metric].at_chance(test.y),
        "p": permutation_p(float(scores[0]), scores[1:]),
        "n": len(test.y),
    }


def finished(cells: Iterable[Row]) -> list[Row]:
    """Cells of a whole matrix with `within`, what the target reaches on itself, and `q`, over pairs and over the diagonal apart."""
    rows = list(cells)
    within = {row["target"]: row["value"] for row in rows if row["source"] == row["target"]}
    own = np.array([row["source"] == row["target"] for row in rows])
    p, q = np.array([row["p"] for row in rows]), np.empty(len(rows))
    for part in (own, ~own):
        q[part] = benjamini_hochberg(p[part])
    return [{**row, "within": within[row["target"]], "q": float(q[k])} for k, row in enumerate(rows)]
