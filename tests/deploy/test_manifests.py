"""Every overlay is what a cluster accepts and no more than it needs; a typo anywhere is reported."""

import ast
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster_k8s.client
import pytest
import yaml
from judging import problems
from kubernetes.utils.quantity import parse_quantity
from rendering import Object, find, pods, render
from schemas import RELEASES, schema_problems

from neurofm_assets.compute.pods import USER, Task, job_body
from neurofm_assets.resources import kubernetes
from neurofm_ml import presets

ROOT = Path(__file__).parents[2]
OVERLAYS = ["workstation", "h100", "multinode"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of deploy/ that a test may spoil."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    return tmp_path


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_may_be_applied(overlay: str) -> None:
    assert problems(ROOT, overlay) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_renders_the_same(overlay: str) -> None:
    folder = ROOT / "deploy" / "overlays" / overlay
    out = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout

    def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
        return {(thing["kind"], thing["metadata"]["name"]): thing for thing in objects}

    assert by_name(list(yaml.safe_load_all(out))) == by_name(render(folder))


@pytest.mark.parametrize(
    ("file", "right", "wrong", "reported"),
    [
        ("base/postgres.yaml", "livenessProbe:", "livenesProbe:", "livenesProbe"),
        ("base/postgres.yaml", "replicas: 1", "replicas: one", "'one' is not of type 'integer'"),
        ("base/postgres.yaml", "memory: 2Gi", "memory: 2GB", "'2GB' is no quantity"),
        ("base/postgres.yaml", "postgres:15.13-bookworm", "postgres:latest", "not pinned"),
        ("base/postgres.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "runs as root"),
        (
            "base/postgres.yaml",
            "name: neurofm-postgres\n                  key",
            "name: neurofm-postgress\n                  key",
            "no Secret",
        ),
        ("base/accounts.yaml", "kind: RoleBinding", "kind: RoleBindign", "no such kind"),
        ("base/accounts.yaml", "verbs:", "verb:", "verb"),
        ("base/accounts.yaml", "kind: Role\n  name: neurofm-control", "kind: Role\n  name: neurofm-contrl", "no Role neurofm-contrl"),
        ("base/volumes.yaml", "accessModes:", "acessModes:", "acessModes"),
        ("base/network.yaml", "policyTypes: [Ingress, Egress]", "policyType: [Ingress]", "policyType"),
        ("base/network.yaml", "app.kubernetes.io/managed-by: neurofm", "app.kubernetes.io/managed-by: neurofn", "no pod answers"),
        ("base/limits.yaml", "hard:", "hrd:", "hrd"),
        ("base/namespace.yaml", "kind: Namespace", "kind: Namespce", "no such kind"),
        ("base/kustomization.yaml", "- limits.yaml", "- limit.yaml", "limit.yaml"),
        ("base/kustomization.yaml", "configMapGenerator:", "configMapGenerators:", "configMapGenerators"),
        ("base/kustomization.yaml", "name: neurofm-settings", "name: neurofm-setings", "no ConfigMap neurofm-settings"),
        ("overlays/h100/kustomization.yaml", "kind: PersistentVolumeClaim", "kind: PersistentVolumClaim", "no target"),
        ("overlays/h100/quota.yaml", "name: neurofm", "name: neurofn", "no ResourceQuota neurofn"),
        ("overlays/multinode/kustomization.yaml", "components/kueue", "components/kue", "components/kue"),
        ("components/kueue/queues.yaml", "nominalQuota: 2Ti", "nominalQuotas: 2Ti", "nominalQuotas"),
        ("components/kueue/queues.yaml", "clusterQueue: neurofm", "clusterQueue: neuro", "no ClusterQueue neuro"),
        ("components/kueue/queues.yaml", "        - name: neurofm-h100", "        - name: neurofm-h200", "no ResourceFlavor neurofm-h200"),
        ("components/ray/cluster.yaml", "minReplicas:", "minReplica:", "minReplica"),
        ("components/ray/cluster.yaml", "containerPort: 6379", "containrPort: 6379", "containrPort"),
        ("components/ray/cluster.yaml", "claimName: neurofm-shared", "claimName: neurofm-shard", "no PersistentVolumeClaim neurofm-shard"),
    ],
)
def test_a_typo_is_reported(checkout: Path, file: str, right: str, wrong: str, reported: str) -> None:
    path = checkout / "deploy" / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert any(reported in problem for problem in problems(checkout, "multinode"))


@pytest.mark.parametrize(
    ("right", "wrong", "reported"),
    [
        ("envFrom: &settings", "envFron: &settings", "envFron"),
        ("name: shared\n              mountPath", "name: sharde\n              mountPath", "mounts sharde"),
        ("drop: [ALL]", "drop: []", "keeps capabilities"),
    ],
)
def test_a_typo_in_the_control_pod_is_reported(checkout: Path, right: str, wrong: str, reported: str) -> None:
    path = checkout / "deploy" / "components" / "control" / "control.yaml"
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert any(reported in problem for problem in problems(checkout, "workstation"))


def test_a_secret_in_a_file_is_reported(checkout: Path) -> None:
    with (checkout / "deploy" / "base" / "accounts.yaml").open("a") as file:
        file.write("---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: neurofm-s3\n")
    assert any("never kept in a file" in problem for problem in problems(checkout, "h100"))


VERBS = {"read": "get", "create": "create", "delete": "delete", "list": "list", "patch": "patch", "replace": "update"}
PLURALS = {"job": "jobs", "job_status": "jobs/status", "pod": "pods", "pod_log": "pods/log", "event": "events", "service": "services"}


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """(resource, verb) of every call to the Kubernetes API in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.attr if isinstance(node, ast.Attribute) else ""
        if match := re.fullmatch(r"(read|create|delete|list|patch|replace)_namespaced_(\w+)", name):
            yield PLURALS[match[2]], VERBS[match[1]]


def test_the_control_plane_may_do_what_it_does_and_no_more() -> None:
    role = find(render(ROOT / "deploy" / "base"), "Role", "neurofm-control")
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    files = [Path(dagster_k8s.client.__file__), *(ROOT / "neurofm_assets").rglob("*.py")]
    assert granted == {call for path in files for call in calls(path)}


@pytest.mark.parametrize(
    ("overlay", "sizes"), [("workstation", ["tiny", "small"]), ("h100", ["tiny", "small", "medium"]), ("multinode", presets.SIZES)]
)
def test_the_quota_fits_the_sizes_and_the_preparation_of_their_data(overlay: str, sizes: list[str]) -> None:
    hard = find(render(ROOT / "deploy" / "overlays" / overlay), "ResourceQuota", "neurofm")["spec"]["hard"]
    beside = {"cpu": 8, "memory_gb": 32}  # control plane, database, run workers
    for need in (presets.preparation(), *map(presets.resources, sizes)):
        assert need.nodes * need.gpus <= int(hard["requests.nvidia.com/gpu"])
        assert need.nodes * need.cpus + beside["cpu"] <= int(hard["requests.cpu"])
        assert need.nodes * need.memory_gb + beside["memory_gb"] <= parse_quantity(hard["requests.memory"]) / 2**30


def test_workers_cannot_ask_the_cluster_anything() -> None:
    objects = render(ROOT / "deploy" / "base")
    assert find(objects, "ServiceAccount", "default")["automountServiceAccountToken"] is False
    bound = {subject["name"] for thing in objects if thing["kind"] == "RoleBinding" for subject in thing["subjects"]}
    assert bound == {"neurofm-control"}


def job_of(objects: list[Object], size: str, monkeypatch: pytest.MonkeyPatch) -> Object:
    """The Job that the launcher makes with an overlay's settings."""
    for name, value in find(objects, "ConfigMap", "neurofm-settings")["data"].items():
        monkeypatch.setenv(name, value)
    asked, job_file, messages = presets.resources(size), Path("/shared/job.json"), Path("/shared/messages")
    return job_body(kubernetes().site, Task("neurofmx_pretrained", "0" * 16, "run", job_file, messages, asked, {}, 3))


@pytest.mark.parametrize(("overlay", "size"), [("workstation", "tiny"), ("h100", "small"), ("h100", "medium"), ("multinode", "large")])
def test_a_cluster_accepts_the_jobs_of_the_launcher(overlay: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(ROOT / "deploy" / "overlays" / overlay)
    job = job_of(objects, size, monkeypatch)
    assert [problem for release in RELEASES for problem in schema_problems(job, release)] == []
    pod = job["spec"]["template"]["spec"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    assert all(find(objects, "PersistentVolumeClaim", name) for name in claims)
    assert {"secretRef": {"name": "neurofm-s3"}} in pod["containers"][0]["envFrom"]
    assert pod.get("nodeSelector", {}) == ({"neurofm/pool": "h100"} if presets.resources(size).gpus else {})
    (policy,) = (thing for thing in objects if thing["kind"] == "NetworkPolicy" and thing["metadata"]["name"] == "workers")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert find(objects, "Namespace", "neurofm")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    if queue := job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name"):
        assert find(objects, "LocalQueue", queue)


def on_crusoe(objects: list[Object]) -> list[Object]:
    """What the README's sed for Crusoe makes of an overlay."""
    (expression,) = re.findall(r"`-e \"(s\|rdma/ib\|.+?)\"`", (ROOT / "deploy" / "README.md").read_text())
    text = subprocess.run(["sed", "-e", expression], input=yaml.safe_dump_all(objects), capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize("size", presets.SIZES)
@pytest.mark.parametrize("rdma", [True, False])
@pytest.mark.parametrize("adapted", [list, on_crusoe], ids=["coreweave", "crusoe"])
def test_the_queue_admits_every_size(
    adapted: Callable[[list[Object]], list[Object]], rdma: bool, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kueue refuses a pod that asks for a resource its queue does not cover, and a queue whose flavours do not list what it covers."""
    objects = adapted(render(ROOT / "deploy" / "overlays" / "multinode"))
    if not rdma:
        del find(objects, "ConfigMap", "neurofm-settings")["data"]["NEUROFM_RDMA"]
    spec = job_of(objects, size, monkeypatch)["spec"]
    requests = spec["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert ("rdma/ib" in requests or "nvidia.com/hostdev" in requests) == (rdma and spec["completions"] > 1)
    (group,) = find(objects, "ClusterQueue", "neurofm")["spec"]["resourceGroups"]
    quotas = [{one["name"]: parse_quantity(one["nominalQuota"]) for one in flavor["resources"]} for flavor in group["flavors"]]
    assert all(list(quota) == group["coveredResources"] for quota in quotas)
    assert requests.keys() <= set(group["coveredResources"])
    need = {name: spec["completions"] * parse_quantity(amount) for name, amount in requests.items()}
    assert any(all(amount <= quota[name] for name, amount in need.items()) for quota in quotas)


def test_everybody_writes_to_the_shared_volume_as_the_same_user() -> None:
    users = {
        (security["runAsUser"], security["fsGroup"])
        for overlay in OVERLAYS
        for where, template in pods(render(ROOT / "deploy" / "overlays" / overlay))
        if "postgres" not in where
        for security in [template["spec"]["securityContext"]]
    }
    assert users == {(USER, USER)}
    assert f"USER {USER}:{USER}" in (ROOT / "deploy" / "Dockerfile").read_text()
