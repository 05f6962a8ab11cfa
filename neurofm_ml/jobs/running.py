"""Running a spec: find what is finished, take up what is not, publish what is complete."""

import dataclasses
import platform
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from neurofm_ml import gang
from neurofm_ml.artifacts import fetch, forget_work, is_saved, is_shared, publish, restore_work, share_current
from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.files import file_hash, git_revision, locked, write_json
from neurofm_ml.jobs.results import artifact_at, content_hash, files_of, identified, is_here, load_result
from neurofm_ml.jobs.spec import JOBS, Job, JobResult, JobSpec
from neurofm_ml.types import Preempted, Report

#: What a training goes on from, in its working folder: no part of the artifact, and kept until that is in its place.
CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A spec with its config built, its inputs identified and its fingerprint known."""

    spec: JobSpec
    job: Job
    config: Any
    inputs: dict[str, tuple[dict[str, str], ...]]
    fingerprint: str

    @property
    def final(self) -> Path:
        return Path(self.spec.out) / self.fingerprint

    @property
    def work(self) -> Path:
        return Path(self.spec.out) / f"work-{self.fingerprint}"


def _plan(spec: JobSpec) -> _Plan:
    entry = JOBS[spec.job]
    cfg: Any = from_dict(entry.config, spec.config)
    inputs = {role: tuple(identified(Path(p)) for p in paths) for role, paths in spec.inputs.items()}
    versions = {role: [d["data_version"] for d in found] for role, found in inputs.items()}
    identity = {"job": spec.job, "config": to_dict(cfg), "reads": entry.reads(cfg), "inputs": versions, "code": entry.version}
    return _Plan(spec, entry, cfg, inputs, content_hash(identity))


def run(spec: JobSpec) -> JobResult:
    """Find the finished artifact of `spec`, or compute and publish it.

    Raises ValueError for a wrong job, config or input, Preempted when it was asked to stop. Whatever
    happens, a half-made artifact is never visible under its final name. In a gang of processes all
    call it with the same spec and get the same artifact; only the first locks and publishes.
    """
    if gang.rank():
        return _help(spec)
    plan = _plan(spec)
    home = Path(spec.out)
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / f".{plan.fingerprint}.lock"):
        result = _finished(plan)
        if result is None:
            _prepare(plan)
        gang.tell("plan", {"fingerprint": plan.fingerprint, "compute": result is None})
        result = _shared(plan, result or _compute(plan))
        _make_current(plan)
        gang.tell("result", result.path)
    return result


def _help(spec: JobSpec) -> JobResult:
    """What the other processes of a gang do: work with the first in its folder where the job is shared, and publish nothing."""
    told, entry = gang.hear("plan"), JOBS[spec.job]
    plan = _Plan(spec, entry, from_dict(entry.config, spec.config), {}, told["fingerprint"])
    if told["compute"] and entry.shared(plan.config):
        _call(plan)
    return load_result(Path(gang.hear("result")))


def find(spec: JobSpec) -> JobResult | None:
    """The finished artifact of `spec`, made the current one; None when it must be computed."""
    plan = _plan(spec)
    result = _finished(plan)
    if result and is_here(plan.final):
        result = _shared(plan, result)
    if result:
        _make_current(plan)
    return result


def _make_current(plan: _Plan) -> None:
    home = Path(plan.spec.out)
    home.mkdir(parents=True, exist_ok=True)
    write_json(home / "current.json", {"fingerprint": plan.fingerprint})
    share_current(home, plan.fingerprint)


def _finished(plan: _Plan) -> JobResult | None:
    result = artifact_at(plan.final)
    return dataclasses.replace(result, reused=True) if result else None


def _shared(plan: _Plan, result: JobResult) -> JobResult:
    """The artifact as all machines have it, its files here: of two that made it at once, the first to publish counts.

    What its job would have gone on from is removed, also where the process that made it was killed before it could.
    """
    if not is_here(plan.final) or not publish(plan.final):
        fetch(plan.final)
        result = dataclasses.replace(load_result(plan.final), reused=result.reused)
    if not result.reused or is_saved(plan.work):
        forget_work(plan.work)
    shutil.rmtree(plan.final / CHECKPOINTS, ignore_errors=True)
    return result


class _Roles(dict[str, list[Path]]):
    """Inputs by role; asking for one that was not given is the caller's mistake."""

    def __missing__(self, role: str) -> list[Path]:
        raise ValueError(f'this job needs the input {role!r}; given: {", ".join(self) or "none"}. Add it under "inputs" of the job.')


def _call(plan: _Plan) -> Report:
    """Run the job's function; the processes that share it leave together, so that none still reads what the first publishes."""
    with preemptible():
        report = plan.job.function(
            plan.config, _Roles({role: [Path(p) for p in paths] for role, paths in plan.spec.inputs.items()}), plan.work
        )
        if plan.job.shared(plan.config):
            gang.meet("done")
    return report


def _compute(plan: _Plan) -> JobResult:
    start = time.perf_counter()
    report = _call(plan)
    _check_claims(plan, report)
    made = {p.relative_to(plan.work): p for p in files_of(plan.work) if p.name != "job.json"}
    artifacts = {str(name): file_hash(p) for name, p in made.items() if name.parts[0] != CHECKPOINTS}
    result = JobResult(
        job=plan.spec.job,
        fingerprint=plan.fingerprint,
        data_version=content_hash(artifacts),
        path=str(plan.final),
        reused=False,
        seconds=round(time.perf_counter() - start, 3),
        metrics=dict(report.metrics),
        checks=tuple(to_dict(c) for c in report.checks),
        shown=dict(report.shown),
        artifacts=artifacts,
        inputs=plan.inputs,
        provenance=_provenance(plan.job),
    )
    write_json(plan.work / "result.json", to_dict(result))
    shutil.rmtree(plan.final, ignore_errors=True)  # only ever the ruin of an artifact whose result.json was deleted
    plan.work.rename(plan.final)
    return result


def _prepare(plan: _Plan) -> None:
    """The inputs here, and the working folder: as a killed run left it when the job resumes, else empty."""
    for path in (Path(p) for paths in plan.spec.inputs.values() for p in paths):
        if not is_here(path) and is_shared(path):
            fetch(path)
    if plan.job.resumes:
        restore_work(plan.work)
    else:
        shutil.rmtree(plan.work, ignore_errors=True)
    plan.work.mkdir(exist_ok=True)
    for torn in (*plan.work.rglob(".*.part"), *plan.work.glob("result.json")):
        if torn.is_dir():
            shutil.rmtree(torn)
        else:
            torn.unlink(missing_ok=True)
    write_json(plan.work / "job.json", to_dict(plan.spec))


def _check_claims(plan: _Plan, report: Report) -> None:
    """The report makes exactly the claims that the job announces: what is shown as a check is one."""
    made = {c.name: c.severity for c in report.checks}
    assert made == dict(plan.job.checks), f"job {plan.spec.job!r} announces the checks {dict(plan.job.checks)} but reports {made}"


def _provenance(entry: Job) -> dict[str, str]:
    return {
        "code_version": entry.version,
        "git_revision": git_revision(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "torch": version("torch"),
    }


def fingerprint_of(spec: JobSpec) -> str:
    """The fingerprint `run(spec)` would work under."""
    return _plan(spec).fingerprint


@contextmanager
def preemptible() -> Iterator[None]:
    """SIGTERM raises Preempted inside. Only the main thread can listen to signals; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise Preempted("asked to stop by SIGTERM; run the same job again to go on.")

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
