"""NeuroFMx, its ablations and every baseline that applies, on every task of every dataset that is here.

Variants: as it is; without pretraining (one update of it); without the Perceiver (tokens averaged); without state-space blocks
(a GRU of equal size). Each is pretrained on the training windows of all datasets with tasks, fitted to each recording's and
each dataset's tasks, and probed frozen, with every seed; all get the same updates. Baselines are the artifacts that the assets
make: fitted once, each tuned on validation windows. A task counts as won or tied where the best of NeuroFMx's ways of
answering it (fine-tuned, linear probe) is not surely worse than the best baseline, both taken on the test windows. Where the
test units are too few to tell, whatever the answers, a task does not count at all.

Every cell is an artifact of its own, found again by its fingerprint: a run that was stopped goes on, a second computes
nothing. The report, with every row traced to its run and data, is written by the job that writes the scorecards.

`ratio` = share of tasks, forecasts and reconstructions won or tied, among those that are decided / 0.5. Forecasts and
reconstructions are most of them, so their share and that of the tasks proper are printed apart.
"""

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from neurofm_assets.assets.data import scalers_for, shards
from neurofm_assets.automation import STEPS
from neurofm_assets.demo import UPDATES_A_DATASET, runs
from neurofm_assets.partitions import CARDS, LABELLED, TASKED, members, modalities_of, pools_of, task_modalities
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.config import patch, to_dict
from neurofm_ml.evaluation.scorecard.evidence import CASE, of_signals, once
from neurofm_ml.evaluation.scoring.scores import BASELINE, BEATS, NO_VERDICT, STAMPS, TIES, goodness
from neurofm_ml.files import home
from neurofm_ml.jobs import JobSpec, run
from neurofm_ml.knowledge.files import is_here

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "no pretraining": {"train": {"steps": 1}},
    "no Perceiver": {"model": {"fusion": "mean"}},
    "no SSM": {"model": {"backbone": "gru"}},
}
Paths = list[str]


def spec(job: str, cfg: Any, out: Path, **inputs: Iterable[str]) -> JobSpec:
    return JobSpec(job=job, config=to_dict(cfg), inputs={role: tuple(paths) for role, paths in inputs.items()}, out=str(out))


def made(*asked: Any, **inputs: Iterable[str]) -> str:
    """Path of the artifact, found or made."""
    return run(spec(*asked, **inputs)).path


def baselines_of(name: str, sources: Paths, scalers: Paths, out: Path) -> str:
    return made("fit_baselines", presets.BaselinesConfig(dataset=name), out / "baselines" / name, shards=sources, scaler=scalers)


def variant_of(
    name: str, seed: int, updates: int, used: dict[str, Paths], series: Paths, labels: Paths, references: Paths, out: Path
) -> str:
    """Scores of one variant and seed: pretrained, fitted, probed, scored."""
    key = f"tiny-{seed}" if not name else f"tiny-{seed}-{name.replace(' ', '-').lower()}"
    base = patch(presets.pretrain("tiny", seed), {"train": {"steps": updates}})
    pretrained = made("pretrain_neurofmx", patch(base, VARIANTS[name]), out / "neurofmx_pretrained" / key, **used)
    common = {"pretrained": [pretrained], "scaler": used["scaler"]}
    adapted = made("adapt", presets.adapt("tiny", seed), out / "neurofmx_adapted" / key, shards=series, **common)
    told = made("adapt_labels", presets.adapt_labels("tiny", seed), out / "neurofmx_label_decoders" / key, shards=labels, **common)
    features = made("extract_features", presets.FeaturesConfig(), out / "features" / key, shards=used["shards"], **common)
    probes = made("probe", presets.ProbeConfig(seed=seed), out / "probes" / key, features=[features], **used)
    told_of = made("answer_signals", presets.SignalsConfig(seed=seed), out / "signal_answers" / key, pretrained=[pretrained], **used)
    cfg = presets.ScoreConfig(size="tiny", seed=seed, variant=name)
    return made("score", cfg, out / "scores" / key, answers=[adapted, told, probes, told_of], baselines=references, **used)


def cells(pool: ProcessPoolExecutor, tasks: Mapping[Any, tuple[Any, ...]], what: str) -> dict[Any, str]:
    """Results of all tasks by their keys, with a progress bar; in the order of the tasks, whichever ends first, for what is made from
    them is known by it. The first that fails is told when it does."""
    waiting = {key: pool.submit(*task) for key, task in tasks.items()}
    for done in tqdm(as_completed(waiting.values()), total=len(waiting), desc=what, disable=None):
        done.result()
    return {key: done.result() for key, done in waiting.items()}


def rows_of(summary: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Each task that NeuroFMx answers: the best baseline, and of each variant the best way of answering it."""
    summary = summary.assign(good=goodness(summary), variant=summary.method.map(lambda m: ", ".join(m.split(", ")[1:])))
    for case, rows in summary.groupby(CASE):
        if rows.family.eq(BASELINE).all():
            continue
        best = rows[rows.family == BASELINE].sort_values("good").iloc[-1]
        row = {"task": "/".join(map(str, case)), "metric": best.metric, "best baseline": f"{best.method} {best.value:.3f}"}
        for name in VARIANTS:
            ours = rows[(rows.family != BASELINE) & (rows.variant == name)].sort_values("good")
            if len(ours):
                top = ours.iloc[-1]
                row[name or "NeuroFMx"] = f"{top.value:.3f} [{top.ci_low:.3f}, {top.ci_high:.3f}]"
                row[f"{name}!"] = top.verdict
        yield row


def printed(rows: list[dict[str, Any]]) -> None:
    shown = ["task", "metric", "best baseline", "NeuroFMx", *list(VARIANTS)[1:]]
    table = pd.DataFrame(rows)
    print(table.reindex(columns=shown).astype(object).fillna("").to_string(index=False))
    signals = of_signals(table)
    for name in (name for name in VARIANTS if f"{name}!" in table):
        for what, said in (("tasks", table[~signals]), ("forecasts and reconstructions", table[signals])):
            counts = said[f"{name}!"].value_counts()
            print(f"{name or 'NeuroFMx'}, {what}: " + ", ".join(f"{counts.get(v, 0)} {v}" for v in STAMPS))


def shares(rows: list[dict[str, Any]]) -> dict[str, tuple[float, int]]:
    """Share of the cases that NeuroFMx wins or ties, and of how many: of all that are decided, of tasks, and of forecasts and
    reconstructions. NaN of none."""
    table = pd.DataFrame(rows, columns=["task", "!"])
    decided = table[table["!"].notna() & (table["!"] != NO_VERDICT)]
    signals = of_signals(decided)
    parts = {"all": decided, "tasks": decided[~signals], "forecasts and reconstructions": decided[signals]}
    return {name: (float(part["!"].isin((BEATS, TIES)).mean()), len(part)) for name, part in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--variants", nargs="+", choices=[name or "whole" for name in VARIANTS], default=[name or "whole" for name in VARIANTS]
    )
    parser.add_argument("--datasets", nargs="+", choices=TASKED, default=[name for name in TASKED if is_here(CARDS[name])])
    parser.add_argument("--updates", type=int, help="of pretraining; by default as many as `make full` takes")
    args = parser.parse_args()
    wrong: dict[str, str] = {}
    list(runs(args.datasets, wrong, STEPS[:2]))
    store, names = Store(home=str(home())), [name for name in args.datasets if name not in wrong]
    out, chosen = Path(home()) / "artifacts", {name: store.get(shards, name) for name in names}
    used = {"shards": list(chosen.values()), "scaler": scalers_for(store, chosen, modalities_of(chosen))}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        asked = {key: {name: chosen[name] for name in members(key)} for key in (*names, *pools_of(names))}
        scales = {key: scalers_for(store, own, sorted({m for n in own for m in task_modalities(CARDS[n])})) for key, own in asked.items()}
        references = cells(
            pool, {key: (baselines_of, key, list(own.values()), scales[key], out) for key, own in asked.items()}, "baselines"
        )
        preset = presets.pretrain("tiny")
        series = [chosen[name] for name in names if CARDS[name].series_tasks]
        labels = [chosen[name] for name in names if CARDS[name].label_tasks]
        updates = args.updates or max(
            preset.train.steps, round(UPDATES_A_DATASET * len(set(names) & set(LABELLED)) / preset.labelled_share)
        )
        common = (updates, used, series, labels, list(references.values()), out)
        grid = [(name.replace("whole", ""), seed) for seed in args.seeds for name in args.variants]
        scores = cells(pool, {cell: (variant_of, *cell, *common) for cell in grid}, "variants")
    audit = made("audit", presets.AuditConfig(), out / "leakage_audit" / "leaderboard", **used)
    report = made(
        "write_scorecard", presets.ScorecardConfig(size="tiny"), out / "scorecard" / "leaderboard", scores=[scores[c] for c in grid]
    )
    summary = once(pd.read_parquet(Path(report) / "summary.parquet"))
    rows = list(rows_of(summary))
    printed(rows)
    for name, why in wrong.items():
        print(f"left out: {name}: {why}")
    print(f"leaks: {json.loads((Path(audit) / 'result.json').read_text())['metrics']['leaks']}, see {audit}/audit.md")
    print(f"report: {report}/report.html")
    found = shares(rows)
    for name, (share, n) in found.items():
        print(f"best or tied, {name}: {share:.3f} of {n}")
    print(f"not counted, {NO_VERDICT}: {sum(row.get('!') == NO_VERDICT for row in rows)}")
    share = found["all"][0]
    print(
        json.dumps({"name": "leaderboard", "ours": round(share, 3), "peer": 0.5, "ratio": round(share / 0.5, 3), "unit": "share of tasks"})
    )


if __name__ == "__main__":
    main()
