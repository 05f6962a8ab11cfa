"""Decoding of behaviour. Shapes: B batch, L latents, K target columns."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from neurofm_ml.objectives.base import OBJECTIVES, Truth, average, mean


class Decoded(Protocol):
    """behaviour: task -> (B, L, K)."""

    @property
    def behaviour(self) -> Mapping[str, Tensor]: ...


@OBJECTIVES.register("behaviour")
def behaviour(predicted: Decoded, truth: Truth) -> Tensor:
    """Mean squared error of every decoded target, over bins where the target is known."""
    losses = []
    for task, target in truth.behaviour.items():
        known = truth.mask[..., None] & target.isfinite()
        losses.append(mean((predicted.behaviour[task] - target.where(known, 0.0)).square(), known))
    return average(losses, truth)
