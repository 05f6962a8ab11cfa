"""The scores table: one row per (task, method), its interval, its control, and who beats the baselines.

`scores.parquet` has exactly the columns of `types.SCORE_COLUMNS`; `comparisons.parquet` says how
each method stands to the best tuned baseline of its task.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml import metrics
from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.bootstrap import r2_difference, r2_interval
from neurofm_ml.evaluation.controls import control_and_p
from neurofm_ml.evaluation.tasks import Case
from neurofm_ml.types import SCORE_COLUMNS, Check

BASELINE = "baseline"
BEATS, TIES, LOSES = "beats baseline", "ties", "does not beat baseline"
#: Controls above this R2 mean that a score can be had without knowing anything.
CHANCE = 0.1

COMPARISON_COLUMNS = {
    "dataset": str, "recording": str, "task": str, "method": str, "baseline": str, "value": float, "baseline_value": float,
    "difference": float, "ci_low": float, "ci_high": float, "p": float, "block": int, "stamp": str,
}  # fmt: skip


def score_predictions(
    predictions: Iterable[Prediction], cases: Iterable[Case], *, run: str, fingerprint: str, size: str = "", n_boot: int = 1000
) -> pd.DataFrame:
    """Rows of the scores table, one per prediction; `cases` say what species and modality each task has."""
    about = {case.key: case for case in cases}
    constant = {"run": run, "fingerprint": fingerprint, "size": size}
    return _frame([{**constant, **_row(p, about[p.case], n_boot)} for p in predictions], SCORE_COLUMNS)


def _row(prediction: Prediction, case: Case, n_boot: int) -> dict[str, Any]:
    y_true, y_pred = prediction.scored
    interval = r2_interval(y_true, y_pred, n_boot)
    control, p = control_and_p(prediction)
    copied = ("family", "seed", "task", "trained_on", "dataset", "recording", "method", "metric")
    measured = ("k_shot", "parameters", "train_seconds", "samples_per_second")
    return {
        **{name: getattr(prediction, name) for name in copied + measured},
        "split": "test",
        "species": case.species,
        "modality": case.modality,
        "value": interval.value,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "p": p,
        "noise_ceiling": math.nan,
        "n": len(y_true),
        "control": control,
    }


def compare(predictions: Sequence[Prediction], n_boot: int = 1000) -> pd.DataFrame:
    """Each method that is no baseline against the best baseline of its task, by a paired block bootstrap.

    The best baseline is the best on the test block itself, which is to the baselines' advantage.
    Stamps: "beats baseline" when the 95 % interval of the difference lies above 0, "does not beat
    baseline" when it lies below, else "ties". Raises ValueError for a task without a baseline.
    """
    best: dict[tuple[str, str, str], tuple[float, Prediction]] = {}
    for p in predictions:
        if p.family == BASELINE and (value := _r2(p)) > best.get(p.case, (-math.inf,))[0]:
            best[p.case] = value, p
    rows = [_comparison(p, _best_of(best, p), n_boot) for p in predictions if p.family != BASELINE]
    return _frame(rows, COMPARISON_COLUMNS)


def _best_of(best: dict[tuple[str, str, str], tuple[float, Prediction]], ours: Prediction) -> Prediction:
    if ours.case not in best:
        raise ValueError(f"no baseline answers {'/'.join(ours.case)}; run fit_baselines for dataset {ours.dataset!r}.")
    return best[ours.case][1]


def _comparison(ours: Prediction, baseline: Prediction, n_boot: int) -> dict[str, Any]:
    _require_same_truth(ours, baseline)
    both = ours.mask & baseline.mask
    difference = r2_difference(baseline.y_true[both], ours.y_pred[both], baseline.y_pred[both], n_boot)
    return {
        **dict(zip(("dataset", "recording", "task"), ours.case, strict=True)),
        "method": ours.method,
        "baseline": baseline.method,
        "value": _r2(ours),
        "baseline_value": _r2(baseline),
        "difference": difference.value,
        "ci_low": difference.low,
        "ci_high": difference.high,
        "p": difference.p,
        "block": difference.block,
        "stamp": BEATS if difference.low > 0 else LOSES if difference.high < 0 else TIES,
    }


def _require_same_truth(a: Prediction, b: Prediction) -> None:
    """Predictions can be paired only bin by bin; targets may have gone through float32."""
    same = a.y_true.shape == b.y_true.shape
    both = a.mask & b.mask if same else None
    if both is None or not np.allclose(a.y_true[both], b.y_true[both], rtol=1e-3, atol=1e-3 * float(np.std(b.y_true[b.mask]))):
        raise ValueError(
            f"{a.method} and {b.method} of {'/'.join(a.case)} were scored on different targets "
            f"({a.y_true.shape} and {b.y_true.shape}); make both from the same shards."
        )


def _r2(prediction: Prediction) -> float:
    return metrics.r2(*prediction.scored)


# ---------------------------------------------------------------- summary
def mean_scores(table: pd.DataFrame) -> dict[str, float]:
    """Mean R2 of each method over its tasks, each task counting once."""
    return {f"mean_r2.{method}": round(float(rows.value.mean()), 4) for method, rows in table.groupby("method")}


def control_check(table: pd.DataFrame) -> tuple[Check, ...]:
    """Whether every shuffled control sits at chance."""
    worst = float(table.control.max()) if len(table) else 0.0
    return (Check("controls_at_chance", worst <= CHANCE, "warn", {"largest_control_r2": worst}, f"R2 <= {CHANCE}"),)


# ---------------------------------------------------------------- files
def write_scores(table: pd.DataFrame, path: Path) -> None:
    """Write a scores table. Raises ValueError when its columns or types are not those of SCORE_COLUMNS."""
    _typed(table, SCORE_COLUMNS).to_parquet(path, index=False)


def read_scores(path: Path) -> pd.DataFrame:
    """Read a scores table and hold it to SCORE_COLUMNS."""
    return _typed(pd.read_parquet(path), SCORE_COLUMNS)


_KINDS = {int: "iu", float: "fiu"}
_DTYPES = {str: "str", int: "int64", float: "float64"}


def _frame(rows: list[dict[str, Any]], columns: Mapping[str, type]) -> pd.DataFrame:
    """Rows as a table of exactly `columns`, also when there are none."""
    if rows:
        return _typed(pd.DataFrame(rows), columns)
    return pd.DataFrame({name: pd.Series(dtype=_DTYPES[kind]) for name, kind in columns.items()})


def _typed(table: pd.DataFrame, columns: Mapping[str, type]) -> pd.DataFrame:
    """The table with exactly `columns` (name -> type), in their order; numbers may widen, nothing else is converted."""
    if set(table) != set(columns):
        missing, unknown = [c for c in columns if c not in table], [c for c in table if c not in columns]
        raise ValueError(f"the scores table lacks columns {missing} and has unknown columns {unknown}; it needs {list(columns)}.")
    for name, kind in columns.items():
        if not pd.api.types.is_string_dtype(table[name]) if kind is str else table[name].dtype.kind not in _KINDS[kind]:
            raise ValueError(f"column {name!r} of the scores table has type {table[name].dtype}; it needs {kind.__name__}.")
    return table[list(columns)].astype({name: _DTYPES[kind] for name, kind in columns.items()})
