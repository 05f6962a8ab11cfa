"""Which kinds there are and what is a valid object: the schemas of a Kubernetes release, and rules that they do not carry."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

import jsonschema

from cluster.objects import ApiError, Object

RELEASE = "1.34.0"
CLUSTER_WIDE = {
    "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "IngressClass", "Namespace", "Node", "PersistentVolume",
    "PriorityClass", "RuntimeClass", "StorageClass",
}  # fmt: skip

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_QUANTITY = re.compile(r"([+-]?[0-9.]+)(|m|k|M|G|T|Ki|Mi|Gi|Ti)")
_FACTORS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
#: A label value, and the name of a Job, which becomes one.
_LONGEST = 63


class Kind(NamedTuple):
    """One kind of object, as the path of its URL names it."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@functools.cache
def _definitions() -> Mapping[str, Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{RELEASE}-local-strict"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return found


@functools.cache
def builtin() -> Mapping[tuple[str, str, str], Kind]:
    """(group, version, plural) -> kind, of everything that the release can list."""
    names = {(g["group"], g["version"], g["kind"]) for d in _definitions().values() for g in d.get("x-kubernetes-group-version-kind", ())}
    listed = [(g, v, k) for g, v, k in names if (g, v, f"{k}List") in names]
    return {(g, v, _plural(k)): Kind(g, v, _plural(k), k, k not in CLUSTER_WIDE) for g, v, k in listed}


def _plural(kind: str) -> str:
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x")) else f"{name}s"


def declared(definitions: list[Object]) -> Iterator[Kind]:
    """Kinds that custom resource definitions declare."""
    for spec in (definition["spec"] for definition in definitions):
        for version in spec["versions"]:
            yield Kind(spec["group"], version["name"], spec["names"]["plural"], spec["names"]["kind"], spec["scope"] == "Namespaced")


@functools.cache
def _validator(kind: Kind) -> jsonschema.Draft202012Validator:
    for name, schema in _definitions().items():
        for gvk in schema.get("x-kubernetes-group-version-kind", ()):
            if (gvk["group"], gvk["version"], gvk["kind"]) == (kind.group, kind.version, kind.name):
                return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": _definitions()})
    raise KeyError(kind)


def validate(kind: Kind, made: Object, custom: Mapping[str, Any] | None) -> None:
    """Refuse what a server refuses; `custom` is the schema of a declared kind."""
    if made.get("kind") != kind.name:
        raise ApiError(400, "BadRequest", f"the kind {made.get('kind')!r} does not match the endpoint, {kind.name!r}")
    validator = _validator(kind) if custom is None else jsonschema.Draft202012Validator(custom)
    body = {name: value for name, value in made.items() if name != "status"}
    wrong = [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in validator.iter_errors(body)]
    wrong = wrong or list(rules(kind.name, made))
    if wrong:
        raise ApiError(422, "Invalid", f'{kind.name} "{made["metadata"].get("name")}" is invalid: {"; ".join(wrong)}')


def rules(kind: str, made: Object) -> Iterator[str]:
    """What is wrong with an object whose shape is right."""
    name = made["metadata"].get("name", "")
    if not _NAME.fullmatch(name) or len(name) > 253:
        yield f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain is required'
    for label, value in (made["metadata"].get("labels") or {}).items():
        if len(value) > _LONGEST or not _LABEL.fullmatch(value):
            yield f'metadata.labels: Invalid value: "{value}" (of {label}): at most {_LONGEST} of [A-Za-z0-9_.-]'
    if kind == "Pod":
        yield from _pod_rules(made["spec"])
    if kind == "Job":
        yield from _job_rules(name, made["spec"])
        yield from _pod_rules(made["spec"]["template"]["spec"])


def _job_rules(name: str, spec: Object) -> Iterator[str]:
    restart = spec["template"]["spec"].get("restartPolicy")
    if len(name) > _LONGEST:
        yield f"metadata.name: must be no more than {_LONGEST} characters"
    if restart not in ("Never", "OnFailure"):
        yield 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    if spec.get("podFailurePolicy") and restart != "Never":
        yield 'spec.podFailurePolicy: only "Never" is supported for template.spec.restartPolicy'
    if spec.get("completionMode") == "Indexed" and spec.get("completions") is None:
        yield "spec.completions: Required value: when completion mode is Indexed"
    for i, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules", ())):
        codes = rule.get("onExitCodes") or {}
        if codes.get("operator") == "In" and 0 in codes["values"]:
            yield f"spec.podFailurePolicy.rules[{i}].onExitCodes.values: Invalid value: 0: must not be 0 for the In operator"
        if codes and codes["values"] != sorted(set(codes["values"])):
            yield f"spec.podFailurePolicy.rules[{i}].onExitCodes.values: must be ordered and unique"


def _pod_rules(spec: Object) -> Iterator[str]:
    volumes = {volume["name"] for volume in spec.get("volumes") or ()}
    for i, container in enumerate([*(spec.get("initContainers") or ()), *spec["containers"]]):
        where = f"spec.containers[{i}]"
        if not container.get("image"):
            yield f"{where}.image: Required value"
        for mount in container.get("volumeMounts") or ():
            if mount["name"] not in volumes:
                yield f'{where}.volumeMounts: Not found: "{mount["name"]}"'
        names = [variable["name"] for variable in container.get("env") or ()]
        if len(names) != len(set(names)):
            yield f"{where}.env: a variable is given twice: {names}"
        resources = container.get("resources") or {}
        yield from _resource_rules(where, resources.get("requests") or {}, resources.get("limits") or {})


def _resource_rules(where: str, requests: Mapping[str, str], limits: Mapping[str, str]) -> Iterator[str]:
    try:
        asked = {name: quantity(value) for name, value in requests.items()}
        most = {name: quantity(value) for name, value in limits.items()}
    except ValueError as error:
        yield f"{where}.resources: {error}"
        return
    for name in {*asked, *most}:
        if name in asked and name in most and asked[name] > most[name]:
            yield f"{where}.resources.requests: {name}: must be less than or equal to its limit"
        extended = "/" in name
        if extended and (name not in most or asked.get(name, most[name]) != most[name] or most[name] % 1):
            yield f"{where}.resources: {name}: must be a whole number, the same in requests and limits"


def quantity(value: object) -> float:
    """``500m``, ``2Gi``, ``8`` as a number."""
    match = _QUANTITY.fullmatch(str(value))
    if not match:
        raise ValueError(f"quantities must match the regular expression {_QUANTITY.pattern}: {value!r}")
    return float(match[1]) * _FACTORS[match[2]]
