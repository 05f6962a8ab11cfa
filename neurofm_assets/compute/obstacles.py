"""Why a Job does not run, in the words of the cluster: read from the Job, its pods and their events."""

from collections.abc import Iterator, Sequence
from typing import Any

#: What a container waits for that starts in due course.
_USUAL = ("ContainerCreating", "PodInitializing")
#: What no waiting helps against.
_HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")


def obstacles(job: Any, pods: Sequence[Any], warnings: Sequence[str]) -> list[str]:
    """What keeps the Job from running or has disturbed it, each thing once."""
    found = [*_of_job(job), *(text for pod in pods for text in _of_pod(pod)), *warnings]
    return list(dict.fromkeys(found))


def hopeless(pods: Sequence[Any]) -> str:
    """Why a pod will never start, "" where it may."""
    waiting = (state.waiting for pod in pods for state in _states(pod) if state.waiting)
    return next((f"{w.reason}: {w.message or ''}" for w in waiting if w.reason in _HOPELESS), "")


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


def _states(pod: Any) -> list[Any]:
    return [status.state for status in pod.status.container_statuses or () if status.state]
