"""What the report is written from: tables of other artifacts, and where each of their numbers comes from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.scoring.scores import BASELINE, BEATS, COMPARISON_COLUMNS, LOSES, NO_VERDICT, SWAPS, TIES
from neurofm_ml.evaluation.shots.few_shot import EXAMPLE_COLUMNS
from neurofm_ml.evaluation.statistics.resampling import LEVEL
from neurofm_ml.knowledge.pools import POOLS
from neurofm_ml.metrics import SCORES
from neurofm_ml.types import SCORE_COLUMNS

CASE = ["dataset", "recording", "task"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Tables of all runs of one size, empty where nothing was made.

    scores (zero-shot ones too), few_shot  SCORE_COLUMNS; examples EXAMPLE_COLUMNS, a row per task; comparisons COMPARISON_COLUMNS
    and run; transfer (modalities too) and identity as their jobs write them; scaling: a row per width and seed of the scaling law
    of this size
    sources           one row per artifact that a number stands in or was made from: asset, partition, fingerprint,
                      data_version, code, finished, made_from
    """

    scores: pd.DataFrame
    comparisons: pd.DataFrame
    few_shot: pd.DataFrame
    examples: pd.DataFrame
    transfer: pd.DataFrame
    identity: pd.DataFrame
    scaling: pd.DataFrame
    sources: pd.DataFrame

    @cached_property
    def summary(self) -> pd.DataFrame:
        """`summarised` scores with their verdicts."""
        return summarised(self.scores, self.comparisons)


def gather(inputs: Mapping[str, Sequence[Path]]) -> Evidence:
    """Read the artifacts of each role: scores, few_shot, zero_shot, transfer_matrix, cross_modal, representation,
    scaling_law."""

    def read(name: str, *roles: str, empty: Sequence[str] = ()) -> pd.DataFrame:
        found = [pd.read_parquet(path / name) for role in roles for path in inputs.get(role, ())]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(empty))

    return Evidence(
        # Baselines stand beside every run.
        scores=read("scores.parquet", "scores", "zero_shot", empty=list(SCORE_COLUMNS)).drop_duplicates(ignore_index=True),
        comparisons=read("comparisons.parquet", "scores", empty=["run", *COMPARISON_COLUMNS]),
        few_shot=read("scores.parquet", "few_shot", empty=list(SCORE_COLUMNS)),
        # Each seed draws from the same.
        examples=read("examples.parquet", "few_shot", empty=list(EXAMPLE_COLUMNS)).drop_duplicates(ignore_index=True),
        transfer=pd.concat([read("transfer.parquet", "transfer_matrix"), read("cross_modal.parquet", "cross_modal")]),
        identity=read("identity.parquet", "representation"),
        scaling=read("cells.parquet", "scaling_law"),
        sources=trace([path for paths in inputs.values() for path in paths]),
    )


def trace(artifacts: Sequence[Path]) -> pd.DataFrame:
    """Artifacts and all that they were made from, one row each: from a number's fingerprint to its run, code and data."""
    rows: dict[str, dict[str, Any]] = {}
    waiting = list(artifacts)
    while waiting:
        path = waiting.pop()
        if path.name in rows or not (path / "result.json").exists():
            continue
        result = json.loads((path / "result.json").read_text())
        made_from = [Path(entry["path"]) for entries in result["inputs"].values() for entry in entries]
        rows[path.name] = {
            "asset": path.parent.parent.name,
            "partition": path.parent.name,
            "fingerprint": path.name,
            "data_version": result["data_version"],
            "code": result["provenance"]["git_revision"],
            "finished": result["provenance"]["finished"],
            "made_from": " ".join(p.name for p in made_from),
        }
        waiting += made_from
    columns = ["asset", "partition", "fingerprint", "data_version", "code", "finished", "made_from"]
    return pd.DataFrame(rows.values(), columns=columns).sort_values(columns[:2], ignore_index=True)


def summarised(scores: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """One row per task and method, over seeds: value, ci_low, ci_high, seeds, control, noise_ceiling, p, parameters,
    train_seconds, samples_per_second, fingerprints, and for methods that are no baseline: baseline, baseline_value,
    difference with its interval, and verdict.

    Seeds share their test windows, so more of them do not make the windows more: to the mean length of their intervals, on
    either side, comes what the mean over seeds is unsure of.
    """
    by = [*CASE, "family", "method", "metric", "species", "modality"]
    rows = [{**dict(zip(by, key, strict=True)), **_over_seeds(part)} for key, part in scores.groupby(by, sort=True)]
    table = pd.DataFrame(rows, columns=[*by, *SUMMARY])
    differences = {key: _difference(part) for key, part in comparisons.groupby([*CASE, "method"])}
    keys = [tuple(row) for row in table[[*CASE, "method"]].to_numpy()]
    ours = table.family != BASELINE
    for name in DIFFERENCE:
        table[name] = [differences.get(key, {}).get(name) if own else None for key, own in zip(keys, ours, strict=True)]
    return table


SUMMARY = ["value", "ci_low", "ci_high", "seeds", "n", "control", "noise_ceiling", "p", "parameters", "train_seconds", "samples_per_second", "fingerprints"]  # fmt: skip
DIFFERENCE = ["baseline", "baseline_value", "difference", "difference_low", "difference_high", "verdict"]


def _over_seeds(part: pd.DataFrame) -> dict[str, Any]:
    value, score = float(part.value.mean()), SCORES[str(part.metric.iloc[0])]
    down, up = (_widened((part.value - part[end]).to_numpy(), part.value.to_numpy()) for end in ("ci_low", "ci_high"))
    means = {name: float(part[name].mean()) for name in ("n", "control", "noise_ceiling", "p", "train_seconds", "samples_per_second")}
    return {
        **means,
        "value": value,
        "ci_low": np.maximum(value - down, score.least),
        "ci_high": np.minimum(value + up, score.most),
        "seeds": part.seed.nunique(),
        "parameters": int(part.parameters.iloc[0]),
        "fingerprints": " ".join(sorted(set(part.fingerprint))),
    }


def _difference(part: pd.DataFrame) -> dict[str, Any]:
    """What the seeds' paired comparisons say together; where answers of few units were swapped, what all of them say."""
    value = float(part.difference.mean())
    wide = _widened(((part.ci_high - part.ci_low) / 2).to_numpy(), part.difference.to_numpy())
    return {
        "baseline": part.baseline.mode().iloc[0],
        "baseline_value": float(part.baseline_value.mean()),
        "difference": value,
        "difference_low": value - wide,
        "difference_high": value + wide,
        "verdict": _verdict(part, value, wide),
    }


def _verdict(part: pd.DataFrame, value: float, wide: float) -> str:
    """That of value +- wide, or of stamps where answers were swapped; none where a seed has none: all have the same test units."""
    if (part.stamp == NO_VERDICT).any() or not np.isfinite(wide):
        return NO_VERDICT
    if (part.test == SWAPS).any():
        return str(part.stamp.iloc[0]) if part.stamp.nunique() == 1 else TIES
    return BEATS if value > wide else LOSES if value < -wide else TIES


def _widened(half: Any, values: Any) -> float:
    between = half_width(values) if len(values) > 1 else 0.0
    return float(np.hypot(np.sqrt(np.mean(half**2)), between))


def half_width(values: Any) -> float:
    """Half the 95 % interval of the mean of (n,) values, by Student's t: they are few. NaN of fewer than two."""
    from scipy import stats

    n = len(values)
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else np.nan


def of_signals(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows are forecasts or reconstructions of neural signals, as `knowledge.task_table` names them."""
    return table.task.str.contains(r"(?:_reconstruction|_in_[\d.]+s)$")


def once(table: pd.DataFrame) -> pd.DataFrame:
    """Without tasks of datasets whose pool answers them too: the same people count once."""
    pooled = {
        (dataset, task) for name in POOLS if name in set(table.dataset) for dataset in POOLS[name].datasets for task in POOLS[name].tasks
    }
    return table[np.array([case not in pooled for case in zip(table.dataset, table.task, strict=True)], bool)]


def rows_of(table: pd.DataFrame) -> list[Any]:
    """The rows as named tuples, whose cells type checkers need not know."""
    return list(table.itertuples(index=False))
