"""The targets that the project set out with, each met or refuted by the tables, or said to be unmeasured.

A target is met when the whole 95 % interval lies at or beyond it, refuted when the whole interval lies short of it, and
open in between. Values are means over tasks, whose errors count as independent.

What is judged is NeuroFMx itself, no ablation and no other family, and on each task one way of answering it that was chosen before
any test row was seen: the first of PREFERRED that answers it, else the first by name. The best of several on the test rows would be
too good by luck. Tasks whose test units are too few to tell, or of which there is no interval, are left out, and the note says how
many. Of baselines the best on the test rows is taken, which is to their advantage.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.scorecard.evidence import CASE, Evidence, half_width, of_signals, once
from neurofm_ml.evaluation.scoring.scores import BASELINE, NO_VERDICT, best_first
from neurofm_ml.evaluation.shots.few_shot import PROBE, RAW, SCRATCH
from neurofm_ml.metrics import SCORES

MET, REFUTED, OPEN, UNMEASURED = "met", "refuted", "open", "not measured"
COLUMNS = ["target", "wanted", "verdict", "value", "ci_low", "ci_high", "best_baseline", "supervised", "tasks", "note"]
#: Of a place that hardly reads itself no share is taken.
LEAST_WITHIN = 0.1
#: Share of a task's training examples below which labels are few.
FEW_LABELS = 0.1
#: Two places read each other, and say nothing of a third.
LEAST_PLACES = 3
#: Methods that see all labels and fit all weights.
SUPERVISED = ("fine_tuned", "from_scratch")
#: The family that the targets are of, and its ways of answering in the order in which they are taken.
FAMILY, PREFERRED = "neurofmx", ("fine_tuned", "linear_probe")


@dataclass(frozen=True)
class Found:
    """What the tables say of a target: value with its interval; the best tuned baseline and full supervision on the same tasks;
    how many tasks were left out as too few to tell."""

    value: float
    low: float
    high: float
    tasks: int
    baseline: float = np.nan
    supervised: float = np.nan
    left_out: int = 0


@dataclass(frozen=True)
class Target:
    """What was wanted, how it is measured, and from which rows; `most` turns it round: the smaller the better."""

    name: str
    wanted: float
    measure: Callable[[Evidence], Found | None]
    note: str
    most: bool = False


def judge(evidence: Evidence) -> pd.DataFrame:
    """One row per target, with COLUMNS."""
    return pd.DataFrame([_row(target, target.measure(evidence)) for target in TARGETS], columns=COLUMNS)


def _row(target: Target, found: Found | None) -> dict[str, object]:
    head = {"target": target.name, "wanted": f"{'<=' if target.most else '>='} {target.wanted:g}", "note": target.note}
    if found is None:
        return {**head, "verdict": UNMEASURED}
    low, high = (-found.high, -found.low) if target.most else (found.low, found.high)
    wanted = -target.wanted if target.most else target.wanted
    verdict = MET if low >= wanted else REFUTED if high < wanted else UNMEASURED if np.isnan(found.value) else OPEN
    if found.left_out:
        head["note"] += f"; {found.left_out} left out: {NO_VERDICT}"
    numbers = {"value": found.value, "ci_low": found.low, "ci_high": found.high, "tasks": found.tasks}
    return {**head, "verdict": verdict, **numbers, "best_baseline": found.baseline, "supervised": found.supervised}


# ---------------------------------------------------------------- measures
def of_scores(tasks: Callable[[pd.DataFrame], pd.Series], elsewhere: bool = False) -> Callable[[Evidence], Found | None]:
    """Our answer (`_chosen`) to each task that `tasks` picks from the summary, beside the best baseline and full supervision; of
    methods that were fitted in other places if `elsewhere`, else of those fitted to the task."""

    def measure(evidence: Evidence) -> Found | None:
        table = evidence.summary
        table = table[tasks(table) & (table.method.str.contains("_across_") == elsewhere)]
        ours, left_out = _told(once(_chosen(table)), evidence)
        if ours.empty:
            return _nothing(left_out)
        found = _mean(ours, *_references(ours, evidence.summary))
        return replace(found, high=min(found.high, max(SCORES[name].most for name in ours.metric)), left_out=left_out)

    return measure


def of_ceilings(evidence: Evidence) -> Found | None:
    """Share of the noise ceiling that our answer to each task reaches, and the best baseline; NaN for ours where there is none."""
    table = evidence.summary
    table = table[table.noise_ceiling.notna()]
    if table.empty:
        return None
    columns = ["value", "ci_low", "ci_high"]
    table = table.assign(**table[columns].div(table.noise_ceiling, axis=0))
    (ours, left_out), theirs = _told(_chosen(table), evidence), _best(table[table.family == BASELINE])
    baseline = float(theirs.value.mean())
    found = _mean(ours, baseline) if len(ours) else Found(np.nan, np.nan, np.nan, len(theirs), baseline)
    return replace(found, left_out=left_out)


def of_few_shots(k: int) -> Callable[[Evidence], Found | None]:
    """Scores of classes at `k` examples each, beside the better of two baselines that saw the same, and full supervision. A
    model whose pretraining learned from the labels is not asked."""

    def measure(evidence: Evidence) -> Found | None:
        table = evidence.few_shot
        drawn = table[(table.k_shot == k) & table.metric.isin(("balanced_accuracy", "accuracy"))]
        ours, left_out = _told(_shots(drawn), evidence)
        if ours.empty:
            return _nothing(left_out)
        supervised = _references(ours, evidence.summary)[1]
        return replace(_mean(ours, _reference(ours, *_shots_of_baselines(drawn)), supervised), left_out=left_out)

    return measure


def of_few_labels(evidence: Evidence) -> Found | None:
    """What few labels reach of what all do, both above chance: of each task the most examples drawn that are less than FEW_LABELS of
    all it has. The doubt of both is joined as if they erred apart, though they share test rows: it is rather too wide. Baselines
    that saw the same few are a share of what ours reaches with all."""
    table, chance = evidence.few_shot, SCORES["auroc"].chance  # that of the others depends on how many classes there are
    table = table[table.metric == "auroc"]
    drawn, everything = _few(table, evidence.examples), _shots(table[table.k_shot.isna()])
    both = _shots(drawn).merge(everything, on=CASE, suffixes=("", "_of_all"))
    room = both.value_of_all - chance
    share = (both.value - chance) / room
    half = np.hypot(both.ci_high - both.ci_low, share * (both.ci_high_of_all - both.ci_low_of_all)) / 2 / room
    rows = both[CASE].assign(value=share, ci_low=share - half, ci_high=share + half, room=room)[room > LEAST_WITHIN]
    ours, left_out = _told(rows, evidence)
    if ours.empty:
        return _nothing(left_out)
    theirs = (rows.merge(ours[[*CASE, "room"]], on=CASE) for rows in _shots_of_baselines(drawn))
    baseline = _reference(ours, *(rows.assign(value=(rows.value - chance) / rows.room) for rows in theirs))
    return replace(_mean(ours, baseline), left_out=left_out)


def _few(table: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """The rows with the most examples, of each class, that together are less than FEW_LABELS of their task's; none where all are more."""
    table = table.merge(examples, on=CASE)
    table = table[table.k_shot * table.classes.clip(lower=1) < FEW_LABELS * table.examples]
    return table[table.k_shot == table.groupby(CASE).k_shot.transform("max")]


def _shots(rows: pd.DataFrame, method: str = PROBE, family: str = FAMILY) -> pd.DataFrame:
    """One row per task that the method answers, the mean over seeds."""
    rows = rows[(rows.method == method) & (rows.family == family)].astype({"value": float, "ci_low": float, "ci_high": float})
    return rows.groupby(CASE, as_index=False)[["value", "ci_low", "ci_high"]].mean()


def _shots_of_baselines(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """`_shots` of each baseline that learns from few labels."""
    return [_shots(rows, method, BASELINE) for method in (RAW, SCRATCH)]


def of_transfer(axis: str, within: bool) -> Callable[[Evidence], Found | None]:
    """Mean R2 of the cells of a transfer matrix off its diagonal, over seeds first, then over the sources of each target, then over
    targets, which alone are independent; `within`: as a share of each target's score on itself, of any metric, both above chance."""

    def measure(evidence: Evidence) -> Found | None:
        if evidence.transfer.empty:
            return None
        cells = evidence.transfer[(evidence.transfer.axis == axis) & (evidence.transfer.source != evidence.transfer.target)]
        # Of modalities one by one: what is left where some are missing, and what is found again, are other questions.
        cells = cells[~cells.task.str.startswith("retrieval") & ~(cells.source + cells.target).str.contains("+", regex=False)]
        cells = cells.groupby(["source", "target", "task", "metric"], as_index=False)[["value", "within", "chance"]].mean()
        room = cells.within - cells.chance
        values = ((cells.value - cells.chance) / room)[room > LEAST_WITHIN] if within else cells.value[cells.metric == "r2"]
        places = values.groupby(cells.target).mean().dropna()
        if len(places) < LEAST_PLACES:
            return None
        value, half = float(places.mean()), half_width(places)
        return Found(value, value - half, value + half, len(places))

    return measure


def unmeasured(evidence: Evidence) -> None:
    """Nothing here bears on it."""


def _told(rows: pd.DataFrame, evidence: Evidence) -> tuple[pd.DataFrame, int]:
    """The rows of which something can be told, and how many cannot: those without an interval, and of tasks without a verdict."""
    few = evidence.summary[evidence.summary.verdict == NO_VERDICT]
    told = np.isfinite((rows.ci_high - rows.ci_low).to_numpy(float)) & ~_cases(rows).isin(_cases(few)).to_numpy()
    return rows[told], int((~told).sum())


def _cases(rows: pd.DataFrame) -> "pd.Series[str]":
    """The name of each row's task."""
    return rows.dataset + "/" + rows.recording + "/" + rows.task


def _nothing(left_out: int) -> Found | None:
    """Of a target without a task: that nothing was asked, or how many were left out."""
    return Found(np.nan, np.nan, np.nan, 0, left_out=left_out) if left_out else None


def _references(ours: pd.DataFrame, summary: pd.DataFrame) -> tuple[float, float]:
    """`_reference` of the best baselines and of full supervision, wherever ours was fitted."""
    baseline, full = summary[summary.family == BASELINE], summary[summary.method.isin(SUPERVISED)]
    return _reference(ours, _best(baseline)), _reference(ours, _best(full))


def _reference(ours: pd.DataFrame, *others: pd.DataFrame) -> float:
    """The mean over our tasks of that of the others, one row per task each, which is largest; NaN where none answers all of them."""
    same = (rows[_cases(rows).isin(_cases(ours))] for rows in others)
    return max((float(rows.value.mean()) for rows in same if len(rows) == len(ours)), default=np.nan)


def _chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Our row of each task: by the first method of PREFERRED that answers it, else the first by name; methods that lack something
    are named with what they lack after a comma."""
    ours = table[(table.family == FAMILY) & ~table.method.str.contains(", ", regex=False)]
    rank = ours.method.map({method: k for k, method in enumerate(PREFERRED)}).fillna(len(PREFERRED))
    return ours.assign(_rank=rank).sort_values([*CASE, "_rank", "method"]).drop(columns="_rank").groupby(CASE, as_index=False).head(1)


def _best(table: pd.DataFrame) -> pd.DataFrame:
    """The row with the best value of each task."""
    return best_first(table).groupby(CASE, as_index=False).head(1)


def _mean(rows: pd.DataFrame, baseline: float = np.nan, supervised: float = np.nan) -> Found:
    half = float(np.linalg.norm((rows.ci_high - rows.ci_low).to_numpy() / 2)) / len(rows)
    value = float(rows.value.mean())
    return Found(value, value - half, value + half, len(rows), baseline, supervised)


def _named(*names: str, metric: str = "") -> Callable[[pd.DataFrame], pd.Series]:
    return lambda t: t.task.isin(names) & ((t.metric == metric) if metric else True)


def _behaviour(table: pd.DataFrame) -> pd.Series:
    return (table.metric == "r2") & ~table.task.isin(("age", "cognition")) & ~of_signals(table)


def _reconstruction(table: pd.DataFrame) -> pd.Series:
    return (table.metric == "r2") & table.task.str.endswith("_reconstruction")


TARGETS = (
    Target("neural reconstruction R2", 0.50, of_scores(_reconstruction), "hidden channels from the others"),
    Target("behaviour decoding", 0.80, of_scores(_behaviour), "R2 of behaviour, fine-tuned, else a linear probe"),
    Target(
        "cross-species transfer",
        0.60,
        of_transfer("species", within=False),
        "R2, cells off the diagonal, three species or more; tasks: species read",
    ),
    Target("five-shot accuracy", 0.75, of_few_shots(5), "balanced accuracy at 5 examples of each class"),
    Target(
        "zero-shot",
        0.45,
        of_scores(lambda t: t.method.str.startswith("zero_shot") & (t.metric == "r2"), elsewhere=True),
        "R2, no label of the target used",
    ),
    Target(
        "cross-modal retention",
        0.70,
        of_transfer("modality", within=True),
        "across over within, both above chance, readouts of one modality on another, three or more; tasks: modalities read",
    ),
    Target("share of full performance", 0.80, of_few_labels, "AUROC above chance, less than 10 % of the labels against all of them"),
    Target("age, mean absolute error (years)", 3.0, of_scores(_named("age", metric="mae")), "people held out", most=True),
    Target("disease AUROC", 0.85, of_scores(_named("diagnosis", metric="auroc")), "people held out"),
    Target("cognition R2", 0.50, of_scores(_named("cognition")), "full-scale IQ, people held out"),
    Target("language decoding BLEU", 0.30, unmeasured, "no model here writes text"),
    Target("share of the noise ceiling", 0.80, of_ceilings, "encoding, where people were shown the same"),
)
