"""Closed-loop decoding: what one chunk of 50 ms costs, with carried state, against a full forward over the window.

A causal NeuroFMx of 8 million parameters, all of them on the path from spikes to velocity; 100 units in bins of 20 ms,
so that a chunk holds two or three; batch 1, 1,000 chunks after 50 to warm up, with one thread or two, whichever is faster over
100 chunks; weights in float32 and in bfloat16, which reads half the bytes. The peer is the budget of the closed loop, 5 ms per chunk; the published rival
(POSSM, Ryoo et al. 2025) reports 5.65 ms. Beside it: processor time, which on a busy machine says more than the clock;
the full forward over the last 1, 5 and 20 s, which is what a chunk costs without state; how much both forms differ.

`ratio` = 5 ms / median with bfloat16 weights; the median with float32 is printed beside it.
"""

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.models.neurofmx.streaming import Precision
from neurofm_ml.types import Batch, StreamBatch

UNITS, BIN_S, CHUNK_S, BUDGET_MS = 100, 0.02, 0.05, 5.0
WARM_UP, CHUNKS, WINDOWS_S = 50, 1000, (1.0, 5.0, 20.0)
TASK = "toy/velocity"
SHAPE = {"bidirectional": False, "n_layers": 4, "d_model": 544, "n_heads": 8, "d_state": 16}


def build() -> NeuroFMx:
    vocabulary = Vocabulary({"spikes": tuple(f"toy/a/units/{i}" for i in range(UNITS))}, ("toy/a",), {TASK: 2})
    torch.manual_seed(0)
    return NeuroFMx(patch(presets.neurofmx("small"), SHAPE), vocabulary).eval()


def on_the_path(model: NeuroFMx) -> int:
    """Parameters that decoding spikes reads, without the table of units."""
    parts = (model.fusion, model.backbone, model.norm, model.behaviour)
    return sum(p.numel() for part in parts for p in part.parameters())


def spikes(n: int, t0: float, generator: torch.Generator) -> StreamBatch:
    """n bins of Poisson counts, the first at `t0`, as collate makes them."""
    counts = torch.poisson(torch.full((1, n, UNITS), 0.3), generator=generator)
    return StreamBatch(
        modality="spikes",
        values=counts.sqrt() - 0.25,
        mask=torch.ones(1, n, dtype=torch.bool),
        times=t0 + BIN_S * torch.arange(n)[None],
        t0=torch.tensor([t0]),
        dt=torch.tensor([BIN_S]),
        ids=torch.arange(1, UNITS + 1)[None],
        channel_mask=torch.ones(1, UNITS, dtype=torch.bool),
        counts=counts,
    )


def chunks(n: int) -> list[StreamBatch]:
    """The bins that begin in each of n chunks; their times count from its start."""
    generator = torch.Generator().manual_seed(0)
    firsts = np.ceil(np.round(np.arange(n + 1) * CHUNK_S / BIN_S, 6)).astype(int)
    return [spikes(b - a, a * BIN_S - k * CHUNK_S, generator) for k, (a, b) in enumerate(itertools.pairwise(firsts))]


def window(stream: StreamBatch) -> Batch:
    """A window on the grid of its own bins."""
    n = stream.values.shape[1]
    times = BIN_S * (torch.arange(n)[None] + 0.5)
    one = torch.ones(1, dtype=torch.long)
    there = torch.ones(1, n, dtype=torch.bool)
    targets = {TASK: torch.zeros(1, n, 2)}
    return Batch({"spikes": stream}, times, torch.tensor([BIN_S]), there, one, one, torch.zeros(1, dtype=torch.float64), targets)


class Spent:
    """Milliseconds of runs, by the clock and of processor time."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def run(self, work: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.wall.append(1e3 * (time.perf_counter() - wall))
        self.cpu.append(1e3 * (time.process_time() - cpu))


def streamed(model: NeuroFMx, fed: list[StreamBatch], precision: Precision) -> tuple[Spent, torch.Tensor]:
    """What each chunk cost after warming up, and the velocity decoded from all (1, T, 2)."""
    stream, decoded, spent = model.stream([TASK], torch.ones(1, dtype=torch.long), BIN_S, precision=precision), [], Spent()
    for k, chunk in enumerate(fed):
        work = functools.partial(stream.push, {"spikes": chunk}, CHUNK_S)
        spent.run(lambda work=work: decoded.append(work().behaviour[TASK]))
        if k == WARM_UP - 1:
            spent.wall.clear()
            spent.cpu.clear()
    return spent, torch.cat(decoded, 1)


def choose_threads(model: NeuroFMx, precision: Precision) -> int:
    """One or two, by the median of 100 chunks."""
    medians = {}
    for n in (1, 2):
        torch.set_num_threads(n)
        medians[n] = float(np.median(streamed(model, chunks(WARM_UP + 100), precision)[0].wall))
    best = min(medians, key=medians.__getitem__)
    torch.set_num_threads(best)
    return best


def error(model: NeuroFMx, fed: list[StreamBatch], decoded: torch.Tensor, n: int = 1000) -> float:
    """Relative L2 distance of the first n bins from a full forward over them."""
    whole = dataclasses.replace(spikes(n, 0.0, torch.Generator()), values=torch.cat([chunk.values for chunk in fed], 1)[:, :n])
    with torch.inference_mode():
        reference = model(window(whole)).behaviour[TASK]
    return float((decoded[:, :n] - reference).norm() / reference.norm())


def full_forward(model: NeuroFMx) -> dict[float, float]:
    """Median milliseconds of a forward over windows of some seconds."""
    found = {}
    for length in WINDOWS_S:
        batch, spent = window(spikes(round(length / BIN_S), 0.0, torch.Generator().manual_seed(1))), Spent()
        with torch.inference_mode():
            for _ in range(12):
                spent.run(functools.partial(model, batch))
        found[length] = float(np.median(spent.wall[2:]))
    return found


def measure(model: NeuroFMx, fed: list[StreamBatch], precision: Precision) -> float:
    """Print what a chunk costs; gives the median, milliseconds."""
    threads = choose_threads(model, precision)
    spent, decoded = streamed(model, fed, precision)
    p50, p99 = np.percentile(spent.wall, (50, 99))
    print(f"{precision}, {threads} threads: one chunk: median {p50:.2f} ms, 99 % {p99:.2f} ms, least {min(spent.wall):.2f} ms")
    print(f"  processor time of one chunk: median {np.median(spent.cpu):.2f} ms, least {min(spent.cpu):.2f} ms")
    print(f"  streamed against full forward: relative L2 {error(model, fed, decoded):.1e}")
    return float(p50)


def main() -> None:
    model, fed = build(), chunks(WARM_UP + CHUNKS)
    print(f"{on_the_path(model) / 1e6:.2f} M parameters, {CHUNKS} chunks of {1e3 * CHUNK_S:g} ms, budget {BUDGET_MS:g} ms")
    measure(model, fed, "float32")
    p50 = measure(model, fed, "bfloat16")
    for length, ms in full_forward(model).items():
        print(f"full forward over {length:g} s: {ms:.1f} ms, {ms / p50:.1f} chunks with state")
    print(json.dumps({"name": "streaming", "ours": round(p50, 3), "peer": BUDGET_MS, "ratio": round(BUDGET_MS / p50, 3), "unit": "ms"}))


if __name__ == "__main__":
    main()
