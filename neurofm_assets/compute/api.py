"""The few calls of the Kubernetes API that running a job needs, each of which outlasts an upgrade of the control plane.

A server that is busy, restarts or cannot be reached is asked again; one that refuses is believed.
"""

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from neurofm_assets.compute.pods import MANAGED, Body

#: Seconds without an answer after which a request is sent again, and the longest pause between two.
_TIMEOUT_S = 30
_LONGEST_PAUSE_S = 30.0
#: Answers that asking again does not change.
_REFUSED = (400, 404, 405, 413, 415, 422)
#: Answers that a server also gives whose own authorizer is not ready yet: believed after so many seconds of nothing else.
_DENIED = (401, 403)
_DENIED_S = 60.0
_GONE = 404
_EXISTS = 409


class Api:
    """Jobs, pods and what is known about them, in one namespace. Whatever is asked for and not there is None."""

    def __init__(self, namespace: str, patience_s: float, poll_s: float, warn: Callable[[str], None]) -> None:
        self.namespace, self.patience_s, self.poll_s, self.warn = namespace, patience_s, poll_s, warn

    @functools.cached_property
    def _clients(self) -> tuple[Any, Any]:
        """Batch and core API, configured as in a pod, else by KUBECONFIG."""
        from kubernetes import client, config

        settings = client.Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=settings)
        settings.retries = False  # `_call` does it
        connection = client.ApiClient(settings)
        return client.BatchV1Api(connection), client.CoreV1Api(connection)

    def _call(self, what: str, function: Callable[..., Any], *args: Any, expected: int | None = None, **more: Any) -> Any:
        """Carry out a request, asked again for `patience_s` while the server cannot answer; None for the `expected` refusal."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        end, pause = time.monotonic() + self.patience_s, self.poll_s
        allowed = time.monotonic()  # when it last did anything but deny
        while True:
            try:
                return function(*args, **more, _request_timeout=_TIMEOUT_S)
            except (ApiException, HTTPError) as error:
                status, said = getattr(error, "status", 0), _said(error)  # 0: no answer
                if status == expected:
                    return None
                now = time.monotonic()
                if status not in _DENIED:
                    allowed = now
                if status in _REFUSED or now - allowed > min(_DENIED_S, self.patience_s):
                    raise dg.Failure(f"the cluster refuses to {what}: {said}", allow_retries=False) from error
                if now > end:
                    raise dg.Failure(f"the cluster could not {what} for {self.patience_s:.0f} s: {said}") from error
                if pause == self.poll_s:
                    self.warn(f"the cluster cannot {what} ({said}); asking again.")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    # ------------------------------------------------------------ jobs
    def job(self, name: str) -> Any | None:
        """The Job of that name, or None."""
        return self._call(f"read the Job {name}", self._clients[0].read_namespaced_job, name, self.namespace, expected=_GONE)

    def jobs(self) -> list[Any]:
        """All Jobs of ours."""
        selector = ",".join(f"{label}={value}" for label, value in MANAGED.items())
        return list(self._call("list Jobs", self._clients[0].list_namespaced_job, self.namespace, label_selector=selector).items)

    def create_job(self, body: Body) -> Any | None:
        """The new Job; None when there is one of that name, which may be this one after a lost answer."""
        what = f"create the Job {body['metadata']['name']}"
        return self._call(what, self._clients[0].create_namespaced_job, self.namespace, body, expected=_EXISTS)

    def label_job(self, name: str, labels: dict[str, str]) -> None:
        body = {"metadata": {"labels": labels}}
        self._call(f"label the Job {name}", self._clients[0].patch_namespaced_job, name, self.namespace, body, expected=_GONE)

    def delete_job(self, name: str) -> None:
        """Ask for a Job to go; it stays, and keeps its name, until its pods have stopped."""
        delete = self._clients[0].delete_namespaced_job
        self._call(f"delete the Job {name}", delete, name, self.namespace, propagation_policy="Foreground", expected=_GONE)

    # ------------------------------------------------------------ pods
    def create_service(self, body: Body) -> None:
        """Make the Service, unless it is there."""
        what = f"create the Service {body['metadata']['name']}"
        self._call(what, self._clients[1].create_namespaced_service, self.namespace, body, expected=_EXISTS)

    def pods(self, job: str) -> list[Any]:
        list_pods = self._clients[1].list_namespaced_pod
        return list(self._call(f"list the pods of {job}", list_pods, self.namespace, label_selector=f"job-name={job}").items)

    def warnings(self, names: set[str]) -> list[str]:
        """What the cluster's events warn of, about these objects."""
        found = self._call("list events", self._clients[1].list_namespaced_event, self.namespace, field_selector="type=Warning")
        return [f"{event.reason}: {event.message}" for event in found.items if event.involved_object.name in names]

    def show_log(self, pod: str, write: Callable[[str], object], over: threading.Event) -> None:
        """A pod's log from its beginning, as it grows, taken up where it was after a cut until it is `over`.

        At best: a log that is lost costs nothing but the text.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        read, shown = self._clients[1].read_namespaced_pod_log, 0
        while not over.is_set():
            at = 0
            try:
                for chunk in read(pod, self.namespace, follow=True, _preload_content=False).stream():
                    write(chunk[max(shown - at, 0) :].decode(errors="replace"))
                    at += len(chunk)
                    shown = max(shown, at)
                return
            except (ApiException, HTTPError):
                over.wait(self.poll_s)

    def log_tail(self, pod: str, lines: int) -> str:
        """The end of a pod's log; "" where it cannot be had."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return str(self._clients[1].read_namespaced_pod_log(pod, self.namespace, tail_lines=lines, _request_timeout=_TIMEOUT_S))
        except (ApiException, HTTPError):
            return ""


def _said(error: Exception) -> str:
    """What a server answered, or why there was no answer."""
    body = getattr(error, "body", None)
    return f"{getattr(error, 'status', None)} {getattr(error, 'reason', '')}: {body}" if body else str(error)
