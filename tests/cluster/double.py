"""The whole cluster, its faults, and what a test wants to know of it."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster import jobs, schemas
from cluster.nodes import FINISHED, Image, Kubelet, condition, key_of, schedule, set_condition
from cluster.objects import ApiError, Change, Key, Object, Objects
from cluster.schemas import Kind
from cluster.server import serve

#: Seconds between two passes of the controllers.
TICK_S = 0.02


@dataclass(frozen=True)
class Node:
    """A machine: what it has, in Kubernetes' units, and what keeps pods away from it."""

    name: str
    room: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()

    def body(self) -> Object:
        metadata = {"name": self.name, "labels": {"kubernetes.io/hostname": self.name, **self.labels}}
        spec = {"taints": [{"key": key, "effect": "NoSchedule"} for key in self.taints]}
        status = {"capacity": dict(self.room), "allocatable": dict(self.room), "conditions": [condition("Ready", "True")]}
        return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match, after `after` of them went well.

    With a `status` the server answers that; without one the connection is cut: before the request is carried out,
    or, when `late`, after it.
    """

    method: str
    path: str
    status: int = 0
    times: int = 1
    after: int = 0
    late: bool = False


class Cluster:
    """One cluster; `running` makes it. All waiting is for events, with a limit that only a failure reaches."""

    def __init__(self, images: Mapping[str, Image], nodes: tuple[Node, ...]) -> None:
        self.objects = Objects()
        self.kubelet = Kubelet(self.objects, images)
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.cut_logs_after: int | None = None  # lines, in each stream that is followed
        self.stopping = threading.Event()
        self._jobs = jobs.JobController(self.objects)
        self.objects.add(Key("", "namespaces", "", "default"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        for node in nodes:
            self.add_node(node)

    # ------------------------------------------------------------ what the server asks
    def kinds(self) -> dict[tuple[str, str, str], Kind]:
        custom = schemas.declared(self.objects.all("customresourcedefinitions", "apiextensions.k8s.io"))
        return {**schemas.builtin(), **{(kind.group, kind.version, kind.plural): kind for kind in custom}}

    def check(self, kind: Kind, made: Object) -> None:
        schemas.validate(kind, made, self._custom_schema(kind))

    def _custom_schema(self, kind: Kind) -> Mapping[str, Any] | None:
        for definition in self.objects.all("customresourcedefinitions", "apiextensions.k8s.io"):
            if (definition["spec"]["group"], definition["spec"]["names"]["kind"]) == (kind.group, kind.name):
                versions = {version["name"]: version for version in definition["spec"]["versions"]}
                found: Mapping[str, Any] = versions[kind.version].get("schema", {}).get("openAPIV3Schema", {})
                return found
        return None

    def create(self, kind: Kind, key: Key, made: Object) -> Object:
        self.check(kind, made)
        if key.namespace and Key("", "namespaces", "", key.namespace) not in self.objects:
            raise ApiError(404, "NotFound", f'namespaces "{key.namespace}" not found')
        made.pop("status", None)
        if kind.name == "Job":
            jobs.defaults(made)
        if kind.name == "Pod":
            made["status"] = {"phase": "Pending", "conditions": []}
        return self.objects.add(key, made)

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that meets this request, used up by one."""
        with self.objects.changed:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    # ------------------------------------------------------------ what a test does to it
    def add_node(self, node: Node) -> None:
        self.objects.add(Key("", "nodes", "", node.name), node.body())

    def preempt(self, pod: Object, grace_s: int | None = None) -> None:
        """The scheduler needs the place, or a spot node is taken away: the pod is told and deleted."""
        disrupted = condition("DisruptionTarget", "True", "PreemptionByScheduler")
        self.objects.update(key_of(pod), pod["metadata"]["uid"], lambda p: set_condition(p, disrupted))
        jobs.delete(self.objects, key_of(pod), grace_s=grace_s)

    def evict(self, pod: Object, say_how_it_ended: bool = True) -> None:
        """The kubelet needs the memory, or shuts down: the pod fails at once, with or without a word of its container."""

        def change(now: Object) -> None:
            now["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
            set_condition(now, condition("DisruptionTarget", "True", "TerminationByKubelet"))
            if not say_how_it_ended:
                now["status"].pop("containerStatuses", None)

        uid = pod["metadata"]["uid"]
        self.objects.update(key_of(pod), uid, change)
        self.kubelet.kill(uid)

    def delete_jobs(self) -> None:
        """Somebody deletes all Jobs, with kubectl."""
        for job in self.jobs():
            jobs.delete(self.objects, Key("batch", "jobs", job["metadata"]["namespace"], job["metadata"]["name"]))

    def admit(self) -> None:
        """Kueue admits the Jobs that it holds back."""
        for job in self.jobs():
            key = Key("batch", "jobs", job["metadata"]["namespace"], job["metadata"]["name"])
            self.objects.update(key, job["metadata"]["uid"], lambda j: j["spec"].update(suspend=False))

    def crash(self, pod: Object) -> None:
        """SIGKILL from outside, as by the kernel when memory runs out."""
        self.kubelet.kill(pod["metadata"]["uid"])

    # ------------------------------------------------------------ what a test wants to know
    def until(self, true: Callable[[], Any], timeout_s: float = 180.0) -> Any:
        return self.objects.until(true, timeout_s)

    def jobs(self) -> list[Object]:
        return self.objects.all("jobs", "batch")

    def pods(self, *phases: str) -> list[Object]:
        return [pod for pod in self.objects.all("pods") if not phases or pod["status"]["phase"] in phases]

    def log(self, pod: Object) -> str:
        log = self.kubelet.logs.get(pod["metadata"]["uid"])
        return b"".join(line for _, line in log.lines).decode() if log else ""

    def ever(self, plural: str) -> int:
        """How many objects of a kind there have been."""
        return len({change.object["metadata"]["uid"] for change in self.changes(plural)})

    def changes(self, plural: str) -> list[Change]:
        return [change for change in self.objects.history if change.key.plural == plural]

    def most(self, plural: str, phase: str = "") -> int:
        """The most objects of a kind (in a phase) that there were at one time."""
        now: set[str] = set()
        most = 0
        for change in self.changes(plural):
            uid, status = change.object["metadata"]["uid"], change.object.get("status", {})
            there = change.what != "DELETED" and (status.get("phase") == phase if phase else not self._over(change.object))
            now = now | {uid} if there else now - {uid}
            most = max(most, len(now))
        return most

    @staticmethod
    def _over(thing: Object) -> bool:
        if thing["kind"] == "Job":
            return jobs.ended(thing)
        return thing.get("status", {}).get("phase") in FINISHED

    def kubeconfig(self, path: Path) -> Path:
        """Write the file that clients are configured with."""
        named = [("clusters", "cluster", {"server": self.url}), ("users", "user", {"token": "anyone"})]
        config: Object = {"apiVersion": "v1", "kind": "Config", "current-context": "double"}
        config |= {plural: [{"name": "double", singular: body}] for plural, singular, body in named}
        config["contexts"] = [{"name": "double", "context": {"cluster": "double", "user": "double", "namespace": "default"}}]
        path.write_text(yaml.safe_dump(config))
        return path

    # ------------------------------------------------------------ life
    def _control(self) -> None:
        while not self.stopping.wait(TICK_S):
            for pod in schedule(self.objects):
                self.kubelet.start(pod)
            self._jobs.tick()
            jobs.collect(self.objects, self.kubelet)

    @classmethod
    @contextmanager
    def running(cls, images: Mapping[str, Image], nodes: tuple[Node, ...]) -> Iterator["Cluster"]:
        """A cluster on a free port of this machine, until the block ends; no process of a pod outlives it."""
        cluster = cls(images, nodes)
        control = threading.Thread(target=cluster._control, daemon=True)
        with serve(cluster) as cluster.url:
            control.start()
            try:
                yield cluster
            finally:
                cluster.stopping.set()
                control.join()
                cluster.kubelet.stop_all()
