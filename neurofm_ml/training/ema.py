"""The moving average of the weights that training exports."""

import copy

import torch
from torch import nn


class Ema:
    """A second model whose weights follow the first: ``ema <- decay * ema + (1 - decay) * weights`` per update.

    It starts as a copy. Buffers are taken over as they are, since they are already statistics.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the weights of `model`."""
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - self.decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
