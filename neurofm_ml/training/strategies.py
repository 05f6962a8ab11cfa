"""Where a training runs: in one process, in several with a copy each (ddp), in several that share one model out (fsdp; ``zero``).

The layers of a model that stand in an ``nn.ModuleList`` called `blocks` or `backbone`, at any depth, are gathered,
computed again and compiled one by one; a model without them is one block. Shared out, every process must call the same
of them in an update, since a block is gathered when all call it; what else a batch uses may differ.
"""

import copy
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from neurofm_ml.presets import FsdpConfig, TrainConfig
from neurofm_ml.training.optimizer import adamw

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import Strategy
    from lightning_fabric.wrappers import _FabricOptimizer
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")


def rank_and_world(cfg: TrainConfig) -> tuple[int, int]:
    """This process and how many there are, as torchrun says; (0, 1) unless the strategy uses several."""
    if cfg.strategy == "single":
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def launched(cfg: TrainConfig) -> "Fabric":
    """Devices, precision and strategy. Several processes are started by torchrun, never from here."""
    from lightning_fabric import Fabric

    if cfg.strategy == "deepspeed":
        require_deepspeed()
    if cfg.strategy == "single":
        own = [int(os.environ.get("LOCAL_RANK", "0"))] if torch.cuda.is_available() else 1
        return Fabric(devices=own, precision=cfg.precision)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = rank_and_world(cfg)[1] // local
    fabric = Fabric(strategy=_strategy(cfg), devices=local, num_nodes=nodes, precision=cfg.precision)
    fabric.launch()
    return fabric


def require_deepspeed() -> None:
    """Raise ValueError where DeepSpeed is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError("TrainConfig.strategy is 'deepspeed', but DeepSpeed is not installed: pip install deepspeed, or choose 'fsdp'.")


def gathered(fabric: "Fabric", mine: T) -> list[T]:
    """What every process has, in their order: a plain value that pickles."""
    if fabric.world_size == 1:
        return [mine]
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(found, mine)
    return found


def _strategy(cfg: TrainConfig) -> "Strategy":
    from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

    if cfg.strategy == "deepspeed":
        return DDPStrategy()  # it only starts the processes; the rest is DeepSpeed's
    if cfg.strategy == "ddp":
        # A batch may lack a modality, and with it the parameters of that modality's tokenizer.
        return DDPStrategy(find_unused_parameters=True)
    # Shards that lie on the CPU are put together there.
    backend = "cpu:gloo,cuda:nccl" if cfg.fsdp.cpu_offload and torch.cuda.is_available() else None
    parallelize = functools.partial(_shard, cfg=cfg.fsdp)
    return ModelParallelStrategy(parallelize, rank_and_world(cfg)[1], 1, process_group_backend=backend)


def _shard(objective: "Objective", mesh: "DeviceMesh", cfg: FsdpConfig) -> "Objective":
    """Share the model behind `objective` out: each block a unit, and what is left one more."""
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    offload = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if cfg.cpu_offload else OffloadPolicy()
    # None: blocks are freed after their forward pass, but not the rest, which the backward pass begins with.
    keep = None if cfg.shard == "full" else False
    for part in (*blocks_of(objective.model), objective):
        fully_shard(part, mesh=mesh["data_parallel"], reshard_after_forward=keep, offload_policy=offload)
    objective.set_reduce_scatter_unused_params(True)  # type: ignore[operator]  # the class is now an FSDPModule too
    return objective


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The layers in the lists of `model` that are called `blocks` or `backbone`."""
    lists = (part for name, part in model.named_modules() if name.rpartition(".")[2] in ("blocks", "backbone"))
    return [block for part in lists if isinstance(part, nn.ModuleList) for block in part]


class Objective(nn.Module):
    """The model behind one forward call, so that strategy and autocast see whatever the loss does with it.

    `loss` is given the model, and gives a scalar and numbers to log.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unused: Unused | None = None

    def forward(self, loss: Callable[[Any], tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        total, parts = loss(self.model)
        if self.unused:
            self.unused.look(self.model, total)
        return total, parts


class Unused:
    """Which parameters no process has used in an update: they must not be moved by it, as one process would not.

    FSDP exchanges a gradient of zeros for what a process has not used, and knows no difference to a gradient of zero.
    """

    def __init__(self) -> None:
        self._used: list[Tensor] = []

    def look(self, model: nn.Module, total: Tensor) -> None:
        """Note what `total` was computed from. Blocks that are shared out again by now are always used."""
        leaves = _leaves(total)
        used = [isinstance(p, DTensor) or id(p) in leaves for p in model.parameters()]
        self._used.append(torch.tensor(used, device=total.device))

    def unused(self, model: nn.Module, fabric: "Fabric") -> list[nn.Parameter]:
        """The parameters that no process has used since the last call, which is at the end of an update."""
        used = cast(Tensor, fabric.all_reduce(torch.stack(self._used).sum(0), reduce_op="sum"))
        self._used.clear()
        return [parameter for parameter, n in zip(model.parameters(), used.tolist(), strict=True) if not n]


def _leaves(total: Tensor) -> set[int]:
    """The ids of the tensors that `total` was computed from."""
    found, seen, ahead = set[int](), set[Any](), [total.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        ahead += [before for before, _ in node.next_functions]
    return found


class Engine:
    """A model under a strategy, with its optimizer: what one update does to it.

    `model` is the caller's, moved to the device; under fsdp it is a copy that the processes share out among them.
    """

    def __init__(self, fabric: "Fabric", model: nn.Module, cfg: TrainConfig) -> None:
        self.fabric = fabric
        self.model = copy.deepcopy(model) if cfg.strategy == "fsdp" else model
        objective = Objective(self.model)
        self._objective = fabric.setup_module(objective)
        self.optimizer = adamw(self.model, cfg)
        self._stepper = cast("_FabricOptimizer", fabric.setup_optimizers(self.optimizer))
        self._unused = objective.unused = Unused() if cfg.strategy == "fsdp" else None

    def backward(self, loss: Callable[[Any], tuple[Tensor, Any]], micro: int, of: int) -> tuple[Tensor, Any]:
        """Add a share of 1 / `of` of a loss's gradient; processes exchange gradients on the last micro-batch only."""
        with self.fabric.no_backward_sync(self._objective, enabled=micro + 1 < of):
            total, parts = self._objective(loss)
            self.fabric.backward(total / of)
        return total.detach(), parts

    def step(self, rate: float, clip_norm: float) -> Tensor:
        """Move the weights; gives the norm of the gradient before it was clipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._unused:
            for parameter in self._unused.unused(self.model, self.fabric):
                parameter.grad = None
        norm = self.fabric.clip_gradients(self._objective, self._stepper, max_norm=clip_norm, error_if_nonfinite=False)
        self._stepper.step()
        self.optimizer.zero_grad()
        assert norm is not None
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @contextmanager
    def usable(self) -> Iterator[nn.Module]:
        """The model so that methods other than `forward` can be called as well."""
        from torch.distributed.fsdp import FSDPModule

        shared = [part for part in self._objective.modules() if isinstance(part, FSDPModule)]
        for root in shared[:1]:  # blocks gather themselves when they are called
            root.unshard()
        try:
            yield self.model
        finally:
            for part in shared:
                part.reshard()


@contextmanager
def prepared(model: nn.Module, cfg: TrainConfig) -> Iterator[None]:
    """Within, the blocks of `model` are computed again in the backward pass, and compiled, where `cfg` asks for it."""
    blocks = blocks_of(model)
    if cfg.activation_checkpointing and not blocks:
        raise ValueError(
            f"TrainConfig.activation_checkpointing is on, but {type(model).__name__} has no list of layers called `blocks` or "
            "`backbone` to compute again; switch it off."
        )
    changed = (blocks or [model]) if cfg.compile else blocks if cfg.activation_checkpointing else []
    for part in changed:
        forward = torch.compile(part.forward) if cfg.compile else part.forward
        # Outside of what is compiled, since a compiler does not look into a checkpoint that it does not see called.
        vars(part)["forward"] = functools.partial(checkpoint, forward, use_reentrant=False) if cfg.activation_checkpointing else forward
    try:
        yield
    finally:
        for part in changed:
            del vars(part)["forward"]
