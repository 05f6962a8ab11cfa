"""The store of objects: versions, history, selectors, merge patches."""

import copy
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]


class Key(NamedTuple):
    """Where an object is kept; `namespace` is "" for those of the whole cluster."""

    group: str
    plural: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Change:
    """One entry of the history; `what` is ADDED, MODIFIED or DELETED."""

    version: int
    what: str
    key: Key
    object: Object


class ApiError(Exception):
    """An answer of the server that is not a success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason

    def body(self) -> Object:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        return {**status, "message": str(self), "reason": self.reason, "code": self.code}


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """All objects of the cluster. Everything given out is a copy; `changed` is notified of every change."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 0
        self.history: list[Change] = []
        self._objects: dict[Key, Object] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._objects

    def get(self, key: Key) -> Object:
        with self.changed:
            if key not in self._objects:
                raise ApiError(404, "NotFound", f'{key.plural}{"." + key.group if key.group else ""} "{key.name}" not found')
            return copy.deepcopy(self._objects[key])

    def find(self, key: Key, uid: str) -> Object | None:
        """The object when it is still the same one."""
        with self.changed:
            found = self._objects.get(key)
            return copy.deepcopy(found) if found and found["metadata"]["uid"] == uid else None

    def all(self, plural: str, group: str = "", namespace: str = "") -> list[Object]:
        with self.changed:
            return [copy.deepcopy(o) for k, o in self._objects.items() if k[:2] == (group, plural) and namespace in ("", k.namespace)]

    def everything(self) -> list[tuple[Key, Object]]:
        with self.changed:
            return [(key, copy.deepcopy(o)) for key, o in self._objects.items()]

    def add(self, key: Key, made: Object) -> Object:
        with self.changed:
            if key in self._objects:
                raise ApiError(409, "AlreadyExists", f'{key.plural} "{key.name}" already exists')
            made = copy.deepcopy(made)
            made["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(), "generation": 1}
            if key.namespace:
                made["metadata"]["namespace"] = key.namespace
            return self._put(key, made, "ADDED")

    def update(self, key: Key, uid: str, change: Callable[[Object], object]) -> Object | None:
        """Change the object in place when it is still the same one; gives what it is now."""
        with self.changed:
            found = self.find(key, uid)
            if found is None:
                return None
            before = copy.deepcopy(found)
            change(found)
            return found if found == before else self._put(key, found, "MODIFIED")

    def remove(self, key: Key) -> None:
        with self.changed:
            if key in self._objects:
                self._put(key, self._objects[key], "DELETED")
                del self._objects[key]

    def _put(self, key: Key, made: Object, what: str) -> Object:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        self._objects[key] = made
        self.history.append(Change(self.version, what, key, copy.deepcopy(made)))
        self.changed.notify_all()
        return copy.deepcopy(made)

    def until(self, true: Callable[[], Any], timeout_s: float) -> Any:
        """What `true` gives once that is true, asked again after every change."""
        end = time.monotonic() + timeout_s
        with self.changed:
            while not (found := true()):
                if (left := end - time.monotonic()) <= 0:
                    raise TimeoutError(f"waited {timeout_s:.0f} s in vain")
                self.changed.wait(min(left, 0.2))
            return found


def merge(old: Any, new: Any, strategic: bool = False) -> Any:
    """RFC 7386: objects are merged, null removes, everything else replaces.

    A `strategic` merge, kubectl's own, also merges lists of things that have names; its hints on their order are not followed.
    """
    if strategic and isinstance(old, list) and isinstance(new, list) and all(isinstance(o, dict) and "name" in o for o in old + new):
        named = {o["name"]: o for o in old}
        return list(merge(named, {n["name"]: None if "$patch" in n else n for n in new}, True).values())
    if not isinstance(new, dict):
        return new
    old = dict(old) if isinstance(old, dict) else {}
    for name, value in new.items():
        if not name.startswith("$"):
            old[name] = merge(old.get(name), value, strategic)
    return {name: value for name, value in old.items() if value is not None}


def selected(thing: Object, labels: str, fields: str) -> bool:
    """Whether an object is among those that `labelSelector` and `fieldSelector` choose."""
    own = thing["metadata"].get("labels") or {}
    return all(_holds(own.get(name), how, value) for name, how, value in _terms(labels)) and all(
        _holds(_at(thing, path), how, value) for path, how, value in _terms(fields)
    )


def _terms(selector: str) -> Iterator[tuple[str, str, str]]:
    for term in filter(None, selector.split(",")):
        name, how, value = re.fullmatch(r"([^=!]+)(!=|==?|)(.*)", term).groups()  # type: ignore[union-attr]
        yield name, how, value


def _holds(found: Any, how: str, value: str) -> bool:
    if not how:
        return found is not None
    return (str(found) != value) if how == "!=" else (str(found) == value)


def _at(thing: Any, path: str) -> Any:
    for name in path.split("."):
        thing = thing.get(name) if isinstance(thing, Mapping) else None
    return thing
