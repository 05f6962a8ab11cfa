"""Compute: how a job of the library is run for an asset, and how its result becomes a materialisation.

The asset body never knows which form it was given. What a job does is in `neurofm_ml.jobs`.
Dagster concept: resource.
"""

import base64
import contextlib
import os
import signal
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from neurofm_assets.checks import finite, results_of
from neurofm_ml import jobs
from neurofm_ml.config import to_dict
from neurofm_ml.files import write_json
from neurofm_ml.jobs import EXIT_BAD_INPUT, EXIT_PREEMPTED, JobResult, JobSpec, Preempted
from neurofm_ml.presets import Resources

#: Inputs of one role that a page lists by name; result.json lists all.
MANY = 20


class Compute(dg.ConfigurableResource):
    """One way of running jobs."""

    def launch(
        self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources, left_out: Sequence[str] = ()
    ) -> dg.MaterializeResult:
        """The artifact of `spec`: found when it was made before, else computed.

        `left_out` names the datasets that are not here, for the log and the metadata.
        """
        if left_out:
            context.log.info(f"left out, since not here: {', '.join(left_out)}")
        try:
            result = jobs.find(spec) or self.compute(context, spec, resources)
        except ValueError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(f"{'found' if result.reused else 'made'} {result.path}")
        return materialization(result, left_out)

    @abstractmethod
    def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
        """Run the job. Raises ValueError for a wrong config or input."""


class InProcess(Compute):
    """Inside the process of the step: tests, the demo, a laptop."""

    def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
        try:
            return jobs.run(spec)
        except Preempted as stopped:
            raise dg.Failure(str(stopped)) from stopped


class Subprocess(Compute):
    """As a process of its own on this machine, which reports through Pipes.

    Differs from Dagster's own client in that the exit code is read: a run that was stopped from outside
    is taken up again from its checkpoint, `resumes` times at most.
    """

    resumes: int = 3
    grace_s: float = 60.0

    def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
        job_file = Path(spec.out) / f"job-{jobs.fingerprint_of(spec)}.json"
        job_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(job_file, to_dict(spec))
        for left in reversed(range(self.resumes + 1)):
            code, said = self._attempt(context, self.command(job_file))
            if code == 0 and "artifact" in said:
                return jobs.load_result(Path(said["artifact"]))
            if code == EXIT_BAD_INPUT:
                raise ValueError(said["error"])
            if code not in (EXIT_PREEMPTED, -signal.SIGTERM) or not left:
                break
            context.log.warning(f"the worker was stopped (exit code {code}); taking it up again, {left - 1} more times allowed.")
        raise dg.Failure(f"the worker ended with exit code {code} and no result; its output is in the logs of this step.")

    def command(self, job_file: Path) -> list[str]:
        """What the worker process is started with."""
        return [sys.executable, "-m", "neurofm_assets.worker", str(job_file)]

    def _attempt(self, context: dg.AssetExecutionContext, command: list[str]) -> tuple[int, dict[str, str]]:
        """One worker process: its exit code and what it said last."""
        with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()) as session:
            process = subprocess.Popen(command, env={**os.environ, **session.get_bootstrap_env_vars()})
            try:
                code = process.wait()
            except dg.DagsterExecutionInterruptedError:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=self.grace_s)
                process.kill()
                raise
        messages = session.get_custom_messages()
        return code, messages[-1] if messages else {}


def materialization(result: JobResult, left_out: Sequence[str] = ()) -> dg.MaterializeResult:
    """What Dagster shows of an artifact: its numbers, plots, place, origin and checks."""
    metadata: dict[str, Any] = {name: finite(value) for name, value in result.metrics.items()}
    for label, name in result.shown.items():
        metadata |= _shown(label, Path(result.path) / name)
    made_from = {role: [d["path"] for d in found] if len(found) <= MANY else f"{len(found)} files" for role, found in result.inputs.items()}
    metadata |= {
        "path": dg.MetadataValue.path(result.path),
        "reused": result.reused,
        "seconds": result.seconds,
        "fingerprint": result.fingerprint,
        "provenance": dg.MetadataValue.json({**result.provenance, "inputs": made_from}),
    }
    if left_out:
        metadata["left_out"] = ", ".join(left_out)
    return dg.MaterializeResult(metadata=metadata, check_results=results_of(result), data_version=dg.DataVersion(result.data_version))


def _shown(label: str, path: Path) -> dict[str, Any]:
    """A file worth showing: plots and texts on the page itself, everything by its path."""
    render: dict[str, Callable[[], str]] = {
        ".png": lambda: f"![{label}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})",
        ".md": path.read_text,
    }
    place = dg.MetadataValue.path(str(path))
    return {label: dg.MetadataValue.md(render[path.suffix]()), f"{label} file": place} if path.suffix in render else {label: place}
