"""A server that stands in for archives and object stores: real bytes over a real socket, and faults on demand.

It serves the files of a folder with ranges, HEAD, ETag and If-Range, the answers of `routes`, and
enough S3 (path style: objects, listings, PUT, multipart uploads) for ``pyarrow.fs.S3FileSystem``:
the first part of a path is then the bucket.
"""

import hashlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

#: Answer of a route: the body, or a function of the query.
Route = bytes | Callable[[dict[str, str]], bytes]


@dataclass
class Fault:
    """What goes wrong with a path, for the next `times` requests of its body (always when negative)."""

    times: int = -1
    status: int = 0  # answer with this status instead of the file
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # close the connection after so many bytes of the body
    flip: int | None = None  # this byte of the file arrives wrong
    pause_s: float = 0.0  # before each `piece` bytes of the body
    piece: int = 1 << 14


@dataclass
class Double:
    """The server's state, which a test may change while it runs. `requests` holds (method, path, Range header)."""

    folder: Path
    url: str = ""
    latency_s: float = 0.0
    ranges: bool = True  # False: Range is ignored, as by the simplest servers
    etags: bool = True
    page: int = 1000  # keys in one answer of a listing
    faults: dict[str, Fault] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0  # bytes of bodies
    required: dict[str, str] = field(default_factory=dict)  # header that a request must carry, else 401
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def got(self, path: str) -> list[str]:
        """Range headers of the GET requests of one path."""
        return [ranges for method, asked, ranges in self.requests if method == "GET" and asked == path]

    def fault(self, path: str) -> Fault | None:
        with self.lock:
            fault = self.faults.get(path)
            if fault is None or fault.times == 0:
                return None
            fault.times -= 1
            return fault


@contextmanager
def serving(folder: Path) -> Iterator[Double]:
    """A server of `folder` on a free port of this machine, until the block ends."""
    double = Double(folder)
    handler = type("Handler", (_Handler,), {"double": double})
    with _Server(("127.0.0.1", 0), handler) as server:
        double.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield double
        server.shutdown()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # a connection that finds the queue full waits a second

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that goes away is no error
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    double: Double
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and a small body leave in one packet

    def log_message(self, *_: object) -> None:
        pass

    # ------------------------------------------------------------ reading
    def do_GET(self) -> None:
        path, query = self._request()
        if self._refused(path):
            return
        if (route := self.double.routes.get(path)) is not None:
            body = route if isinstance(route, bytes) else route(query)
            self._send(200, body, {"Content-Type": "application/json"})
        elif "list-type" in query:
            self._send(200, self._listing(path, query), {"Content-Type": "application/xml"})
        elif (file := self.double.folder / path.strip("/")).is_file():
            self._send_file(path, file.read_bytes(), file.stat().st_mtime)
        else:
            self._send_error(404, "NoSuchKey")

    do_HEAD = do_GET  # noqa: N815

    def _request(self) -> tuple[str, dict[str, str]]:
        time.sleep(self.double.latency_s)
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        with self.double.lock:
            self.double.requests.append((self.command, path, self.headers.get("Range", "")))
        return path, {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}

    def _refused(self, path: str) -> bool:
        """Answers a request that is to fail."""
        if any(self.headers.get(name) != value for name, value in self.double.required.items()):
            self._send_error(401, "AccessDenied")
            return True
        fault = self.double.faults.get(path)
        if fault is None or not fault.status or (fault := self.double.fault(path)) is None:
            return False
        self._send_error(fault.status, "AccessDenied" if fault.status in (401, 403) else "Fault", fault.headers)
        return True

    def _send_file(self, path: str, data: bytes, changed: float) -> None:
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"Last-Modified": formatdate(changed, usegmt=True), "Content-Type": "application/octet-stream"}
        if self.double.etags:
            headers["ETag"] = etag
        fault = self.double.fault(path) if self.command == "GET" else None
        if fault and fault.flip is not None:
            data = data[: fault.flip] + bytes([data[fault.flip] ^ 1]) + data[fault.flip + 1 :]
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        known = self.headers.get("If-Range") in (None, etag, headers["Last-Modified"])
        if match is None or not self.double.ranges or not known:
            self._send(200, data, headers | ({"Accept-Ranges": "bytes"} if self.double.ranges else {}), fault)
            return
        start, stop = _bounds(match, len(data))
        if start >= len(data):
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        self._send(206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is None:
            self._write(body)
            return
        end = len(body) if fault.cut_after is None else min(fault.cut_after, len(body))
        for at in range(0, end, fault.piece):
            time.sleep(fault.pause_s)
            self._write(body[at : min(at + fault.piece, end)])
        if end < len(body):
            self.close_connection = True

    def _write(self, body: bytes) -> None:
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:  # the client went away
            self.close_connection = True
            return
        with self.double.lock:
            self.double.sent += len(body)

    def _send_error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
        self._send(status, body, {"Content-Type": "application/xml", **(headers or {})})

    # ------------------------------------------------------------ S3
    def _listing(self, path: str, query: dict[str, str]) -> bytes:
        """ListObjectsV2 in pages; keys and common prefixes in one order."""
        bucket, prefix, delimiter = self.double.folder / path.strip("/"), query.get("prefix", ""), query.get("delimiter", "")
        keys = sorted(p.relative_to(bucket).as_posix() for p in bucket.rglob("*") if p.is_file())
        names: dict[str, None] = {}
        for key in (k for k in keys if k.startswith(prefix)):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            names.setdefault(key if cut < 0 else key[: cut + 1])
        size = min(self.double.page, int(query.get("max-keys", 1000)))
        first = int(query.get("continuation-token", 0))
        shown, more = list(names)[first : first + size], len(names) > first + size
        entries = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if delimiter and name.endswith(delimiter)
            else _contents(name, (bucket / name).read_bytes())
            for name in shown
        )
        token = f"<NextContinuationToken>{first + size}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket.name}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(shown)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
        ).encode()

    def do_PUT(self) -> None:
        path, query = self._request()
        body = self._body()
        if "partNumber" in query:
            self.double.uploads[query["uploadId"]][int(query["partNumber"])] = body
        else:
            _store(self.double.folder / path.strip("/"), body)
        self._send(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def do_POST(self) -> None:
        path, query = self._request()
        self._body()
        if "uploads" in query:
            upload = f"upload{len(self.double.uploads)}"
            self.double.uploads[upload] = {}
            name, inner = "InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"
        else:
            parts = self.double.uploads[query["uploadId"]]
            _store(self.double.folder / path.strip("/"), b"".join(parts[i] for i in sorted(parts)))
            name, inner = "CompleteMultipartUploadResult", '<ETag>"whole"</ETag>'
        self._send(200, f'<?xml version="1.0"?><{name}>{inner}</{name}>'.encode(), {"Content-Type": "application/xml"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return _unchunked(body) if "aws-chunked" in self.headers.get("Content-Encoding", "") else body

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()


def _bounds(match: re.Match[str], size: int) -> tuple[int, int]:
    if not match[1]:
        return max(size - int(match[2]), 0), size
    return int(match[1]), min(int(match[2]) + 1, size) if match[2] else size


def _contents(key: str, data: bytes) -> str:
    etag = hashlib.md5(data).hexdigest()
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def _store(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _unchunked(body: bytes) -> bytes:
    """The payload of Amazon's chunked encoding: ``<hex size>;signature CRLF data CRLF`` until a chunk of none."""
    parts, at = [], 0
    while size := int(body[at : (end := body.index(b"\r\n", at))].split(b";")[0], 16):
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)
