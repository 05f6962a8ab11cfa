"""A small training run for tests of the loop, and processes in which it can be killed."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurofm_ml.presets import TrainConfig
from neurofm_ml.training.checkpoints import save_weights
from neurofm_ml.training.loop import History, fit
from neurofm_ml.training.strategies import rank_and_world

CFG = TrainConfig(steps=40, batch_size=4, accumulate=2, log_every=3, checkpoint_every=7, ema=0.9)


@dataclass(frozen=True)
class ToyBatch:
    """Sequences x (B, T, 5), labels k (B,) and targets y (B, T, 2)."""

    x: Tensor
    k: Tensor
    y: Tensor

    def to(self, device: torch.device) -> "ToyBatch":
        return ToyBatch(self.x.to(device), self.k.to(device), self.y.to(device))


class ToyBatches:
    """Batch k holds windows [k * size, (k + 1) * size) of one endless random stream; ranks take turns."""

    def __init__(self, size: int, rank: int = 0, world: int = 1) -> None:
        self.size, self.rank, self.world = size, rank, world
        self.position = 0
        self.served: list[int] = []

    def __iter__(self) -> Iterator[ToyBatch]:
        while True:
            start = self.position + self.rank * self.size
            self.position += self.world * self.size
            self.served += range(start, start + self.size)
            yield ToyBatch(*(torch.stack(parts) for parts in zip(*map(_window, range(start, start + self.size)), strict=True)))

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def _window(row: int) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(row))
    return x, torch.tensor(row % 3), x[:, :2].cumsum(0)


class ToyModel(nn.Module):
    """An embedding, a GRU, a norm, dropout and a readout: one of each kind of parameter."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 5)
        self.gru = nn.GRU(5, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(8, 2)

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        hidden: Tensor = self.gru(x + self.embedding(k)[:, None])[0]
        readout: Tensor = self.readout(self.dropout(self.norm(hidden)))
        return readout


def toy_model(dropout: float = 0.3) -> ToyModel:
    torch.manual_seed(0)
    return ToyModel(dropout)


def noisy_loss(model: nn.Module, batch: ToyBatch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
    noise = torch.randn(batch.x.shape, generator=generator, device=batch.x.device)
    error = (model(batch.x + 0.1 * noise, batch.k) - batch.y).square().mean()
    return error, {"error": error.item(), "progress": progress}


def plain_loss(model: nn.Module, batch: ToyBatch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
    return (model(batch.x, batch.k) - batch.y).square().mean(), {}


def summed(model: nn.Module) -> dict[str, float]:
    return {"weights": sum(p.sum().item() for p in model.parameters())}


def toy_run(out: Path, batches: ToyBatches | None = None) -> History:
    """The run that is killed and resumed: dropout, augmentation, accumulation, validation."""
    model = toy_model()
    history = fit(model, batches or ToyBatches(CFG.batch_size), noisy_loss, CFG, out, seed=3, validate=summed, description="toy")
    save_weights(out, model.state_dict(), {"family": "toy"})
    return history


# ---------------------------------------------------------------- other processes
def in_process(function: Callable[..., None], *args: Any) -> Any:
    """Start `function` in a fresh process, forked from one that has the imports behind it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neurofm_ml.training.loop", "lightning_fabric", "matplotlib.figure", "torch._dynamo", "torch.distributed.fsdp"])
    process = context.Process(target=function, args=args)
    process.start()
    return process


def train(out: Path) -> None:
    _one_cpu()
    toy_run(out)


class DeadlyBatches(ToyBatches):
    """Kills its process at Python call number `count` after the first batch was asked for, wherever that is."""

    def __init__(self, size: int, count: int) -> None:
        super().__init__(size)
        self.count = count

    def __iter__(self) -> Iterator[ToyBatch]:
        left = iter(range(self.count))

        def deadly(*_: Any) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(deadly)
        return super().__iter__()


def train_until_call(out: Path, count: int) -> None:
    _one_cpu()
    toy_run(out, DeadlyBatches(CFG.batch_size, count))


def train_until_sync(out: Path, count: int) -> None:
    """`toy_run`, killed when it is about to make file number `count` durable."""
    _one_cpu()
    fsync, left = os.fsync, iter(range(count - 1))

    def deadly(descriptor: int) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = deadly
    toy_run(out)


def train_one_of_two(rank: int, port: int, out: Path, cfg: TrainConfig) -> None:
    """One process of a run of two, with the environment that torchrun gives."""
    _one_cpu()
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()}, MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="toy")
    fit(toy_model(dropout=0), ToyBatches(cfg.batch_size, *rank_and_world(cfg)), plain_loss, cfg, out, seed=3)


def _one_cpu() -> None:
    """No GPU and one thread: what is compared bit for bit."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
