"""Hidden states of any encoder, layer by layer, caught on the way through its one forward pass.

What goes into each block is read: into the first, tokens; after the last, latents. A family whose blocks keep sensors or
parcels apart is averaged over those that are there, as its latents are. Nothing is computed twice, and a family needs no
code for this.

Shapes: B windows, L latents, C sensors or parcels, M tokens that a transformer is shown, N layers, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neurofm_ml.nn.filling import ParcelEncoder, choose
from neurofm_ml.nn.pooling import pooled
from neurofm_ml.training.strategies import blocks_of
from neurofm_ml.types import Batch

FIRST, LAST = "tokens", "latents"


@dataclass(frozen=True)
class Hidden:
    """values (B, L, N, D), the last layer being the latents; times (B, L) seconds; mask (B, L) where there is anything."""

    values: Tensor
    times: Tensor
    mask: Tensor

    @property
    def pooled(self) -> Tensor:
        """(B, N, D) mean over the valid latents of each window."""
        return pooled(self.values.transpose(1, 2), self.mask[:, None])

    def on_grid(self, batch: Batch) -> Tensor:
        """(B, T, N, D) on the grid of a batch: of each bin the nearest latent, where latents are of another clock."""
        if self.times.shape == batch.times.shape and torch.equal(self.times, batch.times):
            return self.values
        distance = (batch.times[:, :, None] - self.times[:, None]).abs().masked_fill(~self.mask[:, None], torch.inf)
        nearest = distance.argmin(2)[..., None, None].expand(-1, -1, *self.values.shape[2:])
        return self.values.gather(1, nearest)


def layer_names(n_layers: int) -> tuple[str, ...]:
    """Names of N layers: "tokens", "layer_1", ..., "latents". An encoder without blocks has "latents" alone."""
    between = tuple(f"layer_{i}" for i in range(1, n_layers - 1))
    return (FIRST, *between, LAST) if n_layers > 1 else (LAST,)


@torch.no_grad()
def hidden_states(model: Any, batch: Batch) -> Hidden:
    """What the layers of `model`, in eval mode, hold of a batch."""
    caught = _Caught()
    hooks = [block.register_forward_pre_hook(caught.block) for block in blocks_of(model)]
    hooks += [part.register_forward_pre_hook(caught.parcels) for part in model.modules() if isinstance(part, ParcelEncoder)]
    try:
        latents = model.encode(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return Hidden(torch.stack([*caught.states, latents.values], 2), latents.times, latents.mask)


class _Caught:
    """The inputs (B, L, D) of the blocks that ran, in turn."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self._shown: Tensor | None = None

    def parcels(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Which of the tokens (B, L, C) the blocks of an encoder of parcels are about to be shown."""
        self._shown = args[3]

    def block(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        state, mask = args[0], args[-1]
        if self._shown is not None:  # (B, M, D), in the order of what was shown
            mask = self._shown
            state = choose(mask.flatten(1)).put(state, mask[0].numel()).unflatten(1, mask.shape[1:])
        self.states.append(pooled(state, mask) if state.ndim == 4 else state)
