"""What befalls a Job, its pods, the API server and the orchestrator: one Job at a time, and the result of the undisturbed run."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from cluster.double import Fault
from cluster.scenes import CPU, GPU, Scene, scene

STEPS = 12
Act = Callable[[Scene], Callable[[Any], Any]]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path) as made:
        yield made


def chain() -> str:
    """What the undisturbed run counts."""
    found = ""
    for step in range(1, STEPS + 1):
        found = hashlib.sha256(f"{found}{step}".encode()).hexdigest()
    return found


def is_whole(stage: Scene) -> bool:
    """Whether the artifact is that of the undisturbed run, made with one Job, and one pod at work, at a time."""
    return chain() in (Path(stage.artifact().path) / "count.json").read_text() and stage.one_at_a_time()


def page(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}


def test_the_undisturbed_run(stage: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    shown = page(stage.make())
    assert is_whole(stage)
    assert stage.starts() == [0]
    assert (stage.cluster.ever("jobs"), stage.cluster.ever("pods")) == (1, 1)
    assert shown["job"] == f"default/{stage.cluster.jobs()[0]['metadata']['name']}"
    assert shown["steps"] == STEPS
    assert "cluster" not in shown
    assert {path.name for path in stage.home.glob("artifacts/counted/twelve/*.json*")} == {"current.json"}, "what made it is gone"
    assert "step 12" in capfd.readouterr().out
    assert page(stage.make())["reused"]
    assert stage.cluster.ever("jobs") == 1


# ---------------------------------------------------------------- pods
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("act", "befallen", "resumed"),
    [
        ("hold", lambda cluster, pod: cluster.preempt(pod), 6),
        pytest.param("deaf", lambda cluster, pod: cluster.preempt(pod, grace_s=1), 4, marks=slow),
        pytest.param("hold", lambda cluster, pod: cluster.evict(pod), 4, marks=slow),
        ("hold", lambda cluster, pod: cluster.evict(pod, say_how_it_ended=False), 4),
        pytest.param("hold", lambda cluster, pod: cluster.crash(pod), 4, marks=slow),
    ],
    ids=["preempted", "preempted, and killed after the grace", "evicted", "evicted before any status", "out of memory"],
)
def test_a_pod_that_is_taken_away_is_replaced_and_resumed(act: str, befallen: Callable[..., None], resumed: int, stage: Scene) -> None:
    stage.befall(act)
    stage.when(stage.holding, lambda pod: befallen(stage.cluster, pod))
    stage.make()
    assert is_whole(stage)
    assert stage.starts() == [0, resumed]
    assert (stage.cluster.ever("jobs"), stage.cluster.ever("pods")) == (1, 2)


@slow
@pytest.mark.parametrize("act", ["crash", "stop", "die after reporting"])
def test_a_worker_that_ends_early_is_started_again(act: str, stage: Scene) -> None:
    stage.befall(act)
    result = stage.make()
    assert is_whole(stage)
    assert stage.cluster.ever("jobs") == 1
    assert stage.cluster.ever("pods") == 2
    assert page(result)["steps"] == STEPS


def test_an_exit_without_a_word_is_not_a_result(stage: Scene) -> None:
    stage.befall("leave")
    with pytest.raises(dg.Failure, match="ended without a result; run it again to go on from its checkpoint"):
        stage.make()
    stage.make()
    assert is_whole(stage)
    assert stage.starts() == [0, 4]
    assert stage.cluster.ever("jobs") == 2


def test_a_result_that_nobody_heard_of_is_found(stage: Scene) -> None:
    stage.befall("unheard")
    stage.make()
    assert is_whole(stage)
    assert (stage.starts(), stage.cluster.ever("jobs")) == ([0], 1)


@slow
def test_a_worker_that_always_crashes_fails_with_its_last_words(stage: Scene) -> None:
    stage.befall("crash", start="every")
    stage.settings["crashes"] = 1
    with pytest.raises(dg.Failure, match="BackoffLimitExceeded") as caught:
        stage.make()
    assert "out of luck" in str(caught.value.metadata["log"].value)
    assert len(stage.starts()) == 2


def test_wrong_input_is_told_at_once_and_not_tried_again(stage: Scene) -> None:
    stage.befall("wrong", start="every")
    with pytest.raises(dg.Failure, match="ValueError: electrode A1 is not here; name another") as caught:
        stage.make()
    assert caught.value.allow_retries is False
    assert stage.starts() == [0]


@slow
@pytest.mark.parametrize(("resumes", "next_time"), [(True, "go on from its checkpoint"), (False, "begin anew")])
def test_a_job_has_so_many_hours(resumes: bool, next_time: str, stage: Scene) -> None:
    stage.befall("hold", start="every")
    with pytest.raises(dg.Failure, match=f"took longer than its 0.0003 hours, waiting included; run it again to {next_time}"):
        stage.make(resumes=resumes, hours=0.0003)


# ---------------------------------------------------------------- the API server
@pytest.mark.parametrize(
    "faults",
    [
        [
            Fault("GET", r"/jobs/counted", 503, times=3, after=1),
            Fault("GET", r"/pods\?", times=3, after=2),
            Fault("POST", r"/jobs$", 503, times=2),
            Fault("POST", r"/jobs$", late=True),
            Fault("GET", r"/events", 500, times=2),
            Fault("PATCH", r"/jobs/", 429, times=2),
            Fault("PATCH", r"/jobs/", 409),
            Fault("GET", r"/pods\?", 401, times=2, after=2),
            Fault("GET", r"/pods\?", 403, times=2, after=2),
        ],
        pytest.param([Fault("GET", "/", 503, times=8, after=6)], marks=slow),
    ],
    ids=["each in turn, and the answer to the creation is lost", "eight in a row"],
)
def test_a_server_that_does_not_answer_is_waited_for(faults: list[Fault], stage: Scene) -> None:
    stage.cluster.faults += faults
    stage.befall("hold")
    stage.when(lambda: not any(fault.times for fault in faults if fault.path != r"/events") and stage.holding(), stage.go_on)
    stage.make()
    assert is_whole(stage)
    assert (stage.cluster.ever("jobs"), stage.cluster.ever("pods")) == (1, 1)


@slow
def test_a_server_that_never_answers_costs_the_run_and_not_the_job(stage: Scene) -> None:
    stage.befall("hold")
    stage.settings["patience_s"] = 0.3
    stage.when(stage.holding, lambda _: stage.cluster.faults.append(Fault("GET", "/", 503, times=-1)))
    with pytest.raises(dg.Failure, match=r"the cluster could not .* for 0 s: 503 .*a fault of the double"):
        stage.make()
    stage.cluster.faults.clear()
    stage.go_on()
    stage.make()
    assert is_whole(stage)
    assert (stage.cluster.ever("jobs"), stage.starts()) == (1, [0])


@pytest.mark.parametrize(("status", "at_once"), [(403, False), pytest.param(422, True, marks=slow)])
def test_a_server_that_refuses_is_believed(status: int, at_once: bool, stage: Scene) -> None:
    stage.settings["patience_s"] = 0.3
    stage.cluster.faults.append(Fault("POST", r"/jobs$", status, times=-1))
    with pytest.raises(dg.Failure, match=f"refuses to create the Job counted-.*{status}") as caught:
        stage.make()
    assert caught.value.allow_retries is False
    assert (stage.cluster.requests.count(("POST", "/apis/batch/v1/namespaces/default/jobs")) == 1) is at_once


@slow
def test_logs_that_are_cut_go_on_where_they_were(stage: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    stage.cluster.cut_logs_after = 5
    stage.befall("hold", step=10)

    def uncut(pod: Any) -> None:
        stage.cluster.until(lambda: sum("/log?" in path for _, path in stage.cluster.requests) > 3)
        stage.cluster.cut_logs_after = None
        stage.go_on()

    stage.when(stage.holding, uncut)
    stage.make()
    assert is_whole(stage)
    assert [line for line in capfd.readouterr().out.splitlines() if line.startswith("step")] == [f"step {k}" for k in range(1, STEPS + 1)]


# ---------------------------------------------------------------- the cluster
def test_a_missing_image_fails_at_once(stage: Scene) -> None:
    stage.cluster.kubelet.images = {}
    with pytest.raises(dg.Failure, match='cannot start: ErrImagePull: Failed to pull image "worker:1": not found') as caught:
        stage.make()
    assert caught.value.allow_retries is False
    stage.cluster.until(lambda: not stage.cluster.jobs() and not stage.cluster.pods())


def test_a_pull_that_fails_for_a_while_is_waited_for(stage: Scene) -> None:
    stage.cluster.kubelet.pulls = ["503 Service Unavailable"] * 2
    assert "503 Service Unavailable" in page(stage.make())["cluster"]
    assert is_whole(stage)
    assert (stage.cluster.ever("jobs"), stage.cluster.ever("pods")) == (1, 1)


def test_a_pull_that_fails_for_longer_is_given_up(stage: Scene) -> None:
    stage.settings["patience_s"] = 0.3
    stage.cluster.kubelet.pulls = ["401 Unauthorized"] * 100
    with pytest.raises(dg.Failure, match=r"could not start for 0 s: (ErrImagePull|ImagePullBackOff): ") as caught:
        stage.make()
    assert "401 Unauthorized" in str(caught.value.metadata["cluster"].value)
    stage.cluster.until(lambda: not stage.cluster.jobs() and not stage.cluster.pods())


def test_a_job_without_a_node_waits_and_the_page_says_why(tmp_path: Path) -> None:
    with scene(tmp_path, CPU) as stage:

        def observed() -> list[dg.AssetObservation]:
            found = stage.instance.fetch_observations(dg.AssetKey("counted"), limit=10).records
            return [record.asset_observation for record in found]

        stage.when(observed, lambda _: stage.cluster.add_node(GPU))
        result = stage.make(gpus=1)
        why = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        assert any(why in str(seen.metadata["cluster"].value) and seen.partition == "twelve" for seen in observed())
        assert f"Unschedulable: {why}" in page(result)["cluster"]
        assert is_whole(stage)
        assert stage.cluster.ever("pods") == 1


@slow
def test_a_job_that_a_queue_holds_back_says_so(stage: Scene) -> None:
    stage.site["queue"] = "gpus"

    def told() -> bool:
        return bool(stage.instance.fetch_observations(dg.AssetKey("counted"), limit=1).records)

    stage.when(told, lambda _: stage.cluster.admit())
    result = stage.make()
    assert page(result)["cluster"] == "suspended: waits for the queue gpus to admit it"
    assert is_whole(stage)


@slow
def test_a_job_that_somebody_deletes_is_made_again(stage: Scene) -> None:
    stage.befall("hold")
    stage.when(stage.holding, lambda _: stage.cluster.delete_jobs())
    stage.make()
    assert is_whole(stage)
    assert (stage.starts(), stage.cluster.ever("jobs")) == ([0, 6], 2)


# ---------------------------------------------------------------- the orchestrator
@pytest.mark.parametrize("stop", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=slow)], ids=["killed", "drained"])
def test_an_orchestrator_that_comes_back_finds_its_job(stop: signal.Signals, stage: Scene) -> None:
    stage.befall("hold")
    first = stage.orchestrator()
    stage.cluster.until(stage.holding)
    first.send_signal(stop)
    assert first.wait() != 0
    stage.when(lambda: "PATCH" in [method for method, _ in stage.cluster.requests[-5:]], stage.go_on)
    stage.make()
    assert is_whole(stage)
    assert (stage.starts(), stage.cluster.ever("jobs"), stage.cluster.ever("pods")) == ([0], 1, 1)


def cancel(stage: Scene, *_: Any) -> None:
    """What the page's button does: the status first, then the process is told."""
    (run,) = stage.instance.get_runs()
    stage.instance.report_run_canceling(run)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_cancelled_run_takes_its_job_with_it(stage: Scene) -> None:
    stage.befall("hold")
    stage.when(stage.holding, lambda _: cancel(stage))
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        stage.make()
    stage.cluster.until(lambda: not stage.cluster.jobs() and not stage.cluster.pods())
    gone = [change.key.plural for change in stage.cluster.objects.history if change.what == "DELETED"]
    assert gone == ["pods", "jobs"], "in the foreground"
    stage.befall("nothing")
    stage.make()
    assert is_whole(stage)
    assert stage.starts() == [0, 6]


@slow
def test_the_job_of_a_run_that_was_cancelled_behind_the_back_of_a_dead_orchestrator_is_swept(stage: Scene) -> None:
    stage.befall("hold")
    run = dg.DagsterRun(job_name="train", run_id=dg.DagsterRun(job_name="x").run_id, status=dg.DagsterRunStatus.STARTED)
    stage.instance.add_run(run)
    first = stage.orchestrator()
    stage.cluster.until(stage.holding)
    first.kill()
    first.wait()
    compute = stage.compute()
    assert compute.sweep(stage.instance) == [], "its run is not known here"
    (job,) = stage.cluster.jobs()
    compute.api(lambda _: None).label_job(job["metadata"]["name"], {"dagster/run-id": run.run_id})
    assert compute.sweep(stage.instance) == [], "its run is not cancelled"
    stage.instance.report_run_canceled(run)
    assert compute.sweep(stage.instance) == [job["metadata"]["name"]]
    stage.cluster.until(lambda: not stage.cluster.jobs() and not stage.cluster.pods())
    assert compute.sweep(stage.instance) == []


@slow
def test_two_runs_wait_for_one_job(stage: Scene) -> None:
    stage.befall("hold")
    first = stage.orchestrator()
    stage.when(lambda: stage.holding() and sum(method == "PATCH" for method, _ in stage.cluster.requests) == 2, stage.go_on)
    stage.cluster.until(stage.holding)
    stage.make()
    assert first.wait() == 0
    assert is_whole(stage)
    assert (stage.starts(), stage.cluster.ever("jobs")) == ([0], 1)


def test_a_job_that_another_run_waits_for_outlives_the_cancellation_of_the_first(stage: Scene) -> None:
    stage.befall("hold")
    others = []

    def join(_: Any) -> None:
        others.append(stage.orchestrator())
        stage.cluster.until(lambda: sum(method == "PATCH" for method, _ in stage.cluster.requests) == 2)
        cancel(stage)

    stage.when(stage.holding, join)
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        stage.make()
    stage.go_on()
    assert others[0].wait() == 0
    assert is_whole(stage)
    assert (stage.starts(), stage.cluster.ever("jobs")) == ([0], 1)
