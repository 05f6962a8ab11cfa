"""Jobs on a Kubernetes cluster, each as a batch/v1 Job that outlives whoever waits for it.

Differs from dagster-k8s' own client, which follows one pod and gives it up when the API server does not answer: the Job
is named by what it makes, so a retried step, a second run or an orchestrator that was killed finds the one that is at
work and waits for it; what the worker says comes over shared storage; logs are shown, and not relied upon.
A Job is deleted when its run is cancelled and never otherwise while it works.
"""

import dataclasses
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from neurofm_assets.compute.api import Api
from neurofm_assets.compute.base import Compute, write_job_file
from neurofm_assets.compute.messages import SharedFileMessages
from neurofm_assets.compute.obstacles import held, hopeless, obstacles, waiting
from neurofm_assets.compute.pods import INDEX, MESSAGES, RUN, Site, Task, gangs_service, job_body, job_name
from neurofm_ml import jobs
from neurofm_ml.jobs import JobResult, JobSpec
from neurofm_ml.presets import Resources
from neurofm_ml.types import EXIT_BAD_INPUT

CANCELLED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
#: Lines of a failed pod's log that its failure shows.
_TAIL = 30
#: Seconds to wait for the end of a log once its Job has ended.
_LAST_LINES_S = 5.0
#: How long a sensor's tick may wait for the API server, seconds: ticks that wait longer pile up in the code location.
_TICK_S = 15.0


class Kubernetes(Compute):
    """As Jobs of a cluster.

    crashes      how often a worker may crash, by its own fault, before its job counts as failed
    restarts     how often a gang is started again that lost a pod, or a Job that somebody deleted
    patience_s   how long the API server may be away, or a registry or node fail to start a container
    """

    site: Site
    namespace: str = "neurofm"
    crashes: int = 3
    restarts: int = 50
    patience_s: float = 3600.0
    poll_s: float = 2.0

    def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
        return _Launch(self, context, spec, resources).result()

    def sweep(self, instance: dg.DagsterInstance) -> list[str]:
        """Delete the Jobs whose Dagster run was cancelled and whose orchestrator could not do it; gives their names."""
        api = Api(self.namespace, _TICK_S, self.poll_s, lambda _: None)
        doomed = []
        for job in api.jobs():
            run = instance.get_run_by_id(job.metadata.labels.get(RUN, ""))
            if run and run.status == dg.DagsterRunStatus.CANCELED and not _ended(job) and not job.metadata.deletion_timestamp:
                api.delete_job(job.metadata.name)
                doomed.append(job.metadata.name)
        return doomed

    def api(self, warn: Callable[[str], None]) -> Api:
        """The cluster's API, which tells `warn` when it must ask again."""
        return Api(self.namespace, self.patience_s, self.poll_s, warn)


@dataclasses.dataclass(frozen=True)
class _End:
    """How one Job ended: with a result, or because of something that may or may not be tried again."""

    how: Literal["result", "wrong", "lost", "crashed", "failed"]
    said: str


class _Launch:
    """One call of `compute`: the Jobs it starts or finds, one after the other, until there is a result."""

    def __init__(self, settings: Kubernetes, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> None:
        self.settings, self.context, self.spec, self.resources = settings, context, spec, resources
        self.api = settings.api(context.log.warning)
        self.asset, self.fingerprint = context.asset_key.path[-1], jobs.fingerprint_of(spec)
        self.name = job_name(self.asset, self.fingerprint)
        self.next = "go on from its checkpoint" if jobs.JOBS[spec.job].resumes else "begin anew"
        self.told: list[str] = []
        self.failed: set[str] = set()
        self.held_since: float | None = None
        self.log = ""

    def result(self) -> JobResult:
        """The artifact, however many Jobs it takes within what is allowed."""
        crashes, left = self.settings.crashes, self.settings.restarts
        while True:
            end = self._one_job()
            if end.how == "result":
                return self._finished(end.said)
            if end.how == "wrong":
                raise ValueError(end.said)
            crashes -= end.how == "crashed"
            left -= 1
            if end.how == "failed" or crashes < 0 or left < 0:
                raise dg.Failure(f"the Job {self.name} {end.said}; run it again to {self.next}.", metadata=self._page())
            self.context.log.warning(f"the Job {self.name} {end.said}; starting it again, to {self.next}.")

    def _finished(self, artifact: str) -> JobResult:
        self.context.add_asset_metadata(self._page())
        return jobs.load_result(Path(artifact))

    def _page(self) -> dict[str, Any]:
        """What the asset's page shows of the cluster."""
        shown = {"job": f"{self.settings.namespace}/{self.name}", "cluster": "\n".join(self.told), "log": self.log}
        return {name: text for name, text in shown.items() if text}

    # ------------------------------------------------------------ one Job
    def _one_job(self) -> _End:
        """Find the Job or make it, and wait for its end."""
        job = self._at_work()
        if job is None and (found := jobs.find(self.spec)):
            return _End("result", found.path)  # it ended while its place was being cleared
        fresh = Path(self.spec.out) / f"messages-{self.fingerprint}-{uuid.uuid4().hex[:8]}.jsonl"
        job_file = write_job_file(self.spec, self.fingerprint)
        messages = Path(job.metadata.annotations[MESSAGES]) if job else fresh
        with dg.open_pipes_session(self.context, dg.PipesEnvContextInjector(), SharedFileMessages(messages)) as session, self._kept():
            task = Task(
                asset=self.asset,
                fingerprint=self.fingerprint,
                run_id=self.context.run.run_id,
                job_file=job_file,
                messages=messages,
                resources=self.resources,
                env=session.get_bootstrap_env_vars(),
                crashes=self.settings.crashes,
            )
            if job is None and not self._create(task):
                return _End("lost", "was made by somebody else at the same moment")
            self.api.label_job(self.name, {RUN: self.context.run.run_id})
            job = self._wait()
        said = session.get_custom_messages()
        end = self._judge(job, said[-1] if said else {})
        if end.how == "result" and self._is_ours(job):
            self._tidy()
        return end

    def _at_work(self) -> Any | None:
        """The Job when it is there and at work; one that has ended or was deleted is first seen off, with its pods."""
        said = False
        while True:
            job = self.api.job(self.name)
            if job is not None and not _ended(job) and not job.metadata.deletion_timestamp:
                self.context.log.info(f"the Job {self.name} is at work already; waiting for it.")
                return job
            if job is None and not any(pod.status.phase in ("Pending", "Running") for pod in self.api.pods(self.name)):
                return None
            if job is not None and not job.metadata.deletion_timestamp:
                self.api.delete_job(self.name)
            if not said:
                self.context.log.info(f"waiting until the former Job {self.name} and its pods are gone.")
                said = True
            time.sleep(self.settings.poll_s)

    def _create(self, task: Task) -> bool:
        """Whether the Job is ours, even if the answer to its creation was lost."""
        if self.resources.nodes > 1:
            self.api.create_service(gangs_service())
        job = self.api.create_job(job_body(self.settings.site, task)) or self.api.job(self.name)
        return job is not None and job.metadata.annotations[MESSAGES] == str(task.messages)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """The Job goes when its run is cancelled; when only this process is stopped, or another run waits too, it stays to be found."""
        try:
            yield
        except dg.DagsterExecutionInterruptedError:
            if self._cancelled() and self._is_ours(self.api.job(self.name)):
                self.api.delete_job(self.name)
            else:
                self.context.log.warning(f"stopped waiting; the Job {self.name} goes on, and any other run of this asset waits for it.")
            raise

    def _is_ours(self, job: Any | None) -> bool:
        """Whether no other run has found the Job since."""
        return job is not None and job.metadata.labels[RUN] == self.context.run.run_id

    def _tidy(self) -> None:
        """Remove what was needed to make the artifact; a run that still waits for its Job finds the artifact itself."""
        home = Path(self.spec.out)
        with suppress(OSError):  # what is made is made
            for path in (home / f"job-{self.fingerprint}.json", *home.glob(f"messages-{self.fingerprint}-*.jsonl")):
                path.unlink(missing_ok=True)

    def _cancelled(self) -> bool:
        run = self.context.instance.get_run_by_id(self.context.run.run_id)
        return run is not None and run.status in CANCELLED

    def _wait(self) -> Any | None:
        """Follow the Job to its end and give what it was then; None when somebody has deleted it."""
        logs = _Logs(self.api)
        try:
            while (job := self.api.job(self.name)) is not None:
                pods = self.api.pods(self.name)
                logs.follow(pods)
                self._explain(job, pods)
                if _ended(job):
                    logs.see_off()
                    break
                time.sleep(self.settings.poll_s)
            return job
        finally:
            logs.over.set()

    # ------------------------------------------------------------ what is told
    def _explain(self, job: Any, pods: Sequence[Any]) -> None:
        """Say, once each, what keeps the Job from running: in the log, and on the asset's page as long as it waits."""
        names = {self.name, *(pod.metadata.name for pod in pods)}
        warnings = self.api.warnings(names) if waiting(pods) else []
        for text in obstacles(job, pods, warnings):
            if text not in self.told:
                self.told.append(text)
                self.context.log.warning(f"the Job {self.name}: {text}")
                self._observe(text)
        for name in (pod.metadata.name for pod in pods if pod.status.phase == "Failed"):
            if name not in self.failed:
                self.failed.add(name)
                self.log = self.api.log_tail(name, _TAIL) or self.log
        self._give_up(pods, warnings)

    def _give_up(self, pods: Sequence[Any], warnings: Sequence[str]) -> None:
        """Delete a Job that cannot start, or could not for as long as is waited, and fail."""
        if why := hopeless(pods, warnings):
            self.api.delete_job(self.name)
            raise dg.Failure(f"the Job {self.name} cannot start: {why}", metadata=self._page(), allow_retries=False)
        stuck = held(pods)
        self.held_since = (self.held_since or time.monotonic()) if stuck else None
        if self.held_since and time.monotonic() - self.held_since > self.settings.patience_s:
            self.api.delete_job(self.name)
            what = f"the Job {self.name} could not start for {self.settings.patience_s:.0f} s: {stuck[0]}"
            raise dg.Failure(what, metadata=self._page())

    def _observe(self, text: str) -> None:
        partition = self.context.partition_key if self.context.has_partition_key else None
        self.context.log_event(
            dg.AssetObservation(self.context.asset_key, partition=partition, metadata={"job": self.name, "cluster": text})
        )

    # ------------------------------------------------------------ what it came to
    def _judge(self, job: Any | None, said: dict[str, str]) -> _End:
        """What the end of the Job means, given what its last worker said."""
        if job is None:
            if self._cancelled():
                return _End("failed", "was deleted with its run")
            return _End("lost", "was deleted by somebody")
        end = _ended(job)
        assert end is not None
        if end.type == "Complete":
            if "artifact" in said:
                return _End("result", said["artifact"])
            found = jobs.find(self.spec)  # what it said may have been lost
            return _End("result", found.path) if found else _End("failed", "ended without a result")
        if "error" in said:
            return _End("wrong", said["error"])
        if end.reason == "DeadlineExceeded":
            return _End("failed", f"took longer than its {self.resources.hours:g} hours, waiting included")
        what = f"failed: {end.reason}: {end.message}"
        if _exit_code(end.message) == EXIT_BAD_INPUT or self.resources.nodes == 1:
            return _End("failed", what)
        return _End("lost" if end.reason == "PodFailurePolicy" or self._disrupted() else "crashed", what)

    def _disrupted(self) -> bool:
        """Whether a pod of the gang was taken away, though another's crash was seen first."""
        return any(c.type == "DisruptionTarget" for pod in self.api.pods(self.name) for c in pod.status.conditions or ())


class _Logs:
    """What the first pod of a Job prints, and those that take its place, to our own output."""

    def __init__(self, api: Api) -> None:
        self.api, self.over = api, threading.Event()
        self.threads: dict[str, threading.Thread] = {}

    def follow(self, pods: Sequence[Any]) -> None:
        """Follow the pods that have begun since the last call."""
        for pod in pods:
            name, index = pod.metadata.name, (pod.metadata.annotations or {}).get(INDEX, "0")
            if name not in self.threads and index == "0" and pod.status.phase != "Pending":
                self.threads[name] = threading.Thread(target=self.api.show_log, args=(name, sys.stdout.write, self.over), daemon=True)
                self.threads[name].start()

    def see_off(self) -> None:
        """Wait a moment for the last lines."""
        for thread in self.threads.values():
            thread.join(_LAST_LINES_S)


def _ended(job: Any) -> Any | None:
    """The condition that says how a Job ended."""
    conditions = (job.status.conditions or ()) if job.status else ()
    return next((c for c in conditions if c.type in ("Complete", "Failed") and c.status == "True"), None)


def _exit_code(message: str | None) -> int | None:
    """The exit code that a podFailurePolicy tells of."""
    match = re.search(r"exit code (\d+)", message or "")
    return int(match[1]) if match else None
