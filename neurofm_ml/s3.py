"""Objects under one ``s3://`` URL: read, written, listed and deleted by signed requests.

What belongs here: the few requests that artifacts are published with (one that writes only where nothing
is yet, uploads in parts, and the removal of what a killed upload left), and errors that say what to do.
What does not: which object means what (``artifacts.py``), and the reading of data sets and shards, for
which ``remote.S3Store`` knows more kinds of keys.

From the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN where the keys are
temporary, AWS_REGION, AWS_ENDPOINT_URL for a server other than Amazon's, and
AWS_S3_ADDRESSING_STYLE=virtual for one that wants the bucket in its host name (CoreWeave).

ValueError: the request is wrong (no bucket, no access; Gone: no such object). ConnectionError: it may succeed later.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from neurofm_ml import remote
from neurofm_ml.remote import MAY_PASS, send

#: How often a request is sent: a busy store is given about two minutes.
ATTEMPTS = 10
#: Files larger than this are sent and fetched in parts of this size; a server takes 5 MiB to 5 GiB, and 10,000 of them.
PART_BYTES = 32 << 20
MOST_PARTS = 10_000
#: Requests on their way at once; each holds one part in memory.
IN_FLIGHT = 8


class Gone(ValueError):  # noqa: N818 (says what happened, as Preempted does)
    """An object that was asked for is not there."""


class UploadEnded(ConnectionError):  # noqa: N818 (says what happened, as Preempted does)
    """Somebody else ended an upload in parts while it ran."""


@dataclass(frozen=True)
class Keys:
    """Who signs. `token` is "" for keys that do not expire."""

    access: str
    secret: str
    token: str = ""


def keys() -> Keys:
    """The keys of the environment."""
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not access or not secret:
        raise ValueError("AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not set; an object store (NEUROFM_STORE) needs both.")
    return Keys(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""))


def sign(method: str, url: str, headers: Mapping[str, str], body_sha256: str, keys: Keys, region: str, now: float) -> dict[str, str]:
    """`headers` with those that prove, by Signature Version 4, who asks for exactly this.

    `url` has its path and query quoted, the query sorted by name. The server refuses a body with another hash.
    """
    parts, moment = urlsplit(url), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    proven = {**headers, "x-amz-content-sha256": body_sha256, "x-amz-date": moment}
    if keys.token:
        proven["x-amz-security-token"] = keys.token
    lines = dict(sorted((name.lower(), value.strip()) for name, value in {**proven, "host": parts.netloc}.items()))
    names = ";".join(lines)
    request = [method, parts.path or "/", parts.query, *(f"{name}:{value}" for name, value in lines.items()), "", names, body_sha256]
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256("\n".join(request).encode()).hexdigest()])
    key = f"AWS4{keys.secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return {**proven, "Authorization": f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope},SignedHeaders={names},Signature={key.hex()}"}


@dataclass(frozen=True)
class _Answer:
    """What the store said: `code` is its own word for what went wrong, "" when nothing did."""

    status: int
    code: str
    headers: Mapping[str, str]
    data: bytes

    def texts(self, tag: str) -> list[str]:
        """What stands in the elements of this name."""
        return [element.text or "" for element in ElementTree.fromstring(self.data).iterfind(f".//{{*}}{tag}")]


@dataclass(frozen=True)
class ObjectStore:
    """Objects under `url` (``s3://bucket/prefix``), by their name from there on. Safe to use from several threads."""

    url: str

    # ------------------------------------------------------------ reading
    def read(self, name: str) -> bytes | None:
        """A small object, whole; None when there is none."""
        answer = self._ask("GET", name, missing=True)
        return None if answer.code == "NoSuchKey" else answer.data

    def chunks(self, name: str) -> Iterator[bytes]:
        """An object in parts, each asked for by itself."""
        at, size = 0, 1
        while at < size:
            answer = self._ask("GET", name, headers={"Range": f"bytes={at}-{at + PART_BYTES - 1}"})
            if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # an empty object has no first byte
            size = int(answer.headers["Content-Range"].rpartition("/")[2])
            at += len(answer.data)
            yield answer.data

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Bytes of every object whose name begins with `prefix`."""
        found: dict[str, int] = {}
        page = {"list-type": "2", "prefix": self._prefix + prefix}
        while True:
            answer = self._ask("GET", None, page)
            names = (key.removeprefix(self._prefix) for key in answer.texts("Key"))
            found |= dict(zip(names, map(int, answer.texts("Size")), strict=True))
            if not (token := answer.texts("NextContinuationToken")):
                return found
            page["continuation-token"] = token[0]

    # ------------------------------------------------------------ writing
    def write(self, name: str, data: bytes) -> None:
        """Put an object in its place; a reader sees the former or this one, whole."""
        self._ask("PUT", name, body=data)

    def write_first(self, name: str, data: bytes) -> bool:
        """Put an object where there is none; False when somebody was faster.

        It is asked for before and after, since older servers take no condition, or take it and write all the same.
        """
        if (there := self.read(name)) is None:
            answer = self._ask("PUT", name, body=data, headers={"If-None-Match": "*"}, missing=True)
            if answer.code == "NotImplemented":
                self.write(name, data)
            there = self.read(name)
        return there == data  # what was there may be ours, and the answer lost on its way

    def upload(self, files: Mapping[str, Path]) -> None:
        """Put files in their places (name -> file): small ones several at once, large ones in parts."""
        large = {name: path for name, path in files.items() if path.stat().st_size > PART_BYTES}
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="upload") as pool:
            for name, path in large.items():
                self._upload_parts(name, path, pool)
            list(pool.map(lambda name: self.write(name, files[name].read_bytes()), files.keys() - large.keys()))

    def _upload_parts(self, name: str, path: Path, pool: ThreadPoolExecutor) -> None:
        size = path.stat().st_size
        step = max(PART_BYTES, -(-size // MOST_PARTS))
        upload = {"uploadId": self._ask("POST", name, {"uploads": ""}).texts("UploadId")[0]}

        def part(number: int) -> str:
            with path.open("rb") as file:
                file.seek((number - 1) * step)
                return self._ask("PUT", name, {"partNumber": str(number), **upload}, file.read(step)).headers["ETag"]

        try:
            tags = list(pool.map(part, range(1, -(-size // step) + 1)))
            self._complete(name, upload, tags, size)
        except BaseException:
            with suppress(ConnectionError, ValueError):  # what went wrong first is what has to be told
                self._ask("DELETE", name, upload)
            raise

    def _complete(self, name: str, upload: Mapping[str, str], tags: list[str], size: int) -> None:
        parts = "".join(f"<Part><PartNumber>{i}</PartNumber><ETag>{tag}</ETag></Part>" for i, tag in enumerate(tags, 1))
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        answer = self._ask("POST", name, upload, body, missing=True)
        if answer.code == "NoSuchUpload" and self.sizes(name).get(name) != size:  # else it was done, and the answer lost on its way
            raise self._refusal(name, answer)

    def delete(self, names: list[str]) -> None:
        """Remove objects; one that is not there is no mistake."""
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="delete") as pool:
            list(pool.map(lambda name: self._ask("DELETE", name), names))

    def end_uploads(self) -> None:
        """Drop the parts that killed uploads left, of every object under this URL."""
        listed = self._ask("GET", None, {"prefix": self._prefix, "uploads": ""}, missing=True)
        for key, upload in zip(listed.texts("Key"), listed.texts("UploadId"), strict=True):
            self._ask("DELETE", key.removeprefix(self._prefix), {"uploadId": upload}, missing=True)

    # ------------------------------------------------------------ requests
    def _ask(
        self,
        method: str,
        name: str | None,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        missing: bool = False,
    ) -> _Answer:
        """One signed request about an object, or about the bucket when `name` is None.

        With `missing`, the caller looks at answers that are no failure of the store: no such object or upload,
        not under this condition, not known to this server.
        """
        url = _address(self._bucket) + ("/" if name is None else quote(f"/{self._prefix}{name}"))
        if query:
            url = f"{url}?{urlencode(sorted(query.items()), quote_via=quote, safe='')}"
        answer = _once(method, url, headers or {}, body)
        for attempt in range(ATTEMPTS - 1):
            if answer.code not in _SIGN_AGAIN:
                break
            time.sleep(remote.PAUSE_S * 2**attempt)
            answer = _once(method, url, headers or {}, body)
        if answer.code and not (missing and answer.code in _FOR_THE_CALLER):
            raise self._refusal(name or "", answer)
        return answer

    @property
    def _bucket(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def _prefix(self) -> str:
        return f"{self.url.removeprefix('s3://').partition('/')[2].strip('/')}/".lstrip("/")

    def _where(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"

    def _refusal(self, name: str, answer: _Answer) -> Exception:
        where, said = self._where(name), f"{answer.status} {answer.code}"
        if answer.status in (*_AGAIN, HTTPStatus.OK) or answer.code in _SIGN_AGAIN:
            remedy = "set this machine's clock" if answer.code == "RequestTimeTooSkewed" else "run this again later"
            return ConnectionError(f"{where}: the store is busy or broken ({said}, {ATTEMPTS} attempts); {remedy}.")
        if answer.code == "NoSuchUpload":
            return UploadEnded(f"{where}: the upload was ended from outside while it ran; run this again.")
        if answer.code == "NoSuchKey":
            return Gone(f"{where}: nothing is there ({said}).")
        if answer.code == "NoSuchBucket":
            place = os.environ.get("AWS_ENDPOINT_URL") or "Amazon's S3"
            return ValueError(f"{where}: {place} has no bucket {self._bucket!r}; check its name and AWS_ENDPOINT_URL.")
        if answer.status in (401, 403):
            return ValueError(
                f"{where}: access is refused ({said}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do there."
            )
        hint = "; check AWS_REGION" if answer.status < HTTPStatus.BAD_REQUEST or answer.code == "AuthorizationHeaderMalformed" else ""
        return ValueError(f"{where}: the store refuses the request ({said}){hint}.")


#: Statuses that may be others a little later; 409: somebody else writes the same object at this moment.
_AGAIN = (*MAY_PASS, 409)
#: What the store says, as if the request were wrong, to one that came too slowly or signed too long ago (15 minutes).
_SIGN_AGAIN = ("RequestTimeout", "RequestTimeTooSkewed")
#: Answers that some callers can do something about.
_FOR_THE_CALLER = ("NoSuchKey", "NoSuchUpload", "PreconditionFailed", "NotImplemented")


def _once(method: str, url: str, headers: Mapping[str, str], body: bytes) -> _Answer:
    """The answer to a request under one signature."""
    signed = sign(method, url, headers, hashlib.sha256(body).hexdigest(), keys(), _region(), time.time())
    response = send(method, url, signed, ATTEMPTS, _AGAIN, body=body or None, redirect=False)
    return _Answer(response.status, _code(method, response.status, response.data), response.headers, response.data)


def _code(method: str, status: int, data: bytes) -> str:
    """The store's word for what went wrong; an upload may also fail after it was answered with 200."""
    if status < HTTPStatus.MULTIPLE_CHOICES and not (method == "POST" and b"<Error>" in data):
        return ""
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return ""
    try:
        return ElementTree.fromstring(data).findtext("{*}Code") or "unknown"
    except ElementTree.ParseError:
        return "unknown"


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _address(bucket: str) -> str:
    """URL of a bucket."""
    scheme, host, *_ = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{_region()}.amazonaws.com")
    return f"{scheme}://{bucket}.{host}" if os.environ.get("AWS_S3_ADDRESSING_STYLE") == "virtual" else f"{scheme}://{host}/{bucket}"
