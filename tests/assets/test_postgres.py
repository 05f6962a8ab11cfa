"""A team's storage: a real Postgres, and what is lost when processes are killed (nothing)."""

import os
from collections.abc import Iterator
from pathlib import Path

import daemons
import dagster as dg
import postgres
import pytest
import yaml

from neurofm_assets.instance import NAMES, write_settings
from neurofm_assets.launcher import process_of

CORPORA = ("laird", "nback_flanker", "pain21")


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, str]]:
    with postgres.running() as environment:
        yield environment


@pytest.fixture
def team(database: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in database.items():
        monkeypatch.setenv(name, value)


def test_runs_and_events_are_kept_in_the_database(team: None) -> None:
    @dg.asset
    def one() -> None: ...

    with dg.DagsterInstance.from_config(str(write_settings())) as instance:
        run = dg.materialize([one], instance=instance)
    with dg.DagsterInstance.from_config(str(write_settings())) as another:
        assert type(another.event_log_storage).__name__ == "PostgresEventLogStorage"
        assert another.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.SUCCESS
        assert another.get_latest_materialization_event(one.key).run_id == run.run_id


def test_the_password_stays_in_the_environment(team: None) -> None:
    text = (write_settings() / "dagster.yaml").read_text()
    assert os.environ["DAGSTER_PG_PASSWORD"] not in text
    assert yaml.safe_load(text)["storage"]["postgres"]["postgres_db"]["scheme"] == "postgresql+psycopg2"


def test_without_a_database_the_storage_is_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with dg.DagsterInstance.from_config(str(write_settings())) as instance:
        assert type(instance.event_log_storage).__name__ == "SqliteEventLogStorage"


def test_half_a_database_is_refused(team: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_PG_PASSWORD")
    with pytest.raises(ValueError, match="are set but not DAGSTER_PG_PASSWORD; set all of them for Postgres"):
        write_settings()


# ---------------------------------------------------------------- killed
@pytest.fixture
def folder(team: None) -> Path:
    return daemons.settings()


@pytest.fixture
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield instance
        for run in instance.get_runs():
            instance.delete_run(run.run_id)


def runs(instance: dg.DagsterInstance, *status: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(statuses=list(status))))


@pytest.mark.slow
def test_a_killed_daemon_loses_no_run(folder: Path, instance: dg.DagsterInstance, neurofm_home: Path) -> None:
    """Runs are asked for while nothing is up; the daemon is killed when the first has begun, and another one takes over."""
    for corpus in CORPORA:
        daemons.queue(folder, "collect", corpus)
    assert len(runs(instance, dg.DagsterRunStatus.QUEUED)) == len(CORPORA)
    with daemons.running(folder, *daemons.DAEMON) as first:
        daemons.wait_for("run", lambda: daemons.computed(neurofm_home))
        first.kill()
    (neurofm_home / "go").touch()
    with daemons.running(folder, *daemons.DAEMON):
        daemons.wait_for("end", lambda: {r.tags["dagster/partition"] for r in runs(instance, dg.DagsterRunStatus.SUCCESS)} == set(CORPORA))
    done = daemons.computed(neurofm_home)
    assert len(done) == len(set(done)) == len(CORPORA)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False], ids=["the worker", "everything"])
def test_a_killed_worker_is_started_again_and_goes_on(alone: bool, folder: Path, instance: dg.DagsterInstance, neurofm_home: Path) -> None:
    """kill -9 of the process of a run, alone or with all that `dagster dev` is: the run is failed, started again, and resumes."""
    daemons.queue(folder, "collect", "nback_flanker")

    def dev() -> daemons.Process:
        return daemons.Process(folder, "dagster", "dev", "--port", str(postgres.free_port()))

    process = dev()
    try:
        daemons.wait_for("begin", lambda: daemons.computed(neurofm_home))
        (lost,) = runs(instance, dg.DagsterRunStatus.STARTED)
        pid, _ = process_of(instance, lost.run_id)
        assert pid in daemons.descendants(process.process.pid)
        if alone:
            daemons.kill(pid)
        else:
            process.kill_all()
            process = dev()
        daemons.wait_for("failure", lambda: runs(instance, dg.DagsterRunStatus.FAILURE))
        daemons.wait_for("second start", lambda: len(daemons.computed(neurofm_home)) > 1)
        (neurofm_home / "go").touch()
        daemons.wait_for("end", lambda: runs(instance, dg.DagsterRunStatus.SUCCESS))
    finally:
        process.close()
    (artifact,) = (neurofm_home / "artifacts/foci/nback_flanker").glob("*/begun.txt")
    assert len(artifact.read_text().split()) == 2, "the second process found what the first had begun"
    assert {run.tags.get("dagster/parent_run_id") for run in runs(instance, dg.DagsterRunStatus.SUCCESS)} == {lost.run_id}
