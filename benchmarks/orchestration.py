"""What orchestration costs: seconds per partition in process, per worker process and per Kubernetes Job, per tick of the sensor of
raw files, and for a backfill of 1,000 partitions, beside plain Dagster.

Ours is an asset as all of them are: its inputs are identified, its job is looked for, a light job runs, its files are hashed and
published, its checks and numbers reported. The peer is plain Dagster for the same declaration (partitions, checks) with an empty
body; the bare row is the same without checks, each of which is three events to Dagster. All run on one instance (this
checkout's settings, SQLite), one partition of each in turn, so that they meet the same machine. A Job runs on the API server of
the tests, with processes for containers. `ratio` = plain / ours for a partition in process.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from neurofm_assets import automation
from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute, InProcess, Subprocess
from neurofm_assets.instance import write_settings
from neurofm_assets.store import Store
from neurofm_ml import jobs
from neurofm_ml.presets import IngestConfig, Resources
from neurofm_ml.types import Check, Report

TESTS = Path(__file__).parents[1] / "tests"
BACKFILL = 1000
IN_TURN = 200
PROCESSES = 5
MANY = dg.StaticPartitionsDefinition([f"{number:04d}" for number in range(BACKFILL)])
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
PIPES = "from dagster_pipes import open_dagster_pipes\nwith open_dagster_pipes() as pipes: pipes.report_asset_materialization({})"
Timed = Callable[[str], float]


@dg.asset(partitions_def=MANY)
def bare() -> None:
    """An empty asset."""


@dg.asset(partitions_def=MANY, check_specs=specs_for("plain", "ingest", MANY))
def plain() -> dg.MaterializeResult:
    """An empty asset with the checks of ours."""
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name=name, passed=True) for name in jobs.JOBS["ingest"].checks])


@dg.asset(partitions_def=MANY)
def piped(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """An empty process, by Dagster's own client."""
    return dg.PipesSubprocessClient().run(context=context, command=[sys.executable, "-c", PIPES]).get_materialize_result()


@dg.asset(partitions_def=MANY, check_specs=specs_for("ours", "ingest", MANY))
def ours(context: dg.AssetExecutionContext, compute: Compute, store: Store) -> dg.MaterializeResult:
    """An asset of ours whose job has next to nothing to do."""
    return compute.launch(context, store.spec(context, "ingest", IngestConfig(dataset="simulation")), Resources())


def light_job(cfg: IngestConfig, inputs: jobs.Inputs, out: Path) -> Report:
    (out / "content.txt").write_text(out.parent.name)
    return Report({"rows": 1}, tuple(Check(name, True, severity) for name, severity in jobs.JOBS["ingest"].checks.items()))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def timed(asset: dg.AssetsDefinition, instance: dg.DagsterInstance, home: Path, compute: Compute | None = None) -> Timed:
    """Seconds of a run of one partition of the asset."""
    resources = {"compute": compute or InProcess(), "store": Store(home=str(home))}
    defs = dg.Definitions(assets=[asset], jobs=[dg.define_asset_job("one", [asset])], resources=resources)
    job = defs.resolve_job_def("one")
    return lambda key: seconds(lambda: job.execute_in_process(instance=instance, partition_key=key, run_config=QUIET))


def in_turn(runs: Sequence[Timed], keys: Sequence[str]) -> list[float]:
    """Median seconds of each, one partition of all before the next."""
    rows = [[run(key) for run in runs] for key in keys]
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def in_process(instance: dg.DagsterInstance, home: Path) -> dict[str, float]:
    """Seconds of a partition in this process, and of ours for all partitions."""
    keys = MANY.get_partition_keys()
    run = timed(ours, instance, home)
    spent: list[float] = []

    def kept(key: str) -> float:
        spent.append(run(key))
        return spent[-1]

    medians = in_turn([timed(bare, instance, home), timed(plain, instance, home), kept], keys[:IN_TURN])
    for key in keys[IN_TURN:]:
        kept(key)
    (found,) = in_turn([run], keys[:IN_TURN])
    return dict(zip(("bare", "plain", "ours"), medians, strict=True)) | {"found": found, "backfill": sum(spent)}


def in_processes(instance: dg.DagsterInstance, home: Path) -> dict[str, float]:
    """Seconds of a partition whose work is a process of its own."""
    runs = [timed(piped, instance, home), timed(ours, instance, home, Subprocess())]
    return dict(zip(("pipes", "worker"), in_turn(runs, MANY.get_partition_keys()[:PROCESSES]), strict=True))


def as_jobs(folder: Path) -> float:
    """Median seconds of a partition whose work is a Kubernetes Job."""
    sys.path.insert(0, str(TESTS))
    from cluster.scenes import scene

    def one(number: int) -> float:
        with scene(folder / str(number)) as stage:
            return seconds(stage.make)

    return statistics.median(one(number) for number in range(PROCESSES))


def tick(instance: dg.DagsterInstance, home: Path) -> float:
    """Median seconds of a tick of the sensor of raw files, over what NEUROFM_DATA holds, that finds nothing new."""
    resources = {"store": Store(home=str(home))}
    cursor: str | None = None
    for _ in range(2):
        cursor = automation.new_raw_files(dg.build_sensor_context(instance, cursor, resources=resources)).cursor  # type: ignore[union-attr]
    context = dg.build_sensor_context(instance, cursor, resources=resources)
    return statistics.median(seconds(lambda: automation.new_raw_files(context)) for _ in range(50))


@contextmanager
def light() -> Iterator[None]:
    """Meanwhile the job is the light one."""
    real = jobs.JOBS["ingest"]
    jobs.JOBS._members["ingest"] = dataclasses.replace(real, function=light_job)
    yield
    jobs.JOBS._members["ingest"] = real


@contextmanager
def unsaid() -> Iterator[None]:
    """What Dagster, workers and pods say meanwhile is not shown."""
    kept = [os.dup(number) for number in (1, 2)]
    with open(os.devnull, "w") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)


def measure(folder: Path) -> dict[str, float]:
    home = folder / "home"
    counting = {"PYTHONPATH": f"{TESTS / 'cluster/light'}:{TESTS.parent}", "COUNTING": str(folder)}
    os.environ.update(NEUROFM_HOME=str(home), **counting)
    (folder / "plan.json").write_text("{}")
    with dg.DagsterInstance.from_config(str(write_settings())) as instance:
        with light():
            took = in_process(instance, home)
        took |= in_processes(instance, home / "processes")
        took["tick"] = tick(instance, home)
    return took | {"job": as_jobs(folder)}


ROWS = """\
partition in process          ours {ours:.3f} s, found again {found:.3f} s, plain {plain:.3f} s, bare {bare:.3f} s
partition in a process        ours {worker:.2f} s, plain {pipes:.2f} s
partition as a Job            ours {job:.2f} s
tick of the sensor            {tick:.4f} s; a file is requested at the second tick that finds it the same, 30 to 60 s after it came
backfill of {n} partitions  ours {backfill:.0f} s, plain at its rate {all:.0f} s"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, unsaid():
        took = measure(Path(folder))
    print(ROWS.format(**took, n=BACKFILL, all=took["plain"] * BACKFILL))
    ratio = took["plain"] / took["ours"]
    print(
        json.dumps(
            {
                "name": "orchestration",
                "ours": round(took["ours"], 4),
                "peer": round(took["plain"], 4),
                "ratio": round(ratio, 3),
                "unit": "s, partition in process",
            }
        )
    )


if __name__ == "__main__":
    main()
