"""Where the files of an artifact lie: in a folder, or behind a URL that is read by ranges.

What belongs here: how bytes get into memory, and how many requests that takes. What they mean is the
affair of ``shards.py``; connections and attempts are that of ``neurofm_ml.remote``.
"""

from __future__ import annotations

import bisect
import functools
import http.client
import io
import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np

from neurofm_ml.remote import TIMEOUT_S, is_url, join, open_store
from neurofm_ml.types import Array

_OPEN_FILES = 128
#: Requests on their way at once: at 20 ms each that is 1600 a second.
IN_FLIGHT = 32
#: Bytes that nobody asked for are fetched along where they are cheaper than one more request.
GAP_BYTES = 64_000
#: Longest range of one request.
RANGE_BYTES = 4_000_000


#: Memory that bytes are read into.
Buffer = bytearray | memoryview


class Ranges(NamedTuple):
    """Parts of files, in the order in which they will be needed: bytes [start, end) of ``names[file]``, and the number of
    the item that each belongs to; all (n,), none twice."""

    names: Sequence[str]
    item: Array
    file: Array
    start: Array
    end: Array


class Bytes(Protocol):
    """Files whose bytes can be had by place."""

    def read_into(self, name: str, offset: int, parts: Sequence[Buffer]) -> int:
        """Fill writable buffers, in turn, with the bytes from `offset` on; gives how many there were."""


class Store(Bytes, Protocol):
    """The files of one artifact. Threads may share it."""

    remote: bool

    def path(self, name: str) -> str:
        """Where a file lies, for people."""

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Bytes of each file, 0 where there is none."""

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError or ValueError when there is none."""

    def fetch(self, ranges: Ranges) -> Bytes:
        """Something that reads `ranges` fast; other bytes may not be read from it."""


def open_files(artifact: Path | str) -> Store:
    """The files of an artifact in a folder or behind a URL (http, https, s3)."""
    return Site(str(artifact)) if is_url(artifact) else Folder(Path(artifact))


class _OpenFile(io.FileIO):
    """Closed when its last user lets go: a file that left the cache may be in another thread's hands."""

    def __del__(self) -> None:
        self.close()


class Folder:
    """Files on this machine.

    Bytes come by `pread` into the caller's memory: a mapped file would count as resident as a whole, and
    writing into an array would change later reads.
    """

    remote = False

    def __init__(self, folder: Path):
        self.folder = folder
        self._file = functools.lru_cache(maxsize=_OPEN_FILES)(lambda name: _OpenFile(str(folder / name)))

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def sizes(self, names: Sequence[str]) -> list[int]:
        paths = [self.folder / name for name in names]
        return [path.stat().st_size if path.exists() else 0 for path in paths]

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def read_into(self, name: str, offset: int, parts: Sequence[Buffer]) -> int:
        file = self._file(name)  # held until the bytes are here
        return os.preadv(file.fileno(), parts, offset)

    def fetch(self, ranges: Ranges) -> Bytes:
        return self


class Site:
    """Files behind a URL."""

    remote = True

    def __init__(self, url: str):
        self.url = url
        self._store = open_store(url)
        self._straight = _Straight(url) if _is_direct(url) else None
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="ranges")

    def path(self, name: str) -> str:
        return join(self.url, name)

    def sizes(self, names: Sequence[str]) -> list[int]:
        return list(self._pool.map(self._store.size, names))

    def read(self, name: str) -> bytes:
        return self._store.read(name)

    def read_into(self, name: str, offset: int, parts: Sequence[Buffer]) -> int:
        return _scatter(memoryview(self._range(name, offset, sum(map(len, parts)))), parts)

    def fetch(self, ranges: Ranges) -> Bytes:
        """The bytes come in few requests, several at a time, in the order in which they are needed."""
        return Fetched((name, start, self._pool.submit(self._range, name, start, end - start)) for name, start, end in merged(ranges))

    def _range(self, name: str, start: int, length: int) -> bytes:
        data = self._straight.read(self.path(name), start, length) if self._straight else None
        return self._store.read(name, start, length) if data is None else data


def _is_direct(url: str) -> bool:
    """Whether a URL is asked for over HTTP, with no proxy between and no password."""
    parts = urlsplit(url)
    proxied = getproxies().get(parts.scheme) and not proxy_bypass(parts.hostname or "")
    return parts.scheme != "s3" and not proxied and parts.username is None


class _Straight(threading.local):
    """A connection of each thread's own: when all goes well, a range costs a third of what it does with pools and attempts."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def read(self, url: str, start: int, length: int) -> bytes | None:
        """The bytes asked for; None when anything was unusual, and it is better asked again with care."""
        headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        try:
            self._connection.request("GET", urlsplit(url).path, headers=headers)
            response = self._connection.getresponse()
            if response.status == HTTPStatus.PARTIAL_CONTENT and response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                data = response.read()
                return data if len(data) == length else None
        except (OSError, http.client.HTTPException):
            pass
        self._connection.close()
        return None


class Fetched:
    """Parts of remote files that are here or on their way; dropped, it calls off what was not yet asked for."""

    def __init__(self, parts: Iterable[tuple[str, int, Future[bytes]]]):
        self._coming = {(name, start): future for name, start, future in parts}
        self._starts = sorted(self._coming)
        self._here: dict[tuple[str, int], memoryview] = {}

    def read_into(self, name: str, offset: int, parts: Sequence[Buffer]) -> int:
        key = self._starts[bisect.bisect_right(self._starts, (name, offset)) - 1]
        if key not in self._here:
            self._here[key] = memoryview(self._coming[key].result())
        return _scatter(self._here[key][offset - key[1] :], parts)

    def __del__(self) -> None:
        for future in self._coming.values():
            future.cancel()


def merged(ranges: Ranges) -> list[tuple[str, int, int]]:
    """(name, start, end) of requests that hold all of `ranges`, each of them whole, the first needed first.

    Neighbours at most GAP_BYTES apart are one request, which ends with the item that begins less than RANGE_BYTES after
    its start: those of one item are never divided.
    """
    if not len(ranges.file):
        return []
    order = np.lexsort((ranges.start, ranges.file))
    item, file, start, end = (column[order] for column in ranges[1:])
    apart = (np.diff(file) != 0) | (start[1:] - end[:-1] > GAP_BYTES)
    piece = (_firsts(start, apart | (np.diff(item) != 0)) - _firsts(start, apart)) // RANGE_BYTES
    firsts = np.flatnonzero(np.r_[True, apart | (np.diff(piece) != 0)])
    lasts = np.r_[firsts[1:], len(start)] - 1
    found = zip(file[firsts].tolist(), start[firsts].tolist(), end[lasts].tolist(), strict=True)
    requests = [(ranges.names[f], a, b) for f, a, b in found]
    return [requests[i] for i in np.argsort(np.minimum.reduceat(order, firsts), kind="stable")]


def _firsts(values: Array, new: Array) -> Array:
    """(n,) for each value the first of its group; new (n - 1,) is True where a group begins."""
    begins = np.flatnonzero(np.r_[True, new])
    return np.repeat(values[begins], np.diff(np.r_[begins, len(values)]))


def _scatter(data: memoryview, parts: Sequence[Buffer]) -> int:
    """Copy `data` into writable buffers in turn; gives how many bytes went in."""
    at = 0
    for part in parts:
        piece = data[at : at + len(part)]
        part[: len(piece)] = piece
        at += len(piece)
    return at
