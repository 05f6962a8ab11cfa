"""What is asked of a cluster for one job: the Job and its pods, exactly as large as its resources say.

Nothing here talks to a cluster.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pydantic

from neurofm_assets.compute.base import worker_command
from neurofm_ml.presets import Resources
from neurofm_ml.types import EXIT_BAD_INPUT, EXIT_PREEMPTED

Body = dict[str, Any]

GPU = "nvidia.com/gpu"
MANAGER = "neurofm"
MANAGED = {"app.kubernetes.io/managed-by": MANAGER}
#: Label: the Dagster run that waits for a Job. Annotation: the file its pods write messages to.
RUN = "dagster/run-id"
MESSAGES = "neurofm/messages"
#: Annotation that Kubernetes gives the pods of a gang: their number.
INDEX = "batch.kubernetes.io/job-completion-index"
#: Headless service behind which the pods of gangs find each other by name, and the port at which they meet.
GANGS = "neurofm-gangs"
PORT = 29400
#: Seconds that the pods of a gang wait for each other.
MEET_S = 3600
#: Seconds that a pod has between SIGTERM and SIGKILL: an update, a checkpoint of a large model, and torchrun.
GRACE_S = 120
KEEP_FINISHED_S = 24 * 3600
#: The user of the worker image.
USER = 1000
_SIGTERM = 128 + 15
_LONGEST_SLUG = 40


class Site(dg.Config):
    """How jobs run on one cluster.

    image          worker image
    claim, mount   shared volume, and where it is mounted: the same path in pods and in the orchestrator
    env            variables of every pod, none of them secret
    secret         Secret whose keys are variables of every pod
    queue          Kueue's LocalQueue that admits Jobs; without one they are not held back
    node_selector  labels of the nodes that pods with GPUs may run on
    tolerations    taints that they tolerate, beside the usual one of GPU nodes
    rdma           resource that gives a pod of a gang its network cards (``rdma/ib``)
    """

    image: str
    claim: str
    mount: str
    env: dict[str, str] = pydantic.Field(default={})
    secret: str = ""
    queue: str = ""
    node_selector: dict[str, str] = pydantic.Field(default={})
    tolerations: list[str] = pydantic.Field(default=[])
    rdma: str = ""


@dataclass(frozen=True)
class Task:
    """One job to be run for an asset; `env` carries what Pipes needs."""

    asset: str
    fingerprint: str
    run_id: str
    job_file: Path
    messages: Path
    resources: Resources
    env: Mapping[str, str]
    crashes: int

    @property
    def name(self) -> str:
        return job_name(self.asset, self.fingerprint)


def job_name(asset: str, fingerprint: str) -> str:
    """Name of the Job that makes an artifact: the same for everyone who asks for it."""
    slug = re.sub(r"[^a-z0-9]+", "-", asset.lower())[:_LONGEST_SLUG].strip("-")
    return f"{slug}-{fingerprint}"


def job_body(site: Site, task: Task) -> Body:
    """A Job of one pod, or an Indexed Job with one pod per node."""
    nodes = task.resources.nodes
    labels = {**MANAGED, RUN: task.run_id, "neurofm/asset": task.asset[:63], "neurofm/fingerprint": task.fingerprint}
    queue = {"kueue.x-k8s.io/queue-name": site.queue} if site.queue else {}
    spec = {
        "completions": nodes,
        "parallelism": nodes,
        "completionMode": "Indexed" if nodes > 1 else "NonIndexed",
        # A gang that has lost one pod is started whole again, as a new Job.
        "backoffLimit": 0 if nodes > 1 else task.crashes,
        "podFailurePolicy": {"rules": _failure_rules(gang=nodes > 1)},
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": round(task.resources.hours * 3600),
        "ttlSecondsAfterFinished": KEEP_FINISHED_S,
        "suspend": bool(site.queue),
        "template": {"metadata": {"labels": labels}, "spec": pod_spec(site, task)},
    }
    metadata = {"name": task.name, "labels": {**labels, **queue}, "annotations": {MESSAGES: str(task.messages)}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _failure_rules(gang: bool) -> list[Body]:
    """Wrong input ends a Job; a disruption counts for nothing, but ends a gang, with the reason in the Job's status."""
    disrupted = "FailJob" if gang else "Ignore"

    def codes(action: str, *values: int) -> Body:
        return {"action": action, "onExitCodes": {"containerName": "main", "operator": "In", "values": list(values)}}

    return [
        codes("FailJob", EXIT_BAD_INPUT),
        {"action": disrupted, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        codes(disrupted, EXIT_PREEMPTED, _SIGTERM),
    ]


def pod_spec(site: Site, task: Task) -> Body:
    """One pod: a container, the shared volume, and memory that processes share."""
    asked = task.resources
    mounts = [{"name": "shared", "mountPath": site.mount}, {"name": "shm", "mountPath": "/dev/shm"}]
    shared_memory = {"medium": "Memory", "sizeLimit": f"{max(asked.memory_gb // 4, 1)}Gi"}
    container = {
        "name": "main",
        "image": site.image,
        "command": worker_command("python", task.job_file, gang_options(task.name, asked)),
        "env": _variables(site, task),
        "envFrom": [{"secretRef": {"name": site.secret}}] if site.secret else [],
        "resources": _resources(site, asked),
        "volumeMounts": mounts,
        "securityContext": _container_rights(),
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "securityContext": _pod_rights(),
        "containers": [container],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": site.claim}}, {"name": "shm", "emptyDir": shared_memory}],
        **_placement(site, task),
    }


def gang_options(name: str, asked: Resources) -> list[str]:
    """Options of torchrun for one process per GPU; none where one process is enough."""
    processes = f"--nproc-per-node={max(asked.gpus, 1)}"
    if asked.nodes > 1:
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={name}-0.{GANGS}:{PORT}", f"--rdzv-id={name}"]
        patience = f"--rdzv-conf=join_timeout={MEET_S},read_timeout={MEET_S}"
        return [f"--nnodes={asked.nodes}", processes, *meeting, patience, "--local-addr=$(POD_IP)"]
    return ["--standalone", processes] if asked.gpus > 1 else []


def _variables(site: Site, task: Task) -> list[Body]:
    asked = task.resources
    values = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(max(asked.cpus // max(asked.gpus, 1), 1))}
    if asked.gpus:
        values["NCCL_DEBUG"] = "WARN"
    if asked.nodes > 1:
        # Without cards of its own a gang talks over the pods' network; NVLink within a node needs no setting.
        values |= {"NCCL_SOCKET_IFNAME": "eth0", "NCCL_IB_DISABLE": "0" if site.rdma else "1"}
    own = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return [own, *({"name": name, "value": value} for name, value in {**values, **site.env, **task.env}.items())]


def _resources(site: Site, asked: Resources) -> Body:
    devices = {GPU: str(asked.gpus)} if asked.gpus else {}
    if site.rdma and asked.nodes > 1:
        devices[site.rdma] = "1"
    memory = f"{asked.memory_gb}Gi"
    return {"requests": {"cpu": str(asked.cpus), "memory": memory, **devices}, "limits": {"memory": memory, **devices}}


def _pod_rights() -> Body:
    user = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"}
    return {"runAsNonRoot": True, **user, "seccompProfile": {"type": "RuntimeDefault"}}


def _container_rights() -> Body:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _placement(site: Site, task: Task) -> Body:
    """Pods with GPUs go to nodes with GPUs; those of a gang close together, and known by name."""
    placed: Body = {}
    if task.resources.gpus:
        taints = [GPU, *site.tolerations]
        placed["nodeSelector"] = site.node_selector
        placed["tolerations"] = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in taints]
    if task.resources.nodes > 1:
        near = {"labelSelector": {"matchLabels": {"job-name": task.name}}, "topologyKey": "topology.kubernetes.io/zone"}
        preferred = [{"weight": 100, "podAffinityTerm": near}]
        placed |= {"subdomain": GANGS, "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}
    return placed


def gangs_service() -> Body:
    """The headless service that gives the pods of all gangs their names."""
    spec = {"clusterIP": "None", "selector": MANAGED, "publishNotReadyAddresses": True}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": GANGS, "labels": MANAGED}, "spec": spec}
