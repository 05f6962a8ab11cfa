"""Tensors that several processes share out among them, and the same tensors whole.

Under FSDP a weight is a DTensor of which each process holds a slice of the first axis; everything else is the plain
tensor that it looks like. Checkpoints hold whole tensors only, so that they fit any number of processes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensors: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Copies on the CPU of whole tensors; all processes must call it, and those without `keep` get nothing.

    One tensor at a time is gathered, so a device never holds two whole ones.
    """
    found = {}
    for name, tensor in tensors.items():
        gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            found[name] = gathered.detach().to("cpu", copy=True)
    return found


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, which every process has, laid out as `other` is."""
    tensor = tensor.to(other.device)
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None) if isinstance(other, DTensor) else tensor


@torch.no_grad()
def load_whole(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """``model.load_state_dict`` of whole tensors."""
    own = model.state_dict()
    model.load_state_dict({name: like(tensor, own[name]) if name in own else tensor for name, tensor in state.items()})
