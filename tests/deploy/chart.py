"""What the official Dagster chart, 1.13, makes of our values: the keys it knows, the dagster.yaml it writes, the context of a run.

No copy of the chart is at hand where the tests run, so this is written after its schema and templates
(helm/dagster/values.schema.json, templates/configmap-instance.yaml, helpers/instance/_run-launcher.tpl and, in dagster-user-deployments,
helpers/_helpers.tpl), for the values that deploy/helm uses and no others.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from schemas import COUNT, RELEASES, STRINGS, definitions, list_schema, object_schema

#: Version of the chart: the chart and the package dagster are released together.
VERSION = "1.13"

CORE = "#/$defs/io.k8s.api.core.v1."
YES = {"type": "boolean"}
FREE = {"type": "object"}
NAMED = list_schema(object_schema("name"))
IMAGE = object_schema("repository tag pullPolicy", pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]})
POD = {
    "image": IMAGE,
    "resources": {"$ref": CORE + "ResourceRequirements"},
    "securityContext": {"$ref": CORE + "SecurityContext"},
    "podSecurityContext": {"$ref": CORE + "PodSecurityContext"},
    "nodeSelector": STRINGS,
    "envConfigMaps": NAMED,
    "envSecrets": NAMED,
    "volumes": list_schema({"$ref": CORE + "Volume"}),
    "volumeMounts": list_schema({"$ref": CORE + "VolumeMount"}),
}
DEPLOYMENT = object_schema(
    "name image codeServerArgs port",
    "includeConfigInLaunchedRuns envConfigMaps envSecrets volumes volumeMounts podSecurityContext securityContext resources nodeSelector",
    codeServerArgs=list_schema({"type": "string"}),
    port=COUNT,
    includeConfigInLaunchedRuns=object_schema("enabled", enabled=YES),
    **POD,
)
DEPLOYMENTS = object_schema(
    "enabled enableSubchart deployments",
    "rbacEnabled",
    enabled=YES,
    enableSubchart=YES,
    rbacEnabled=YES,
    deployments=list_schema(DEPLOYMENT),
)
RUN_POD = object_schema("", "containerConfig podSpecConfig", containerConfig=FREE, podSpecConfig=FREE)
LAUNCHER = object_schema("imagePullPolicy loadInclusterConfig", "runK8sConfig", loadInclusterConfig=YES, runK8sConfig=RUN_POD)
MONITORING = object_schema(
    "enabled startTimeoutSeconds cancelTimeoutSeconds maxResumeRunAttempts pollIntervalSeconds freeSlotsAfterRunEndSeconds",
    enabled=YES,
    startTimeoutSeconds=COUNT,
    cancelTimeoutSeconds=COUNT,
    maxResumeRunAttempts=COUNT,
    pollIntervalSeconds=COUNT,
    freeSlotsAfterRunEndSeconds=COUNT,
)
RETRIES = object_schema("enabled maxRetries retryOnAssetOrOpFailure", enabled=YES, maxRetries=COUNT, retryOnAssetOrOpFailure=YES)
ENABLED = object_schema("enabled", enabled=YES)
VALUES = object_schema(
    "",
    "global rbacEnabled generatePostgresqlPasswordSecret generateCeleryConfigSecret postgresql rabbitmq redis dagster-user-deployments "
    "dagsterWebserver runLauncher dagsterDaemon retention telemetry additionalInstanceConfig",
    **{"global": object_schema("", "serviceAccountName postgresqlSecretName dagsterHome"), "dagster-user-deployments": DEPLOYMENTS},
    rbacEnabled=YES,
    generatePostgresqlPasswordSecret=YES,
    generateCeleryConfigSecret=YES,
    postgresql=object_schema(
        "enabled",
        "postgresqlHost postgresqlUsername postgresqlDatabase postgresqlScheme service",
        enabled=YES,
        service=object_schema("port", port=COUNT),
    ),
    rabbitmq=ENABLED,
    redis=ENABLED,
    dagsterWebserver=object_schema(
        "",
        "replicaCount image service readinessProbe podSecurityContext securityContext resources nodeSelector",
        replicaCount=COUNT,
        service=object_schema("port", port=COUNT),
        readinessProbe={"$ref": CORE + "Probe"},
        **POD,
    ),
    runLauncher=object_schema("config", "type", config=object_schema("k8sRunLauncher", k8sRunLauncher=LAUNCHER)),
    dagsterDaemon=object_schema(
        "",
        "enabled image envConfigMaps envSecrets volumes volumeMounts podSecurityContext securityContext resources nodeSelector "
        "runCoordinator runRetries runMonitoring",
        enabled=YES,
        runCoordinator=ENABLED,
        runRetries=RETRIES,
        runMonitoring=MONITORING,
        **POD,
    ),
    retention=object_schema("enabled", "schedule sensor", enabled=YES, schedule=FREE, sensor=FREE),
    telemetry=ENABLED,
    additionalInstanceConfig=FREE,
)


def merged(*files: Path) -> dict[str, Any]:
    """Values as Helm merges them: mappings by key, everything else replaced."""
    values: dict[str, Any] = {}
    for file in files:
        _merge(values, yaml.safe_load(file.read_text()))
    return values


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def value_problems(values: dict[str, Any]) -> Iterator[str]:
    """Keys that the chart does not know, values it refuses, secrets in the open."""
    validator = jsonschema.Draft202012Validator({**VALUES, "$defs": definitions(RELEASES[0])})
    yield from (f"{error.json_path}: {error.message}" for error in validator.iter_errors(values))
    yield from (f"{key} holds a secret." for key in _keys(values) if re.search(r"(?i)password$|token$|secretkey$|accesskey", key))


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def snake(value: Any) -> Any:
    """A mapping with its keys in snake case, as dagster.yaml spells them."""
    if not isinstance(value, dict):
        return value
    return {re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), key): snake(inner) for key, inner in value.items()}


def instance(values: dict[str, Any], release: str = "dagster", namespace: str = "neurofm") -> dict[str, Any]:
    """The dagster.yaml that the chart writes."""
    postgres, daemon, launcher = values["postgresql"], values["dagsterDaemon"], values["runLauncher"]["config"]["k8sRunLauncher"]
    database = {
        "postgres_db": {
            "username": postgres["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": postgres["postgresqlHost"],
            "db_name": postgres["postgresqlDatabase"],
            "port": postgres["service"]["port"],
            "params": {},
            "scheme": postgres["postgresqlScheme"],
        }
    }
    return {
        "run_storage": {"module": "dagster_postgres.run_storage", "class": "PostgresRunStorage", "config": database},
        "event_log_storage": {"module": "dagster_postgres.event_log", "class": "PostgresEventLogStorage", "config": database},
        "schedule_storage": {"module": "dagster_postgres.schedule_storage", "class": "PostgresScheduleStorage", "config": database},
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": {
                "load_incluster_config": launcher["loadInclusterConfig"],
                "job_namespace": namespace,
                "image_pull_policy": launcher["imagePullPolicy"],
                "service_account_name": values["global"]["serviceAccountName"],
                "dagster_home": values["global"]["dagsterHome"],
                "instance_config_map": f"{release}-instance",
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                "run_k8s_config": {
                    "container_config": launcher["runK8sConfig"]["containerConfig"],
                    "pod_spec_config": launcher["runK8sConfig"]["podSpecConfig"],
                },
            },
        },
        "run_monitoring": snake(daemon["runMonitoring"]),
        "run_retries": snake(daemon["runRetries"]),
        "retention": {key: snake(values["retention"][key]) for key in ("schedule", "sensor")},
        "telemetry": values["telemetry"],
        **values["additionalInstanceConfig"],
    }


def run_context(values: dict[str, Any], namespace: str = "neurofm") -> dict[str, Any]:
    """What a code location's deployment passes on to its runs."""
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env_config_maps": [source["name"] for source in deployment["envConfigMaps"]],
            "env_secrets": [source["name"] for source in deployment["envSecrets"]],
            "volume_mounts": deployment["volumeMounts"],
            "volumes": deployment["volumes"],
            "resources": deployment["resources"],
            "namespace": namespace,
            "service_account_name": values["global"]["serviceAccountName"],
            "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
        }
    }
