"""Job `score`: everything that was predicted, in one table with intervals, controls and stamps.

scores.parquet        one row per task and method (types.SCORE_COLUMNS)
comparisons.parquet   each of our methods against the best baseline of its task
scores.md, scores.png the same to read
"""

from pathlib import Path

import pandas as pd

from neurofm_ml.data.predictions import Prediction, load_predictions
from neurofm_ml.data.scaler import load_scaler
from neurofm_ml.data.schemas import SCORES, validate
from neurofm_ml.evaluation.gru import problem_of
from neurofm_ml.evaluation.probe import fit_probe
from neurofm_ml.evaluation.report import draw_scores, write_markdown
from neurofm_ml.evaluation.scores import BASELINE, BEATS, LOSES, TIES, compare, control_check, mean_scores, score_predictions, write_scores
from neurofm_ml.evaluation.tasks import Case, find_cases
from neurofm_ml.presets import SPLITS, ScoreConfig
from neurofm_ml.training.decoders import block_latents
from neurofm_ml.training.saved import load_model
from neurofm_ml.types import Report


def score(
    cfg: ScoreConfig, pretrained: Path, adapted: Path, shards: list[Path], scaler: list[Path], baselines: list[Path], out: Path
) -> Report:
    """Score one run beside the baselines of every dataset it was adapted to."""
    cases = [case for folder in shards for case in find_cases(folder, scaler)]
    ours = load_predictions(adapted / "predictions")
    answered = {p.case for p in ours}
    probes = probe_predictions(cfg, pretrained, [case for case in cases if case.key in answered])
    groups = {adapted: ours, pretrained: probes} | {
        b: [p for p in load_predictions(b / "predictions") if p.case in answered] for b in baselines
    }
    return publish(cfg, groups, cases, out)


def probe_predictions(cfg: ScoreConfig, pretrained: Path, cases: list[Case]) -> list[Prediction]:
    """What a ridge reads from the frozen latents of the pretrained model, for sessions it was pretrained on."""
    model = load_model(pretrained)
    predictions = []
    for case in cases:
        problem, scaler = problem_of(case), load_scaler(case.scaler)
        if model.vocabulary.session_row(f"{problem.dataset}/{problem.session}"):
            latents = {split: block_latents(model, problem, scaler, split) for split in SPLITS}
            predictions.append(fit_probe(case, latents, "neurofmx", cfg.seed))
    return predictions


def publish(cfg: ScoreConfig, groups: dict[Path, list[Prediction]], cases: list[Case], out: Path) -> Report:
    """Write the tables, the text and the picture of predictions, grouped by the artifact they come from."""
    run = f"{cfg.size}-{cfg.seed}"
    predictions = [p for group in groups.values() for p in group]
    tables = [
        score_predictions(group, cases, run=run, fingerprint=source.name, size=cfg.size, n_boot=cfg.n_boot)
        for source, group in groups.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    comparisons = compare(predictions, cfg.n_boot)
    write_scores(table, out / "scores.parquet")
    comparisons.to_parquet(out / "comparisons.parquet", index=False)
    write_markdown(table, comparisons, out / "scores.md")
    draw_scores(table, out / "scores.png")
    shown = {"scores": "scores.md", "picture": "scores.png", "table": "scores.parquet"}
    return Report(_metrics(table, comparisons), (*control_check(predictions), validate(table, SCORES)), shown)


def _metrics(table: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, float | int | str]:
    """Mean score of every method and, for R2, of the best baseline of each task; how often each of ours beats, ties, loses."""
    best = table[(table.family == BASELINE) & (table.metric == "r2")].groupby(["dataset", "recording", "task"]).value.max()
    metrics: dict[str, float | int | str] = dict(mean_scores(table))
    if len(best):
        metrics["mean_r2_best_baseline"] = round(float(best.mean()), 4)
    for method, rows in comparisons.groupby("method"):
        counts = {"beats": BEATS, "ties": TIES, "loses": LOSES}
        metrics |= {f"{method}.{verdict}": int((rows.stamp == stamp).sum()) for verdict, stamp in counts.items()}
    return metrics
