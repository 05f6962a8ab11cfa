"""The one entry point for all heavy work: ``run(spec)``, and ``python -m neurofm_ml.jobs job.json``.

A test calls `run` in process, a subprocess runs it on a workstation, a pod on a GPU node: same
function, same ``job.json``, same ``result.json``. Nothing is computed twice: a spec has a
fingerprint (job, config, data versions of the inputs, code version); a finished artifact with the
same fingerprint is returned as it is, an unfinished one is taken up in the working folder that
the fingerprint names, and what is published is complete by construction.

    <out>/<fingerprint>/          a finished artifact: its files, job.json, result.json
    <out>/work-<fingerprint>/     the same while it is being made
    <out>/.<fingerprint>.lock     held by the process that makes it; released by the system when that dies
    <out>/current.json            which fingerprint is the current one

Where NEUROFM_STORE names an object store, what is published here is published there too, and what was
made on another machine is found there: `find` and `load_result` ask it, `run` brings the files of its
inputs and of its artifact, and a working folder goes on from where another machine left it (``artifacts.py``).
"""

from neurofm_ml.jobs import catalogue  # noqa: F401 (fills JOBS)
from neurofm_ml.jobs.results import current, file_of, load_intact, load_result, load_spec, version_of
from neurofm_ml.jobs.running import find, fingerprint_of, preemptible, run
from neurofm_ml.jobs.spec import JOBS, Inputs, Job, JobResult, JobSpec, claims

__all__ = [
    "JOBS",
    "Inputs",
    "Job",
    "JobResult",
    "JobSpec",
    "claims",
    "current",
    "file_of",
    "find",
    "fingerprint_of",
    "load_intact",
    "load_result",
    "load_spec",
    "preemptible",
    "run",
    "version_of",
]
