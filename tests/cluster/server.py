"""The HTTP API: discovery, objects, watches and logs."""

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from cluster.jobs import delete
from cluster.objects import ApiError, Key, Object, merge, selected
from cluster.protobuf import MAGIC, decode
from cluster.schemas import RELEASE, Kind

if TYPE_CHECKING:
    from cluster.double import Cluster, Fault

#: What `kubectl get all` lists.
_ALL = ("CronJob", "Deployment", "Job", "Pod", "ReplicaSet", "Service", "StatefulSet")
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


@contextmanager
def serve(cluster: "Cluster") -> Iterator[str]:
    """A server of the cluster on a free port, until the block ends; gives its URL."""
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that are cut, by us or by the client, are part of the play."""


class _CutError(Exception):
    """The connection is to be closed without a word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: "Cluster"

    def log_message(self, *_: Any) -> None:
        """Tests look at `Cluster.requests`."""

    def _handle(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.cluster.requests.append((self.command, self.path))
        try:
            fault = self.cluster.fault(self.command, self.path)
            self._meet(fault, late=False)
            self._route([unquote(part) for part in url.path.strip("/").split("/")], query, raw, fault)
        except ApiError as error:
            self._send(error.code, error.body())
        except (_CutError, BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _meet(self, fault: "Fault | None", late: bool) -> None:
        if fault and fault.late == late:
            if fault.status:
                raise ApiError(fault.status, "Injected", "a fault of the double")
            raise _CutError

    def _send(self, status: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _route(self, path: list[str], query: Mapping[str, str], raw: bytes, fault: "Fault | None") -> None:
        if found := self._discovery(path):
            self._send(200, found)
            return
        kind, key, sub = self._target(path)
        if self.command == "GET" and sub == "log":
            self._log(self.cluster.objects.get(key), query)
        elif self.command == "GET" and not key.name and query.get("watch") in ("true", "True", "1"):
            self._watch(key, query)
        else:
            status, body = self._do(kind, key, sub, query, _parsed(raw))
            self._meet(fault, late=True)
            self._send(status, body)

    # ------------------------------------------------------------ where
    def _discovery(self, path: list[str]) -> Object | None:
        """What kubectl asks before anything else."""
        kinds = self.cluster.kinds().values()
        match path:
            case ["version"]:
                return {"major": "1", "minor": RELEASE.split(".")[1], "gitVersion": f"v{RELEASE}"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                named = sorted({(kind.group, kind.version) for kind in kinds if kind.group})
                versions = {group: [{"groupVersion": f"{g}/{v}", "version": v} for g, v in named if g == group] for group, _ in named}
                groups = [{"name": group, "versions": found, "preferredVersion": found[0]} for group, found in versions.items()]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
            case ["api", _] | ["apis", _, _]:
                return _resources([kind for kind in kinds if _root(kind) == "/".join(path)])
            case ["openapi", "v3"]:
                return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in map(_root, kinds)}}
            case ["openapi", "v3", *rest]:
                return _openapi([kind for kind in kinds if _root(kind) == "/".join(rest)])
        return None

    def _target(self, path: list[str]) -> tuple[Kind, Key, str]:
        """Kind, place and subresource that a path names."""
        group, version, rest = ("", path[1], path[2:]) if path[0] == "api" else ("", "", [])
        if path[0] == "apis" and len(path) > 3:
            group, version, rest = path[1], path[2], path[3:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = [*rest, "", "", ""][:3]
        kind = self.cluster.kinds().get((group, version, plural))
        if kind is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return kind, Key(group, plural, namespace, name), sub

    # ------------------------------------------------------------ what
    def _do(self, kind: Kind, key: Key, sub: str, query: Mapping[str, str], body: Object) -> tuple[int, Object]:
        objects = self.cluster.objects
        match self.command:
            case "GET" if key.name:
                return 200, objects.get(key)
            case "GET":
                items = [o for o in objects.all(key.plural, key.group, key.namespace) if _chosen(o, query)]
                listed = {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "items": items}
                return 200, {**listed, "metadata": {"resourceVersion": str(objects.version)}}
            case "POST":
                return 201, self._create(kind, key, query, body)
            case "DELETE":
                return 200, self._delete(key, query, body)
        return self._change(kind, key, sub, query, body)

    def _create(self, kind: Kind, key: Key, query: Mapping[str, str], body: Object) -> Object:
        made = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        made["metadata"] = dict(body.get("metadata") or {})
        if "generateName" in made["metadata"] and not made["metadata"].get("name"):
            made["metadata"]["name"] = made["metadata"]["generateName"] + uuid.uuid4().hex[:5]
        if query.get("dryRun"):
            self.cluster.check(kind, made)
            return made
        return self.cluster.create(kind, key._replace(name=made["metadata"].get("name", "")), made)

    def _delete(self, key: Key, query: Mapping[str, str], body: Object) -> Object:
        grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        # The pods of a Job are kept by default: what the batch API has done since its first version.
        default = "Orphan" if key.plural == "jobs" else "Background"
        how = body.get("propagationPolicy") or query.get("propagationPolicy") or default
        return delete(self.cluster.objects, key, how, None if grace is None else int(grace))

    def _change(self, kind: Kind, key: Key, sub: str, query: Mapping[str, str], body: Object) -> tuple[int, Object]:
        objects = self.cluster.objects
        content = self.headers.get("Content-Type", "")
        if "json-patch" in content:
            raise ApiError(415, "UnsupportedMediaType", "JSON patches are not spoken here")
        if "apply-patch" in content and key not in objects:
            return 201, self._create(kind, key, query, body)
        with objects.changed:
            before = objects.get(key)
            now = merge(before, body, "strategic" in content) if self.command == "PATCH" else {**body, "status": before.get("status", {})}
            if sub != "status":
                self.cluster.check(kind, now)
            if query.get("dryRun"):
                return 200, now
            return 200, objects.update(key, before["metadata"]["uid"], lambda o: (o.clear(), o.update(now))) or now

    # ------------------------------------------------------------ streams
    def _begin_stream(self, content: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _watch(self, key: Key, query: Mapping[str, str]) -> None:
        objects, sent = self.cluster.objects, int(query.get("resourceVersion") or 0)
        end = time.monotonic() + float(query.get("timeoutSeconds") or 3600)
        self._begin_stream("application/json")
        if not sent:
            with objects.changed:
                listed, sent = objects.all(key.plural, key.group, key.namespace), objects.version
            for thing in filter(lambda o: _chosen(o, query), listed):
                self._chunk(json.dumps({"type": "ADDED", "object": thing}).encode() + b"\n")
        while not self.cluster.stopping.is_set() and time.monotonic() < end:
            with objects.changed:
                new = [change for change in objects.history[-1000:] if change.version > sent]
                if not new:
                    objects.changed.wait(0.2)
            for change in new:
                sent = change.version
                here = change.key[:2] == key[:2] and key.namespace in ("", change.key.namespace)
                if here and _chosen(change.object, query):
                    self._chunk(json.dumps({"type": change.what, "object": change.object}).encode() + b"\n")
        self._chunk(b"")

    def _log(self, pod: Object, query: Mapping[str, str]) -> None:
        objects, log = self.cluster.objects, self.cluster.kubelet.logs.get(pod["metadata"]["uid"])
        if log is None:
            raise ApiError(400, "BadRequest", f'container in pod "{pod["metadata"]["name"]}" is waiting to start: ContainerCreating')
        follow, stamped = query.get("follow") in ("true", "True"), query.get("timestamps") in ("true", "True")
        at = max(0, len(log.lines) - int(query["tailLines"])) if "tailLines" in query else 0
        first = at
        self._begin_stream("text/plain")
        while True:
            with objects.changed:
                new, over = log.lines[at:], not follow or log.closed or self.cluster.stopping.is_set()
                if not new and not over:
                    objects.changed.wait(0.2)
            for when, line in new:
                if follow and self.cluster.cut_logs_after is not None and at - first >= self.cluster.cut_logs_after:
                    raise _CutError
                self._chunk((f"{when} ".encode() if stamped else b"") + line)
                at += 1
            if over:
                break
        self._chunk(b"")


def _chosen(thing: Object, query: Mapping[str, str]) -> bool:
    return selected(thing, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _parsed(raw: bytes) -> Object:
    """A body in JSON or YAML, the second of which includes the first."""
    if raw.startswith(MAGIC):
        return decode(raw)
    found = (json.loads if raw.startswith(b"{") else yaml.safe_load)(raw) if raw else {}
    if not isinstance(found, dict):
        raise ApiError(400, "BadRequest", "the body is not an object")
    return found


def _root(kind: Kind) -> str:
    """Where the paths of a kind begin."""
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def _resources(kinds: list[Kind]) -> Object:
    if not kinds:
        raise ApiError(404, "NotFound", "the server could not find the requested resource")
    named = [
        {
            "name": kind.plural,
            "kind": kind.name,
            "namespaced": kind.namespaced,
            "singularName": kind.name.lower(),
            "verbs": _VERBS,
            "categories": ["all"] if kind.name in _ALL else [],
        }
        for kind in kinds
    ]
    return {"kind": "APIResourceList", "groupVersion": kinds[0].api_version, "resources": named}


def _openapi(kinds: list[Kind]) -> Object:
    """As much of a description as tells kubectl that the server itself checks what it is sent."""
    checks = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    operations = {}
    for kind in kinds:
        named = {"group": kind.group, "version": kind.version, "kind": kind.name}
        patch = {"parameters": checks, "responses": {}, "x-kubernetes-group-version-kind": named}
        operations[f"/{_root(kind)}/{kind.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": RELEASE}, "paths": operations}
