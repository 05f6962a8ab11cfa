"""What starts by itself, and what must not: retraining, schedules, failures, the janitor."""

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neurofm_assets import automation
from neurofm_assets.assets import data, evaluation, models
from neurofm_assets.automation import failures
from neurofm_assets.compute import InProcess
from neurofm_assets.definitions import ASSETS, build_defs
from neurofm_assets.partitions import run_key
from neurofm_assets.store import Store
from neurofm_ml import jobs, presets
from neurofm_ml.config import to_dict
from neurofm_ml.jobs import JobSpec
from neurofm_ml.knowledge.cards import datasets

Ran = list[tuple[str, dict[str, Any]]]
Materialize = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """One for all: the runs of one test are none of another's business, but for `test_nothing_is_asked_for_while_a_run_is_going`,
    which ends its own."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


# ---------------------------------------------------------------- schedules
def test_quality_is_judged_each_night_for_what_is_here(ran: Ran, store: Store, materialize: Materialize) -> None:
    night = datetime(2030, 1, 5, 3, tzinfo=UTC)

    def asked() -> list[tuple[str | None, str | None]]:
        requests = automation.nightly_quality(dg.build_schedule_context(resources={"store": store}, scheduled_execution_time=night))
        return [(request.run_key, request.partition_key) for request in requests]

    assert asked() == []
    materialize("recordings", key="simulation")
    assert asked() == [("simulation:2030-01-05", "simulation")]


def test_the_small_model_is_trained_each_week() -> None:
    saturday = datetime(2030, 1, 5, 22, tzinfo=UTC)
    request = automation.weekly_pretraining(dg.build_schedule_context(scheduled_execution_time=saturday))
    assert (request.run_key, request.partition_key) == ("2030-01-05", run_key("small", 0))


def test_the_scaling_law_is_fitted_each_month() -> None:
    first = datetime(2030, 2, 1, 22, tzinfo=UTC)
    request = automation.monthly_scaling(dg.build_schedule_context(scheduled_execution_time=first))
    assert (request.run_key, request.partition_key, request.asset_selection) == ("2030-02", "small", [models.scaling_law.key])


# ---------------------------------------------------------------- retraining
class Retraining:
    """The sensor of shards, tick after tick."""

    def __init__(self, store: Store, instance: dg.DagsterInstance) -> None:
        self.store, self.instance = store, instance
        self.cursor: str | None = None
        self.why: str | None = None

    def tick(self) -> list[str]:
        context = dg.build_sensor_context(cursor=self.cursor, instance=self.instance, resources={"store": self.store})
        result = automation.new_shards(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.why = result.skip_reason.skip_message if result.skip_reason else None
        return [request.partition_key or "" for request in result.run_requests or ()]


@pytest.fixture
def ready(ran: Ran, store: Store, instance: dg.DagsterInstance) -> Retraining:
    """One dataset, made up to its baselines."""
    make(store)
    return Retraining(store, instance)


def make(store: Store, shard_mb: float = 50.0, upto: str = "baselines") -> None:
    """The simulation, from recordings to baselines, without Dagster."""
    dataset, modalities = "simulation", datasets()["simulation"].modalities

    def run(job: str, asset: dg.AssetsDefinition, key: str, cfg: Any, **inputs: list[str]) -> None:
        if STEPS.index(asset) <= STEPS.index(getattr(data, upto, evaluation.baselines)):
            jobs.run(
                JobSpec(job=job, config=to_dict(cfg), inputs={k: tuple(v) for k, v in inputs.items()}, out=str(store.path(asset, key)))
            )

    run("ingest", data.recordings, dataset, presets.IngestConfig(dataset=dataset))
    run(
        "write_shards",
        data.shards,
        dataset,
        presets.ShardsConfig(dataset=dataset, shard_mb=shard_mb),
        recordings=[store.get(data.recordings, dataset)],
    )
    shards = [store.get(data.shards, dataset)]
    for modality in modalities:
        run("fit_scaler", data.scaler, modality, presets.ScalerConfig(modality=modality, datasets=(dataset,)), shards=shards)
    run("fit_baselines", evaluation.baselines, dataset, presets.BaselinesConfig(dataset=dataset), shards=shards)


STEPS = [data.recordings, data.shards, data.scaler, evaluation.baselines]


def test_changed_shards_ask_for_one_run_of_the_small_model(ready: Retraining, store: Store) -> None:
    assert [ready.tick() for _ in range(5)] == [[], [run_key("small", 0)], [], [], []]
    make(store)
    assert [ready.tick() for _ in range(3)] == [[], [], []], "the same again"
    make(store, shard_mb=1.0)
    assert [ready.tick() for _ in range(4)] == [[], [run_key("small", 0)], [], []]


def test_nothing_is_asked_for_while_a_run_is_going(ready: Retraining) -> None:
    going = ready.instance.create_run_for_job(
        build_defs().resolve_job_def("train"), status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": run_key("small", 0)}
    )
    assert [ready.tick() for _ in range(3)] == [[], [], []]
    assert "is going" in str(ready.why)
    ready.instance.report_run_failed(going)
    assert ready.tick() == [run_key("small", 0)]


@pytest.mark.parametrize("upto", ["shards", "scaler"])
def test_nothing_is_asked_for_until_scalers_and_baselines_fit_the_shards(upto: str, ready: Retraining, store: Store) -> None:
    make(store, shard_mb=1.0, upto=upto)
    assert [ready.tick() for _ in range(3)] == [[], [], []]
    assert "was made from another version" in str(ready.why)


def test_nothing_is_asked_for_before_there_are_shards(store: Store, instance: dg.DagsterInstance) -> None:
    first = Retraining(store, instance)
    assert first.tick() == []
    assert "materialise one first" in str(first.why)


# ---------------------------------------------------------------- failures
@pytest.fixture
def failed(
    ran: Ran, store: Store, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], dg.RunFailureSensorContext]:
    """A run of the recordings that ended in an error, as the failure sensor is told of it."""

    def broken(cfg: Any, inputs: jobs.Inputs, out: Path) -> Any:
        raise ValueError("simulation: no electrodes; add them to the card.")

    monkeypatch.setitem(jobs.JOBS._members, "ingest", dataclasses.replace(jobs.JOBS["ingest"], function=broken))
    resources = build_defs(store=store).resources
    run = dg.materialize(
        ASSETS, selection=["recordings"], partition_key="simulation", resources=resources, instance=instance, raise_on_error=False
    )
    event = next(e for e in run.all_events if e.event_type == dg.DagsterEventType.RUN_FAILURE)

    def context() -> dg.RunFailureSensorContext:
        told = dg.build_run_status_sensor_context("failure_records", event, instance, run.dagster_run)
        return told.for_run_failure()

    return context


def records(home: Path) -> list[str]:
    return [path.read_text() for path in sorted((home / "failures").glob("*.md"))]


def test_a_failed_run_leaves_a_record_that_says_all(failed: Callable[[], dg.RunFailureSensorContext], neurofm_home: Path) -> None:
    context = failed()
    automation.failure_records(context)
    (text,) = records(neurofm_home)
    assert text.startswith("# recordings [simulation] failed\n")
    assert "## Error\nsimulation: no electrodes; add them to the card.\n" in text
    assert context.dagster_run.run_id in text
    assert failures.REMEDY in text
    assert "STEP_START" in text or "Started execution of step" in text


def test_a_run_whose_process_was_lost_leaves_a_record_too(instance: dg.DagsterInstance, neurofm_home: Path) -> None:
    run = instance.create_run_for_job(build_defs().resolve_job_def("prepare"), status=dg.DagsterRunStatus.STARTED)
    event = instance.report_run_failed(run, "the process of this run is gone")
    for _ in range(2):  # a daemon that was killed before it could note the first
        automation.failure_records(dg.build_run_status_sensor_context("failure_records", event, instance, run).for_run_failure())
        time.sleep(1.1)  # records are named to the second
    (text,) = records(neurofm_home)
    assert "## Error\nthe process of this run is gone\n" in text


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that keeps what is posted to it: its address, and the contents."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


def test_the_webhook_is_told(
    failed: Callable[[], dg.RunFailureSensorContext],
    receiver: tuple[str, list[dict[str, str]]],
    neurofm_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, received = receiver
    monkeypatch.setenv("NEUROFM_WEBHOOK", url)
    automation.failure_records(failed())
    (told,) = received
    assert told["text"] == records(neurofm_home)[0]
    assert told["job"]
    assert Path(told["record"]).exists()


@pytest.mark.parametrize("url", ["{server}/broken", "http://127.0.0.1:1", "file:///etc/passwd", "no url"])
def test_a_webhook_that_fails_stops_nothing(
    url: str,
    failed: Callable[[], dg.RunFailureSensorContext],
    receiver: tuple[str, list[dict[str, str]]],
    neurofm_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEUROFM_WEBHOOK", url.format(server=receiver[0]))
    automation.failure_records(failed())
    assert len(records(neurofm_home)) == 1


def test_a_webhook_that_never_answers_stops_nothing(
    failed: Callable[[], dg.RunFailureSensorContext], neurofm_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("NEUROFM_WEBHOOK", f"http://127.0.0.1:{silent.getsockname()[1]}")
        automation.failure_records(failed())
    assert len(records(neurofm_home)) == 1


# ---------------------------------------------------------------- the janitor
def test_the_janitor_says_what_it_stopped(instance: dg.DagsterInstance) -> None:
    class Elsewhere(InProcess):
        def sweep(self, instance: dg.DagsterInstance) -> list[str]:
            return ["neurofmx-pretrained-small-0"]

    def said(compute: InProcess) -> str | None:
        reason = automation.janitor(dg.build_sensor_context(instance=instance, resources={"compute": compute}))
        assert isinstance(reason, dg.SkipReason)
        return reason.skip_message

    assert said(InProcess()) == "nothing was left behind"
    assert said(Elsewhere()) == "stopped neurofmx-pretrained-small-0"


# ---------------------------------------------------------------- what is on from the beginning
def test_what_costs_computing_is_off_until_it_is_switched_on() -> None:
    on = {sensor.name for sensor in automation.SENSORS if sensor.default_status == dg.DefaultSensorStatus.RUNNING}
    assert on == {"data_and_baselines", "failure_records", "janitor"}
    assert {s.default_status for s in automation.SCHEDULES} == {dg.DefaultScheduleStatus.STOPPED}


def test_the_jobs_cover_the_graph() -> None:
    steps = {key for job in automation.JOBS for key in job.selection.resolve(ASSETS)}
    assert steps == {asset.key for asset in ASSETS}
