"""Jobs on this machine: inside the step's process, or as processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg

from neurofm_assets.compute.base import Compute, worker_command, write_job_file
from neurofm_ml import gang, jobs
from neurofm_ml.jobs import JobResult, JobSpec
from neurofm_ml.presets import Resources
from neurofm_ml.types import EXIT_BAD_INPUT, EXIT_PREEMPTED, Preempted


class InProcess(Compute):
    """Inside the process of the step: tests, the demo, a laptop."""

    def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
        try:
            return jobs.run(spec)
        except Preempted as stopped:
            raise dg.Failure(str(stopped)) from stopped


class Subprocess(Compute):
    """As a process of its own on this machine, one per GPU where the job asks for several, which reports through Pipes.

    Differs from Dagster's own client in that the exit code is read: a run that was stopped from outside
    is taken up again from its checkpoint, `resumes` times at most.
    """

    resumes: int = 3
    grace_s: float = gang.GRACE_S + 20.0  # torchrun killed before its processes would leave them at work

    def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
        command = self.command(write_job_file(spec, jobs.fingerprint_of(spec)), resources)
        for left in reversed(range(self.resumes + 1)):
            code, said = self._attempt(context, command)
            if code == 0 and "artifact" in said:
                return jobs.load_result(Path(said["artifact"]))
            if code == EXIT_BAD_INPUT and "error" in said:
                raise ValueError(said["error"])
            if code not in (EXIT_PREEMPTED, -signal.SIGTERM) or not left:
                break
            context.log.warning(f"the worker was stopped (exit code {code}); taking it up again, {left - 1} more times allowed.")
        raise dg.Failure(f"the worker ended with exit code {code} and no result; its output is in the logs of this step.")

    def command(self, job_file: Path, resources: Resources) -> list[str]:
        """What the worker process is started with."""
        gang = ["--standalone", f"--nproc-per-node={resources.gpus}"] if resources.gpus > 1 else []
        return worker_command(sys.executable, job_file, gang)

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
