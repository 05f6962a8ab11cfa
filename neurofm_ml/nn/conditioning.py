"""Conditioning: features modulated by what is known beside them, and features that must not tell a domain apart.

Shapes: D width of the features, K width of the condition.
"""

from typing import Any

import torch
from torch import Tensor, nn


class FiLM(nn.Module):
    """Feature-wise scale and shift read from a condition (Perez et al. 2018); starts out as the identity."""

    def __init__(self, d_condition: int, d_model: int) -> None:
        super().__init__()
        self.modulate = nn.Linear(d_condition, 2 * d_model)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (..., D) and condition (..., K), of shapes that broadcast, to (..., D)."""
        scale, shift = self.modulate(condition).chunk(2, dim=-1)
        return x * (1 + scale) + shift


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """x itself; its gradient is multiplied by -strength (Ganin and Lempitsky 2015): what comes after learns, what comes before unlearns."""
    reversed_: Tensor = _Reverse.apply(x, strength)
    return reversed_
