"""What a job is: the file that asks for it, the file that says what came of it, and the table of all jobs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from neurofm_ml.config import config
from neurofm_ml.registry import Registry
from neurofm_ml.types import Report

Inputs = Mapping[str, list[Path]]


@config
class JobSpec:
    """What to run: `inputs` maps a role to artifact folders or raw files, `out` is the artifact's home."""

    job: str
    config: dict[str, Any]
    inputs: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    out: str


@config
class JobResult:
    """What came of it. `data_version` is a hash of the artifact's content, `artifacts` its files' sha256."""

    job: str
    fingerprint: str
    data_version: str
    path: str
    reused: bool
    seconds: float
    metrics: dict[str, Any]
    checks: tuple[dict[str, Any], ...]
    shown: dict[str, str]
    artifacts: dict[str, str]
    inputs: dict[str, tuple[dict[str, str], ...]]
    provenance: dict[str, str]

    @property
    def failed(self) -> list[str]:
        """Names of the blocking checks that did not pass."""
        return [c["name"] for c in self.checks if not c["passed"] and c["severity"] == "error"]


@dataclasses.dataclass(frozen=True)
class Job:
    """What can be run.

    config      class of its config
    function    `(config, inputs, out) -> Report`
    version     goes into the fingerprint: raise it when the same inputs would give other results
    checks      the claims its report makes, and their severity: a failed "error" blocks what flows from the artifact
    resumes     takes up what a killed run left in the working folder; otherwise a run begins with an empty one
    reads       what it reads beside config and inputs (a card), for the fingerprint
    shared      whether every process of a gang works on it, under a config; otherwise the first does and the others wait
    """

    config: type
    function: Callable[[Any, Inputs, Path], Report]
    version: str
    checks: Mapping[str, Literal["warn", "error"]] = dataclasses.field(default_factory=dict)
    resumes: bool = False
    reads: Callable[[Any], Any] = lambda cfg: None
    shared: Callable[[Any], bool] = lambda cfg: False


JOBS: Registry[Job] = Registry("job")


def job(name: str, config_class: type, version: str, **more: Any) -> Callable[[Callable[..., Report]], Callable[..., Report]]:
    """Decorator that registers a job function; `more` are further fields of Job."""

    def add(function: Callable[..., Report]) -> Callable[..., Report]:
        JOBS.add(name, Job(config_class, function, version, **more))
        return function

    return add


def claims(*blocking: str, warn: Sequence[str] = ()) -> dict[str, Literal["warn", "error"]]:
    """The checks a job announces: those that block what flows from the artifact, those that only warn. What each
    claims is said in ``neurofm_ml.knowledge.claims``."""
    return {**dict.fromkeys(blocking, "error"), **dict.fromkeys(warn, "warn")}
