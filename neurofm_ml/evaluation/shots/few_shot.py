"""Job `few_shot`: what few labels are worth on frozen features, on the recordings themselves, and from scratch.

Of every task, K labelled examples are drawn from its training rows several times (`shots`: K per class, K people for a number, K
seconds of a series; whole trials), the same for every method:

    few_shot_linear_probe   a ridge on the model's features
    few_shot_raw_ridge      the same ridge on the recordings: lagged bins, band power, connectivity, courses of activity
    few_shot_mlp            a network of one hidden layer from scratch, on the same

Where the model's pretraining learned from labels of the task (behaviour decoding), its probe is called
``linear_probe_of_seen_labels``: its features know more labels than were drawn.

No other label is used: penalties, widths of lags and views are chosen by leaving parts of these few out. The value is the mean
over draws on all test rows. Its interval joins two doubts: that of the test units or blocks, resampled for every draw, which
more draws do not lessen, and that of the draws, which they do. `p` is of the mean over draws of R2, AUROC or balanced accuracy
(`nulls`), `control` the same method on exchanged labels. Rows without `k_shot` have all labels.

    scores.parquet     types.SCORE_COLUMNS
    examples.parquet   EXAMPLE_COLUMNS: how many training examples each task has in all, and of how many classes (0: a number)
    few_shot.png       a curve per task and method
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml import markdown
from neurofm_ml.data.schemas import SCORES as SCHEMA
from neurofm_ml.data.schemas import validate
from neurofm_ml.evaluation.features.features import Features, load_features
from neurofm_ml.evaluation.scoring.scores import BASELINE, CHANCE, frame, write_scores
from neurofm_ml.evaluation.shots.shot_curves import draw_curves
from neurofm_ml.evaluation.shots.shot_methods import Answer, network, ridge
from neurofm_ml.evaluation.shots.shots import draw, same_rows, trials_of
from neurofm_ml.evaluation.statistics.permutation import permutation_p
from neurofm_ml.evaluation.statistics.resampling import LEVEL, score_interval
from neurofm_ml.evaluation.tasks.label_tasks import find_label_cases
from neurofm_ml.evaluation.tasks.tasks import find_cases
from neurofm_ml.evaluation.transfer.example_sources import label_examples, raw_labels, raw_series, series_of
from neurofm_ml.evaluation.transfer.examples import Examples
from neurofm_ml.evaluation.transfer.nulls import null_scores
from neurofm_ml.metrics import SCORES
from neurofm_ml.presets import FewShotConfig
from neurofm_ml.types import SCORE_COLUMNS, Array, Check, Report

PROBE, RAW, SCRATCH = "few_shot_linear_probe", "few_shot_raw_ridge", "few_shot_mlp"
#: The same probe where pretraining learned from all labels of the task.
SEEN = "linear_probe_of_seen_labels"
EXAMPLE_COLUMNS = {"dataset": str, "recording": str, "task": str, "examples": int, "classes": int}
#: What a network from scratch reads of series: bins within four of each.
NETWORK_LAG = 3
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Question:
    """One task: its rows on a model's features, and the same rows in the views of the recordings. `seen`: the model's pretraining
    learned from the labels of this very task."""

    dataset: str
    recording: str
    features: Examples
    raw: Sequence[Examples]
    seen: bool = False

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.recording}/{self.features.task.name}"

    @property
    def lacks(self) -> str:
        """Why there is no curve; empty where there is one."""
        test = self.features.split("test")
        y, units = test.y[:, 0], test.groups("unit")
        if not len(y) or not len(self.features.split("train").y):
            return "no training or no test rows on these features"
        if test.task.classes and min(len(np.unique(units[y == c])) for c in range(len(test.task.classes))) < 2:
            return "fewer than two test units of a class"
        return "fewer than three test units" if len(np.unique(units)) < 3 else ""


def few_shot(cfg: FewShotConfig, features: Path, shards: list[Path], scaler: list[Path], out: Path) -> Report:
    """Curves of every task for which there are features; tasks without one, and numbers of examples that a task has not, are left
    out by name."""
    left_out: dict[str, str] = {}
    rows: list[Row] = []
    counts: list[Row] = []
    for question in questions(load_features(features), shards, scaler, cfg.layer):
        if question.lacks:
            left_out[question.name] = question.lacks
        else:
            rows += rows_of(question, cfg, left_out)
            counts.append(count(question))
    frame(counts, EXAMPLE_COLUMNS).to_parquet(out / "examples.parquet", index=False)
    constant = {"run": f"{cfg.size}-{cfg.seed}", "fingerprint": out.name.removeprefix("work-"), "size": cfg.size, "seed": cfg.seed}
    return publish([{**constant, **row} for row in rows], left_out, out)


def questions(found: Mapping[str, Features], shards: Sequence[Path], scaler: Sequence[Path], layer: str) -> Iterator[Question]:
    """Every task of every recording, or of every dataset where windows have labels."""
    for folder in shards:
        for case in find_cases(folder, scaler):
            if case.dataset in found and (examples := series_of(case, found[case.dataset], layer)):
                features, seen = found[case.dataset], _seen(found[case.dataset], case.task.name)
                yield Question(case.dataset, case.recording, examples, raw_series(case, features.windows), seen)
        for label_case in find_label_cases(folder, scaler):
            if label_case.dataset in found:
                examples = label_examples(label_case, found[label_case.dataset], layer)
                raw, seen = raw_labels(label_case), _seen(found[label_case.dataset], label_case.task.name)
                yield Question(label_case.dataset, "all", examples, [same_rows(view, examples) for view in raw], seen)


def _seen(features: Features, task: str) -> bool:
    return f"{features.card.name}/{task}" in features.labels_seen


def count(question: Question) -> Row:
    """A row of EXAMPLE_COLUMNS: the training examples as they are drawn, whole trials."""
    train = question.features.split("train")
    case = {"dataset": question.dataset, "recording": question.recording, "task": train.task.name}
    return {**case, "examples": trials_of(train).nunique(), "classes": len(train.task.classes)}


# ---------------------------------------------------------------- one task
def rows_of(question: Question, cfg: FewShotConfig, left_out: dict[str, str]) -> list[Row]:
    """Rows of every method at every number of examples, and at all there are."""
    rows = []
    for k in (*cfg.shots, None):
        draws = [None] if k is None else [draw(question.features, k, [cfg.seed, k, s]) for s in range(cfg.draws)]
        if k is not None and None in draws:
            left_out[f"{question.name} at {k}"] = "not so many examples of each class"
            continue
        for method, answer in answers(question, draws, cfg.seed):
            family = cfg.family if method in (PROBE, SEEN) else BASELINE
            rows.append({**_row(question, answer, cfg), "method": method, "family": family, "k_shot": np.nan if k is None else float(k)})
    return rows


def answers(question: Question, draws: Sequence[list[str] | None], seed: int) -> Iterator[tuple[str, Answer]]:
    """What each method says after each draw."""
    yield SEEN if question.seen else PROBE, ridge([question.features], draws, seed)
    if question.raw:
        yield RAW, ridge(question.raw, draws, seed)
        yield SCRATCH, network(question.raw[0 if question.features.task.is_label else NETWORK_LAG], draws, seed)


def _row(question: Question, answer: Answer, cfg: FewShotConfig) -> Row:
    test, about = question.features.split("test"), question.features.about.iloc[0]
    metric = test.task.metric
    value, low, high = interval_over(metric, test, answer.said, cfg.n_boot, cfg.seed)
    control = float(np.mean([SCORES[metric].value(test.y, said) for said in answer.control]))
    null = np.mean([null_scores(test, said, cfg.n_perm, [cfg.seed]) for said in answer.said], axis=0)
    return {
        "task": test.task.name,
        "trained_on": f"{question.dataset}/{question.recording}",
        "dataset": question.dataset,
        "recording": question.recording,
        "split": "test",
        "species": about.species,
        "modality": about.modality,
        "metric": metric,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "p": permutation_p(float(null[0]), null[1:]),
        "noise_ceiling": np.nan,
        "n": len(test.y),
        "control": control,
        "excess": SCORES[metric].sign * (control - SCORES[metric].at_chance(test.y)),
        "parameters": answer.parameters,
        "train_seconds": answer.train_seconds,
        "samples_per_second": answer.samples_per_second,
    }


def interval_over(metric: str, test: Examples, said: Array, n_boot: int, seed: int) -> tuple[float, float, float]:
    """Mean score of what was said (S, n, K) after S draws, and its 95 % interval over test units (blocks of a series) and draws."""
    from scipy import stats

    units = test.groups("unit") if test.task.is_label else None
    found = [score_interval(metric, test.y, one, units, n_boot, seed) for one in said]
    values, score = np.array([one.value for one in found]), SCORES[metric]
    of_units = np.sqrt(np.mean([max(one.value - one.low, one.high - one.value) ** 2 for one in found]))
    n = len(values)
    of_draws = stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
    value, half = float(values.mean()), float(np.hypot(of_units, of_draws))
    return value, max(value - half, score.least), min(value + half, score.most)


# ---------------------------------------------------------------- all tasks
def publish(rows: list[Row], left_out: Mapping[str, str], out: Path) -> Report:
    """Write table and picture, and say what was found."""
    excess = [row.pop("excess") for row in rows]
    table = frame(rows, SCORE_COLUMNS)
    write_scores(table, out / "scores.parquet")
    shown = {"table": "scores.parquet"}
    if len(table):
        draw_curves(table, out / "few_shot.png")
        shown["picture"] = "few_shot.png"
    metrics: dict[str, float | int | str] = {"rows": len(table), "tasks": len(table.groupby(["dataset", "recording", "task"]))}
    shots = table.k_shot.map(lambda k: "all" if np.isnan(k) else f"{k:g}")
    for name, part in table.assign(shots=shots).groupby(["method", "metric", "shots"]):
        metrics[".".join(map(str, name))] = round(float(part.value.mean()), 4)
    metrics["left_out"] = markdown.by_reason(left_out)
    valid = validate(table, SCHEMA) if len(table) else Check("table_is_valid", True, numbers={"rows": 0})
    return Report(metrics, (valid, _controls(table.assign(excess=np.array(excess, float)))), shown)


def _controls(table: pd.DataFrame) -> Check:
    """Whether exchanged labels teach nothing: of no method and metric does the mean control lie above chance by more than CHANCE,
    the luck of so many rows (a one-sided 95 % interval) granted."""
    excess = table.groupby(["method", "metric"]).excess
    sure = float((excess.mean() - 1.645 * excess.std().fillna(0.0) / np.sqrt(excess.size())).max()) if len(table) else 0.0
    return Check("controls_at_chance", sure <= CHANCE, "warn", {"largest_sure_excess": sure}, f"<= {CHANCE} above chance")
