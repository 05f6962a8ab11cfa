"""What starts by itself, and what must not: arrivals of raw files, retraining, schedules, failures, the janitor."""

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
from neurofm_assets.automation import arrivals, failures
from neurofm_assets.compute import InProcess
from neurofm_assets.definitions import ASSETS, build_defs
from neurofm_assets.partitions import run_key
from neurofm_assets.store import Store
from neurofm_ml import jobs, presets
from neurofm_ml.config import to_dict
from neurofm_ml.jobs import JobSpec
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.files import raw_files
from neurofm_ml.knowledge.tables import tables

Ran = list[tuple[str, dict[str, Any]]]
Materialize = Callable[..., dg.ExecuteInProcessResult]
WORM, BRAIN = "worm_swf415", "abide_olin"


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """One for all: the runs of one test are none of another's business, but for `test_nothing_is_asked_for_while_a_run_is_going`,
    which ends its own."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


# ---------------------------------------------------------------- raw files
class Ticks:
    """The sensor of raw files, tick after tick; `job` names whose requests are told."""

    def __init__(self, store: Store, instance: dg.DagsterInstance, job: str = "prepare") -> None:
        self.store, self.instance = store, instance
        self.job = job
        self.cursor: str | None = None
        self.context = self.at(None)
        self.last: dg.RunRequest | None = None

    def at(self, cursor: str | None) -> dg.SensorEvaluationContext:
        return dg.build_sensor_context(cursor=cursor, instance=self.instance, resources={"store": self.store})

    def tick(self) -> list[str]:
        """Partitions requested at the next tick."""
        if self.context.cursor != self.cursor:
            self.context = self.at(self.cursor)
        result = automation.new_raw_files(self.context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        requests = [request for request in result.run_requests or () if request.job_name == self.job]
        self.last = requests[-1] if requests else self.last
        return [request.partition_key or "" for request in requests]

    @property
    def told(self) -> dict[str, str]:
        """What the last request said of the files."""
        assert self.last
        return {key.removeprefix("neurofm/files_"): n for key, n in self.last.tags.items() if key.startswith("neurofm/")}


@pytest.fixture
def ticks(store: Store, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ticks:
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))
    return Ticks(store, instance)


@pytest.fixture
def raw(ticks: Ticks, tmp_path: Path) -> Path:
    """Where a raw file of the worm would lie."""
    card = datasets()[WORM]
    path = tmp_path / "data" / card.root / card.pattern.replace("{id}", card.recordings[0].id)
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def brains(ticks: Ticks, tmp_path: Path) -> list[Path]:
    """Where four raw files of a dataset of many would lie."""
    card = datasets()[BRAIN]
    files = [tmp_path / "data" / card.root / card.pattern.replace("{id}", f"{i:07d}") for i in range(4)]
    files[0].parent.mkdir(parents=True)
    return files


def test_new_files_are_requested_once_they_hold_still(ticks: Ticks, raw: Path) -> None:
    assert ticks.tick() == []
    for size in (10, 20, 30):  # still being written
        raw.write_bytes(b"x" * size)
        assert ticks.tick() == []
    assert ticks.tick() == [WORM]


def test_repeated_ticks_request_nothing_new(ticks: Ticks, raw: Path) -> None:
    raw.write_bytes(b"x")
    assert [ticks.tick() for _ in range(1000)] == [[], [WORM], *[[]] * 998]


def test_the_cursor_grows_with_sources_not_with_files(ticks: Ticks, brains: list[Path]) -> None:
    for file in brains:
        file.write_bytes(b"x")
    ticks.tick()
    ticks.tick()
    kept = json.loads(ticks.cursor or "")[f"prepare/{BRAIN}"]
    assert len(json.dumps(kept)) < 60


def test_a_changed_file_is_requested_again(ticks: Ticks, raw: Path) -> None:
    raw.write_bytes(b"x")
    assert [ticks.tick() for _ in range(2)] == [[], [WORM]]
    raw.write_bytes(b"xy")
    assert [ticks.tick() for _ in range(3)] == [[], [WORM], []]


def test_a_file_that_is_as_it_was_before_is_requested_again(ticks: Ticks, raw: Path) -> None:
    """The first content is back while the artifact is of the second: each request has a key of its own."""
    keys = []
    for content in (b"x", b"y", b"x", b"y"):
        raw.write_bytes(content)
        while not ticks.tick():
            pass
        assert ticks.last
        keys.append(ticks.last.run_key)
    assert len(set(keys)) == 4


def test_a_request_says_what_is_new_changed_or_gone(ran: Ran, ticks: Ticks, brains: list[Path], materialize: Materialize) -> None:
    for file in brains[:3]:
        file.write_bytes(b"x")
    assert [ticks.tick() for _ in range(2)] == [[], [BRAIN]]
    assert ticks.told == {"new": "3", "changed": "0", "removed": "0"}
    materialize("recordings", key=BRAIN)
    brains[0].write_bytes(b"xy")
    brains[1].unlink()
    brains[3].write_bytes(b"x")
    assert [ticks.tick() for _ in range(3)] == [[], [BRAIN], []]
    assert ticks.told == {"new": "1", "changed": "1", "removed": "1"}


def test_files_that_were_touched_request_nothing(ran: Ran, ticks: Ticks, raw: Path, materialize: Materialize) -> None:
    raw.write_bytes(b"x")
    assert [ticks.tick() for _ in range(2)] == [[], [WORM]]
    materialize("recordings", key=WORM)
    raw.touch()
    assert [ticks.tick() for _ in range(3)] == [[], [], []]


def test_a_lost_cursor_requests_nothing_that_is_made(ran: Ran, ticks: Ticks, raw: Path, materialize: Materialize) -> None:
    raw.write_bytes(b"x")
    materialize("recordings", key=WORM)
    assert [ticks.tick() for _ in range(3)] == [[], [], []]


def test_what_is_too_large_to_read_is_requested_unread(
    ran: Ran, ticks: Ticks, raw: Path, materialize: Materialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.write_bytes(b"xyz")
    materialize("recordings", key=WORM)
    monkeypatch.setattr(arrivals, "READ_BYTES", 2)
    monkeypatch.setattr(arrivals, "version_of", None)
    assert [ticks.tick() for _ in range(3)] == [[], [WORM], []]


def test_a_tick_reads_no_more_than_it_may_and_the_next_goes_on(
    ran: Ran, ticks: Ticks, raw: Path, brains: list[Path], materialize: Materialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, key in ((raw, WORM), (brains[0], BRAIN)):
        path.write_bytes(b"x")
        materialize("recordings", key=key)
        path.write_bytes(b"xy")
    monkeypatch.setattr(arrivals, "READ_BYTES", 3)
    assert sorted(ticks.tick() for _ in range(4)) == [[], [], [BRAIN], [WORM]]


def test_what_cannot_be_read_holds_up_nothing_else(ran: Ran, ticks: Ticks, raw: Path, brains: list[Path], materialize: Materialize) -> None:
    raw.write_bytes(b"x")
    materialize("recordings", key=WORM)
    said = Path(ticks.store.get(data.recordings, WORM)) / "result.json"
    whole = said.read_text()
    said.write_text("{")
    for path in (raw, brains[0]):
        path.write_bytes(b"xy")
    assert [ticks.tick() for _ in range(3)] == [[], [BRAIN], []]
    said.write_text(whole)
    assert [ticks.tick() for _ in range(2)] == [[WORM], []]


def test_files_that_are_gone_request_nothing(ticks: Ticks, raw: Path) -> None:
    raw.write_bytes(b"x")
    assert [ticks.tick() for _ in range(2)] == [[], [WORM]]
    raw.unlink()
    assert [ticks.tick() for _ in range(2)] == [[], []]
    assert raw_files(datasets()[WORM]) == []


def test_a_file_that_vanishes_while_it_is_looked_at_is_one_that_changes(raw: Path) -> None:
    assert arrivals.stat_of(raw) == (-1, -1)


def test_tables_and_corpora_arrive_as_datasets_do(ticks: Ticks, tmp_path: Path) -> None:
    card = tables()["narratives_participants"]
    (spec,) = card.files
    path = tmp_path / "data" / card.root / spec.file
    path.parent.mkdir(parents=True)
    path.write_text("x")
    ticks.job = "tabulate"
    assert [ticks.tick() for _ in range(3)] == [[], [card.name], []]
    packaged = Ticks(ticks.store, ticks.instance, "collect")
    assert packaged.tick() == []
    assert "nback_flanker" in packaged.tick()


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
