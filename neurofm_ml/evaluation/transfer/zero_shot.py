"""Job `zero_shot`: a place scored without one label of it.

Of every task, each session, subject or dataset is the target once; all others that ask the same are the sources:

    zero_shot_probe_across_<axis>s       a ridge on the sources' training rows, its penalty chosen on their validation rows
    zero_shot_prototype_across_<axis>s   classes alone: the class whose mean over the sources' rows points where the row points (cosine)

What is fitted sees sources only. Of the target come features, and their mean and deviation where `standardise` is "own": no label.
Scores are those of the target's test rows, the same rows that every other method is scored on; `k_shot` is 0, `p` of R2, AUROC or
balanced accuracy (`nulls`), `control` the same on sources whose labels are exchanged.

A target whose labels the model's pretraining learned from is not zero-shot, whatever is fitted later: there the methods are called
``seen_...`` instead of ``zero_shot_...``, and `k_shot` is not set.

`retrieved` asks, with no label at all, whether one modality finds the moment of another.

    scores.parquet   types.SCORE_COLUMNS

Shapes: n rows, D features, K targets or classes.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neurofm_ml import markdown
from neurofm_ml.data.schemas import SCORES as SCHEMA
from neurofm_ml.data.schemas import validate
from neurofm_ml.evaluation.features.features import load_features
from neurofm_ml.evaluation.scoring.scores import frame, write_scores
from neurofm_ml.evaluation.shots.shots import shuffled
from neurofm_ml.evaluation.statistics.controls import LEAST_SHIFT
from neurofm_ml.evaluation.statistics.permutation import permutation_p
from neurofm_ml.evaluation.statistics.resampling import score_interval
from neurofm_ml.evaluation.transfer.example_sources import read_examples
from neurofm_ml.evaluation.transfer.examples import Examples, joined
from neurofm_ml.evaluation.transfer.nulls import null_scores
from neurofm_ml.evaluation.transfer.places import Place, fit_readout, scaled
from neurofm_ml.evaluation.transfer.transfer import comparable, places_of
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import ZeroShotConfig
from neurofm_ml.types import SCORE_COLUMNS, Array, Check, Report

Row = dict[str, Any]


class Reader(NamedTuple):
    """What was fitted to sources: `read` (n, D) -> (n, K), its number of parameters, and the sources' scale of features."""

    read: Callable[[Array], Array]
    parameters: int
    scale: tuple[Array, Array]


# ---------------------------------------------------------------- fitting to sources
def probe(sources: Sequence[Place]) -> Reader:
    """One ridge for all sources, each in its own scale."""
    train, validation = (joined([scaled(s.splits[split], s.scale) for s in sources]) for split in ("train", "validation"))
    readout = fit_readout(train, validation)
    return Reader(readout.__call__, readout.parameters, _scale_of(sources))


def prototype(sources: Sequence[Place]) -> Reader:
    """Cosine with the mean of each class over the sources' training rows, the mean of these means being the origin."""
    train = joined([scaled(s.splits["train"], s.scale) for s in sources])
    seen = np.unique(train.y[:, 0]).astype(int)
    means = np.stack([train.x[train.y[:, 0] == c].mean(0) for c in seen])
    origin = means.mean(0)

    def read(x: Array) -> Array:
        said = np.full((len(x), len(train.task.classes)), -1.0)  # no row points to a class that no source has
        said[:, seen] = _unit(x - origin) @ _unit(means - origin).T
        return said

    return Reader(read, means.size, _scale_of(sources))


def _scale_of(sources: Sequence[Place]) -> tuple[Array, Array]:
    """Mean and deviation (D,) of the sources' training rows together."""
    return Place("", {"train": joined([s.splits["train"] for s in sources])}).scale


def _unit(x: Array) -> Array:
    """(n, D) rows of length 1."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(float).tiny))


METHODS: dict[str, Callable[[Sequence[Place]], Reader]] = {"probe": probe, "prototype": prototype}


# ---------------------------------------------------------------- the job
def zero_shot(cfg: ZeroShotConfig, features: Path, shards: list[Path], scaler: list[Path], out: Path) -> Report:
    """Every task that two places or more share, each place as the target once."""
    found = load_features(features)
    examples = list(read_examples(found, shards, scaler, cfg.layer))
    seen = {name for part in found.values() for name in part.labels_seen}
    left_out: dict[str, str] = {}
    rows = [row for axis in cfg.across for group in comparable(examples, axis) for row in rows_of(group, axis, cfg, left_out, seen)]
    constant = {"run": f"{cfg.size}-{cfg.seed}", "fingerprint": out.name.removeprefix("work-"), "size": cfg.size, "seed": cfg.seed}
    return publish([{**constant, **row} for row in rows], left_out, out)


def rows_of(
    examples: Sequence[Examples], axis: str, cfg: ZeroShotConfig, left_out: dict[str, str], seen: Collection[str] = ()
) -> Iterator[Row]:
    """Rows of all places of one axis that ask the same; `seen`: ``dataset/task`` whose labels pretraining learned from."""
    places = places_of(examples, axis)
    left_out |= {f"{axis} {place.name}": place.lacks for place in places if place.lacks}
    sound = [place for place in places if not place.lacks]
    for target in sound:
        sources = [place for place in sound if place is not target and not place.same_as(target)]
        if sources and (few := _too_few(target.splits["test"])):
            left_out[f"{axis} {target.name}"] = few
        elif sources:
            kind, k_shot = _kind(target, seen)
            for method, fit in METHODS.items():
                if method == "probe" or target.splits["test"].task.classes:
                    yield {"method": f"{kind}_{method}_across_{axis}s", "k_shot": k_shot, **_row(fit, sources, target, cfg)}


def _kind(target: Place, seen: Collection[str]) -> tuple[str, float]:
    """What a score of the target may be called, and its `k_shot`."""
    test = target.splits["test"]
    asked = {f"{dataset}/{test.task.name}" for dataset in test.about.dataset.unique()}
    return ("seen", np.nan) if asked & set(seen) else ("zero_shot", 0.0)


def _too_few(test: Examples) -> str:
    """Why no interval can be had; empty where one can."""
    y, units = test.y[:, 0], test.groups("unit")
    if test.task.classes and min(len(np.unique(units[y == c])) for c in np.unique(y)) < 2:
        return "fewer than two test units of a class"
    return "fewer than three test units" if len(np.unique(units)) < 3 else ""


def said_of(reader: Reader, target: Place, standardise: str) -> Array:
    """(n, K) what a reader says of the target's test rows."""
    return reader.read(scaled(target.splits["test"], target.scale if standardise == "own" else reader.scale).x)


def _row(fit: Callable[[Sequence[Place]], Reader], sources: Sequence[Place], target: Place, cfg: ZeroShotConfig) -> Row:
    start = time.perf_counter()
    reader = fit(sources)
    fitted = time.perf_counter()
    said = said_of(reader, target, cfg.standardise)
    seconds = time.perf_counter() - fitted
    test, about = target.splits["test"], target.splits["test"].about
    metric, names = test.task.metric, about.recording.unique()
    found = score_interval(metric, test.y, said, test.groups("unit") if test.task.is_label else None, cfg.n_boot, cfg.seed)
    null = null_scores(test, said, cfg.n_perm, [cfg.seed])
    return {
        "family": cfg.family,
        "task": test.task.name,
        "trained_on": ", ".join(source.name for source in sources),
        "dataset": about.dataset.iloc[0],
        "recording": names[0] if len(names) == 1 else "all" if about.dataset.iloc[0] == target.name else target.name.split("/", 1)[1],
        "split": "test",
        "species": about.species.iloc[0],
        "modality": about.modality.iloc[0],
        "metric": metric,
        "value": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "p": permutation_p(float(null[0]), null[1:]),
        "noise_ceiling": np.nan,
        "n": len(test.y),
        "control": SCORES[metric].value(test.y, said_of(fit(_exchanged(sources, cfg.seed)), target, cfg.standardise)),
        "parameters": reader.parameters,
        "train_seconds": fitted - start,
        "samples_per_second": len(test.y) / seconds,
    }


def _exchanged(sources: Sequence[Place], seed: int) -> list[Place]:
    """The sources with labels of other trials."""
    return [replace(s, splits={name: shuffled(part, [seed, k]) for name, part in s.splits.items()}) for k, s in enumerate(sources)]


def publish(rows: list[Row], left_out: dict[str, str], out: Path) -> Report:
    """Write the table, and say what was found."""
    table = frame(rows, SCORE_COLUMNS)
    write_scores(table, out / "scores.parquet")
    metrics: dict[str, float | int | str] = {"rows": len(table)}
    for (method, metric), part in table.groupby(["method", "metric"]):
        metrics[f"{method}.{metric}"] = round(float(part.value.mean()), 4)
    metrics["left_out"] = markdown.by_reason(left_out)
    valid = validate(table, SCHEMA) if len(table) else Check("table_is_valid", True, numbers={"rows": 0})
    return Report(metrics, (valid,), {"table": "scores.parquet"})


# ---------------------------------------------------------------- one modality finds the moment of another
def retrieved(a: Array, b: Array, k: int) -> Array:
    """(1 + P,) share of moments that are among the `k` nearest by cosine, from a (n, D) to b (n, D) and back: first as it is, then
    with the moments of b shifted, each shift once. Ties count as misses, so features that say nothing find nothing."""
    near = _unit(a) @ _unit(b).T
    n = len(a)
    least = max(int(LEAST_SHIFT * n), 1)
    shifts = np.append(0, np.arange(least, n - least + 1))
    own = (np.arange(n), (np.arange(n) + shifts[:, None]) % n)
    hits = [_rank(near)[own] < k, _rank(near.T).T[own] < k]
    return np.mean(hits, axis=(0, 2))


def _rank(near: Array) -> Array:
    """(n, n) how many others of a row are as near or nearer."""
    ordered = np.sort(-near, axis=1)
    return np.stack([np.searchsorted(row, -values, "right") - 1 for row, values in zip(ordered, near, strict=True)])
