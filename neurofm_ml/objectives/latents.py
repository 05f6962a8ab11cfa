"""Prediction in the space of latents. Shapes: B batch, L latents, D width."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.objectives.base import OBJECTIVES, Truth, average, mean
from neurofm_ml.types import Latents


class Encoding(Protocol):
    """latents: values (B, L, D)."""

    @property
    def latents(self) -> Latents: ...


@OBJECTIVES.register("jepa")
def jepa(predicted: Encoding, truth: Truth) -> Tensor:
    """Smooth L1 distance to target latents, through which no gradient flows (Assran et al. 2023; Baevski et al. 2022)."""
    if truth.latents is None:
        return average([], truth)
    error = F.smooth_l1_loss(predicted.latents.values, truth.latents.values.detach(), reduction="none")
    return mean(error, truth.latents.scored[..., None].expand_as(error))
