"""Job `cross_modal`: does a model put modalities into one space, and what does it lose where some are missing?

Every recording with two neural modalities or more, and a series to decode beside them, is read by the frozen model several
times: each modality alone, all but one, all together. On the test block:

- transfer: a readout fitted on features of one modality alone, scored on those of another of the same recording;
- missing modalities: the readout of all together, scored where a part of them is there (rows whose source has several);
- retrieval: without any label, whether the features of one modality find the same second among those of another (tasks
  ``retrieval_top_<k>``; `within` is 1, what a modality finds of itself).

    cross_modal.parquet   one row per cell, types.TRANSFER_COLUMNS, axis "modality"; places are dataset/recording/modalities
    missing.png           what is left of each score as modalities go missing

Shapes: T bins, D features.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from neurofm_ml import markdown
from neurofm_ml.data.batches import neural_signals
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.data.schemas import TRANSFER, validate
from neurofm_ml.data.windows import read_channels, read_windows
from neurofm_ml.evaluation.features.features import Source
from neurofm_ml.evaluation.features.hidden import layer_names
from neurofm_ml.evaluation.statistics.permutation import benjamini_hochberg, permutation_p
from neurofm_ml.evaluation.tasks.tasks import Case, find_cases
from neurofm_ml.evaluation.transfer.example_sources import series_examples
from neurofm_ml.evaluation.transfer.heat_maps import LEVEL, draw_missing
from neurofm_ml.evaluation.transfer.places import Place, Row, matrix, missing, scaled
from neurofm_ml.evaluation.transfer.transfer import retention, table_of
from neurofm_ml.evaluation.transfer.zero_shot import retrieved
from neurofm_ml.presets import SPLITS, CrossModalConfig
from neurofm_ml.training.problems import Problem
from neurofm_ml.training.saved import load_model
from neurofm_ml.types import Array, Check, Report

#: Modalities that are read together -> names of their signals.
Subsets = dict[str, tuple[str, ...]]
BATCH_SIZE = 64


def cross_modal(cfg: CrossModalConfig, pretrained: Path, shards: list[Path], scaler: list[Path], out: Path) -> Report:
    """Cells of every recording with several modalities that the model reads; datasets that it cannot read are left out by name."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, scale = load_model(pretrained).to(device), load_scaler(scaler)
    left_out: dict[str, str] = {}
    rows: list[Row] = []
    for folder in shards:
        source = Source(model, folder, scale, BATCH_SIZE, device)
        if reason := source.unreadable():
            left_out[source.card.name] = reason
            continue
        for cases, subsets in several(source, find_cases(folder, scaler)):
            rows += rows_of(cfg, cases, read_places(source, cases[0], subsets, cfg.layer))
    return publish(table_of(rows, cfg.seed, out), left_out, out)


def several(source: Source, cases: Sequence[Case]) -> Iterator[tuple[list[Case], Subsets]]:
    """Recordings with several modalities to read: their tasks, each target once, and which modalities are read together."""
    channels, windows = read_channels(source.shards), read_windows(source.shards)
    for recording in dict.fromkeys(case.recording for case in cases):
        session = windows.session[windows.recording == recording].iloc[0]
        alone: dict[str, list[str]] = {}
        for name in neural_signals(source.card, source.modalities):
            if name in channels[session]:
                alone.setdefault(channels[session][name]["modality"], []).append(name)
        asked = {(case.task.target, case.task.channels): case for case in cases if case.recording == recording}
        if len(alone) > 1:
            yield list(asked.values()), subsets_of(alone)


def subsets_of(alone: dict[str, list[str]]) -> Subsets:
    """Each modality alone, all but one, all: the last is all."""
    names = list(alone)
    chosen = [*((m,) for m in names), *(tuple(m for m in names if m != out) for out in names), tuple(names)]
    return {"+".join(subset): tuple(signal for m in subset for signal in alone[m]) for subset in chosen}


def read_places(source: Source, case: Case, subsets: Subsets, layer: str) -> dict[str, dict[str, Array]]:
    """Subset -> split -> features (T, D) of one layer."""
    windows = read_windows(source.shards)
    session = str(windows.session[windows.recording == case.recording].iloc[0])
    problem = Problem(source.shards, case.dataset, case.recording, session, (), (case.task,))
    found: dict[str, dict[str, Array]] = {}
    for subset, signals in subsets.items():
        bins = {split: source.bins(problem, signals, split) for split in SPLITS}
        place = layer_names(bins["train"].shape[1]).index(layer)
        found[subset] = {split: values[:, place] for split, values in bins.items()}
    return found


# ---------------------------------------------------------------- one recording
def rows_of(cfg: CrossModalConfig, cases: Sequence[Case], features: dict[str, dict[str, Array]]) -> list[Row]:
    """Cells of a recording; features: subset -> split -> (T, D), the last subset being all modalities."""
    rows: list[Row] = []
    for k, case in enumerate(cases):
        windows = read_windows(case.shards)
        where = f"{case.dataset}/{case.recording}"
        places = [Place.of(f"{where}/{subset}", series_examples(case, windows, x)) for subset, x in features.items()]
        alone = [place for place in places if "+" not in place.name]
        rows += matrix(alone, cfg.standardise, cfg.n_perm, cfg.seed)
        rows += missing(places[-1], places, cfg.standardise, cfg.n_perm, cfg.seed)
        if k == 0:
            rows += [row for top in cfg.top_k for row in retrieval(alone, top)]
    return [{"axis": "modality", **row} for row in rows]


def retrieval(places: Sequence[Place], k: int) -> list[Row]:
    """Of every pair of modalities, how often the second that one shows is among the `k` nearest that the other shows."""
    shown = {place.name: _seconds(place) for place in places}
    rows: list[Row] = []
    for source, target in permutations(shown, 2):
        scores = retrieved(shown[source], shown[target], k)
        n = len(shown[source])
        rows.append(
            {
                "source": source,
                "target": target,
                "task": f"retrieval_top_{k}",
                "metric": f"top_{k}",
                "value": float(scores[0]),
                "within": 1.0,
                "chance": min(k / n, 1.0),
                "p": permutation_p(float(scores[0]), scores[1:]),
                "n": n,
            }
        )
    q = benjamini_hochberg(np.array([row["p"] for row in rows]))
    return [{**row, "q": float(q[i])} for i, row in enumerate(rows)]


def _seconds(place: Place) -> Array:
    """(n, D) mean features of each second of the test block, in the place's own scale."""
    test = scaled(place.splits["test"], place.scale)
    second = pd.factorize(test.about.trial)[0]
    return np.asarray(pd.DataFrame(test.x).groupby(second).mean())


# ---------------------------------------------------------------- report
def publish(table: pd.DataFrame, left_out: dict[str, str], out: Path) -> Report:
    """Write table and picture, and say what was found."""
    table.to_parquet(out / "cross_modal.parquet", index=False)
    several = table.source.str.contains("+", regex=False)
    labelled = ~table.task.str.startswith("retrieval_")
    pairs, parts = table[~several & labelled & (table.source != table.target)], table[several]
    metrics: dict[str, float | int | str] = {"cells": len(table), "pairs": len(pairs)}
    if len(pairs):
        metrics |= {
            "retention": round(retention(pairs), 4),
            "found": int(((pairs.q <= LEVEL) & (pairs.value > pairs.chance)).sum()),
            **_kept(parts),
        }
    for metric, rows in table[~labelled].groupby("metric"):
        metrics |= {
            f"retrieval.{metric}": round(float(rows.value.mean()), 4),
            f"retrieval.{metric}.chance": round(float(rows.chance.mean()), 4),
        }
    metrics["left_out"] = markdown.by_reason(left_out)
    shown = {"table": "cross_modal.parquet"}
    if len(parts):
        draw_missing(parts, out / "missing.png")
        shown["picture"] = "missing.png"
    valid = validate(table, TRANSFER) if len(table) else Check("table_is_valid", True, numbers={"rows": 0})
    return Report(metrics, (valid,), shown)


def _kept(parts: pd.DataFrame) -> dict[str, float]:
    """Median over recordings and tasks of the score with everything, without one modality, and with one alone, by the same readout."""
    n = parts.target.str.count(r"\+") + 1
    whole = parts.source.str.count(r"\+") + 1
    kinds = {"with_all": n == whole, "without_one": n == whole - 1, "with_one": n == 1}
    return {f"value.{name}": round(float(parts.value[rows].median()), 4) for name, rows in kinds.items()}
