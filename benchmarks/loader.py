"""Samples per second of the resumable loader against webdataset, on the same warm tars.

Samples are 64 x 500 float32 in batches of 64. Ours shuffles and verifies the checksum of every
member; webdataset does neither, which favours it. Contenders take turns, a pass over all samples
each, and the median of the turns counts. `ratio` = ours with two threads / `wds.WebDataset(...).decode()`.
Also printed: the fastest webdataset pipeline we could build (no npy parsing: the bytes behind the
known header are the array; in process, or behind DataLoader workers), the first batch after
resuming late in an epoch, and whether resuming is exact under changed ranks and threads.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import webdataset as wds
from torch.utils.data import DataLoader

from neurofm_ml.data.loader import Loader
from neurofm_ml.data.shards import write_manifest, write_shards

SHAPE = (64, 500)
SAMPLES = 3008
BATCH = 64
TURNS = 7
NPY_HEADER = 128


def write(out: Path, n: int, shape: tuple[int, ...]) -> Path:
    """An artifact of n training windows with one signal "x"."""
    out.mkdir()
    rng = np.random.default_rng(0)
    keys = [f"bench-{i:06d}" for i in range(n)]
    members = write_shards(((key, {"x": rng.standard_normal(shape, np.float32)}) for key in keys), out, "train", 50_000_000)
    pq.write_table(pa.table({"key": keys, "split": ["train"] * n}), out / "windows.parquet")
    write_manifest(out, [members], {})
    return out


# ---------------------------------------------------------------- speed
def ours(folder: Path, **options: Any) -> Iterable[torch.Tensor]:
    loader = Loader([folder], split="train", batch_size=BATCH, seed=0, **options)
    return (batch["x"] for batch in itertools.islice(loader, SAMPLES // BATCH))


def decoded(urls: list[str]) -> Iterable[Any]:
    return (batch["x.npy"] for batch in wds.WebDataset(urls, shardshuffle=False).decode().batched(BATCH))


def from_bytes(sample: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(sample["x.npy"], np.float32, offset=NPY_HEADER).reshape(SHAPE)


def stacked(arrays: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays))


def fast(urls: list[str], workers: int) -> Iterable[torch.Tensor]:
    pipeline = wds.WebDataset(urls, shardshuffle=False).map(from_bytes).batched(BATCH, collation_fn=stacked)
    return DataLoader(pipeline, batch_size=None, num_workers=workers) if workers else pipeline


def samples_per_second(batches: Iterable[Any]) -> float:
    start = time.perf_counter()
    seen = sum(len(batch) for batch in batches)
    assert seen == SAMPLES
    return seen / (time.perf_counter() - start)


def measure(folder: Path) -> dict[str, float]:
    """Median samples per second of every contender."""
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    contenders: dict[str, Callable[[], Iterable[Any]]] = {
        "ours": lambda: ours(folder),
        "ours, 2 threads": lambda: ours(folder, threads=2),
        "ours, checksums off": lambda: ours(folder, checksums=False),
        "webdataset .decode()": lambda: decoded(urls),
        "webdataset fast, in process": lambda: fast(urls, 0),
        "webdataset fast, 1 worker": lambda: fast(urls, 1),
        "webdataset fast, 2 workers": lambda: fast(urls, 2),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, make in contenders.items():
            speeds[name].append(samples_per_second(make()))
    return {name: statistics.median(values) for name, values in speeds.items()}


def first_batch_seconds(folder: Path, place: float) -> float:
    """From a fresh Loader to its first batch, resumed at a fraction of the epoch; median."""
    times = []
    for _ in range(TURNS):
        start = time.perf_counter()
        loader = Loader([folder], split="train", batch_size=BATCH, seed=0)
        loader.load_state_dict({**loader.state_dict(), "position": int(place * SAMPLES)})
        next(iter(loader))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# ---------------------------------------------------------------- exactness
def run(
    folder: Path, world: int, threads: int, batches: int, shuffle: bool, state: dict[str, Any] | None
) -> tuple[list[int], dict[str, Any]]:
    """Rows that all ranks see in turn, and where they stand then."""
    loaders = [
        Loader([folder], split="train", batch_size=5, seed=1, rank=rank, world=world, threads=threads, shuffle=shuffle)
        for rank in range(world)
    ]
    if state:
        for loader in loaders:
            loader.load_state_dict(state)
    shares = [[batch["__row__"].tolist() for batch in itertools.islice(loader, batches)] for loader in loaders]
    return [row for turn in zip(*shares, strict=True) for share in turn for row in share], loaders[0].state_dict()


def exact_resumes(folder: Path, n: int) -> tuple[int, int]:
    """(exact, tried): stop, resume with other ranks and threads, compare three epochs with the uninterrupted run."""
    exact = tried = 0
    for shuffle in (True, False):
        whole, _ = run(folder, 1, 1, 3 * n // 5, shuffle, None)
        epochs = [sorted(whole[i : i + n]) for i in range(0, 3 * n, n)]
        assert epochs == 3 * [list(range(n))]
        for before, after, old, new in itertools.product((1, 2), (1, 2), (1, 2, 4), (1, 2, 4)):
            for stop in (0, n // 10, n // 5 + 2):  # in batches of 10 over both ranks: at the start, amid an epoch, in the next
                head, state = run(folder, before, old, stop * 2 // before, shuffle, None)
                tail, _ = run(folder, after, new, (3 * n - len(head)) // (5 * after), shuffle, state)
                exact += head + tail == whole
                tried += 1
    return exact, tried


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        folder = write(Path(root) / "speed", SAMPLES, SHAPE)
        speeds = measure(folder)
        mine = speeds["ours, 2 threads"]
        peer, fastest = speeds["webdataset .decode()"], max(v for name, v in speeds.items() if "fast" in name)
        print(f"{'':30s}{'samples/s':>12s}{'MB/s':>8s}{'of decode':>12s}")
        for name, speed in speeds.items():
            print(f"{name:30s}{speed:12,.0f}{speed * np.prod(SHAPE) * 4 / 1e6:8,.0f}{speed / peer:11.1f}x")
        print(f"ours with 2 threads / fastest webdataset with up to 2 workers: {mine / fastest:.2f}x")
        print(
            f"first batch: {first_batch_seconds(folder, 0) * 1e3:.1f} ms at 0 %, {first_batch_seconds(folder, 0.99) * 1e3:.1f} ms at 99 %"
        )
        exact, tried = exact_resumes(write(Path(root) / "resume", 60, (2, 2)), 60)
        print(f"exact resumes under changed ranks, threads and stops: {exact} of {tried}")
    result = {"name": "loader", "ours": round(mine), "peer": round(peer), "ratio": round(mine / peer, 2), "unit": "samples/s"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
