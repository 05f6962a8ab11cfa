"""The scores table: one row per (task, method), its interval, its control, and who beats the baselines.

`scores.parquet` has exactly the columns of `types.SCORE_COLUMNS`; `comparisons.parquet` says how
each method stands to the best tuned baseline of its task.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.data.predictions import Prediction
from neurofm_ml.evaluation.statistics.controls import above_chance, control_and_p
from neurofm_ml.evaluation.statistics.permutation import swap_p
from neurofm_ml.evaluation.statistics.resampling import LEVEL, Interval, difference, interval
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase
from neurofm_ml.evaluation.tasks.signals import SignalCase
from neurofm_ml.evaluation.tasks.tasks import Case
from neurofm_ml.metrics import SCORES
from neurofm_ml.types import SCORE_COLUMNS, Check

#: What a method answers.
AnyCase = Case | LabelCase | SignalCase
BASELINE = "baseline"
BEATS, TIES, LOSES = "beats baseline", "ties", "does not beat baseline"
#: Of comparisons that no answers whatever could have decided: they are neither won, nor tied, nor lost.
NO_VERDICT = "too few to tell"
STAMPS = (BEATS, TIES, LOSES, NO_VERDICT)
NO_CEILINGS: Mapping[tuple[str, str, str], float] = MappingProxyType({})
#: Controls above this R2 mean that a score can be had without knowing anything.
CHANCE = 0.1
#: Fewer units than this are not resampled: their answers are swapped between the two methods instead, in every pattern.
FEW_UNITS = 10
BLOCKS, WHOLE_UNITS, SWAPS = "bootstrap of blocks", "bootstrap of units", "swaps of units"

COMPARISON_COLUMNS = {
    "dataset": str, "recording": str, "task": str, "method": str, "baseline": str, "value": float, "baseline_value": float,
    "metric": str, "difference": float, "ci_low": float, "ci_high": float, "p": float, "block": int, "pieces": float, "test": str,
    "stamp": str,
}  # fmt: skip


def score_predictions(
    predictions: Iterable[Prediction],
    cases: Iterable[AnyCase],
    *,
    run: str,
    fingerprint: str,
    size: str = "",
    n_boot: int = 1000,
    ceilings: Mapping[tuple[str, str, str], float] = NO_CEILINGS,
) -> pd.DataFrame:
    """Rows of the scores table, one per prediction; `cases` say what species and modality each task has, `ceilings` which have one."""
    about = {case.key: case for case in cases}
    constant = {"run": run, "fingerprint": fingerprint, "size": size}
    rows = [{**constant, **_row(p, about[p.case], n_boot), "noise_ceiling": ceilings.get(p.case, math.nan)} for p in predictions]
    return frame(rows, SCORE_COLUMNS)


def _row(prediction: Prediction, case: AnyCase, n_boot: int) -> dict[str, Any]:
    found = interval(prediction, n_boot)
    control, p = control_and_p(prediction)
    copied = ("family", "seed", "task", "trained_on", "dataset", "recording", "method", "metric")
    measured = ("k_shot", "parameters", "train_seconds", "samples_per_second")
    return {
        **{name: getattr(prediction, name) for name in copied + measured},
        "split": "test",
        "species": case.species,
        "modality": case.modality,
        "value": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "p": p,
        "n": int(prediction.mask.sum()),
        "control": control,
    }


def compare(predictions: Sequence[Prediction], n_boot: int = 1000) -> pd.DataFrame:
    """Each method that is no baseline against the best baseline of its task, by a paired bootstrap of what is independent: blocks
    of time, or units. Where there are fewer than FEW_UNITS units, all patterns of swapping their answers are tried; column `test`
    says which it was.

    The best baseline is the best on the test block itself, which is to the baselines' advantage. `difference` is how much
    better ours is, of an error how much smaller. Stamps: "beats baseline" when the 95 % interval of the difference lies above 0
    (with few units: when p < .05), "does not beat baseline" when it lies below, else "ties"; "too few to tell" of five units or
    fewer, whose least p is 2 / 2^5, and where there is no interval. Raises ValueError for a task without a baseline.
    """
    best: dict[tuple[str, str, str], tuple[float, Prediction]] = {}
    for p in predictions:
        if p.family == BASELINE and (value := p.score.sign * p.value) > best.get(p.case, (-math.inf,))[0]:
            best[p.case] = value, p
    rows = [_comparison(p, _best_of(best, p), n_boot) for p in predictions if p.family != BASELINE]
    return frame(rows, COMPARISON_COLUMNS)


def _best_of(best: dict[tuple[str, str, str], tuple[float, Prediction]], ours: Prediction) -> Prediction:
    if ours.case not in best:
        raise ValueError(f"no baseline answers {'/'.join(ours.case)}; run fit_baselines for dataset {ours.dataset!r}.")
    return best[ours.case][1]


def _comparison(ours: Prediction, baseline: Prediction, n_boot: int) -> dict[str, Any]:
    _require_same_truth(ours, baseline)
    found, test = _better_by(ours, baseline, n_boot)
    return {
        **dict(zip(("dataset", "recording", "task"), ours.case, strict=True)),
        "method": ours.method,
        "baseline": baseline.method,
        "value": ours.value,
        "baseline_value": baseline.value,
        "metric": ours.metric,
        "difference": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "p": found.p,
        "block": found.block,
        "pieces": found.pieces,
        "test": test,
        "stamp": _stamp(found, test),
    }


def _stamp(found: Interval, test: str) -> str:
    """The verdict; none where a swap of all units, the rarest pattern there is, were no surprise, or an end is unknown."""
    undecidable = test == SWAPS and 2 / 2**found.pieces >= 1 - LEVEL
    if undecidable or not np.isfinite((found.value, found.low, found.high)).all():
        return NO_VERDICT
    sure = found.p < 1 - LEVEL if test == SWAPS else found.low > 0 or found.high < 0
    return TIES if not sure else BEATS if found.value > 0 else LOSES


def _better_by(ours: Prediction, baseline: Prediction, n_boot: int) -> tuple[Interval, str]:
    """How much better ours is, and how that was found."""
    pair = (ours, baseline) if not ours.score.lower_is_better else (baseline, ours)
    found = difference(*pair, n_boot)
    if ours.units is None:
        return found, BLOCKS
    if found.pieces >= FEW_UNITS:
        return found, WHOLE_UNITS
    return found._replace(p=swap_p(ours, baseline)), SWAPS


def _require_same_truth(a: Prediction, b: Prediction) -> None:
    """Predictions can be paired only bin by bin; targets may have gone through float32."""
    same = a.y_true.shape == b.y_true.shape
    both = a.mask & b.mask if same else None
    close = both is not None and np.allclose(a.y_true[both], b.y_true[both], rtol=1e-3, atol=1e-3 * float(np.std(b.y_true[b.mask])))
    of_a, of_b = (np.array([]) if p.units is None else p.units for p in (a, b))
    if not close or a.metric != b.metric or not np.array_equal(of_a, of_b):
        raise ValueError(
            f"{a.method} and {b.method} of {'/'.join(a.case)} were scored on different targets "
            f"({a.y_true.shape} by {a.metric} and {b.y_true.shape} by {b.metric}) or units; make both from the same shards."
        )


# ---------------------------------------------------------------- summary
def goodness(table: pd.DataFrame) -> pd.Series:
    """The value of each row, turned round where lower is better."""
    return table.value * np.array([SCORES[name].sign for name in table.metric], float)


def best_first(table: pd.DataFrame) -> pd.DataFrame:
    """The rows task by task, the best of each first."""
    return table.assign(_good=-goodness(table)).sort_values(["dataset", "recording", "task", "_good"]).drop(columns="_good")


def mean_scores(table: pd.DataFrame) -> dict[str, float]:
    """Mean of each method over the tasks of each metric, each task counting once."""
    return {f"mean_{metric}.{method}": round(float(rows.value.mean()), 4) for (metric, method), rows in table.groupby(["metric", "method"])}


def control_check(predictions: Sequence[Prediction]) -> tuple[Check, ...]:
    """Whether every control sits at chance: no R2 above CHANCE, and no other score further above chance than so many would lie by
    luck in 5 % of such tables (Sidak 1967)."""
    by_r2, others = ([p for p in predictions if (p.metric == "r2") == which] for which in (True, False))
    worst = max([control_and_p(p)[0] for p in by_r2], default=0.0)
    limit = NormalDist().inv_cdf(LEVEL ** (1 / len(others))) if others else 0.0
    excess = max([above_chance(p) for p in others], default=0.0)
    numbers = {"largest_control_r2": worst, "largest_excess": excess}
    threshold = f"R2 <= {CHANCE}; others <= {limit:.2f} deviations above chance"
    return (Check("controls_at_chance", worst <= CHANCE and excess <= limit, "warn", numbers, threshold),)


# ---------------------------------------------------------------- files
def write_scores(table: pd.DataFrame, path: Path) -> None:
    """Write a scores table. Raises ValueError when its columns or types are not those of SCORE_COLUMNS."""
    _typed(table, SCORE_COLUMNS).to_parquet(path, index=False)


def read_scores(path: Path) -> pd.DataFrame:
    """Read a scores table and hold it to SCORE_COLUMNS."""
    return _typed(pd.read_parquet(path), SCORE_COLUMNS)


_KINDS = {int: "iu", float: "fiu"}
_DTYPES = {str: "str", int: "int64", float: "float64"}


def frame(rows: list[dict[str, Any]], columns: Mapping[str, type]) -> pd.DataFrame:
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
