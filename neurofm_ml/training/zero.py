"""ZeRO-3 (Rajbhandari et al. 2020) by DeepSpeed: weights, gradients and the state of the optimizer lie flat in equal shares.

DeepSpeed gathers a weight for the module that is called, and expects all processes to call the same modules. Ours do so
for their blocks only (see ``strategies``). So what stands outside of blocks is kept whole beside its shares, no hook
watches it, and it takes part in every backward pass, last and in one order.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neurofm_ml.presets import TrainConfig
from neurofm_ml.training.optimizer import adamw
from neurofm_ml.training.sharding import gather_kept
from neurofm_ml.training.strategies import Engine, Objective, Unused, blocks_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def zero_config(cfg: TrainConfig) -> dict[str, Any]:
    """What DeepSpeed is told. Clipping and accumulation are the loop's, so they stand at "none" here.

    Weights stay float32 whatever the precision, as under every strategy; autocast decides what is computed in bfloat16.
    """
    shared = cfg.deepspeed
    return {
        "train_micro_batch_size_per_gpu": cfg.batch_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,
        "torch_autocast": {"enabled": cfg.precision == "bf16-mixed", "dtype": "bfloat16", "lower_precision_safe_modules": []},
        "zero_optimization": {
            "stage": 3,
            "reduce_bucket_size": shared.bucket,
            "stage3_prefetch_bucket_size": shared.bucket,
            "stage3_param_persistence_threshold": shared.keep_whole,
            # Each parameter has a state of its own, with a step count of its own: one that no batch used is not moved.
            "sub_group_size": 1,
        },
    }


class ZeroEngine(Engine):
    """`Engine` under ZeRO-3: `model` is a copy that the processes share out among them."""

    def __init__(self, fabric: "Fabric", model: nn.Module, cfg: TrainConfig) -> None:
        import deepspeed

        deepspeed.utils.logger.setLevel(logging.WARNING)
        self.fabric = fabric
        self.model = copy.deepcopy(model).to(fabric.device)
        self.optimizer = adamw(self.model, cfg)
        objective = Anchored(self.model)
        self._used_by = objective.unused = Unused()
        self._engine = deepspeed.initialize(model=objective, optimizer=self.optimizer, config=zero_config(cfg))[0]
        self._zero = self._engine.optimizer
        for i, (parameter,) in enumerate(self._zero.fp16_groups):
            # DeepSpeed keeps a second copy for weights in half precision; ours are moved in place.
            parameter.zero_moved = self._zero.fp32_partitioned_groups_flat[i] = self._zero.fp16_partitioned_groups_flat[i].requires_grad_()
        self._idle = set[int]()
        self.optimizer.register_step_pre_hook(self._leave_idle)
        self._watch_blocks_only(objective)

    def _watch_blocks_only(self, objective: "Anchored") -> None:
        offload = self._zero.parameter_offload
        for hook in (*offload.forward_hooks, *offload.backward_hooks):
            hook.remove()
        for block in blocks_of(self.model):
            offload._register_deepspeed_module(block)
        for parameter in objective.loose:
            parameter.ds_persist = True  # type: ignore[attr-defined]
        offload.persistent_parameters[:] = [p for p in self.model.parameters() if p.ds_persist]  # type: ignore[attr-defined]
        gather_kept(self.model)

    def backward(self, loss: Callable[[Any], tuple[Tensor, Any]], micro: int, of: int) -> tuple[Tensor, Any]:
        """Add a share of 1 / `of` of a loss's gradient, which the processes exchange at once."""
        total, parts = self._engine(loss)
        self._engine.backward(total / of)
        return total.detach(), parts

    def step(self, rate: float, clip_norm: float) -> Tensor:
        """Move the weights; gives the norm of the gradient before it was clipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._zero.clip_grad = clip_norm
        self._idle = {id(getattr(p, "zero_moved", None)) for p in self._used_by.unused(self.model, self.fabric)}
        self._engine.step()
        # What the next update does not use must not find the gradient of this one.
        self._zero.grad_partitions_flat_buffer.zero_()
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32, device=self.fabric.device)

    def _leave_idle(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """DeepSpeed hands the optimizer one parameter at a time, with a gradient of zeros where no process used it."""
        for share in (p for group in optimizer.param_groups for p in group["params"]):
            if id(share) in self._idle:
                share.grad = None

    @contextmanager
    def usable(self) -> Iterator[nn.Module]:
        """The model so that methods other than `forward` can be called as well: its blocks gather themselves."""
        yield self.model


class Anchored(Objective):
    """An objective that depends on all parameters outside of blocks, whatever a batch uses.

    The anchor is made first, so the backward pass comes to it last: until then none of their gradients is complete,
    and all processes exchange them in the order of `loose`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        inside = {id(p) for block in blocks_of(model) for p in block.parameters()}
        self.loose = [p for p in model.parameters() if id(p) not in inside]

    def forward(self, loss: Callable[[Any], tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        anchor = _Anchor.apply(*(p for p in self.loose if p.requires_grad))
        total, parts = super().forward(loss)
        return total.float() + anchor, parts


class _Anchor(torch.autograd.Function):
    """Zero, with a gradient of zeros for every argument."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(p.new_zeros(()).expand_as(p) for p in ctx.parameters)
