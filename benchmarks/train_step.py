"""One training update of NeuroFMx against a Transformer and a GRU with as many parameters, on the same batches.

Batches: 100 units in windows of 256 bins, two columns to decode; sixteen windows for size tiny, four for small. An update is
forward pass, squared error, backward pass, clipping and AdamW, float32 and without dropout; on a GPU also in bf16, where the
model FLOPs utilisation of ours is printed. The peers are torch's own: TransformerEncoder (pre-norm, feed-forward of four
widths, as many layers as ours, learned positions) and a bidirectional GRU of two layers, as wide as gives our parameters.
A token is a bin. Models take turns and the median counts; losses after the same updates are printed beside the speed.
`--profile` shows where the time of ours goes. `ratio` = tokens per second of ours / of the faster peer, at size tiny.
"""

import argparse
import bisect
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.training.budget import forward_flops, mfu, peak_of
from neurofm_ml.training.optimizer import adamw
from neurofm_ml.types import Batch, StreamBatch

CHANNELS, BINS, HZ, COLUMNS = 100, 256, 50.0, 2
TASK = "bench/velocity"
VOCABULARY = Vocabulary({"spikes": tuple(f"bench/a/spikes/{i}" for i in range(CHANNELS))}, ("bench/a",), {TASK: COLUMNS})
#: Windows of a batch and turns of each model, the first of which warms up.
WINDOWS = {"tiny": 16, "small": 4}
TURNS = {"tiny": 30, "small": 4}


def make_batch(size: int) -> Batch:
    """Poisson counts of units that are tuned to two smooth columns."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(size, BINS, COLUMNS, generator=generator).cumsum(1) / BINS**0.5
    weights = torch.randn(COLUMNS, CHANNELS, generator=generator)
    counts = torch.poisson((target @ weights * 0.5).exp() * 0.3, generator=generator)
    roots, dt = counts.sqrt(), torch.full((size,), 1 / HZ)
    spikes = StreamBatch(
        modality="spikes",
        values=(roots - roots.mean((0, 1))) / roots.std((0, 1)),
        mask=torch.ones(size, BINS, dtype=torch.bool),
        times=(torch.arange(BINS) / HZ).expand(size, -1),
        t0=torch.zeros(size),
        dt=dt,
        ids=torch.arange(1, CHANNELS + 1).expand(size, -1),
        channel_mask=torch.ones(size, CHANNELS, dtype=torch.bool),
        counts=counts,
    )
    return Batch(
        streams={"spikes": spikes},
        times=((torch.arange(BINS) + 0.5) / HZ).expand(size, -1),
        dt=dt,
        mask=torch.ones(size, BINS, dtype=torch.bool),
        session=torch.ones(size, dtype=torch.long),
        rows=torch.arange(size),
        starts=torch.zeros(size, dtype=torch.float64),
        targets={TASK: target},
    )


class Peer(nn.Module):
    """Units mixed into a width, layers of torch's own over time, a readout."""

    def __init__(self, layers: nn.Module, width: int, out: int) -> None:
        super().__init__()
        self.mix, self.layers, self.out = nn.Linear(CHANNELS, width), layers, nn.Linear(out, COLUMNS)
        self.position = nn.Parameter(torch.zeros(BINS, width))

    def forward(self, batch: Batch) -> Tensor:
        hidden = self.layers(self.mix(batch.streams["spikes"].values) + self.position)
        decoded: Tensor = self.out(hidden[0] if isinstance(hidden, tuple) else hidden)
        return decoded


def transformer(width: int, n_layers: int) -> Peer:
    width = width // 4 * 4
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    return Peer(nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False), width, width)


def gru(width: int, n_layers: int) -> Peer:
    return Peer(nn.GRU(width, width, 2, batch_first=True, bidirectional=True), width, 2 * width)


class Ours(nn.Module):
    """NeuroFMx as a function of a batch."""

    def __init__(self, model: NeuroFMx) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch).behaviour[TASK]


def used(model: nn.Module, batch: Batch) -> int:
    """Parameters that an update moves."""
    model(batch).sum().backward()
    n = sum(p.numel() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    return n


def matched(make: Callable[[int, int], Peer], n_layers: int, wanted: int) -> Peer:
    """The peer whose width comes nearest to `wanted` parameters."""

    def count(width: int) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in make(width, n_layers).parameters())

    widths = range(16, 1537, 2)
    above = bisect.bisect_left(widths, wanted, key=count)
    return make(min(widths[above - 1 : above + 1], key=lambda width: abs(count(width) - wanted)), n_layers)


class Contender:
    """A model with its optimiser."""

    def __init__(self, model: nn.Module, batch: Batch, device: str, autocast: bool) -> None:
        self.model, self.batch, self.device, self.autocast = model.to(device), batch.to(device), device, autocast
        self.optimizer = adamw(model, presets.TrainConfig(lr=1e-3))
        self.seconds: list[float] = []
        self.loss = 0.0

    def update(self) -> None:
        start = time.perf_counter()
        with torch.autocast(self.device, torch.bfloat16) if self.autocast else nullcontext():
            loss = (self.model(self.batch).float() - self.batch.targets[TASK]).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss = loss.item()  # waits for the device
        self.seconds.append(time.perf_counter() - start)


def race(size: str, device: str, autocast: bool) -> dict[str, float]:
    """Tokens per second of each model; prints a table."""
    torch.manual_seed(0)
    cfg, batch = patch(presets.neurofmx(size), {"dropout": 0.0}), make_batch(WINDOWS[size])
    ours = Ours(NeuroFMx(cfg, VOCABULARY))
    n = used(ours, batch)
    models = {"NeuroFMx": ours, "Transformer": matched(transformer, cfg.n_layers, n), "GRU": matched(gru, 2, n)}
    sizes = {name: used(model, batch) for name, model in models.items()}
    contenders = {name: Contender(model, batch, device, autocast) for name, model in models.items()}
    for _ in range(TURNS[size]):
        for contender in contenders.values():
            contender.update()
    tokens = WINDOWS[size] * BINS
    seconds = {name: statistics.median(c.seconds[1:]) for name, c in contenders.items()}
    print(f"\n{size}, {device}{', bf16' if autocast else ''}: {WINDOWS[size]} windows of {BINS} bins")
    print(f"{'model':12s} {'parameters':>11s} {'ms':>9s} {'tokens/s':>10s}  loss after {TURNS[size]} updates")
    for name, c in contenders.items():
        print(f"{name:12s} {sizes[name]:11,d} {seconds[name] * 1e3:9.1f} {tokens / seconds[name]:10,.0f}  {c.loss:.4f}")
    if device == "cuda" and (peak := peak_of(torch.cuda.get_device_name())):
        flops = 3 * WINDOWS[size] * forward_flops(cfg, BINS, CHANNELS)
        print(f"model FLOPs utilisation of NeuroFMx: {mfu(flops, seconds['NeuroFMx'], peak):.1%}")
    return {name: tokens / s for name, s in seconds.items()}


def profile(size: str) -> None:
    """The operations that take the most time of an update of ours."""
    cfg, batch = patch(presets.neurofmx(size), {"dropout": 0.0}), make_batch(WINDOWS[size])
    contender = Contender(Ours(NeuroFMx(cfg, VOCABULARY)), batch, "cpu", autocast=False)
    contender.update()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for _ in range(TURNS[size]):
            contender.update()
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=list(WINDOWS))
    parser.add_argument("--tiny-only", action="store_true", help="seconds, not minutes")
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.profile:
        profile(options.profile)
        return
    sizes = ["tiny"] if options.tiny_only else list(WINDOWS)
    speeds = {size: race(size, "cpu", autocast=False) for size in sizes}
    if torch.cuda.is_available():
        for size in sizes:
            race(size, "cuda", autocast=False)
            race(size, "cuda", autocast=True)
    tiny = speeds["tiny"]
    peer = max(tiny["Transformer"], tiny["GRU"])
    numbers = {"ours": round(tiny["NeuroFMx"]), "peer": round(peer), "ratio": round(tiny["NeuroFMx"] / peer, 3)}
    print(json.dumps({"name": "train_step", **numbers, "unit": "tokens/s"}))


if __name__ == "__main__":
    main()
