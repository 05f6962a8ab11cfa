"""Files behind a URL: their sizes, byte ranges and whole bodies over HTTP(S) and S3.

What belongs here: connections, attempts, and errors that say what to do. What does not: where a file
is stored and whether it is the right one (``data/sources/download.py``, the shards' own checksums).

ValueError: the request is wrong (no such file, no access, no such range). ConnectionError: the same
request may succeed later.
"""

import functools
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError

#: How often a request is sent before it counts as failed, and the first pause between two attempts (it doubles).
ATTEMPTS = 6
PAUSE_S = 0.2
#: Seconds without a byte after which a connection counts as cut.
TIMEOUT_S = 60.0

_CONNECT_S = 15.0
#: Longest wait that a busy server may ask for before the next attempt, seconds.
_LONGEST_S = 60
_CONNECTIONS = 32
_CHUNK = 1 << 16
_S3_CHUNK = 1 << 22
#: Statuses of a server that may answer otherwise a little later.
MAY_PASS = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Body:
    """A file as it is sent: from byte `start` on, `size` bytes in whole (None when it is not said), and a `version` that
    changes with the content ("" when there is none)."""

    start: int
    size: int | None
    version: str
    chunks: Iterator[bytes]


class RemoteStore(Protocol):
    """Files under one URL. Safe to use from several threads."""

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Exactly `length` bytes from `start` on; all that follow when `length` is None."""


def is_url(where: object) -> bool:
    """Whether `where` names something that `open_store` opens, rather than a local path."""
    return str(where).startswith(("http://", "https://", "s3://"))


def join(url: str, name: str) -> str:
    """URL of the file `name` under `url`."""
    return f"{url.rstrip('/')}/{name if url.startswith('s3://') else quote(name)}"


def open_store(url: str, headers: Mapping[str, str] | None = None) -> RemoteStore:
    """The files under `url` (http, https, s3); `headers` go with every HTTP request."""
    if not is_url(url):
        raise ValueError(f"{url!r} is no URL that NeuroFM reads; it needs http://, https:// or s3://.")
    return S3Store(url) if url.startswith("s3://") else HttpStore(url, dict(headers or {}))


def fetch(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """What one HTTP URL answers, whole."""
    with _answer("GET", url, {**_PLAIN, **(headers or {})}) as response:
        return response.data


@contextmanager
def stream(url: str, start: int = 0, version: str = "", headers: Mapping[str, str] | None = None) -> Iterator[Body]:
    """The file at `url` from `start` on; from its beginning when it is no longer `version` or parts are not served."""
    if url.startswith("s3://"):
        folder, _, name = url.rpartition("/")
        with S3Store(folder).stream(name, start, version) as body:
            yield body
        return
    with ExitStack() as open_:
        asked = {"Range": f"bytes={start}-", "If-Range": version} if start and version else {}
        try:
            response = open_.enter_context(_answer("GET", url, {**_PLAIN, **(headers or {}), **asked}, preload_content=False))
        except _BeyondTheEndError:  # as much as there is, or more, has been read before
            response = open_.enter_context(_answer("GET", url, {**_PLAIN, **(headers or {})}, preload_content=False))
        begins = start if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        if begins:
            _check_range(url, response, start)
        length = response.headers.get("Content-Length", "")
        yield Body(begins, begins + int(length) if length.isdigit() else None, _version(response), _chunks(url, response))


# ---------------------------------------------------------------- HTTP
_PLAIN = {"Accept-Encoding": "identity"}


@dataclass(frozen=True)
class HttpStore:
    """Files under an HTTP URL; a connection is kept open for each thread that reads."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def size(self, name: str) -> int:
        url = join(self.url, name)
        with _answer("HEAD", url, {**_PLAIN, **self.headers}) as response:
            if not (length := response.headers.get("Content-Length", "")).isdigit():
                raise ValueError(f"{url}: the server does not say how long the file is; use a server that does.")
            return int(length)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        url = join(self.url, name)
        if length == 0:
            return b""
        whole = start == 0 and length is None
        asked = {} if whole else {"Range": f"bytes={start}-{'' if length is None else start + length - 1}"}
        with _answer("GET", url, {**_PLAIN, **self.headers, **asked}) as response:
            if not whole:
                _check_range(url, response, start)
            return _exactly(url, response.data, start, length)


def _version(response: urllib3.BaseHTTPResponse) -> str:
    """What If-Range may be asked with: a strong ETag, else the date of change."""
    etag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag


def _chunks(url: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    with _reaching(url):
        yield from response.stream(_CHUNK, decode_content=False)


def _check_range(url: str, response: urllib3.BaseHTTPResponse, start: int) -> None:
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        raise ValueError(f"{url}: the server does not serve parts of a file; use one that does (nginx, S3), or get the file whole.")
    if not (sent := response.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
        raise ConnectionError(f"{url}: the server sent {sent or 'an unnamed part'} where bytes from {start} on were asked for.")


def _exactly(url: str, data: bytes, start: int, length: int | None) -> bytes:
    if length is not None and len(data) != length:
        raise ValueError(f"{url}: {length} bytes from {start} on were asked for, there are {len(data)}; the file is shorter than expected.")
    return data


class _Attempts(urllib3.Retry):
    """Attempts that wait as long as the server asks for, within reason."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        asked = super().get_retry_after(response)
        return asked if asked is None else min(asked, _LONGEST_S)


@contextmanager
def _answer(method: str, url: str, headers: Mapping[str, str], **more: Any) -> Iterator[urllib3.BaseHTTPResponse]:
    """The server's answer when it is what was asked for; otherwise an error that says what to do."""
    response = send(method, url, headers, ATTEMPTS, MAY_PASS, **more)
    try:
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(url, response.status)
        yield response
    finally:
        response.close()  # else what was not read of a body would stay on a connection that is used again


def send(method: str, url: str, headers: Mapping[str, str], attempts: int, busy: Collection[int], **more: Any) -> urllib3.BaseHTTPResponse:
    """The server's answer, whatever it says, to a request that may be repeated: after a cut, and after one of the `busy` statuses.

    Raises ConnectionError when the last of the attempts gets no answer.
    """
    again = _Attempts(attempts - 1, backoff_factor=PAUSE_S, status_forcelist=busy, allowed_methods=None, raise_on_status=False)
    timeout = urllib3.Timeout(connect=_CONNECT_S, read=TIMEOUT_S)
    with _reaching(url):
        return _pool(_proxy(*urlsplit(url)[:2])).request(method, url, headers=dict(headers), retries=again, timeout=timeout, **more)


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(f"{url} cannot be reached or was cut ({reason}); check the network, then run this again.") from None


class _BeyondTheEndError(ValueError):
    """Bytes were asked for that a file does not have."""


def _refusal(url: str, status: int) -> Exception:
    if status in MAY_PASS:
        return ConnectionError(f"{url}: the server is busy or broken ({status}, {ATTEMPTS} attempts); run this again later.")
    if status in (401, 403):
        return ValueError(f"{url}: access is refused ({status}); check that the keys are set and the data's terms are signed.")
    if status in (404, 410):
        return ValueError(f"{url}: nothing is there ({status}); check the name and the version.")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _BeyondTheEndError(f"{url}: the bytes asked for lie beyond its end ({status}); the file is shorter than expected.")
    return ValueError(f"{url}: the server answers {status} ({HTTPStatus(status).phrase if status in set(HTTPStatus) else 'unknown'}).")


@functools.cache
def _proxy(scheme: str, host: str) -> str:
    """What the environment says, asked once: going through its variables takes longer than many an answer."""
    return "" if proxy_bypass(host) else getproxies().get(scheme, "")


@functools.cache
def _pool(proxy: str) -> urllib3.PoolManager:
    return urllib3.ProxyManager(proxy, maxsize=_CONNECTIONS) if proxy else urllib3.PoolManager(maxsize=_CONNECTIONS)


# ---------------------------------------------------------------- S3
#: Any of these in the environment means that requests are signed.
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


class S3Store:
    """Files under an S3 URL, signed with the keys of the environment where there are any, else anonymous.

    AWS_ENDPOINT_URL names a server other than Amazon's.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._files = functools.lru_cache(maxsize=1024)(self._open)

    @functools.cached_property
    def _system(self) -> Any:
        return _s3_system(urlsplit(self.url).netloc)

    def _open(self, path: str) -> Any:
        """An open file, whose size is then known and whose ranges several threads may read at once."""
        return self._system.open_input_file(path)

    @contextmanager
    def _file(self, name: str) -> Iterator[tuple[str, Any]]:
        url = join(self.url, name)
        with _reading(url):
            yield url, self._files(url.removeprefix("s3://"))

    def size(self, name: str) -> int:
        with self._file(name) as (_, file):
            return int(file.size())

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        with self._file(name) as (url, file):
            return _exactly(url, file.read_at(max(file.size() - start, 0) if length is None else length, start), start, length)

    def entries(self, folder: str) -> list[tuple[str, int | None]]:
        """Names in a folder, sorted: a file with its size, a folder with None."""
        from pyarrow import fs

        url = join(self.url, folder).rstrip("/")
        with _reading(url):
            found = self._system.get_file_info(fs.FileSelector(url.removeprefix("s3://")))
            return sorted((info.base_name, info.size if info.is_file else None) for info in found)

    @contextmanager
    def stream(self, name: str, start: int, version: str) -> Iterator[Body]:
        with self._file(name) as (url, file):
            size = file.size()
            now = f"{size}-{self._system.get_file_info(url.removeprefix('s3://')).mtime_ns}"
        begins = start if version == now else 0
        yield Body(begins, size, now, self._chunks(url, file, begins, size))

    def _chunks(self, url: str, file: Any, start: int, size: int) -> Iterator[bytes]:
        for at in range(start, size, _S3_CHUNK):
            with _reading(url):
                chunk = file.read_at(min(_S3_CHUNK, size - at), at)
            yield chunk


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Errors of pyarrow as those of this module."""
    try:
        yield
    except FileNotFoundError:
        raise _refusal(url, 404) from None
    except ConnectionError:
        raise
    except OSError as error:
        raise _refusal(url, 403) if "ACCESS_DENIED" in str(error) else ConnectionError(f"{url} cannot be read: {error}") from None


def _s3_system(bucket: str) -> Any:
    from pyarrow import fs

    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    signed = any(os.environ.get(key) for key in _KEYS) or (Path.home() / ".aws/credentials").exists()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint.netloc:
        try:
            region = fs.resolve_s3_region(bucket)
        except OSError as error:
            raise ConnectionError(f"s3://{bucket} cannot be found ({error}); check the bucket's name and the network.") from None
    return fs.S3FileSystem(
        anonymous=not signed,
        region=region or "us-east-1",
        scheme=endpoint.scheme or "https",
        endpoint_override=endpoint.netloc or None,
        connect_timeout=_CONNECT_S,
        request_timeout=TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        force_virtual_addressing=os.environ.get("AWS_S3_ADDRESSING_STYLE") == "virtual",
    )
