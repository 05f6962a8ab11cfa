"""Seconds of CPU that the leakage audit takes per 100,000 windows, against comparing every pair of windows.

Windows of 2 s, 32 channels of EEG at 128 Hz, a second apart, of as many people as there are ten windows; one test window in
fifty is a training window of another person: rescaled, low-passed, some samples later, with a fifth of noise. The peer is
plain numpy: it reads the same tars, and correlates each test window with each training window at every lag by FFT. It is
given the traces that ours keeps of a window (64 samples of 8 series, not 256 of 32), which favours it, and no more to look
for. Both must find every planted window, and nothing else, on what both are run on.

The peer's time for pairs is extrapolated by their number (it grows with the square), the rest of its time and ours by the
number of windows, ours from the largest run. `ratio` = peer / ours at 100,000 windows; the ratio on what both were run on is
printed too, and a hash per window, which finds copies that are equal byte for byte and none of these.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from neurofm_ml.config import to_dict
from neurofm_ml.data.scaler import fit
from neurofm_ml.data.shards import write_manifest, write_shards
from neurofm_ml.evaluation.audit.job import find_leaks
from neurofm_ml.evaluation.audit.traces import read_traces
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.knowledge.cards import SignalSpec, SplitSpec, datasets
from neurofm_ml.presets import SPLITS, AuditConfig, ScalerConfig
from neurofm_ml.types import Array

HZ, SECONDS, N_CHANS, PER_PERSON = 128, 2, 32, 10
TARGET = 100_000
LEAST_R = 0.7


def recorded(seed: int) -> Array:
    """(T, C) of one person: noise that falls with frequency, mixed to the electrodes."""
    rng, n = np.random.default_rng([1, seed]), HZ * (SECONDS + PER_PERSON - 1)
    spectrum = np.fft.rfft(rng.standard_normal((n, N_CHANS)), axis=0) / np.sqrt(np.maximum(np.fft.rfftfreq(n, 1 / HZ), 0.5))[:, None]
    return np.asarray(np.fft.irfft(spectrum, n, axis=0) @ np.random.default_rng(0).standard_normal((N_CHANS, N_CHANS)), np.float32)


def disguised(x: Array, rng: np.random.Generator) -> Array:
    """Ten samples later (new ones come in), means of three samples, another unit, a fifth of noise."""
    later = np.concatenate([x[10:], rng.standard_normal((10, N_CHANS)) * x.std()])
    smooth = (later + np.roll(later, 1, axis=0) + np.roll(later, -1, axis=0)) / 3
    return np.asarray(1e-6 * (smooth + 0.2 * smooth.std(axis=0) * rng.standard_normal(x.shape)), np.float32)


def write(out: Path, n: int) -> tuple[Path, set[tuple[str, str]]]:
    """Shards of n windows, split by person, and the pairs of recordings that share a window."""
    out.mkdir()
    people, rng, planted = n // PER_PERSON, np.random.default_rng(2), set()
    n_train = people * 3 // 4
    rows: list[dict[str, Any]] = []

    def samples(split: str) -> Any:
        for person in range(n_train) if split == "train" else range(n_train, people) if split == "test" else ():
            x = recorded(person)
            for k in range(PER_PERSON):
                key, values = f"w-{person:06d}-{k}", x[k * HZ : (k + SECONDS) * HZ]
                if split == "test" and k == 0 and person % 5 == 0:
                    source = int(rng.integers(n_train))
                    values = disguised(recorded(source)[3 * HZ : (3 + SECONDS) * HZ], rng)
                    planted.add((f"r{source}", f"r{person}"))
                who = {"recording": f"r{person}", "session": "cap", "subject": f"s{person}", "family": None, "site": None}
                rows.append({"key": key, **who, "split": split, "start": float(k), "end": float(k + SECONDS)})
                yield key, {"x": values, "json": {"signals": {"x": {"modality": "eeg", "t0": float(k), "sfreq": float(HZ)}}}}

    written = [write_shards(samples(split), out, split, 50_000_000) for split in SPLITS]
    write_manifest(out, written, {})
    pd.DataFrame(rows).to_parquet(out / "windows.parquet", index=False)
    x = {"modality": "eeg", "sfreq": float(HZ), "ch_names": [f"E{i}" for i in range(N_CHANS)], "positions": None, "unit": "uV"}
    card = dataclasses.replace(
        datasets()["simulation"], signals={"x": SignalSpec(modality="eeg")}, tasks=(), split=SplitSpec(kind="subject"), grid_hz=float(HZ)
    )
    people_of = {row["recording"]: {"subject": {"age": None, "sex": None}} for row in rows}
    for name, content in {"channels": {"cap": {"x": x}}, "card": to_dict(card), "recordings": people_of}.items():
        (out / f"{name}.json").write_text(json.dumps(content))
    return out, planted


# ---------------------------------------------------------------- contenders
def ours(shards: Path, scaler: Path) -> set[tuple[str, str]]:
    return {(f.a.recording, f.b.recording) for f in find_leaks(AuditConfig(), [Used(shards)], [scaler])}


def every_pair(x: Array, y: Array) -> set[tuple[int, int]]:
    """(train, test) windows whose traces x, y (N, T, K) are correlated by LEAST_R at some lag with half of them overlapping."""
    n, t = len(x), x.shape[1]
    lags = np.fft.fftfreq(2 * t, 1 / (2 * t))
    overlap = t - np.abs(lags)
    ahead = np.fft.rfft(x, 2 * t, axis=1).conj()
    power = (x**2).sum((1, 2)) / t
    found = set()
    for j, window in enumerate(y):
        spectrum = np.fft.rfft(window, 2 * t, axis=0)
        product = np.fft.irfft((ahead * spectrum).sum(axis=2), 2 * t, axis=1)
        r = product / np.maximum(overlap, 1) / np.sqrt(power * (window**2).sum() / t)[:, None]
        best = np.where(overlap >= t / 2, r, 0).max(axis=1)
        found |= {(int(i), j) for i in np.flatnonzero(best >= LEAST_R)}
    assert n
    return found


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = function()
    return time.process_time() - start, found


def peer(shards: Path) -> tuple[float, float, set[tuple[str, str]]]:
    """Seconds to read, seconds for all pairs, and what is found."""
    reading, traces = timed(lambda: read_traces(Used(shards))[0])
    train, test = traces.of("train"), traces.of("test")
    comparing, pairs = timed(lambda: every_pair(train.values, test.values))
    names = traces.used.windows.recording.to_numpy()
    return reading, comparing, {(names[train.rows[i]], names[test.rows[j]]) for i, j in pairs}


def hashed(shards: Path) -> int:
    """Windows whose bytes stand in two splits."""
    index = pq.read_table(shards / "index.parquet").to_pandas().query("field == 'x'")
    return int(index.duplicated(["size", "xxh3_64"]).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=1000, help="windows that both are run on")
    parser.add_argument("--large", type=int, default=10_000, help="windows that ours alone is run on")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        for n in (args.small, args.large):
            shards, planted = write(Path(folder) / str(n), n)
            scaler = Path(folder) / f"scaler-{n}"
            scaler.mkdir()
            fit(ScalerConfig(modality="eeg"), [shards], scaler)
            seconds[n], found = timed(lambda shards=shards, scaler=scaler: ours(shards, scaler))
            print(
                f"ours     {n:7d} windows {seconds[n]:8.1f} s   found {len(found & planted)} of {len(planted)}, {len(found - planted)} more"
            )
            if n == args.small:
                reading, comparing, theirs = peer(shards)
                print(
                    f"peer     {n:7d} windows {reading + comparing:8.1f} s   found {len(theirs & planted)} of {len(planted)}, {len(theirs - planted)} more"
                )
                print(f"hashes   {n:7d} windows {timed(lambda shards=shards: hashed(shards))[0]:8.1f} s   found {hashed(shards)}")
                same = found == theirs == planted
    scale = TARGET / args.small
    at_target = {"ours": seconds[args.large] * TARGET / args.large, "peer": reading * scale + comparing * scale**2}
    print(f"at {TARGET} windows (extrapolated): ours {at_target['ours']:.0f} s, peer {at_target['peer']:.0f} s")
    print(f"ratio on {args.small} windows: {(reading + comparing) / seconds[args.small]:.2f}; same answer: {same}")
    ratio = at_target["peer"] / at_target["ours"]
    result = {
        "name": "audit",
        **{k: round(v, 1) for k, v in at_target.items()},
        "ratio": round(ratio, 2),
        "unit": "CPU seconds per 100k windows",
    }
    print(json.dumps(result))
    sys.exit(not same)


if __name__ == "__main__":
    main()
