"""``make demo``: the whole graph at size tiny, seed 0, in this process, with a line per artifact.

The simulation always, three small real sets where NEUROFM_DATA names them; ``--full`` takes every
dataset that is here, ``--shards`` (``make shards``) those that it names, to their shards. What was made before is found again, so a second run computes nothing. Runs are
kept in NEUROFM_HOME, where ``make ui`` shows them.
"""

import argparse
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError

from neurofm_assets.assets.models import neurofmx_pretrained
from neurofm_assets.automation import ALL_STEPS, NEEDED, STEPS
from neurofm_assets.compute import InProcess
from neurofm_assets.definitions import build_defs
from neurofm_assets.instance import write_settings
from neurofm_assets.partitions import BY_SIZE, CARDS, LABELLED, MODALITIES, RUNS, modalities_of, pools_of, run_key
from neurofm_ml.jobs import JobResult, JobSpec
from neurofm_ml.knowledge.cards import datasets, mistakes
from neurofm_ml.knowledge.corpora import corpora, corpus_files
from neurofm_ml.knowledge.files import is_here
from neurofm_ml.knowledge.tables import table_files, tables
from neurofm_ml.presets import Resources, pretrain

SMALL = ("simulation", "monkey_m1_chewie", "worm_swf415", "abide_olin")
#: Pretraining is shared: with fewer updates a labelled dataset, decoding on many falls behind training on each alone.
UPDATES_A_DATASET = 250
QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
Row = tuple[str, str, str, str, str, str]


class Told(InProcess):
    """In process, saying what is being computed while it is."""

    def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
        print(f"  {context.asset_key.to_user_string()} {Path(spec.out).name} ...", flush=True)
        result = super().compute(context, spec, resources)
        for check in result.checks:
            if not check["passed"]:
                found = check["note"] or ", ".join(f"{k} {v:g}" for k, v in check["numbers"].items())
                print(f"    {check['name']} does not hold: {found} (needs {check['threshold']}); see {result.path}", flush=True)
        return result


def main(argv: Sequence[str]) -> int:
    """Materialise, then print the table and where to look next. Returns the exit code."""
    start = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m neurofm_assets.demo", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--full", action="store_true", help="every dataset that is here, not the small ones alone")
    parser.add_argument("--shards", nargs="+", metavar="DATASET", type=known, help="these datasets alone, to their shards and no further")
    args = parser.parse_args(argv)
    wanted = args.shards or (list(CARDS) if args.full else list(SMALL))
    names = [name for name in wanted if is_here(CARDS[name])]
    print(f"datasets: {', '.join(names)}")
    if absent := [name for name in wanted if name not in names]:
        print(f"not here: {', '.join(absent)} (NEUROFM_DATA is {os.environ.get('NEUROFM_DATA') or 'not set'}; each card names its files)")
    if not names:
        return 1
    wrong: dict[str, str] = {}
    try:
        steps = STEPS[:1] if args.shards else ALL_STEPS if args.full else STEPS
        rows = [row for run in runs(names, wrong, steps) for row in run]
    except WRONG as error:
        print(f"stopped: {said(error)}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        print("stopped; run the same command again to go on from here.", file=sys.stderr)
        return 130
    made = sum(row[4] == "made" for row in rows)
    print(f"\n{table(rows)}\n\n{made} made, {len(rows) - made} found, {time.perf_counter() - start:.0f} s in all")
    paths = {row[0]: row[-1] for row in rows}
    if {"bundle", "scorecard"} <= set(paths):
        print(NEXT.format(**paths))
    for mistake in (*mistakes(), *(f"{name}: {what}" for name, what in wrong.items())):
        print(f"left out: {mistake}", file=sys.stderr)
    return 1 if wrong or mistakes() else 0


def known(name: str) -> str:
    """A dataset's name from the command line. Raises ArgumentTypeError for an unknown one, with the nearest."""
    try:
        datasets()[name]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


#: What a wrong file, card or setting ends in.
WRONG = (dg.Failure, ValueError, DagsterAssetCheckFailedError)
NEXT = """
Next:
  {scorecard}/report.html    every score beside its baselines, to click through
  {bundle}    the release: weights, ONNX, scores, card
  make ui     the same in Dagster's pages: graph, runs, plots, checks
  make full   every dataset that is here"""


def runs(names: Sequence[str], wrong: dict[str, str], steps: Sequence[Any] = STEPS) -> Iterator[list[Row]]:
    """Make all that the steps make of the datasets, one Dagster run per job and partition; yields the rows of each run.

    A dataset (or corpus) at which something goes wrong is left out of what follows, and `wrong` says why.
    """
    defs = build_defs(compute=Told())
    with instance() as dagster:
        for step in steps:
            job = defs.resolve_job_def(step.name)
            fine = [name for name in names if name not in wrong]
            ops = {op.name: config_of(op, fine) for op in job.all_node_defs if isinstance(op, dg.OpDefinition)}
            for key in keys_of(job, fine):
                try:
                    run = job.execute_in_process(instance=dagster, partition_key=key, run_config={"loggers": QUIET, "ops": ops})
                except WRONG as error:
                    if job.partitions_def in (RUNS, BY_SIZE, MODALITIES) or fine == [key]:
                        raise
                    wrong[key] = said(error)
                    print(f"  {step.name} {key} went wrong and is left out: {wrong[key]}", file=sys.stderr)
                    continue
                yield [row_of(event) for event in run.get_asset_materialization_events()]


def said(error: BaseException) -> str:
    """What an error tells its reader."""
    return str(error.description if isinstance(error, dg.Failure) else error)


def instance() -> dg.DagsterInstance:
    """Dagster's storage under NEUROFM_HOME, the one that `make ui` opens."""

    def hurry(connection: Any, _: Any) -> None:
        # Dagster commits each of its thousand events to disk by itself; a record of runs can be lost with the power.
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    return dg.DagsterInstance.from_config(str(write_settings()))


def keys_of(job: dg.JobDefinition, names: Sequence[str]) -> list[str]:
    """Partitions of a job that belong to the demo of these datasets."""
    assert job.partitions_def is not None
    if job.partitions_def == RUNS:
        return [run_key("tiny", 0)] if set(NEEDED.get(job.name, names)) & set(names) else []
    if job.partitions_def == BY_SIZE:
        return ["tiny"]
    collected = [name for name in corpora() if corpus_files(corpora()[name])]
    tabulated = [name for name in tables() if table_files(tables()[name])]
    wanted = {*names, *pools_of(names), *modalities_of(names), *collected, *tabulated}
    return [key for key in job.partitions_def.get_partition_keys() if key in wanted]


def config_of(op: dg.OpDefinition, names: Sequence[str]) -> dict[str, Any]:
    """Assets that work over many datasets are told which; pretraining on many gets updates for each that has labels."""
    fields = getattr(op.config_schema.config_type, "fields", {}) if op.has_config_field else {}
    config: dict[str, Any] = {"datasets": list(names)} if "datasets" in fields else {}
    if op.name == neurofmx_pretrained.op.name:
        preset, labelled = pretrain("tiny"), len(set(names) & set(LABELLED))
        config["train"] = {"steps": max(preset.train.steps, round(UPDATES_A_DATASET * labelled / preset.labelled_share))}
    return {"config": config} if config else {}


def row_of(event: dg.DagsterEvent) -> Row:
    """Asset, partition, mean score or first number, seconds, made or found, path."""
    seen = event.step_materialization_data.materialization
    values = {label: entry.value for label, entry in seen.metadata.items()}
    name = next((label for label in values if label.startswith("mean_")), next(iter(values)))
    number = f"{name} {values[name]:.4g}" if isinstance(values[name], int | float) else ""
    path = Path(str(values["path"]))
    where = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return seen.label, path.parent.name, number, f"{values['seconds']:.1f}", "found" if values["reused"] else "made", where


def table(rows: Sequence[Row]) -> str:
    """The rows under their headings, in aligned columns."""
    whole = [("asset", "partition", "rows or score", "seconds", "", "path"), *rows]
    widths = [max(len(row[i]) for row in whole) for i in range(len(whole[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in whole)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
