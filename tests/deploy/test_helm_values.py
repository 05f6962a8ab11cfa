"""The Helm values are what the chart takes; what it makes of them is the dagster.yaml of base/, and run pods that a cluster accepts."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes.config
import pytest
import yaml
from chart import VERSION, instance, merged, run_context, value_problems
from dagster._core.instance.ref import InstanceRef
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from dagster_k8s.launcher import K8sRunLauncher
from kubernetes.client import ApiClient
from rendering import find, render
from schemas import RELEASES, schema_problems

ROOT = Path(__file__).parents[2]
HELM = ROOT / "deploy" / "helm"
VALUES = merged(HELM / "values.yaml")
H100 = merged(HELM / "values.yaml", HELM / "values-h100.yaml")
SETTINGS = yaml.safe_load((ROOT / "deploy" / "base" / "dagster.yaml").read_text())


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that the settings of base/ give, and no cluster to look for."""
    for name, value in find(render(ROOT / "deploy" / "base"), "ConfigMap", "neurofm-settings")["data"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "of-a-test")
    monkeypatch.setattr(kubernetes.config, "load_incluster_config", lambda: None)


@pytest.mark.parametrize("values", [VALUES, H100])
def test_the_chart_takes_the_values(values: dict[str, Any]) -> None:
    assert list(value_problems(values)) == []


def test_the_chart_is_of_the_release_that_is_installed() -> None:
    (pinned,) = re.findall(r"^dagster==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned.startswith(VERSION + ".")
    for file in ("helm/values.yaml", "README.md"):
        assert pinned in (ROOT / "deploy" / file).read_text(), f"deploy/{file} names another version of the chart"


def test_the_webserver_listens_where_it_may_and_where_it_is_asked() -> None:
    webserver = VALUES["dagsterWebserver"]
    port = webserver["service"]["port"]  # the chart's pod listens there too; its probe has a number of its own
    assert port >= 1024, "a port for the capability that all containers drop"
    assert webserver["readinessProbe"]["httpGet"]["port"] == port
    assert f'component=dagster-webserver -o name)" 3000:{port}\n' in (ROOT / "deploy" / "README.md").read_text()


@pytest.mark.parametrize("name", ["run_retries", "run_monitoring", "concurrency", "retention", "telemetry", "nux"])
def test_the_chart_and_dagster_yaml_say_the_same(name: str) -> None:
    assert instance(VALUES)[name] == SETTINGS[name]


def reference(settings: dict[str, Any], folder: Path) -> InstanceRef:
    """The settings as Dagster reads them; it refuses what it does not know."""
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return InstanceRef.from_dir(str(folder))


@pytest.mark.parametrize("settings", [SETTINGS, instance(VALUES), instance(H100)], ids=["dagster.yaml", "values", "values-h100"])
def test_dagster_takes_the_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    ref = reference(settings, tmp_path)
    assert isinstance(ref.run_launcher, K8sRunLauncher)
    assert dict(ref.settings["run_retries"]) == {"enabled": True, "max_retries": 3, "retry_on_asset_or_op_failure": False}  # type: ignore[call-overload]


def test_the_database_is_the_same_and_reached_by_psycopg2() -> None:
    here, chart = SETTINGS["storage"]["postgres"]["postgres_db"], instance(VALUES)["event_log_storage"]["config"]["postgres_db"]
    assert here["scheme"] == chart["scheme"] == "postgresql+psycopg2"
    same = ("username", "password", "db_name")
    assert {name: here[name] for name in same} == {name: chart[name] for name in same}
    given = find(render(ROOT / "deploy" / "base"), "ConfigMap", "neurofm-settings")["data"]
    assert (chart["hostname"], str(chart["port"])) == (given[here["hostname"]["env"]], given[here["port"]["env"]])


def run_job(settings: dict[str, Any], context: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The Job that dagster_k8s makes for one run."""
    launcher = reference(settings, folder).run_launcher
    assert isinstance(launcher, K8sRunLauncher)
    merged_context = launcher.get_container_context_for_run(dg.DagsterRun("train")).merge(K8sContainerContext.create_from_config(context))
    config = merged_context.get_k8s_job_config(job_image="registry.example.com/neurofm-control:0.1.0", run_launcher=launcher)
    job = construct_dagster_k8s_job(config, ["dagster", "api", "execute_run"], "run-1", merged_context.run_k8s_config)
    return ApiClient().sanitize_for_serialization(job)


RUNS = [(SETTINGS, {}), (instance(VALUES), run_context(VALUES)), (instance(H100), run_context(H100))]


@pytest.mark.parametrize(("settings", "context"), RUNS, ids=["dagster.yaml", "values", "values-h100"])
def test_a_run_pod_is_accepted_and_asks_for_no_gpu(settings: dict[str, Any], context: dict[str, Any], tmp_path: Path) -> None:
    job = run_job(settings, context, tmp_path)
    assert [problem for release in RELEASES for problem in schema_problems(job, release)] == []
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"] == {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    assert [volume["name"] for volume in spec["volumes"]] == ["shared"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/shared"]
    sources = [source[kind]["name"] for source in container["envFrom"] for kind in source]
    assert sources == ["neurofm-settings", "neurofm-s3"]
    assert spec["serviceAccountName"] == "neurofm-control"
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("right", "wrong", "reported"),
    [
        ("retryOnAssetOrOpFailure", "retry_on_asset_or_op_failure", "retry_on_asset_or_op_failure"),
        ("postgresqlScheme", "postgresqlSchema", "postgresqlSchema"),
        ("codeServerArgs", "codeServerArg", "codeServerArg"),
        ("claimName", "claimNam", "claimNam"),
        ("runAsNonRoot", "runAsNonroot", "runAsNonroot"),
        ("pullPolicy: IfNotPresent", "pullPolicy: IfNotHere", "IfNotHere"),
        ("dagsterWebserver:", "dagsterWebServer:", "dagsterWebServer"),
        ("startTimeoutSeconds: 600", "startTimeoutSeconds: ten minutes", "ten minutes"),
        ("postgresqlUsername: dagster", "postgresqlPassword: abc", "postgresqlPassword holds a secret"),
    ],
)
def test_a_typo_in_the_values_is_reported(tmp_path: Path, right: str, wrong: str, reported: str) -> None:
    text = (HELM / "values.yaml").read_text()
    assert right in text
    (tmp_path / "values.yaml").write_text(text.replace(right, wrong))
    assert any(reported in problem for problem in value_problems(merged(tmp_path / "values.yaml")))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("run_retries", "run_retry"),
        ("default_limit", "default_limits"),
        ("service_account_name", "service_account"),
        ("postgres_db", "postgres"),
    ],
)
def test_a_typo_in_dagster_yaml_is_refused(tmp_path: Path, right: str, wrong: str) -> None:
    text = (ROOT / "deploy" / "base" / "dagster.yaml").read_text()
    assert right in text
    settings = yaml.safe_load(text.replace(right, wrong))
    with pytest.raises(Exception, match=f"(?s){wrong}|{right}"):
        _ = reference(settings, tmp_path).run_launcher, reference(settings, tmp_path).event_storage
