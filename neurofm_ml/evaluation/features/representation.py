"""Job `representation`: what an embedding holds apart from its tasks, and how far it carries. Tables, one row per dataset and layer:

    variance.parquet   shares of the variance: subject, session, label (VARIANCE)
    identity.parquet   how well windows tell who was recorded, against how well they tell the task (IDENTITY)
    rsa.parquet        similarity of dissimilarities: with behaviour, with what is known of people (RSA)
    left_out.parquet   probes of people and sites that were not learned from, intervals over people (LEFT_OUT)

From one dataset to another: `transfer`, axis "dataset".
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from neurofm_ml.evaluation.features.features import Features, load_features
from neurofm_ml.evaluation.features.identity import identity_rows, label_columns, variance_shares
from neurofm_ml.evaluation.features.leave_out import Labelled, left_out_rows
from neurofm_ml.evaluation.features.rsa import LEAST, Similarity, correlation_distance, distance, similarity, stretches
from neurofm_ml.evaluation.statistics.permutation import benjamini_hochberg
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.presets import RepresentationConfig
from neurofm_ml.types import Array, Check, Report

VARIANCE = ("dataset", "layer", "task", "factor", "share", "adjusted", "p", "q", "n_groups", "exchanged", "windows")
IDENTITY = (
    "dataset", "layer", "task", "people", "identity", "accuracy", "identity_above_chance", "accuracy_above_chance", "encodes_identity_more",
)  # fmt: skip
RSA = ("dataset", "layer", "recording", "other", "conditions", "rho", "p", "q", "n")
LEFT_OUT = (
    "dataset", "layer", "task", "left_out", "group", "groups", "people", "metric", "chance", "value", "ci_low", "ci_high", "p", "q",
)  # fmt: skip

Rows = Iterator[dict[str, Any]]


def representation(cfg: RepresentationConfig, features: Path, out: Path) -> Report:
    """Write the tables of one model's features."""
    found = load_features(features)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, own in tqdm(found.items(), desc="representation", unit="dataset", disable=None):
        for layer in own.layers:
            about = {"dataset": name, "layer": layer}
            rows["variance"] += [about | row for row in variance_rows(cfg, own, layer)]
            rows["identity"] += [about | row for row in identity_rows(own.pooled(layer), own.windows, own.card.label_tasks)]
            rows["rsa"] += [about | row for row in rsa_rows(cfg, own, layer)]
            rows["left_out"] += [about | row for row in _left_out(cfg, own, layer)]
    rows["left_out"] += list(_sites(cfg, found))
    columns = {"variance": VARIANCE, "identity": IDENTITY, "rsa": RSA, "left_out": LEFT_OUT}
    tables = {name: _table(rows[name], names) for name, names in columns.items()}
    for name, table in tables.items():
        table.to_parquet(out / f"{name}.parquet", index=False)
    return _report(tables)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Exactly these columns, and q-values over all p of the table."""
    table = pd.DataFrame(rows, columns=[name for name in columns if name != "q"])
    return table.assign(q=benjamini_hochberg(table.p.to_numpy(float)))[list(columns)] if "q" in columns else table


# ---------------------------------------------------------------- rows
def variance_rows(cfg: RepresentationConfig, own: Features, layer: str) -> Rows:
    """Of subjects and sessions alone, and with each label over the windows that have it."""
    x, windows = own.pooled(layer).astype(np.float64), own.windows
    for task in (None, *own.card.label_tasks):
        values = np.zeros(len(x)) if task is None else windows[task.name].to_numpy(float)
        known = np.isfinite(values)
        table = windows[known].reset_index(drop=True)
        if len(table) < 2 or not x[known].std(0).any() or (task is not None and len(np.unique(values[known])) < 2):
            continue
        label = None if task is None else label_columns(values[known], task)
        of_subject = task is not None and task.target.startswith("subject.")
        for share in variance_shares(x[known], table, label, of_subject, cfg.n_perm, cfg.seed):
            yield {"task": task.name if task else "", **vars(share), "windows": len(table)}


def rsa_rows(cfg: RepresentationConfig, own: Features, layer: str) -> Rows:
    """With what is known of people where there are enough, and with behaviour between stretches of each block to decode."""
    people = own.windows.groupby("subject", sort=True)
    if people.ngroups >= LEAST:
        model = correlation_distance(means(own.pooled(layer), own.windows.subject))
        for task in own.card.label_tasks:
            if task.target.startswith("subject."):
                yield from _of_people(cfg, model, people[task.name].first().to_numpy(float), task)
    for recording, inputs in own.blocks():
        yield from _of_block(cfg, own, layer, recording, inputs)


def _of_people(cfg: RepresentationConfig, model: Array, values: Array, task: TaskSpec) -> Rows:
    known = np.isfinite(values)
    if known.sum() >= LEAST and len(np.unique(values[known])) > 1:
        label = label_columns(values[known], task)
        found = similarity(model[np.ix_(known, known)], distance(label), cfg.n_perm, cfg.seed)
        yield _row(found, "all", task.name, "people")


def _of_block(cfg: RepresentationConfig, own: Features, layer: str, recording: str, inputs: tuple[str, ...]) -> Rows:
    model = stretches(own.bins(recording, "test", layer, inputs))
    if len(model) < LEAST:
        return
    dissimilar = correlation_distance(model)
    compared = {task.name: own.target(recording, "test", task) for task in own.card.series_tasks if task.inputs == inputs}
    for name, values in compared.items():
        means_of = stretches(values)
        known = np.isfinite(means_of).all(1)
        if known.sum() >= LEAST:
            found = similarity(dissimilar[np.ix_(known, known)], distance(means_of[known]), cfg.n_perm, cfg.seed, in_time=True)
            yield _row(found, recording, name, "stretches")


def _row(found: Similarity, recording: str, other: str, conditions: str) -> dict[str, Any]:
    return {"recording": recording, "other": other, "conditions": conditions, **found._asdict()}


def means(x: Array, groups: pd.Series) -> Array:
    """(G, D) mean of x (n, D) over the rows of each group, in the order of their names."""
    return pd.DataFrame(x).groupby(groups.to_numpy(), sort=True).mean().to_numpy(np.float64)


def _left_out(cfg: RepresentationConfig, own: Features, layer: str) -> Rows:
    for task in own.card.label_tasks:
        data = Labelled.of(task, own.pooled(layer), own.windows)
        yield from left_out_rows(data, "subject", cfg.n_boot, cfg.seed)


def _sites(cfg: RepresentationConfig, found: Mapping[str, Features]) -> Rows:
    """Every site left out, of tasks that several datasets share; a dataset that names no site is one."""
    shared: dict[tuple[Any, ...], list[Features]] = defaultdict(list)
    for own in found.values():
        for task in own.card.label_tasks:
            shared[task, own.layers].append(own)
    for (task, layers), owners in shared.items():
        windows = pd.concat([own.windows for own in owners], ignore_index=True)
        windows = windows.assign(site=windows.site.fillna(windows.dataset), subject=windows.dataset + "/" + windows.subject)
        for layer in layers if len(owners) > 1 or windows.site.nunique() > 1 else ():
            data = Labelled.of(task, np.concatenate([own.pooled(layer) for own in owners]), windows)
            about = {"dataset": "+".join(own.folder.name for own in owners), "layer": layer}
            yield from (about | row for row in left_out_rows(data, "site", cfg.n_boot, cfg.seed))


def _report(tables: Mapping[str, pd.DataFrame]) -> Report:
    identity, variance = tables["identity"], tables["variance"]
    more = float(identity.encodes_identity_more.mean()) if len(identity) else 0.0
    latents = variance[(variance.layer == "latents") & (variance.p.notna())]
    shares = {f"mean_share.{factor}": round(float(rows.adjusted.mean()), 4) for factor, rows in latents.groupby("factor")}
    metrics: dict[str, float | int | str] = {**{f"{name}.rows": len(table) for name, table in tables.items()}, **shares}
    check = Check("identity_is_not_all", more < 0.5, "warn", {"encodes_identity_more": round(more, 4)}, "< half of tasks and layers")
    return Report({**metrics, "encodes_identity_more": round(more, 4)}, (check,), {name: f"{name}.parquet" for name in tables})
