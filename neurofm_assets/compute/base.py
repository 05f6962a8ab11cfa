"""What every form of compute has in common: launching, the worker's command, and what Dagster shows of an artifact."""

import base64
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from neurofm_assets.checks import finite, results_of
from neurofm_ml import jobs
from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.files import write_json
from neurofm_ml.jobs import JobResult, JobSpec
from neurofm_ml.presets import Resources

#: Inputs of one role that a page lists by name; result.json lists all.
MANY = 20


class Compute(dg.ConfigurableResource):
    """One way of running jobs."""

    def launch(
        self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources, left_out: Sequence[str] = ()
    ) -> dg.MaterializeResult:
        """The artifact of `spec`: found when it was made before, else computed.

        Of `resources`, a job that one process does gets one GPU: the others would be paid for and idle. `left_out` names the datasets that are not here, for the log and the metadata.
        """
        if left_out:
            context.log.info(f"left out, since not here: {', '.join(left_out)}")
        try:
            result = jobs.find(spec) or self.compute(context, spec, resources if _is_shared(spec) else resources.of_one_process)
        except ValueError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(f"{'found' if result.reused else 'made'} {result.path}")
        return materialization(result, left_out)

    @abstractmethod
    def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
        """Run the job. Raises ValueError for a wrong config or input."""

    def sweep(self, instance: dg.DagsterInstance) -> list[str]:
        """Stop what cancelled runs left at work elsewhere; gives its names."""
        return []


def _is_shared(spec: JobSpec) -> bool:
    """Whether every process of a gang works on the job."""
    job = jobs.JOBS[spec.job]
    return job.shared(from_dict(job.config, spec.config))


def write_job_file(spec: JobSpec, fingerprint: str) -> Path:
    """The file a worker is started with, beside the artifacts."""
    job_file = Path(spec.out) / f"job-{fingerprint}.json"
    job_file.parent.mkdir(parents=True, exist_ok=True)
    write_json(job_file, to_dict(spec))
    return job_file


def worker_command(python: str, job_file: Path, gang: Sequence[str] = ()) -> list[str]:
    """What a worker is started with: one process, or a `gang` of them as these options of torchrun say."""
    worker = ["-m", "neurofm_assets.worker", str(job_file)]
    return [python, "-m", "neurofm_ml.gang", *gang, *worker] if gang else [python, *worker]


def materialization(result: JobResult, left_out: Sequence[str] = ()) -> dg.MaterializeResult:
    """What Dagster shows of an artifact: its numbers, plots, place, origin and checks."""
    metadata: dict[str, Any] = {name: finite(value) for name, value in result.metrics.items()}
    for label, name in result.shown.items():
        metadata |= _shown(label, jobs.file_of(Path(result.path), name))
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
