"""Tensors that several processes share out among them, and the same tensors whole.

Under FSDP a weight is a DTensor of which each process holds a slice of the first axis. Under ZeRO-3 each process holds
an equal share of the flat weight, padded at its end, in the `ds_tensor` of the parameter; some parameters are kept whole
beside it. Everything else is the plain tensor that it looks like. Checkpoints hold whole tensors only, so that they fit
any number of processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor


@dataclass(frozen=True, eq=False)
class Share:
    """This process's share (n,) of a tensor of `shape`; the shares of all processes in their order are the flat tensor."""

    values: Tensor
    shape: torch.Size

    def full_tensor(self) -> Tensor:
        """The whole tensor; all processes must call it."""
        found = [torch.empty_like(self.values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(found, self.values)
        return torch.cat(found)[: self.shape.numel()].view(self.shape)


def flat(parameter: Tensor) -> bool:
    """Whether ZeRO shares the parameter out."""
    return hasattr(parameter, "ds_tensor")


def local(tensor: Any) -> Tensor:
    """What this process holds of a tensor, sharing its memory."""
    if flat(tensor):
        tensor = tensor.ds_tensor
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def moved(parameter: Tensor) -> Tensor:
    """What the optimizer knows a parameter as."""
    return getattr(parameter, "zero_moved", parameter)


def shared(values: Tensor, parameter: Any) -> "Tensor | Share":
    """Values that are laid out as a parameter is."""
    return Share(values, parameter.ds_shape) if flat(parameter) else values


def weights_of(model: nn.Module) -> dict[str, Tensor | Share]:
    """``model.state_dict()``, whatever shares the model out."""
    return {name: shared(local(tensor), tensor) if flat(tensor) else tensor for name, tensor in model.state_dict(keep_vars=True).items()}


def whole(tensors: Mapping[str, Tensor | Share], keep: bool = True) -> dict[str, Tensor]:
    """Copies on the CPU of whole tensors; all processes must call it, and those without `keep` get nothing.

    One tensor at a time is gathered, so a device never holds two whole ones.
    """
    found = {}
    for name, tensor in tensors.items():
        gathered = tensor.full_tensor() if isinstance(tensor, DTensor | Share) else tensor
        if keep:
            found[name] = gathered.detach().to("cpu", copy=True)
    return found


def like(tensor: Tensor, other: Any) -> Tensor:
    """A whole tensor, which every process has, laid out as `other` is."""
    tensor = tensor.to(other.device)
    if flat(other):
        n = other.ds_tensor.numel()
        padded = nn.functional.pad(tensor.flatten(), (0, n * distributed.get_world_size() - tensor.numel()))
        return padded.view(-1, n)[distributed.get_rank()].clone()
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None) if isinstance(other, DTensor) else tensor


@torch.no_grad()
def load_whole(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """``model.load_state_dict`` of whole tensors."""
    own = model.state_dict(keep_vars=True)
    flats = {name for name in state if name in own and flat(own[name])}
    for name in flats:
        local(own[name]).copy_(like(state[name], own[name]))
    others = {name: like(tensor, own[name]) if name in own else tensor for name, tensor in state.items() if name not in flats}
    model.load_state_dict(others, strict=not flats)
    gather_kept(model)


def gather_kept(model: nn.Module) -> None:
    """After shares were written to: what ZeRO keeps whole beside them is gathered anew."""
    kept: list[Any] = [p for p in model.parameters() if getattr(p, "ds_persist", False)]
    if kept:
        kept[0].partition(kept)
        kept[0].all_gather(kept)
