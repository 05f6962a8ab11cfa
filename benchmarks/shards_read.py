"""Samples per second of the resumable loader against webdataset, on the same warm tars.

Rows: windows of eight signals side by side, stacked; windows of mixed sizes with missing signals, as lists; two of the
eight signals; and the first again over HTTP, where every answer waits 20 ms, for four passes. Ours shuffles and verifies
the checksum of every member that it reads; webdataset does neither, which favours it.

Every row's peer is the fastest webdataset pipeline that we could build: unwanted members skipped, no npy parsing (the
bytes behind the known header are the array), in process or behind DataLoader workers; over HTTP by its own curl or by a
stream in process. Contenders take turns, opening and a pass over all samples each, and the median of the turns counts.
`ratio` = the worst row's. Printed too: `wds.WebDataset(...).decode()`, which most people write.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import re
import socket
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import webdataset as wds
from torch.utils.data import DataLoader
from webdataset.gopen import gopen_schemes

from neurofm_ml.data.loader import Loader
from neurofm_ml.data.shards import write_manifest, write_shards

SAMPLES = 4096
BATCH = 64
TURNS = 3
LATENCY_S = 0.02
NPY_HEADER = 128
#: Four seconds of each signal.
SIGNALS: dict[str, tuple[type[np.generic], tuple[int, int]]] = {
    "calcium": (np.float32, (32, 80)),
    "eeg": (np.float32, (512, 19)),
    "eye": (np.float32, (32, 3)),
    "fmri": (np.float32, (4, 100)),
    "physio": (np.float32, (32, 2)),
    "pose": (np.float32, (32, 8)),
    "spikes": (np.uint8, (32, 60)),
    "task": (np.float32, (32, 1)),
}
SUBSET = ("pose", "spikes")


def fields(i: int, mixed: bool) -> dict[str, Any]:
    """One sample; `mixed`: numbers of cells and units as sessions have them, EEG in two of three."""
    rng = np.random.default_rng(i)
    made: dict[str, Any] = {"json": {"recording": f"rec{i // 100}", "start": i * 0.5, "signals": dict.fromkeys(SIGNALS, "a clock")}}
    for name, (dtype, (n_times, n_chans)) in SIGNALS.items():
        width = n_chans // 2 + i // 16 % n_chans if mixed and name in ("calcium", "spikes") else n_chans
        if not (mixed and name == "eeg" and i % 3 == 0):
            made[name] = (rng.random((n_times, width), np.float32) * 8).astype(dtype)
    return made


def write(out: Path, mixed: bool) -> Path:
    out.mkdir()
    keys = [f"bench-{i:06d}" for i in range(SAMPLES)]
    written = write_shards(((key, fields(i, mixed)) for i, key in enumerate(keys)), out, "train", 25_000_000)
    pq.write_table(pa.table({"key": keys, "split": ["train"] * SAMPLES}), out / "windows.parquet")
    write_manifest(out, [written], {})
    return out


# ---------------------------------------------------------------- contenders
def ours(artifact: Path | str, passes: int = 1, **options: Any) -> Iterable[int]:
    loader = Loader([artifact], split="train", batch_size=BATCH, seed=0, **options)
    return (len(b["__key__"] if isinstance(b, dict) else b) for b in itertools.islice(loader, passes * SAMPLES // BATCH))


def decoded(urls: list[str]) -> Iterable[int]:
    return (len(sample) for sample in wds.WebDataset(urls, shardshuffle=False).decode().batched(BATCH, collation_fn=list))


def array(name: str, payload: bytes) -> np.ndarray:
    dtype, (n_times, _) = SIGNALS[name]
    return np.frombuffer(payload, dtype, offset=NPY_HEADER).reshape(n_times, -1)


class Stacked:
    """From raw samples to a batch of tensors."""

    def __init__(self, names: Collection[str]):
        self.names = names

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.stack([array(name, s[f"{name}.npy"]) for s in samples])) for name in self.names}


def listed(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From raw samples to what they have."""
    found = [{name: array(name, s[f"{name}.npy"]) for name in SIGNALS if f"{name}.npy" in s} for s in samples]
    return [{**f, "json": json.loads(s["json"])} for f, s in zip(found, samples, strict=True)]


class Wanted:
    """Which members of a tar to read."""

    def __init__(self, names: Collection[str]):
        self.endings = tuple(f".{name}.npy" for name in names)

    def __call__(self, member: str) -> bool:
        return member.endswith(self.endings)


def length(batch: Any) -> int:
    return len(batch) if isinstance(batch, list) else len(next(iter(batch.values())))


def as_it_is(batch: Any) -> Any:
    return batch


def fast(urls: list[str], collate: Callable[[list[Any]], Any], names: Collection[str] | None, workers: int, passes: int) -> Iterable[int]:
    dataset = wds.WebDataset(urls, shardshuffle=False, select_files=names and Wanted(names), empty_check=False)
    pipeline = dataset.repeat(passes).batched(BATCH, collation_fn=collate)
    return map(length, DataLoader(pipeline, batch_size=None, num_workers=workers, collate_fn=as_it_is) if workers else pipeline)


def fastest(
    urls: list[str], collate: Callable[[list[Any]], Any], names: Collection[str] | None, how: str = "webdataset", passes: int = 1
) -> dict[str, Callable[[], Iterable[int]]]:
    """The ways to run the fast pipeline."""
    return {f"{how}, {n} workers": partial(fast, urls, collate, names, n, passes) for n in (0, 1, 2)}


# ---------------------------------------------------------------- the server
def serve(folder: Path, tell: Connection) -> None:
    """A server of few words, since it shares the machine with those that it serves: the kernel sends the files."""
    server = socket.create_server(("127.0.0.1", 0))
    tell.send(server.getsockname()[1])
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(connection, folder), daemon=True).start()


def answer(connection: socket.socket, folder: Path) -> None:
    """Requests of one connection in turn, each after the latency."""
    with connection, suppress(ConnectionError):
        while head := request(connection):
            time.sleep(LATENCY_S)
            method, path = head.split(maxsplit=2)[:2]
            asked = re.search(rb"range: bytes=(\d+)-(\d*)", head, re.IGNORECASE)
            with (folder / path.decode().strip("/")).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = int(asked[1]) if asked else 0
                end = int(asked[2]) + 1 if asked and asked[2] else size
                status = b"206 Partial Content" if asked else b"200 OK"
                told = (status, end - start, start, end - 1, size)
                connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % told)
                while method == b"GET" and start < end:
                    start += os.sendfile(connection.fileno(), file.fileno(), start, end - start)


def request(connection: socket.socket) -> bytes:
    """The head of the next request, empty when there is none."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (more := connection.recv(65536)):
            return b""
        head += more
    return head


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """URL of a server of `folder` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe()
    process = context.Process(target=serve, args=(folder, tell), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{told.recv()}"
    process.terminate()
    process.join()


def streamed(url: str, mode: str, bufsize: int) -> Any:
    """How webdataset opens a URL without curl."""
    return urllib.request.urlopen(url.replace("stream:", "http:"))


# ---------------------------------------------------------------- measuring
def samples_per_second(make: Callable[[], Iterable[int]]) -> float:
    start = time.perf_counter()
    seen = sum(make())
    assert seen in (SAMPLES, 4 * SAMPLES)
    return seen / (time.perf_counter() - start)


def rows(folder: Path, url: str) -> dict[str, dict[str, Callable[[], Iterable[int]]]]:
    """Row -> contender -> a pass over all samples; ours are those that start with "ours"."""
    even, mixed = (folder / name for name in ("even", "mixed"))
    local = {name: [str(path) for path in sorted((folder / name).glob("*.tar"))] for name in ("even", "mixed")}
    names = [Path(path).name for path in local["even"]]
    gopen_schemes["stream"] = streamed
    curl, stream = ([f"{base}/even/{name}" for name in names] for base in (url, url.replace("http:", "stream:")))
    return {
        "multimodal": {
            "ours": lambda: ours(even),
            "ours, 2 threads": lambda: ours(even, threads=2),
            "decode()": lambda: decoded(local["even"]),
            **fastest(local["even"], Stacked(SIGNALS), SIGNALS),
        },
        "mixed sizes": {
            "ours": lambda: ours(mixed, collate=list),
            "decode()": lambda: decoded(local["mixed"]),
            **fastest(local["mixed"], listed, None),
        },
        "two of eight signals": {
            "ours": lambda: ours(even, signals=SUBSET),
            **fastest(local["even"], Stacked(SUBSET), SUBSET),
        },
        "HTTP, 20 ms": {
            "ours, 2 threads": lambda: ours(f"{url}/even", passes=4, threads=2),
            **fastest(curl, Stacked(SIGNALS), SIGNALS, "webdataset, curl", passes=4),
            **fastest(stream, Stacked(SIGNALS), SIGNALS, "webdataset, stream", passes=4),
        },
    }


def measure(contenders: dict[str, Callable[[], Iterable[int]]]) -> dict[str, float]:
    """Median samples per second of every contender."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, make in contenders.items():
            speeds[name].append(samples_per_second(make))
    return {name: statistics.median(values) for name, values in speeds.items()}


def main() -> None:
    torch.set_num_threads(1)
    worst: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        write(folder / "even", mixed=False)
        write(folder / "mixed", mixed=True)
        print(f"{'':24s}{'':32s}{'samples/s':>12s}{'to ours':>10s}")
        with serving(folder) as url:
            for row, contenders in rows(folder, url).items():
                speeds = measure(contenders)
                mine = max(speed for name, speed in speeds.items() if name.startswith("ours"))
                peer = max(speed for name, speed in speeds.items() if name.startswith("webdataset"))
                for name, speed in speeds.items():
                    print(f"{row:24s}{name:32s}{speed:12,.0f}{mine / speed:9.1f}x")
                if not worst or mine / peer < worst["ratio"]:
                    worst = {"ours": round(mine), "peer": round(peer), "ratio": round(mine / peer, 2)}
    print(json.dumps({"name": "shards_read", **worst, "unit": "samples/s"}))


if __name__ == "__main__":
    main()
