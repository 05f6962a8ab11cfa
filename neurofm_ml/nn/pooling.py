"""Means over what is there."""

from torch import Tensor


def pooled(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid of the second last dimension: tokens (..., N, D), mask (..., N) -> (..., D), 0 where there is none."""
    return (tokens * mask[..., None]).sum(-2) / mask.sum(-1, keepdim=True).clamp(min=1)
