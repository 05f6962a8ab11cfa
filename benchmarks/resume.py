"""What it costs to go on late in an epoch: from nothing to the first batch at 1 % of an epoch over that at 99 %.

A cursor is a number and the order a function of it, so the place should not matter (`ratio` near 1). Rows: from a folder,
and over HTTP where every answer waits 20 ms. Places take turns, and the median counts; `ratio` = the worst row's. Printed
too: webdataset, which reads and drops what went before, and whether a resumed stream is exact under changed ranks and
threads.
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset as wds
from shards_read import serving

from neurofm_ml.data.loader import Loader
from neurofm_ml.data.shards import write_manifest, write_shards

SAMPLES = 20_000
BATCH = 64
PLACES = (0.01, 0.99)
TURNS = 9


def write(out: Path, n: int, shape: tuple[int, ...]) -> Path:
    """An artifact of n training windows with one signal "x"."""
    out.mkdir()
    x, keys = np.random.default_rng(0).standard_normal(shape, np.float32), [f"bench-{i:06d}" for i in range(n)]
    written = write_shards(((key, {"x": x + i}) for i, key in enumerate(keys)), out, "train", 5_000_000)
    pq.write_table(pa.table({"key": keys, "split": ["train"] * n}), out / "windows.parquet")
    write_manifest(out, [written], {})
    return out


# ---------------------------------------------------------------- cost
def ours(artifact: Path | str, place: float) -> float:
    """Milliseconds from a fresh Loader to its first batch."""
    start = time.perf_counter()
    loader = Loader([artifact], split="train", batch_size=BATCH, seed=0)
    loader.load_state_dict({**loader.state_dict(), "position": int(place * SAMPLES)})
    next(iter(loader))
    return (time.perf_counter() - start) * 1e3


def theirs(folder: Path, place: float) -> float:
    """The same with webdataset, which has no cursor."""
    start = time.perf_counter()
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    batches = wds.WebDataset(urls, shardshuffle=False).batched(BATCH, collation_fn=list)
    next(itertools.islice(batches, int(place * SAMPLES / BATCH), None))
    return (time.perf_counter() - start) * 1e3


def medians(first_batch: Callable[[float], float], turns: int) -> list[float]:
    """Of each place."""
    found = [[first_batch(place) for place in PLACES] for _ in range(turns)]
    return [statistics.median(times) for times in zip(*found, strict=True)]


# ---------------------------------------------------------------- exactness
def run(
    folder: Path, world: int, threads: int, batches: int, shuffle: bool, state: dict[str, Any] | None
) -> tuple[list[int], dict[str, Any]]:
    """Rows that all ranks see in turn, and where they stand then."""
    options = {"split": "train", "batch_size": 5, "seed": 1, "world": world, "threads": threads, "shuffle": shuffle}
    loaders = [Loader([folder], rank=rank, **options) for rank in range(world)]
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
        for before, after, old, new in itertools.product((1, 2), (1, 2), (0, 1, 4), (0, 1, 4)):
            for stop in (0, n // 10, n // 5 + 2):  # in batches of 10 over both ranks: at the start, amid an epoch, in the next
                head, state = run(folder, before, old, stop * 2 // before, shuffle, None)
                tail, _ = run(folder, after, new, (3 * n - len(head)) // (5 * after), shuffle, state)
                exact += head + tail == whole
                tried += 1
    return exact, tried


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = write(Path(root) / "shards", SAMPLES, (32, 20))
        with serving(Path(root)) as url:
            rows = {
                "ours, folder": medians(lambda place: ours(folder, place), TURNS),
                "ours, HTTP, 20 ms": medians(lambda place: ours(f"{url}/shards", place), TURNS),
                "webdataset, folder": medians(lambda place: theirs(folder, place), 3),
            }
        print(f"{'first batch':24s}{'at 1 %':>12s}{'at 99 %':>12s}{'ratio':>8s}")
        for name, (early, late) in rows.items():
            print(f"{name:24s}{early:9,.1f} ms{late:9,.1f} ms{early / late:8.2f}")
        exact, tried = exact_resumes(write(Path(root) / "small", 60, (2, 2)), 60)
        print(f"exact resumes under changed ranks, threads and stops: {exact} of {tried}")
    early, late = min((times for name, times in rows.items() if name.startswith("ours")), key=lambda times: times[0] / times[1])
    print(json.dumps({"name": "resume", "ours": round(late, 1), "peer": round(early, 1), "ratio": round(early / late, 2), "unit": "ms"}))


if __name__ == "__main__":
    main()
