"""A small training run for tests of the loop, and processes in which it can be killed."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurofm_ml.presets import TrainConfig
from neurofm_ml.training.checkpoints import save_weights
from neurofm_ml.training.history import History
from neurofm_ml.training.loop import fit

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


class Block(nn.Module):
    """A layer that a strategy may take by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.linear(x).tanh())


class BlockModel(nn.Module):
    """Layers named as blocks, and parameters that make sharing out hard: one number, three rows, frozen ones, and parts that
    are used by no batch (`never`), by batches that begin with a label of 0 (`seldom`), and by all."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 5)
        self.into = nn.Linear(5, 8)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.seldom, self.never = nn.Linear(8, 8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.ones(3, 8), requires_grad=False)
        self.register_buffer("seen", torch.zeros(1))
        self.readout = nn.Linear(8, 2)

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        readout: Tensor = self.readout(self.encode(x, k) * self.scale + self.frozen.mean(0))
        return readout

    def encode(self, x: Tensor, k: Tensor) -> Tensor:
        values: Tensor = self.into(x + self.embedding(k)[:, None])
        for block in self.blocks:
            values = block(values)
        return values + self.seldom(values) if k[0] == 0 else values


def block_model(dropout: float = 0.1) -> BlockModel:
    torch.manual_seed(0)
    model = BlockModel()
    for block in model.blocks:
        block.dropout.p = dropout
    return model


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


def encoded(model: BlockModel) -> dict[str, float]:
    """What a method of the model other than `forward` gives for a fixed batch."""
    assert not model.training
    batch = next(iter(ToyBatches(3)))
    return {"encoded": model.encode(batch.x, batch.k).square().mean().item()}


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
    context.set_forkserver_preload(
        [
            "neurofm_ml.data.loader",
            "neurofm_ml.training.loop",
            "lightning_fabric",
            "matplotlib.figure",
            "torch._dynamo",
            "torch.distributed.fsdp",
        ]
    )
    process = context.Process(target=function, args=args)
    process.start()
    return process


def train(out: Path) -> None:
    one_cpu()
    toy_run(out)


def in_two_processes(function: Callable[..., None], *args: Any) -> None:
    """Run `function` in two processes with the environment that torchrun gives; both must end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pair = [in_process(_one_of_two, rank, port, function, args) for rank in (0, 1)]
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]


def _one_of_two(rank: int, port: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    one_cpu()
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()}, MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="toy")
    function(*args)


def one_cpu() -> None:
    """No GPU and one thread: what is compared bit for bit."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
