"""What is wrong with an overlay beyond its schemas: references that lead nowhere, pods that may do too much, missing requests."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rendering import Object, pods, render
from schemas import RELEASES, schema_problems

from neurofm_assets.compute.pods import MANAGED

#: Labels of pods that no manifest holds: the chart's and its run workers; the Jobs that the launcher makes.
ELSEWHERE = [{"app.kubernetes.io/name": name} for name in ("dagster", "dagster-user-deployments")] + [MANAGED]
TAGGED = re.compile(r"^[\w./-]+:(?!latest$)[\w.-]+$")
CREATED = re.compile(r"kubectl .*create secret generic ([\w-]+)")


def problems(root: Path, overlay: str) -> list[str]:
    """Everything wrong with one overlay of a checkout; empty when it may be applied."""
    try:
        objects = render(root / "deploy" / "overlays" / overlay)
    except (ValueError, KeyError, TypeError) as error:
        return [f"{overlay}: {error!r}"]
    secrets = set(CREATED.findall((root / "deploy" / "README.md").read_text()))
    found = [problem for release in RELEASES for thing in objects for problem in schema_problems(thing, release)]
    return found or [*_references(objects, secrets), *_pods(objects), *_selectors(objects)]


def _references(objects: list[Object], secrets: set[str]) -> Iterator[str]:
    """Names that lead nowhere. A secret is created by hand, as the README says."""
    there = {(thing["kind"], thing["metadata"]["name"]) for thing in objects} | {("Secret", name) for name in secrets}
    for thing in objects:
        where = f"{thing['kind']}/{thing['metadata']['name']}"
        yield from (f"{where}: no {kind} {name}." for kind, name in _named(thing) if (kind, name) not in there)
        if thing["kind"] == "Secret":
            yield f"{where}: secrets are created by hand, never kept in a file."


#: Field -> kind and the key under which the name stands; "" where the value is the name.
FIELDS = {
    "serviceAccountName": ("ServiceAccount", ""),
    "configMapRef": ("ConfigMap", "name"),
    "secretRef": ("Secret", "name"),
    "secretKeyRef": ("Secret", "name"),
    "configMap": ("ConfigMap", "name"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
    "roleRef": ("Role", "name"),
    "clusterQueue": ("ClusterQueue", ""),
    "serviceName": ("Service", ""),
}


def _named(value: Any) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything an object refers to."""
    if isinstance(value, list):
        for inner in value:
            yield from _named(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in FIELDS:
                kind, field = FIELDS[key]
                yield kind, inner[field] if field else inner
            elif key == "flavors":
                yield from (("ResourceFlavor", flavor["name"]) for flavor in inner)
            elif key == "subjects":
                yield from ((subject["kind"], subject["name"]) for subject in inner)
            yield from _named(inner)


def _pods(objects: list[Object]) -> Iterator[str]:
    for where, template in pods(objects):
        spec = template["spec"]
        security = spec.get("securityContext", {})
        if not (security.get("runAsNonRoot") and security.get("runAsUser")):
            yield f"{where}: runs as root, or may."
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{where}: has no seccomp profile."
        volumes = {volume["name"] for volume in spec.get("volumes", ())} | {"data"}
        for container in spec["containers"]:
            yield from (f"{where}/{container['name']}: {what}" for what in _container(container, volumes))


def _container(container: Object, volumes: set[str]) -> Iterator[str]:
    security, resources = container.get("securityContext", {}), container.get("resources", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities."
    if not TAGGED.match(container["image"]):
        yield f"image {container['image']} is not pinned."
    if not {"cpu", "memory"} <= set(resources.get("requests", ())) or "memory" not in resources.get("limits", ()):
        yield "asks for no cpu or memory, or has no memory limit."
    if missing := {mount["name"] for mount in container.get("volumeMounts", ())} - volumes:
        yield f"mounts {', '.join(missing)}, which the pod does not have."


def _selectors(objects: list[Object]) -> Iterator[str]:
    """Selectors that no pod answers to."""
    labels = [template["metadata"]["labels"] for _, template in pods(objects)] + ELSEWHERE
    for thing in objects:
        for selector in _selecting(thing):
            if not any(_selects(selector, have) for have in labels):
                yield f"{thing['kind']}/{thing['metadata']['name']}: no pod answers to {selector}."


def _selecting(thing: Object) -> Iterator[Object]:
    spec = thing.get("spec", {})
    if thing["kind"] == "NetworkPolicy":
        yield spec["podSelector"]
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            yield from (peer["podSelector"] for peer in (*rule.get("from", ()), *rule.get("to", ())) if "podSelector" in peer)
    elif thing["kind"] == "Service":
        yield {"matchLabels": spec["selector"]}
    elif "selector" in spec:
        yield spec["selector"]


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", ()))
