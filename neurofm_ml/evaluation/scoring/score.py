"""Job `score`: everything that was predicted, in one table with intervals, controls and stamps.

scores.parquet        one row per task and method (types.SCORE_COLUMNS)
comparisons.parquet   each of our methods against the best baseline of its task, and the run
scores.md, scores.png the same to read
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from neurofm_ml.data.predictions import Prediction, load_predictions
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.schemas import SCORES, validate
from neurofm_ml.evaluation.scoring.label_answers import label_predictions
from neurofm_ml.evaluation.scoring.repeats import ceilings
from neurofm_ml.evaluation.scoring.report import draw_differences, write_markdown
from neurofm_ml.evaluation.scoring.scores import (
    BASELINE,
    BEATS,
    LOSES,
    NO_VERDICT,
    TIES,
    AnyCase,
    compare,
    control_check,
    mean_scores,
    score_predictions,
    write_scores,
)
from neurofm_ml.evaluation.statistics.ceilings import not_above_ceiling
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, find_label_cases, find_pooled_cases, leave_sites_out
from neurofm_ml.evaluation.tasks.signals import find_signals
from neurofm_ml.evaluation.tasks.tasks import Case, find_cases, find_encoding_cases
from neurofm_ml.presets import BaselinesConfig, ScoreConfig
from neurofm_ml.types import Report


def score(
    cfg: ScoreConfig, answers: Sequence[Path], shards: Sequence[Path], scaler: Sequence[Path], baselines: Sequence[Path], out: Path
) -> Report:
    """Score the artifacts that answer tasks (decoders of series and of labels, probes) beside the baselines of every dataset.

    What baselines alone answer (encoding, sites left out) stands in the table too.
    """
    series = [case for path in shards for find in (find_cases, find_encoding_cases) for case in find(path, scaler)]
    labels = [case for path in shards for case in find_label_cases(path, scaler)]
    labels += [one for case in find_pooled_cases(shards, scaler) for one in (case, *leave_sites_out(case))]
    signals = [case for path in shards for case in find_signals(path, scaler, BaselinesConfig(dataset=load_card(path).name).horizons_s)]
    known = {case.key for cases in (series, labels, signals) for case in cases}
    ours = {path: [_named(cfg, p) for p in _answers(path, labels) if p.case in known] for path in answers}
    references = {path: [p for p in load_predictions(path / "predictions") if p.case in known] for path in baselines}
    return publish(cfg, ours | references, [*series, *labels, *signals], out)


def _answers(path: Path, labels: Sequence[LabelCase]) -> list[Prediction]:
    """What an artifact says of test blocks, and of labels."""
    return load_predictions(path / "predictions") + (label_predictions(path, labels) if (path / "labels.parquet").exists() else [])


def _named(cfg: ScoreConfig, prediction: Prediction) -> Prediction:
    """The method with what the run lacks, if it lacks something."""
    return dataclasses.replace(prediction, method=f"{prediction.method}, {cfg.variant}") if cfg.variant else prediction


def publish(cfg: ScoreConfig, groups: Mapping[Path, list[Prediction]], cases: Sequence[AnyCase], out: Path) -> Report:
    """Write the tables, the text and the picture of predictions, grouped by the artifact they come from."""
    run = f"{cfg.size}-{cfg.seed}"
    predictions = [p for group in groups.values() for p in group]
    best = ceilings(case for case in cases if isinstance(case, Case))
    tables = [
        score_predictions(group, cases, run=run, fingerprint=source.name, size=cfg.size, n_boot=cfg.n_boot, ceilings=best)
        for source, group in groups.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    comparisons = compare(predictions, cfg.n_boot)
    write_scores(table, out / "scores.parquet")
    comparisons.assign(run=run).to_parquet(out / "comparisons.parquet", index=False)
    write_markdown(table, comparisons, out / "scores.md")
    draw_differences(comparisons, out / "scores.png")
    shown = {"scores": "scores.md", "picture": "scores.png", "table": "scores.parquet"}
    return Report(_metrics(table, comparisons), (*control_check(predictions), not_above_ceiling(table), validate(table, SCORES)), shown)


def _metrics(table: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, float | int | str]:
    """Mean of every method and metric; how often each of ours beats, ties, loses to the best baseline of a task, and how
    often too few units were there to tell."""
    tasks = table[table.family != BASELINE][["dataset", "recording", "task"]].drop_duplicates()
    metrics: dict[str, float | int | str] = {"tasks": len(tasks), **mean_scores(table)}
    for method, rows in comparisons.groupby("method"):
        counts = {"beats": BEATS, "ties": TIES, "loses": LOSES, "undecided": NO_VERDICT}
        metrics |= {f"{method}.{verdict}": int((rows.stamp == stamp).sum()) for verdict, stamp in counts.items()}
    return metrics
