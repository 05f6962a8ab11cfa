"""Job `transfer`: a readout fitted in one place and scored in another, for every pair of places.

A place is a session, an animal or person, a species, a dataset, or the modality that features were read from. Two are
compared on tasks that ask both for the same: the same classes, or the same columns in the same unit. Features come from one
extraction per dataset, so N places cost N extractions and N factorisations, whatever the number of pairs.

On the axis "task" the places are tasks of one dataset, and a readout of one cannot be scored on the answer to another. There a
cell says how much of the target task can be read from what the source task's readout says alone: features are replaced by the
few numbers that the source's readout makes of them, and a readout of the target is fitted on these with the target's own
training rows. Its diagonal is what passes through the task's own readout.

Features may know more than the readout: metric `labels_seen` names the tasks whose labels the model's pretraining learned from.

Every cell stays as it is, also below chance: a target that the source's readout misleads is a finding. `p` is against
permutations (`nulls`): it says whether what was said follows the target, also where R2 is negative because level or size are
another. `q` is over the pairs of one matrix, and apart from them over its diagonal (Benjamini and Hochberg 1995).

    transfer.parquet   one row per cell, types.TRANSFER_COLUMNS
    transfer.png       a heat map per axis and task
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from neurofm_ml import markdown
from neurofm_ml.data.schemas import TRANSFER, validate
from neurofm_ml.evaluation.features.features import load_features
from neurofm_ml.evaluation.scoring.scores import frame
from neurofm_ml.evaluation.transfer.example_sources import read_examples
from neurofm_ml.evaluation.transfer.examples import Examples, joined
from neurofm_ml.evaluation.transfer.heat_maps import LEVEL, draw_matrices
from neurofm_ml.evaluation.transfer.places import Place, Row, Standardise, matrix, task_matrix
from neurofm_ml.presets import TransferConfig
from neurofm_ml.types import TRANSFER_COLUMNS, Check, Report

#: Axes whose places have the same name in several datasets.
_OF_DATASET = ("session", "subject")
#: Name of a place -> why it is none.
LeftOut = dict[str, str]


def transfer(cfg: TransferConfig, features: Path, shards: list[Path], scaler: list[Path], out: Path) -> Report:
    """Matrices over every axis of the config on which two places or more share a task."""
    found = load_features(features)
    examples = list(read_examples(found, shards, scaler, cfg.layer))
    left_out: LeftOut = {}
    rows = [row for axis in cfg.axes for row in rows_of(examples, axis, cfg.standardise, cfg.n_perm, cfg.seed, left_out)]
    table = table_of(rows, cfg.seed, out)
    report = publish(table, left_out, out)
    asked = {f"{dataset}/{part.task.name}" for part in examples for dataset in part.about.dataset.unique()}
    seen = asked & {name for part in found.values() for name in part.labels_seen}
    return replace(report, metrics={**report.metrics, "labels_seen": ", ".join(sorted(seen))})


def rows_of(examples: Sequence[Examples], axis: str, standardise: Standardise, n_perm: int, seed: int, left_out: LeftOut) -> list[Row]:
    """Cells of all matrices of an axis; `left_out` is told which places are none."""
    rows: list[Row] = []
    for group in comparable(examples, axis):
        places = [place for place in places_of(group, axis) if not _noted(place, axis, left_out)]
        if len(places) > 1:
            found = task_matrix(places, n_perm, seed) if axis == "task" else matrix(places, standardise, n_perm, seed)
            rows += [{"axis": axis, **row} for row in found]
    return rows


def comparable(examples: Sequence[Examples], axis: str) -> list[list[Examples]]:
    """Examples that stand in one matrix: those of one task; on the axis of tasks, series or labels of one dataset."""
    groups: defaultdict[object, list[Examples]] = defaultdict(list)
    for part in examples:
        groups[(part.about.dataset.iloc[0], part.task.is_label) if axis == "task" else part.signature].append(part)
    return list(groups.values())


def places_of(examples: Sequence[Examples], axis: str) -> list[Place]:
    """One place per value of an axis, in the order of their names."""
    if axis == "task":
        tasks: defaultdict[str, list[Examples]] = defaultdict(list)
        for part in examples:
            tasks[f"{part.about.dataset.iloc[0]}/{part.task.name}"].append(part)
        return [Place.of(name, joined(parts)) for name, parts in sorted(tasks.items())]
    whole = joined(examples)
    names = whole.about[axis] if axis not in _OF_DATASET else whole.about.dataset + "/" + whole.about[axis]
    return [Place.of(str(name), whole.where((names == name).to_numpy())) for name in sorted(names.unique())]


def _noted(place: Place, axis: str, left_out: LeftOut) -> bool:
    if place.lacks:
        left_out[f"{axis} {place.name}"] = place.lacks
    return bool(place.lacks)


# ---------------------------------------------------------------- table
def table_of(rows: Sequence[Row], seed: int, out: Path) -> pd.DataFrame:
    """Rows as a table of exactly TRANSFER_COLUMNS, also when there are none."""
    constant = {"seed": seed, "fingerprint": out.name.removeprefix("work-")}
    return frame([{**constant, **row} for row in rows], TRANSFER_COLUMNS)


def publish(table: pd.DataFrame, left_out: LeftOut, out: Path) -> Report:
    """Write table and picture, and say what was found."""
    table.to_parquet(out / "transfer.parquet", index=False)
    shown = {"table": "transfer.parquet"}
    if len(table):
        draw_matrices(table, out / "transfer.png")
        shown["picture"] = "transfer.png"
    pairs = table[table.source != table.target]
    metrics: dict[str, float | int | str] = {
        "cells": len(table),
        "pairs": len(pairs),
        "found": int(((pairs.q <= LEVEL) & (pairs.value > pairs.chance)).sum()),
        "below_chance": int((pairs.value < pairs.chance).sum()),
        **{f"retained.{axis}": round(retention(part), 4) for axis, part in pairs.groupby("axis")},
        "left_out": markdown.by_reason(left_out),
    }
    return Report(metrics, (_valid(table), _reads_itself(table)), shown)


def retention(pairs: pd.DataFrame) -> float:
    """Median over pairs of what is left above chance of what the target reaches on itself, where that is above chance; NaN
    where it never is."""
    sound = pairs[pairs.within > pairs.chance]
    return float(((sound.value - sound.chance) / (sound.within - sound.chance)).median()) if len(sound) else math.nan


def _valid(table: pd.DataFrame) -> Check:
    """No two places that share a task are no mistake: then there is nothing to judge."""
    return validate(table, TRANSFER) if len(table) else Check("table_is_valid", True, numbers={"rows": 0})


def _reads_itself(table: pd.DataFrame) -> Check:
    own = table[table.source == table.target]
    found = int((own.q <= LEVEL).sum())
    return Check(
        "places_read_themselves", found == len(own), "warn", {"places": len(own), "found": found}, f"q <= {LEVEL:g} on the diagonal"
    )
