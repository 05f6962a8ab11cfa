"""What `kubectl kustomize` makes of our overlays, for machines without kubectl: the features that deploy/ uses and no others.

A field that is not known here raises, so that nothing is passed over in silence; where kubectl is at hand a test compares both.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
HEAD = {"apiVersion", "kind"}
ANYWHERE = {"resources", "components", "configMapGenerator", "generatorOptions", "patches", "namespace", "labels"}
#: Kinds without a namespace. Of custom ones kustomize knows nothing; ours say theirs themselves.
CLUSTER_WIDE = {"Namespace"}


def render(folder: Path) -> list[Object]:
    """The objects of an overlay."""
    return _apply(folder, [])


def read_yaml(path: Path) -> list[Any]:
    """Documents of a YAML file. Raises ValueError naming the file."""
    try:
        return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _apply(folder: Path, objects: list[Object]) -> list[Object]:
    """One kustomization or component, on the objects there are."""
    (recipe,) = read_yaml(folder / "kustomization.yaml")
    if unknown := set(recipe) - HEAD - ANYWHERE:
        raise ValueError(f"{folder}/kustomization.yaml: {', '.join(sorted(unknown))} is not among {', '.join(sorted(ANYWHERE))}.")
    for name in recipe.get("resources", ()):
        path = folder / name
        objects = objects + (render(path) if path.is_dir() else read_yaml(path))
    for name in recipe.get("components", ()):
        objects = _apply(folder / name, objects)
    for generator in recipe.get("configMapGenerator", ()):
        objects = _generate(folder, generator, objects)
    for patch in recipe.get("patches", ()):
        _patch(folder, patch, objects)
    for thing in objects:
        _label(thing, recipe)
    return objects


def _label(thing: Object, recipe: Object) -> None:
    """The transformers: namespace and labels."""
    if "namespace" in recipe and thing["kind"] not in CLUSTER_WIDE:
        thing["metadata"]["namespace"] = recipe["namespace"]
    for group in recipe.get("labels", ()):
        thing["metadata"].setdefault("labels", {}).update(group["pairs"])


def _generate(folder: Path, generator: Object, objects: list[Object]) -> list[Object]:
    data = {Path(name).name: (folder / name).read_text() for name in generator.get("files", ())}
    data |= dict(line.split("=", 1) for line in generator.get("literals", ()))
    if generator.get("behavior") == "merge":
        find(objects, "ConfigMap", generator["name"])["data"].update(data)
        return objects
    metadata = {key: generator[key] for key in ("name", "namespace") if key in generator}
    return [*objects, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}]


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The object of that kind and name. Raises ValueError when there is none."""
    for thing in objects:
        if (thing["kind"], thing["metadata"]["name"]) == (kind, name):
            return thing
    raise ValueError(f"no {kind} {name} among the objects.")


def _patch(folder: Path, patch: Object, objects: list[Object]) -> None:
    """A strategic merge (of mappings) from a file, or a JSON patch (RFC 6902) on the objects of a kind."""
    if "path" in patch:
        (change,) = read_yaml(folder / patch["path"])
        _merge(find(objects, change["kind"], change["metadata"]["name"]), change)
        return
    targets = [thing for thing in objects if thing["kind"] == patch["target"]["kind"]]
    if not targets:
        raise ValueError(f"{folder}: a patch has no target: {patch['target']}.")
    for thing in targets:
        for operation in yaml.safe_load(patch["patch"]):
            _operate(thing, operation)


def _merge(thing: Object, change: Object) -> None:
    for key, value in change.items():
        if isinstance(value, list):
            raise ValueError(f"{key} is a list; change lists by a JSON patch.")
        if isinstance(value, dict) and isinstance(thing.get(key), dict):
            _merge(thing[key], value)
        else:
            thing[key] = value


def _operate(thing: Any, operation: Object) -> None:
    *way, last = (key.replace("~1", "/") for key in operation["path"].strip("/").split("/"))
    for key in way:
        thing = thing[key]
    if operation["op"] == "replace" and last not in thing:
        raise ValueError(f"{operation['path']} is not there to be replaced.")
    operations: dict[str, Callable[[], None]] = {
        "add": lambda: thing.__setitem__(last, operation["value"]),
        "replace": lambda: thing.__setitem__(last, operation["value"]),
        "remove": lambda: thing.__delitem__(last),
    }
    operations[operation["op"]]()


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod template of the objects: where it is, and the template."""
    for thing in objects:
        spec, where = thing.get("spec", {}), f"{thing['kind']}/{thing['metadata']['name']}"
        if thing["kind"] == "RayCluster":
            groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
            yield from ((f"{where}/{group.get('groupName', 'head')}", group["template"]) for group in groups)
        elif "template" in spec:
            yield where, spec["template"]
