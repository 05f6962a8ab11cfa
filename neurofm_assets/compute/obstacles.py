"""Why a Job does not run, in the words of the cluster: read from the Job, its pods and their events."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

#: What a container waits for that starts in due course.
_USUAL = ("ContainerCreating", "PodInitializing")
#: What no waiting helps against.
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull")
#: What passes when a registry or a node is at fault, and does not when that which is asked for is missing.
_HELD = ("ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError")
#: How registries and nodes say that something is missing. A name that does not resolve ("no such host") may be a fault of the network.
_MISSING = re.compile(r"(?i)not found|(manifest|name|repository)[ _]unknown|no such (?!host)|no match|does not exist|couldn't find")


def obstacles(job: Any, pods: Sequence[Any], warnings: Sequence[str]) -> list[str]:
    """What keeps the Job from running or has disturbed it, each thing once."""
    found = [*_of_job(job), *(text for pod in pods for text in _of_pod(pod)), *warnings]
    return list(dict.fromkeys(found))


def hopeless(pods: Sequence[Any], warnings: Sequence[str]) -> str:
    """Why a pod will never start, "" where it may.

    A container in back-off often says no more than that: why its image could not be pulled is then among the warnings.
    """
    stuck = held(pods)
    before = [text for text in warnings if stuck and "pull image" in text]
    missing = (text for text in (*stuck, *before) if _MISSING.search(text))
    return next(iter((*_waits(pods, _HOPELESS), *missing)), "")


def held(pods: Sequence[Any]) -> list[str]:
    """What keeps containers from starting and may pass."""
    return _waits(pods, _HELD)


def waiting(pods: Sequence[Any]) -> bool:
    """Whether something that should run does not."""
    return not pods or any(pod.status.phase == "Pending" for pod in pods)


def _of_job(job: Any) -> Iterator[str]:
    if job.spec.suspend:
        queue = (job.metadata.labels or {}).get("kueue.x-k8s.io/queue-name")
        yield f"suspended: waits for the queue {queue} to admit it" if queue else "suspended"


def _of_pod(pod: Any) -> Iterator[str]:
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            yield f"{condition.reason}: {condition.message}"
        if condition.type == "DisruptionTarget" and condition.status == "True":
            yield f"{pod.metadata.name} was disrupted: {condition.reason}"
    if pod.status.phase == "Failed" and pod.status.reason:
        yield f"{pod.metadata.name} failed: {pod.status.reason}"
    for state in _states(pod):
        if state.waiting and state.waiting.reason not in _USUAL:
            yield f"{state.waiting.reason}: {state.waiting.message or ''}"
        if state.terminated and state.terminated.exit_code:
            yield f"{pod.metadata.name} ended with exit code {state.terminated.exit_code}"


def _waits(pods: Sequence[Any], reasons: Sequence[str]) -> list[str]:
    """What containers say that wait for one of these reasons."""
    states = (state.waiting for pod in pods for state in _states(pod) if state.waiting)
    return [f"{state.reason}: {state.message or ''}" for state in states if state.reason in reasons]


def _states(pod: Any) -> list[Any]:
    return [status.state for status in pod.status.container_statuses or () if status.state]
