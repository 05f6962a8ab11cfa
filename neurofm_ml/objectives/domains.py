"""Which domain a window comes from, asked of a discriminator that the encoder works against. Shapes: B batch."""

import math
from collections.abc import Mapping
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.objectives.base import OBJECTIVES, Truth, average, mean


class Judged(Protocol):
    """domains: name -> logits (B, n_classes), behind a gradient reversal."""

    @property
    def domains(self) -> Mapping[str, Tensor]: ...


@OBJECTIVES.register("domains")
def domains(predicted: Judged, truth: Truth) -> Tensor:
    """Cross-entropy of the discriminator over windows of a known class (Ganin and Lempitsky 2015): it learns to tell
    domains apart, and through the reversal the latents learn to hide them. It is one player of two: other objectives have
    to say what the latents are for."""
    losses = []
    for name, classes in truth.domains.items():
        known = classes >= 0
        losses.append(mean(F.cross_entropy(predicted.domains[name], classes.where(known, 0), reduction="none"), known))
    return average(losses, truth)


def reversal(progress: float) -> float:
    """Strength of the reversed gradient as training goes from 0 to 1: none while the discriminator is still noise,
    then all of it (Ganin and Lempitsky 2015, section 4, gamma = 10)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1
