"""Whether an object is what a Kubernetes release accepts: the strict schemas of the kubernetes-validate wheel, quantities, and
schemas of our own for the fields that we use of KubeRay, Kueue and CoreWeave.

Ours are no copies of those projects' definitions: they hold the fields deploy/ uses, with their pod templates by Kubernetes' schema.
"""

import functools
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jsonschema
from kubernetes.utils.quantity import parse_quantity

#: The releases that the providers of deploy/terraform run.
RELEASES = ("1.32.0", "1.35.0")


def object_schema(required: str = "", optional: str = "", **properties: Any) -> dict[str, Any]:
    """Schema of an object with these fields and no others; fields without a schema are strings."""
    names = [*required.split(), *optional.split()]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": {name: properties.get(name, {"type": "string"}) for name in names},
    }


def list_schema(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
POD = {"$ref": "#/$defs/io.k8s.api.core.v1.PodTemplateSpec"}
SELECTOR = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"}
TOLERATIONS = list_schema({"$ref": "#/$defs/io.k8s.api.core.v1.Toleration"})
TAINTS = list_schema({"$ref": "#/$defs/io.k8s.api.core.v1.Taint"})
HEAD = object_schema("rayStartParams template", rayStartParams=STRINGS, template=POD)
WORKERS = object_schema(
    "groupName replicas minReplicas maxReplicas rayStartParams template",
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=STRINGS,
    template=POD,
)
QUOTA = object_schema("name nominalQuota")
FLAVOR = object_schema("name resources", resources=list_schema(QUOTA))
GROUP = object_schema("coveredResources flavors", coveredResources=list_schema({"type": "string"}), flavors=list_schema(FLAVOR))
FIFO = {"enum": ["BestEffortFIFO", "StrictFIFO"]}

#: (apiVersion, kind) -> schema of its spec.
CUSTOM = {
    ("ray.io/v1", "RayCluster"): object_schema(
        "rayVersion headGroupSpec workerGroupSpecs",
        "enableInTreeAutoscaling",
        enableInTreeAutoscaling={"type": "boolean"},
        headGroupSpec=HEAD,
        workerGroupSpecs=list_schema(WORKERS),
    ),
    ("kueue.x-k8s.io/v1beta1", "ResourceFlavor"): object_schema("", "nodeLabels tolerations", nodeLabels=STRINGS, tolerations=TOLERATIONS),
    ("kueue.x-k8s.io/v1beta1", "ClusterQueue"): object_schema(
        "namespaceSelector queueingStrategy resourceGroups",
        namespaceSelector=SELECTOR,
        queueingStrategy=FIFO,
        resourceGroups=list_schema(GROUP),
    ),
    ("kueue.x-k8s.io/v1beta1", "LocalQueue"): object_schema("clusterQueue"),
    ("compute.coreweave.com/v1alpha1", "NodePool"): object_schema(
        "instanceType computeClass autoscaling targetNodes nodeLabels",
        "minNodes maxNodes nodeTaints",
        computeClass={"enum": ["default", "spot"]},
        autoscaling={"type": "boolean"},
        targetNodes=COUNT,
        minNodes=COUNT,
        maxNodes=COUNT,
        nodeLabels=STRINGS,
        nodeTaints=TAINTS,
    ),
}


@functools.cache
def definitions(release: str) -> dict[str, Any]:
    """Strict schemas of one Kubernetes release, by name."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{release}-local-strict"
    return json.loads((folder / "_definitions.json").read_text())["$defs"]


@functools.cache
def _names(release: str) -> dict[tuple[str, str], str]:
    """(apiVersion, kind) -> name of its schema."""
    kinds = {}
    for name, schema in definitions(release).items():
        for k in schema.get("x-kubernetes-group-version-kind", ()):
            kinds["/".join(filter(None, (k["group"], k["version"]))), k["kind"]] = name
    return kinds


@functools.cache
def _validator(api: str, kind: str, release: str) -> jsonschema.Draft202012Validator:
    known = definitions(release)
    if (api, kind) in CUSTOM:
        meta = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
        schema = object_schema("apiVersion kind metadata spec", metadata=meta, spec=CUSTOM[api, kind])
    elif (api, kind) in _names(release):
        schema = {"$ref": f"#/$defs/{_names(release)[api, kind]}"}
    else:
        raise ValueError(f"{api} {kind}: Kubernetes {release} has no such kind, nor is it one of ours.")
    return jsonschema.Draft202012Validator({**schema, "$defs": known})


def schema_problems(thing: dict[str, Any], release: str) -> Iterator[str]:
    """What the API server would refuse: fields and types by the schema, then quantities."""
    where = f"{thing.get('kind')}/{thing.get('metadata', {}).get('name')}"
    try:
        for error in _validator(thing.get("apiVersion", ""), thing.get("kind", ""), release).iter_errors(thing):
            yield f"{where}: {error.json_path}: {error.message}"
    except ValueError as error:
        yield f"{where}: {error}"
    yield from (f"{where}: {problem}" for problem in _quantity_problems(thing))


def _quantity_problems(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _quantity_problems(inner, name)
            if key in ("requests", "limits", "hard", "default", "defaultRequest") or name in ("nominalQuota", "sizeLimit"):
                yield from _quantity(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _quantity_problems(inner)


def _quantity(name: str, value: Any) -> Iterator[str]:
    try:
        parse_quantity(value)
    except (ValueError, TypeError):
        yield f"{name}: {value!r} is no quantity."
