"""Whether the process of a run is still there."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus

from neurofm_assets.launcher import LocalRunLauncher, is_alive


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def ended() -> int:
    """Number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkerStatus:
    launcher = LocalRunLauncher()
    launcher.register_instance(instance)
    assert launcher.supports_check_run_worker_health
    return launcher.check_run_worker_health(run).status


def started(instance: dg.DagsterInstance, pid: int | None) -> dg.DagsterRun:
    """A run as the log tells of it: started, by the process `pid`."""
    from dagster._core.events import EngineEventData

    @dg.job
    def nothing() -> None: ...

    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event("waiting", run)
    if pid is not None:
        instance.report_engine_event("started", run, EngineEventData.in_process(pid))
    return run


def test_a_run_is_running_while_its_process_is(instance: dg.DagsterInstance) -> None:
    assert health(instance, started(instance, os.getpid())) is WorkerStatus.RUNNING


def test_a_run_whose_process_is_gone_has_failed(instance: dg.DagsterInstance, ended: int) -> None:
    assert health(instance, started(instance, ended)) is WorkerStatus.FAILED


def test_a_run_that_names_no_process_is_left_alone(instance: dg.DagsterInstance) -> None:
    assert health(instance, started(instance, None)) is WorkerStatus.RUNNING


def test_a_run_in_process_names_it(instance: dg.DagsterInstance) -> None:
    seen = []

    @dg.op
    def look(context: dg.OpExecutionContext) -> None:
        seen.append(health(context.instance, context.run))

    @dg.job
    def looking() -> None:
        look()

    looking.execute_in_process(instance=instance)
    assert seen == [WorkerStatus.RUNNING]


def test_another_process_with_the_same_number_is_not_it() -> None:
    assert is_alive(os.getpid(), time.time())
    assert not is_alive(os.getpid(), announced=time.time() - 1e6)


def test_a_process_that_ended_and_was_not_yet_waited_for_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.read()  # until its end
    while is_alive(process.pid, time.time()):
        time.sleep(0.01)
    assert process.poll() is not None
