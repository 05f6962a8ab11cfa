"""Samples per second written as shards, against webdataset's ShardWriter with the same content.

Ours also hashes every member (xxh3) and every shard (sha256), and writes the index and the manifest; webdataset does
none of it. Rows: one array of 64 x 500 float32 a sample, and five signals with JSON. Contenders take turns, and the
median of the turns counts. `ratio` = the worst row's.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds

from neurofm_ml.data.shards import write_manifest, write_shards

TURNS = 7
SHARD_BYTES = 25_000_000
SAMPLES = 1500


def single(rng: np.random.Generator) -> dict[str, Any]:
    return {"x": rng.standard_normal((64, 500), np.float32)}


def multimodal(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "behaviour": rng.standard_normal((128, 2), np.float32),
        "calcium": rng.standard_normal((32, 80), np.float32),
        "eeg": rng.standard_normal((512, 19), np.float32),
        "fmri": rng.standard_normal((4, 100), np.float32),
        "json": {"recording": "rec", "start": 0.5, "end": 4.5, "grid": {"t0": 0.5, "hz": 8.0, "n": 32}},
        "spikes": rng.poisson(2.0, (32, 60)).astype(np.uint8),
    }


def samples(make: Callable[[np.random.Generator], dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Few distinct samples, again and again: what is measured is writing, not drawing numbers."""
    rng = np.random.default_rng(0)
    distinct = [make(rng) for _ in range(64)]
    return ((f"bench-{i:06d}", distinct[i % 64]) for i in range(SAMPLES))


def ours(given: Iterator[tuple[str, dict[str, Any]]], out: Path) -> None:
    write_manifest(out, [write_shards(given, out, "train", SHARD_BYTES)], {})


def theirs(given: Iterator[tuple[str, dict[str, Any]]], out: Path) -> None:
    with wds.ShardWriter(str(out / "train-%05d.tar"), maxsize=SHARD_BYTES, verbose=0) as writer:
        for key, fields in given:
            writer.write({"__key__": key, **{name if name == "json" else f"{name}.npy": value for name, value in fields.items()}})


def samples_per_second(write: Callable[..., None], make: Callable[[np.random.Generator], dict[str, Any]]) -> float:
    given = samples(make)
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        write(given, Path(out))
        return SAMPLES / (time.perf_counter() - start)


def main() -> None:
    worst: dict[str, Any] = {}
    print(f"{'':24s}{'ours':>12s}{'webdataset':>12s}{'ratio':>8s}   samples/s")
    for row, make in {"64 x 500 float32": single, "five signals and JSON": multimodal}.items():
        turns = [(samples_per_second(ours, make), samples_per_second(theirs, make)) for _ in range(TURNS)]
        mine, peer = (statistics.median(speeds) for speeds in zip(*turns, strict=True))
        print(f"{row:24s}{mine:12,.0f}{peer:12,.0f}{mine / peer:7.2f}x")
        if not worst or mine / peer < worst["ratio"]:
            worst = {"ours": round(mine), "peer": round(peer), "ratio": round(mine / peer, 2)}
    print(json.dumps({"name": "shards_write", **worst, "unit": "samples/s"}))


if __name__ == "__main__":
    main()
