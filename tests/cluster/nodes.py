"""Scheduler and kubelet: which node a pod lands on, and its container as a process of this machine."""

import base64
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cluster.objects import Key, Object, Objects, timestamp
from cluster.schemas import quantity

#: Every process of a pod carries it, so that none outlives the pod.
MARK = "DOUBLE_POD_UID"
FINISHED = ("Succeeded", "Failed")
#: Seconds between two pulls of an image.
_BACK_OFF_S = 0.2


@dataclass(frozen=True)
class Image:
    """What a container of an image is started with, beside what its pod says."""

    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = Path()


@dataclass
class Log:
    """Lines of a container, with the time of each."""

    lines: list[tuple[str, bytes]] = field(default_factory=list)
    closed: bool = False


def key_of(pod: Object) -> Key:
    return Key("", "pods", pod["metadata"]["namespace"], pod["metadata"]["name"])


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": timestamp()}


def set_condition(thing: Object, new: Object) -> None:
    """Add a condition, or replace the one of its type when it says something else."""
    known = thing["status"].setdefault("conditions", [])
    same = [c for c in known if c["type"] == new["type"]]
    if not same or any(same[0][name] != new[name] for name in ("status", "reason", "message")):
        thing["status"]["conditions"] = [c for c in known if c not in same] + [new]


def tell(objects: Objects, about: Object, kind: str, reason: str, message: str) -> None:
    """A warning event about an object."""
    namespace, name = about["metadata"]["namespace"], f"{about['metadata']['name']}.{objects.version:x}"
    involved = {"kind": kind, "name": about["metadata"]["name"], "namespace": namespace, "uid": about["metadata"]["uid"]}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "type": "Warning", "reason": reason, "message": message}
    times = {"count": 1, "firstTimestamp": timestamp(), "lastTimestamp": timestamp()}
    objects.add(Key("", "events", namespace, name), {**event, **times, "involvedObject": involved})


# ---------------------------------------------------------------- the scheduler
def schedule(objects: Objects) -> Iterator[Object]:
    """Bind waiting pods to the first node with room; yields those bound. The others say why they wait."""
    for pod in objects.all("pods"):
        if pod["spec"].get("nodeName") or pod["status"]["phase"] != "Pending" or pod["metadata"].get("deletionTimestamp"):
            continue
        nodes = objects.all("nodes")
        reasons = {node["metadata"]["name"]: _obstacle(pod, node, objects.all("pods")) for node in nodes}
        free = next((name for name, reason in reasons.items() if not reason), None)
        if free:
            bound = objects.update(key_of(pod), pod["metadata"]["uid"], partial(_bind, node=free))
            if bound:
                yield bound
        else:
            _refuse(objects, pod, list(reasons.values()))


def _bind(pod: Object, node: str) -> None:
    pod["spec"]["nodeName"] = node
    set_condition(pod, condition("PodScheduled", "True"))
    set_state(pod, {"waiting": {"reason": "ContainerCreating"}})


def _refuse(objects: Objects, pod: Object, reasons: Sequence[str]) -> None:
    counted = ", ".join(f"{n} {reason}" for reason, n in sorted(Counter(reasons).items()))
    message = f"0/{len(reasons)} nodes are available: {counted or 'no nodes'}."
    new = condition("PodScheduled", "False", "Unschedulable", message)
    before = objects.version
    objects.update(key_of(pod), pod["metadata"]["uid"], lambda p: set_condition(p, new))
    if objects.version != before:
        tell(objects, pod, "Pod", "FailedScheduling", message)


def _obstacle(pod: Object, node: Object, pods: Sequence[Object]) -> str:
    """Why the pod cannot run on the node; "" when it can."""
    labels, wanted = node["metadata"].get("labels") or {}, pod["spec"].get("nodeSelector") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in node["spec"].get("taints") or ():
        if not any(_tolerates(t, taint) for t in pod["spec"].get("tolerations") or ()):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    used: Counter[str] = Counter()
    for other in pods:
        if other["spec"].get("nodeName") == node["metadata"]["name"] and other["status"]["phase"] not in FINISHED:
            used.update(_asked(other))
    room = node["status"]["allocatable"]
    return next((f"Insufficient {name}" for name, n in _asked(pod).items() if n + used[name] > quantity(room.get(name, 0))), "")


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")


def _asked(pod: Object) -> Counter[str]:
    total: Counter[str] = Counter()
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        total.update({name: quantity(value) for name, value in asked.items()})  # type: ignore[dict-item]
    return total


# ---------------------------------------------------------------- the kubelet
def set_state(pod: Object, state: Object, restarts: int = 0) -> None:
    """What the (only) container of a pod does."""
    container = pod["spec"]["containers"][0]
    pod["status"]["containerStatuses"] = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": "running" in state,
            "restartCount": restarts,
            "state": state,
        }
    ]


class Kubelet:
    """Runs the first container of each pod that was bound to a node."""

    def __init__(self, objects: Objects, images: Mapping[str, Image]) -> None:
        self.objects, self.images = objects, images
        self.logs: dict[str, Log] = {}
        self.pulls: list[str] = []  # how the next pulls fail, in these words; after them the image is there
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping: set[str] = set()
        self._busy: dict[str, threading.Thread] = {}
        self._ports: dict[tuple[str, str], int] = {}

    def start(self, pod: Object) -> None:
        thread = threading.Thread(target=self._live, args=(key_of(pod), pod), daemon=True)
        self._busy[pod["metadata"]["uid"]] = thread
        thread.start()

    def busy(self, uid: str) -> bool:
        """Whether anything of a pod still runs."""
        return uid in self._busy and self._busy[uid].is_alive()

    def kill(self, uid: str) -> None:
        """SIGKILL, as when memory runs out or a node loses its power."""
        if process := self._processes.get(uid):
            process.kill()

    def stop(self, uid: str, grace_s: float) -> None:
        """SIGTERM, once, and SIGKILL when the grace is over; does not wait."""
        process = self._processes.get(uid)
        if process is None or uid in self._stopping:
            return
        self._stopping.add(uid)
        process.terminate()
        timer = threading.Timer(grace_s, process.kill)
        timer.daemon = True
        timer.start()

    def stop_all(self) -> None:
        for process in list(self._processes.values()):
            process.kill()
        for thread in list(self._busy.values()):
            thread.join()

    def _live(self, key: Key, pod: Object) -> None:
        """A pod from its binding to the end of its last container."""
        uid, policy, restarts = pod["metadata"]["uid"], pod["spec"].get("restartPolicy", "Always"), 0
        self._pull(key, pod)
        while process := self._begin(key, pod, restarts):
            code = self._see_through(uid, process)
            again = policy == "Always" or (policy == "OnFailure" and code != 0)
            now = self.objects.find(key, uid)
            if now is None or now["metadata"].get("deletionTimestamp") or not again:
                self._report(key, uid, {"terminated": _ending(code)}, "Failed" if code else "Succeeded", restarts)
                return
            restarts += 1

    def _pull(self, key: Key, pod: Object) -> None:
        """Ask for the image until the pull fails no more, or the pod is to go."""
        uid, image = pod["metadata"]["uid"], pod["spec"]["containers"][0]["image"]
        while self.pulls and not self._is_over(key, uid):
            self._cannot_pull(key, pod, self.pulls.pop(0))
            time.sleep(_BACK_OFF_S)
            back_off = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
            self._report(key, uid, {"waiting": back_off}, "Pending", 0)
            time.sleep(_BACK_OFF_S)

    def _cannot_pull(self, key: Key, pod: Object, why: str) -> None:
        message = f'Failed to pull image "{pod["spec"]["containers"][0]["image"]}": {why}'
        self._report(key, pod["metadata"]["uid"], {"waiting": {"reason": "ErrImagePull", "message": message}}, "Pending", 0)
        tell(self.objects, pod, "Pod", "Failed", message)

    def _is_over(self, key: Key, uid: str) -> bool:
        """Whether the pod is not to be started any more."""
        now = self.objects.find(key, uid)
        return now is None or bool(now["metadata"].get("deletionTimestamp")) or now["status"]["phase"] in FINISHED

    def _begin(self, key: Key, pod: Object, restarts: int) -> subprocess.Popen[bytes] | None:
        """Start the container; None when the pod is to be deleted or its image does not exist."""
        uid = pod["metadata"]["uid"]
        container = pod["spec"]["containers"][0]
        image = self.images.get(container["image"])
        with self.objects.changed:
            if self._is_over(key, uid):
                return None
            if image is None:
                self._cannot_pull(key, pod, "not found")
                return None
            self.logs.setdefault(uid, Log()).closed = False
            process = self._process(pod, container, image)
            self._processes[uid] = process
            self._report(key, uid, {"running": {"startedAt": timestamp()}}, "Running", restarts)
            return process

    def _process(self, pod: Object, container: Object, image: Image) -> subprocess.Popen[bytes]:
        env = {"HOME": "/tmp", "PATH": os.environ["PATH"], **image.env, MARK: pod["metadata"]["uid"]}
        env["HOSTNAME"] = pod["spec"].get("hostname") or pod["metadata"]["name"]
        env |= self._environment(pod, container, env)
        command = [
            self._resolved(pod, _expanded(word, env)) for word in (*(container.get("command") or ()), *(container.get("args") or ()))
        ]
        where = container.get("workingDir") or image.cwd
        return subprocess.Popen(
            command, env=env, cwd=where, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def _environment(self, pod: Object, container: Object, env: Mapping[str, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom") or ():
            found |= self._values(pod["metadata"]["namespace"], source)
        for variable in container.get("env") or ():
            value = (
                _field(pod, variable["valueFrom"]) if "valueFrom" in variable else _expanded(variable.get("value") or "", {**env, **found})
            )
            found[variable["name"]] = self._resolved(pod, value)
        return found

    def _values(self, namespace: str, source: Object) -> dict[str, str]:
        """Variables of a ConfigMap or Secret."""
        if "configMapRef" in source:
            return self.objects.get(Key("", "configmaps", namespace, source["configMapRef"]["name"])).get("data") or {}
        secret = self.objects.get(Key("", "secrets", namespace, source["secretRef"]["name"]))
        coded = {name: base64.b64decode(value).decode() for name, value in (secret.get("data") or {}).items()}
        return {**coded, **(secret.get("stringData") or {})}

    def _resolved(self, pod: Object, text: str) -> str:
        """Names of pods behind a headless service become this machine; their ports, one that is free, the same for all of a Job."""
        for service in self.objects.all("services", namespace=pod["metadata"]["namespace"]):
            if service["spec"].get("clusterIP") == "None":
                host = rf"[a-z0-9-]+\.{service['metadata']['name']}\b[a-z0-9.]*"
                text = re.sub(rf"{host}(?::(\d+))?", lambda m: self._address(pod, m[1]), text)
        return text

    def _address(self, pod: Object, port: str | None) -> str:
        owner = next((o["uid"] for o in pod["metadata"].get("ownerReferences") or ()), pod["metadata"]["uid"])
        if port and (owner, port) not in self._ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._ports[owner, port] = probe.getsockname()[1]
        return f"127.0.0.1:{self._ports[owner, port]}" if port else "127.0.0.1"

    def _see_through(self, uid: str, process: subprocess.Popen[bytes]) -> int:
        """Follow a process to its end, and end all that it started; its exit code as a shell gives it."""
        pump = threading.Thread(target=self._pump, args=(uid, process), daemon=True)
        pump.start()
        code = process.wait()
        _sweep(uid)
        pump.join()
        del self._processes[uid]
        with self.objects.changed:
            self.logs[uid].closed = True
            self.objects.changed.notify_all()
        return code if code >= 0 else 128 - code

    def _pump(self, uid: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            with self.objects.changed:
                self.logs[uid].lines.append((now, line))
                self.objects.changed.notify_all()
        process.stdout.close()

    def _report(self, key: Key, uid: str, state: Object, phase: str, restarts: int) -> None:
        def change(pod: Object) -> None:
            if pod["status"]["phase"] not in FINISHED:
                pod["status"] |= {"phase": phase, "podIP": "127.0.0.1"}
                set_state(pod, state, restarts)

        self.objects.update(key, uid, change)


def _ending(code: int) -> Object:
    return {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": timestamp()}


def _field(pod: Object, source: Object) -> str:
    """A field of the pod as a variable."""
    path = source["fieldRef"]["fieldPath"]
    if match := re.fullmatch(r"metadata\.(annotations|labels)\['(.+)'\]", path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    found: Any = {**pod, "status": {**pod["status"], "podIP": "127.0.0.1"}}
    for name in path.split("."):
        found = found[name]
    return str(found)


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced by what is known."""
    replace: Callable[[re.Match[str]], str] = lambda m: env.get(m[1], m[0])  # noqa: E731
    return re.sub(r"\$\((\w+)\)", replace, text)


def _sweep(uid: str) -> None:
    """Kill what the processes of a pod left running: a container ends with its first process."""
    mark = f"{MARK}={uid}".encode()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
