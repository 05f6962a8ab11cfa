"""What is asked of a cluster, size by size, and how its words are read."""

import errno
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from cluster import schemas

from neurofm_assets.compute import Kubernetes, Site, kubernetes
from neurofm_assets.compute.messages import SharedFileMessages
from neurofm_assets.compute.obstacles import held, hopeless, obstacles, waiting
from neurofm_assets.compute.pods import Task, gangs_service, job_body, job_name
from neurofm_assets.resources import resources_for
from neurofm_ml import gang, presets
from neurofm_ml.presets import Resources

SITE = Site(image="registry/neurofm-worker:1", claim="neurofm", mount="/neurofm", env={"NEUROFM_HOME": "/neurofm/home"})
H100 = Site(
    image="registry/neurofm-worker:1",
    claim="neurofm",
    mount="/neurofm",
    secret="keys",
    queue="gpus",
    node_selector={"gpu.nvidia.com/class": "H100_NVLINK_80GB"},
    tolerations=["spot"],
    rdma="rdma/ib",
)


def task(resources: Resources, asset: str = "neurofmx_pretrained") -> Task:
    env = {"DAGSTER_PIPES_CONTEXT": "c", "DAGSTER_PIPES_MESSAGES": "m"}
    job_file, messages = Path("/neurofm/home/job.json"), Path("/neurofm/home/messages.jsonl")
    return Task(asset, "0123456789abcdef", "run-1", job_file, messages, resources, env, crashes=3)


def pod_of(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pod spec and its container."""
    spec = body["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


@pytest.mark.parametrize("site", [SITE, H100], ids=["plain", "H100"])
@pytest.mark.parametrize("size", presets.SIZES)
def test_a_server_accepts_what_is_asked_for_each_size(size: str, site: Site) -> None:
    body = job_body(site, task(presets.resources(size)))
    kinds = schemas.builtin()
    schemas.validate(kinds["batch", "v1", "jobs"], body, None)
    template = body["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template["metadata"]}, "spec": template["spec"]}
    schemas.validate(kinds["", "v1", "pods"], pod, None)
    schemas.validate(kinds["", "v1", "services"], gangs_service(), None)


@pytest.mark.parametrize(
    ("size", "nodes", "gpus", "cpus", "memory", "threads", "options"),
    [
        ("tiny", 1, None, "2", "4Gi", "2", []),
        ("small", 1, "1", "8", "64Gi", "8", []),
        ("medium", 1, "4", "32", "256Gi", "8", ["--standalone", "--nproc-per-node=4"]),
        ("large", 2, "8", "96", "768Gi", "12", ["--nnodes=2", "--nproc-per-node=8", "--rdzv-backend=c10d"]),
    ],
)
def test_a_pod_asks_for_exactly_what_its_size_needs(
    size: str, nodes: int, gpus: str | None, cpus: str, memory: str, threads: str, options: list[str]
) -> None:
    body = job_body(SITE, task(presets.resources(size)))
    spec, container = pod_of(body)
    devices = {"nvidia.com/gpu": gpus} if gpus else {}
    assert (body["spec"]["completions"], body["spec"]["parallelism"]) == (nodes, nodes)
    assert container["resources"] == {"requests": {"cpu": cpus, "memory": memory, **devices}, "limits": {"memory": memory, **devices}}
    assert variables(container)["OMP_NUM_THREADS"] == threads
    assert container["command"] == [
        "python",
        *(["-m", "neurofm_ml.gang", *options, *container["command"][3 + len(options) : -3]] if options else []),
        *("-m", "neurofm_assets.worker", "/neurofm/home/job.json"),
    ]
    assert [t["key"] for t in spec.get("tolerations", ())] == (["nvidia.com/gpu"] if gpus else [])
    assert body["spec"]["activeDeadlineSeconds"] == presets.resources(size).hours * 3600


def test_eight_gpus_of_one_node_are_one_pod() -> None:
    body = job_body(H100, task(Resources(gpus=8, cpus=96, memory_gb=1024)))
    spec, container = pod_of(body)
    assert body["spec"]["completionMode"] == "NonIndexed"
    assert container["command"][:5] == ["python", "-m", "neurofm_ml.gang", "--standalone", "--nproc-per-node=8"]
    assert container["resources"]["limits"] == {"memory": "1024Gi", "nvidia.com/gpu": "8"}, "the cards are for gangs"
    assert "subdomain" not in spec


def test_a_gang_meets_at_its_first_pod_and_fails_whole() -> None:
    body = job_body(H100, task(presets.resources("large")))
    spec, container = pod_of(body)
    name = body["metadata"]["name"]
    assert (body["spec"]["completionMode"], body["spec"]["backoffLimit"]) == ("Indexed", 0)
    assert [rule["action"] for rule in body["spec"]["podFailurePolicy"]["rules"]] == ["FailJob"] * 3
    assert f"--rdzv-endpoint={name}-0.neurofm-gangs:29400" in container["command"]
    assert spec["subdomain"] == gangs_service()["metadata"]["name"] == "neurofm-gangs"
    assert gangs_service()["spec"]["selector"].items() <= body["spec"]["template"]["metadata"]["labels"].items()
    assert container["resources"]["limits"]["rdma/ib"] == "1"
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert variables(container)["NCCL_IB_DISABLE"] == "0"
    assert variables(pod_of(job_body(SITE, task(presets.resources("large"))))[1])["NCCL_IB_DISABLE"] == "1"


def test_one_pod_outlives_disruptions_but_not_wrong_input() -> None:
    body = job_body(SITE, task(presets.resources("small")))
    wrong, disrupted, stopped = body["spec"]["podFailurePolicy"]["rules"]
    assert (wrong["action"], wrong["onExitCodes"]["values"]) == ("FailJob", [2])
    assert (disrupted["action"], disrupted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (stopped["action"], stopped["onExitCodes"]["values"]) == ("Ignore", [75, 143])
    assert body["spec"]["backoffLimit"] == 3


def test_where_pods_go_what_they_may_and_what_they_see() -> None:
    body = job_body(H100, task(presets.resources("small")))
    spec, container = pod_of(body)
    assert spec["nodeSelector"] == {"gpu.nvidia.com/class": "H100_NVLINK_80GB"}
    assert [t["key"] for t in spec["tolerations"]] == ["nvidia.com/gpu", "spot"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["terminationGracePeriodSeconds"] > gang.GRACE_S, "so that torchrun can end by itself"
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["shared"]["persistentVolumeClaim"] == {"claimName": "neurofm"}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert {m["mountPath"] for m in container["volumeMounts"]} == {"/neurofm", "/dev/shm"}
    assert variables(pod_of(job_body(SITE, task(Resources())))[1])["NEUROFM_HOME"] == "/neurofm/home"
    assert (body["spec"]["suspend"], body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]) == (True, "gpus")
    assert not job_body(SITE, task(Resources()))["spec"]["suspend"]
    assert "nodeSelector" not in pod_of(job_body(H100, task(Resources())))[0], "work on CPUs goes anywhere"


def test_a_job_is_named_by_what_it_makes() -> None:
    assert job_name("neurofmx_pretrained", "0123456789abcdef") == "neurofmx-pretrained-0123456789abcdef"
    long = job_name("x" * 80, "0123456789abcdef")
    assert long == f"{'x' * 40}-0123456789abcdef"
    assert len(f"{long}-99") <= 63, "the host name of a gang's pod"


# ---------------------------------------------------------------- settings
def test_the_environment_describes_the_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {
        "NEUROFM_IMAGE": "registry/worker:1",
        "NEUROFM_SHARED": str(tmp_path),
        "NEUROFM_HOME": str(tmp_path / "home"),
        "NEUROFM_DATA": str(tmp_path / "data"),
        "NEUROFM_NAMESPACE": "lab",
        "NEUROFM_QUEUE": "gpus",
        "NEUROFM_NODE_SELECTOR": "gpu=h100, pool=spot",
        "NEUROFM_TOLERATIONS": "spot",
        "NEUROFM_STORE": "s3://lab/neurofm",
        "AWS_S3_ADDRESSING_STYLE": "virtual",
        "NCCL_DEBUG": "INFO",
        "NEUROFM_CARDS": str(tmp_path / "cards"),
        "NEUROFM_WANDB_PROJECT": "toys",
        "WANDB_API_KEY": "secret",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    compute = resources_for("kubernetes")["compute"]
    assert isinstance(compute, Kubernetes)
    assert (compute.namespace, compute.site.claim, compute.site.queue) == ("lab", "neurofm", "gpus")
    assert compute.site.node_selector == {"gpu": "h100", "pool": "spot"}
    assert compute.site.tolerations == ["spot"]
    passed_on = ("NEUROFM_HOME", "NEUROFM_DATA", "NEUROFM_STORE", "NEUROFM_CARDS", "NEUROFM_WANDB_PROJECT")
    assert compute.site.env == {name: values[name] for name in (*passed_on, "AWS_S3_ADDRESSING_STYLE", "NCCL_DEBUG")}
    assert variables(pod_of(job_body(compute.site, task(Resources(gpus=1))))[1])["NCCL_DEBUG"] == "INFO"


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("NEUROFM_IMAGE", "", "NEUROFM_IMAGE is not set; NEUROFM_ENV=kubernetes needs it"),
        ("NEUROFM_SHARED", "/elsewhere", "NEUROFM_HOME is .* which pods cannot see; it must lie in NEUROFM_SHARED = /elsewhere"),
        ("NEUROFM_NODE_SELECTOR", "h100", "NEUROFM_NODE_SELECTOR holds 'h100'; write \"name=value,name=value\""),
    ],
)
def test_wrong_settings_are_named(name: str, value: str, match: str, monkeypatch: pytest.MonkeyPatch, neurofm_home: Path) -> None:
    monkeypatch.setenv("NEUROFM_IMAGE", "worker:1")
    monkeypatch.setenv("NEUROFM_SHARED", str(neurofm_home.parent))
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=match):
        resources_for("kubernetes")


def test_a_tick_waits_for_a_server_that_is_away_no_longer_than_a_tick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    away = {"name": "away", "cluster": {"server": "http://127.0.0.1:1"}}
    place = {"clusters": [away], "contexts": [{"name": "away", "context": {"cluster": "away", "user": ""}}], "current-context": "away"}
    (tmp_path / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "users": [], **place}))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(kubernetes, "_TICK_S", 0.0)
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="could not list Jobs for 0 s"):
        Kubernetes(site=SITE, poll_s=0.01).sweep(instance)


# ---------------------------------------------------------------- messages
def line(method: str, **params: Any) -> str:
    return json.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params}) + "\n"


OPENED, CLOSED = line("opened"), line("closed")


def custom(what: str) -> str:
    return line("report_custom_message", payload=what)


@pytest.mark.parametrize(
    ("written", "results"),
    [
        ([OPENED, custom("a"), CLOSED], ["a"]),
        ([OPENED, custom("of a pod that died"), OPENED, custom("b"), CLOSED], ["b"]),
        ([OPENED, custom("a")], []),
        ([OPENED, custom("a"), CLOSED, OPENED], ["a"]),
        ([OPENED, custom("a")[:40], OPENED, custom("b"), CLOSED], ["b"]),
        ([OPENED, custom("a"), CLOSED, '{"half a mess'], ["a"]),
        ([], []),
    ],
)
def test_pods_that_follow_one_another_are_one_writer(written: Sequence[str], results: list[str], tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    path.write_text("".join(written[:2]))  # said before this orchestrator came
    handler = dg.PipesMessageHandler(dg.build_op_context(), reader := SharedFileMessages(path))
    with reader.read_messages(handler), path.open("a") as file:
        for text in written[2:]:
            file.write(text)
            file.flush()
    assert list(handler.get_custom_messages()) == results
    assert path.read_text() == "".join(written), "never truncated"


def test_a_reader_outlasts_a_file_system_that_fails_for_a_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, fails, whole = tmp_path / "messages.jsonl", iter([True]), Path.open
    failed = threading.Event()

    def stale(self: Path, *args: Any, **more: Any) -> Any:
        if next(fails, False):
            failed.set()
            raise OSError(errno.ESTALE, "Stale file handle")
        return whole(self, *args, **more)

    handler = dg.PipesMessageHandler(dg.build_op_context(), reader := SharedFileMessages(path))
    monkeypatch.setattr(Path, "open", stale)
    with reader.read_messages(handler):
        assert failed.wait(30)
        path.write_text("".join([OPENED, custom("a"), CLOSED]))
    assert list(handler.get_custom_messages()) == ["a"]


# ---------------------------------------------------------------- obstacles
def thing(**fields: Any) -> Any:
    return SimpleNamespace(**{name: thing(**value) if isinstance(value, dict) else value for name, value in fields.items()})


def pod(phase: str = "Pending", reason: str | None = None, conditions: Sequence[Any] = (), **state: Any) -> Any:
    states = {name: thing(**state[name]) if name in state else None for name in ("waiting", "running", "terminated")}
    statuses = [thing(state=SimpleNamespace(**states))] if state else None
    status = {"phase": phase, "reason": reason, "conditions": conditions, "container_statuses": statuses}
    return thing(metadata={"name": "pod-1"}, status=SimpleNamespace(**status))


NOT_PLACED = thing(type="PodScheduled", status="False", reason="Unschedulable", message="0/3 nodes are available")
TAKEN = thing(type="DisruptionTarget", status="True", reason="PreemptionByScheduler", message="")


@pytest.mark.parametrize(
    ("pods", "said", "lost"),
    [
        ([pod("Running", running={})], [], False),
        ([pod(conditions=[NOT_PLACED])], ["Unschedulable: 0/3 nodes are available"], False),
        ([pod(waiting={"reason": "ContainerCreating", "message": None})], [], False),
        ([pod(waiting={"reason": "ImagePullBackOff", "message": "no such tag"})], ["ImagePullBackOff: no such tag"], True),
        ([pod("Running", conditions=[TAKEN], running={})], ["pod-1 was disrupted: PreemptionByScheduler"], False),
        ([pod("Failed", reason="Evicted")], ["pod-1 failed: Evicted"], False),
        ([pod("Failed", terminated={"exit_code": 137})], ["pod-1 ended with exit code 137"], False),
    ],
)
def test_what_a_cluster_says_is_passed_on(pods: list[Any], said: list[str], lost: bool) -> None:
    job = thing(metadata={"labels": None}, spec={"suspend": False})
    assert obstacles(job, pods, []) == said
    assert bool(hopeless(pods, [])) is lost
    assert waiting(pods) is (pods[0].status.phase == "Pending")


BUSY = 'Failed to pull image "worker:1": unexpected status from HEAD request: 503 Service Unavailable'
ABSENT = 'Failed to pull image "worker:1": rpc error: code = NotFound desc = failed to resolve reference: worker:1: not found'


@pytest.mark.parametrize(
    ("reason", "message", "warnings", "why"),
    [
        ("InvalidImageName", "couldn't parse image name", [], "InvalidImageName: couldn't parse image name"),
        ("ErrImageNeverPull", None, [], "ErrImageNeverPull: "),
        ("ErrImagePull", ABSENT, [], f"ErrImagePull: {ABSENT}"),
        ("ErrImagePull", "manifest unknown", [], "ErrImagePull: manifest unknown"),
        ("ErrImagePull", BUSY, [f"Failed: {BUSY}"], ""),
        ("ErrImagePull", "dial tcp: lookup registry: no such host", [], ""),
        ("ImagePullBackOff", 'Back-off pulling image "worker:1"', [f"Failed: {ABSENT}"], f"Failed: {ABSENT}"),
        ("ImagePullBackOff", 'Back-off pulling image "worker:1"', [f"Failed: {BUSY}", 'FailedMount: secret "keys" not found'], ""),
        ("CreateContainerConfigError", 'secret "keys" not found', [], 'CreateContainerConfigError: secret "keys" not found'),
        ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition", [], ""),
        ("ContainerCreating", None, [f"Failed: {ABSENT}"], ""),
    ],
)
def test_only_what_is_missing_is_hopeless(reason: str, message: str | None, warnings: list[str], why: str) -> None:
    pods = [pod("Running", running={}), pod(waiting={"reason": reason, "message": message})]
    assert hopeless(pods, warnings) == why
    assert bool(held(pods)) is reason.startswith(("ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"))


def test_a_job_without_pods_is_explained_by_its_events() -> None:
    job = thing(metadata={"labels": {}}, spec={"suspend": False})
    quota = "FailedCreate: exceeded quota: gpus, requested: 8, used: 8, limited: 8"
    assert waiting([])
    assert obstacles(job, [], [quota, quota]) == [quota]
