"""A server that stands in for archives and object stores: real bytes over a real socket, and faults on demand.

It serves the files of a folder with ranges, HEAD, ETag and If-Range, the answers of `routes`, and
enough S3 for ``pyarrow.fs.S3FileSystem`` and our own requests: path style, the first part of a path is
the bucket; objects, listings, writing (only where nothing is, too), uploads in parts, signatures.
"""

import calendar
import hashlib
import io
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit
from xml.sax.saxutils import escape

from neurofm_ml.s3 import Keys, sign

#: Answer of a route: the body, or a function of the query.
Route = bytes | Callable[[dict[str, str]], bytes]


@dataclass
class Fault:
    """What goes wrong with a path, for the next `times` requests of its body (always when negative)."""

    times: int = -1
    status: int = 0  # answer with this status instead of the file
    code: str = ""  # and with this word of an object store
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # close the connection after so many bytes of the body, sent or received
    lose: bool = False  # what is asked for is done, and the answer lost
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
    secret: str = ""  # key that every request must be signed with, else 403
    throttle: int = 0  # every so manieth request is answered with 503
    conditional: bool = True  # False: If-None-Match is not implemented, as on older object stores
    careless: bool = False  # True: If-None-Match is taken, and changes nothing
    on_request: Callable[[str, str], None] = lambda method, path: None  # called before a request is looked at
    uploads: dict[str, "Upload"] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

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


@dataclass
class Upload:
    """An upload in parts that has not been completed."""

    path: str
    parts: dict[int, bytes] = field(default_factory=dict)


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
        """Say nothing: what was asked is in `Double.requests`."""

    # ------------------------------------------------------------ reading
    def do_GET(self) -> None:
        path, query = self._request()
        if self._refused(path):
            return
        if (route := self.double.routes.get(path)) is not None:
            body = route if isinstance(route, bytes) else route(query)
            self._send(200, body, {"Content-Type": "application/json"})
        elif "uploads" in query:
            self._send(200, self._uploads(path, query.get("prefix", "")), {"Content-Type": "application/xml"})
        elif "list-type" in query:
            self._send(200, self._listing(path, query), {"Content-Type": "application/xml"})
        elif (file := self.double.folder / path.strip("/")).is_file():
            self._send_file(path, file.read_bytes(), file.stat().st_mtime)
        else:
            self._send_error(404, self._missing(path))

    do_HEAD = do_GET  # noqa: N815

    def _request(self) -> tuple[str, dict[str, str]]:
        time.sleep(self.double.latency_s)
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.double.on_request(self.command, path)
        with self.double.lock:
            self.double.requests.append((self.command, path, self.headers.get("Range", "")))
        return path, {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}

    def _refused(self, path: str) -> bool:
        """Answers a request that is to fail."""
        if any(self.headers.get(name) != value for name, value in self.double.required.items()):
            self._send_error(401, "AccessDenied")
            return True
        if self.double.secret and not self._signed():
            self._send_error(403, "SignatureDoesNotMatch")
            return True
        if self.double.throttle and len(self.double.requests) % self.double.throttle == 0:
            self._send_error(503, "SlowDown")
            return True
        fault = self.double.faults.get(path)
        if fault is None or not fault.status or (fault := self.double.fault(path)) is None:
            return False
        self._send_error(fault.status, fault.code or ("AccessDenied" if fault.status in (401, 403) else "Fault"), fault.headers)
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

    def _missing(self, path: str) -> str:
        return "NoSuchKey" if (self.double.folder / path.split("/")[1]).is_dir() else "NoSuchBucket"

    def _signed(self) -> bool:
        """Whether the request is signed with the secret: what its Authorization says about itself, computed again."""
        match = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d+/([^/]+)/s3/aws4_request, *SignedHeaders=([^,]+), *Signature=\w+",
            self.headers.get("Authorization", ""),
        )
        if match is None:
            return False
        own = {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"}
        headers = {name: self.headers[name] for name in match[3].split(";") if name not in own}
        now = calendar.timegm(time.strptime(self.headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
        keys = Keys(match[1], self.double.secret, self.headers.get("x-amz-security-token", ""))
        parts = urlsplit(self.path)
        query = urlencode(sorted(parse_qsl(parts.query, keep_blank_values=True)), quote_via=quote, safe="")
        url = f"http://{self.headers['Host']}{quote(unquote(parts.path))}?{query}"
        again = sign(self.command, url, headers, self.headers["x-amz-content-sha256"], keys, match[2], now)
        return again["Authorization"].replace(" ", "") == self.headers["Authorization"].replace(" ", "")

    def _uploads(self, path: str, prefix: str) -> bytes:
        """ListMultipartUploads."""
        keys = {i: upload.path.removeprefix(f"{path.rstrip('/')}/") for i, upload in self.double.uploads.items()}
        found = (f"<Upload><Key>{escape(key)}</Key><UploadId>{i}</UploadId></Upload>" for i, key in keys.items() if key.startswith(prefix))
        return f'<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{"".join(found)}</ListMultipartUploadsResult>'.encode()

    def do_PUT(self) -> None:
        self._change(self._put)

    def do_POST(self) -> None:
        self._change(self._post)

    def do_DELETE(self) -> None:
        self._change(self._delete)

    def _change(self, apply: Callable[[str, dict[str, str], bytes], None]) -> None:
        """One request that writes, and what goes wrong with it."""
        path, query = self._request()
        fault = self.double.faults.get(path)
        if fault and fault.cut_after is not None and self.double.fault(path):
            self.rfile.read(min(fault.cut_after, int(self.headers.get("Content-Length", 0))))
            self.close_connection = True
            return
        body = self._body()
        if self._refused(path):
            return
        if self._missing(path) == "NoSuchBucket":
            self._send_error(404, "NoSuchBucket")
            return
        if fault and fault.lose and self.double.fault(path):
            self.wfile = io.BytesIO()
            self.close_connection = True
        if self.headers.get("x-amz-content-sha256", "UNSIGNED") not in (
            "UNSIGNED",
            hashlib.sha256(body).hexdigest(),
        ) and "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            self._send_error(400, "XAmzContentSHA256Mismatch")
            return
        with self.double.lock:
            apply(path, query, body)

    def _put(self, path: str, query: dict[str, str], body: bytes) -> None:
        if "partNumber" in query:
            if (upload := self.double.uploads.get(query["uploadId"])) is None:
                self._send_error(404, "NoSuchUpload")
                return
            upload.parts[int(query["partNumber"])] = body
        elif self.headers.get("If-None-Match") and not self.double.conditional:
            self._send_error(501, "NotImplemented")
            return
        elif self.headers.get("If-None-Match") == "*" and not self.double.careless and (self.double.folder / path.strip("/")).exists():
            self._send_error(412, "PreconditionFailed")
            return
        else:
            _store(self.double.folder, path, body)
        self._send(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def _post(self, path: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            name = uuid.uuid4().hex
            self.double.uploads[name] = Upload(path)
            self._send_xml(f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>")
            return
        if (upload := self.double.uploads.get(query["uploadId"])) is None:
            self._send_error(404, "NoSuchUpload")
            return
        claimed = re.findall(rb"<PartNumber>(\d+)</PartNumber>|<ETag>(?:&quot;|\")?(\w+)", body)
        numbers = [int(number) for number, _ in claimed if number]
        tags = [tag.decode() for _, tag in claimed if tag]
        if tags != [hashlib.md5(upload.parts.get(i, b"?")).hexdigest() for i in numbers]:
            self._send_error(400, "InvalidPart")
            return
        _store(self.double.folder, path, b"".join(upload.parts[i] for i in numbers))
        del self.double.uploads[query["uploadId"]]
        self._send_xml('<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>')

    def _delete(self, path: str, query: dict[str, str], body: bytes) -> None:
        if "uploadId" not in query:
            (self.double.folder / path.strip("/")).unlink(missing_ok=True)
        elif self.double.uploads.pop(query["uploadId"], None) is None:
            self._send_error(404, "NoSuchUpload")
            return
        self._send(204, b"", {})

    def _send_xml(self, body: str) -> None:
        self._send(200, f'<?xml version="1.0"?>{body}'.encode(), {"Content-Type": "application/xml"})

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


def _store(folder: Path, path: str, body: bytes) -> None:
    """An object appears whole."""
    final, incoming = folder / path.strip("/"), folder / ".incoming"
    final.parent.mkdir(parents=True, exist_ok=True)
    incoming.write_bytes(body)
    incoming.replace(final)


def _unchunked(body: bytes) -> bytes:
    """The payload of Amazon's chunked encoding: ``<hex size>;signature CRLF data CRLF`` until a chunk of none."""
    parts, at = [], 0
    while size := int(body[at : (end := body.index(b"\r\n", at))].split(b";")[0], 16):
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)
