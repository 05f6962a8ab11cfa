"""The cluster that stands in for one behaves as one: what it refuses, runs, and removes."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Image, Node

NODE = Node("cpu-0", {"cpu": "2", "memory": "8Gi"}, labels={"disk": "ssd"})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster.running({"shell:1": Image(cwd=tmp_path)}, (NODE,)) as running:
        running.kubeconfig(tmp_path / "kubeconfig")
        yield running


@pytest.fixture
def api(cluster: Cluster, tmp_path: Path) -> Any:
    from kubernetes import client, config

    config.load_kube_config(str(tmp_path / "kubeconfig"), client_configuration=(settings := client.Configuration()))
    return client.BatchV1Api(client.ApiClient(settings))


def job(script: str = "true", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "shell:1", "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": {"template": template, **spec}}


def container(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["spec"]["template"]["spec"]["containers"][0]
    return found


def ended(cluster: Cluster, how: str) -> Callable[[], bool]:
    return lambda: any(c["type"] == how for j in cluster.jobs() for c in j["status"].get("conditions", ()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body["spec"].update(backofLimit=1), "backofLimit"),
        (lambda body: container(body).update(resources={"limits": {"memory": "2Gb"}}), "quantities must match"),
        (lambda body: container(body).update(resources={"requests": {"nvidia.com/gpu": "1"}}), "the same in requests and limits"),
        (lambda body: container(body).update(volumeMounts=[{"name": "shared", "mountPath": "/s"}]), "volumeMounts: Not found"),
        (lambda body: body["spec"]["template"]["spec"].update(restartPolicy="Always"), "restartPolicy"),
        (lambda body: body["metadata"].update(name="A_Job"), "a lowercase RFC 1123 subdomain is required"),
        (lambda body: body["metadata"].update(labels={"asset": "x" * 64}), "at most 63"),
    ],
)
def test_what_a_server_refuses_is_refused(change: Callable[[dict[str, Any]], None], said: str, api: Any) -> None:
    from kubernetes.client import ApiException

    change(body := job())
    with pytest.raises(ApiException) as caught:
        api.create_namespaced_job("default", body)
    assert caught.value.status == 422
    assert said in caught.value.body


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda spec, c: c.update(resources={"requests": {"cpu": "3"}}), "Insufficient cpu"),
        (lambda spec, c: spec.update(nodeSelector={"disk": "tape"}), "didn't match Pod's node affinity/selector"),
    ],
)
def test_a_pod_that_fits_nowhere_waits_and_says_why(change: Callable[..., None], why: str, api: Any, cluster: Cluster) -> None:
    body = job()
    change(body["spec"]["template"]["spec"], container(body))
    api.create_namespaced_job("default", body)
    cluster.until(lambda: [event for event in cluster.objects.all("events") if why in event["message"]])
    cluster.add_node(Node("more", {"cpu": "8", "memory": "8Gi"}, labels={"disk": "tape"}))
    cluster.until(ended(cluster, "Complete"))


def test_an_unsuccessful_job_keeps_its_pods_and_a_deleted_one_waits_for_them(api: Any, cluster: Cluster) -> None:
    api.create_namespaced_job("default", job("exit 3", backoffLimit=1))
    cluster.until(ended(cluster, "Failed"))
    assert [pod["status"]["phase"] for pod in cluster.pods()] == ["Failed", "Failed"]
    api.delete_namespaced_job("job", "default", propagation_policy="Foreground")
    cluster.until(lambda: not cluster.jobs())
    assert not cluster.pods()


def test_a_finished_job_goes_after_its_time(api: Any, cluster: Cluster) -> None:
    api.create_namespaced_job("default", job(ttlSecondsAfterFinished=0))
    cluster.until(lambda: cluster.ever("pods") == 1 and not cluster.jobs() and not cluster.pods())


def test_nothing_outlives_its_pod(api: Any, cluster: Cluster, tmp_path: Path) -> None:
    api.create_namespaced_job("default", job("setsid sleep 1000 & echo $! > pid; wait"))
    child = cluster.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    api.delete_namespaced_job("job", "default", propagation_policy="Background", grace_period_seconds=0)
    cluster.until(lambda: cluster.ever("pods") and not cluster.pods())
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "zombie" in status.read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_works_with_it(cluster: Cluster, tmp_path: Path) -> None:
    def kubectl(*words: str, file: str = "", code: int = 0) -> str:
        command = ["kubectl", "--kubeconfig", str(tmp_path / "kubeconfig"), *words]
        done = subprocess.run(command, input=file, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    kubectl("create", "secret", "generic", "keys", "--from-literal=KEY=value")
    container(body := job("echo $KEY"))["envFrom"] = [{"secretRef": {"name": "keys"}}]
    manifest = json.dumps(body)
    assert "created" in kubectl("apply", "-f", "-", file=manifest)
    kubectl("wait", "--for=condition=complete", "job/job", "--timeout=60s")
    assert kubectl("logs", "job/job") == "value\n"
    assert "unchanged" in kubectl("apply", "-f", "-", file=manifest)
    assert "restartPolcy" in kubectl("apply", "-f", "-", file=manifest.replace("restartPolicy", "restartPolcy"), code=1)
    assert "job.batch/job" in kubectl("get", "all")
    kubectl("delete", "job", "job")
    assert not cluster.jobs()
