"""What all objectives share: the truth they compare with, the registry, means over what is scored.

Each objective names the parts of a prediction that it reads as a Protocol of its own, so that any
family's prediction serves that has them.

Shapes: B batch, L latents, P patches, C channels, S samples of a patch, K target columns, H horizons, D width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.registry import Registry


@dataclass(frozen=True)
class Activity:
    """True activity of one signal: values (B, P, C, S), counts or z-scores; scored (B, P, C), where it was not shown;
    there (B, P, C), where it was measured at all, for objectives that score what was shown too."""

    values: Tensor
    scored: Tensor
    counts: bool
    there: Tensor | None = None


@dataclass(frozen=True)
class Target:
    """Latents to predict: values (B, L, D), and the bins that count, scored (B, L)."""

    values: Tensor
    scored: Tensor


#: What a signal beside the neural ones is.
Role = Literal["behaviour", "stimulus"]


@dataclass(frozen=True)
class Truth:
    """What a prediction is compared with; an objective finds nothing to score in what is empty.

    behaviour    task -> (B, L, K), NaN where unknown
    mask         (B, L) of the grid
    activity     signal -> Activity
    latents      Target of latent prediction
    forecast     signal -> Activity with horizons in the place of patches, (B, H, C, S)
    roles        signal beside the neural ones -> what it is
    contrasted   (B, L) bins that are told apart from each other
    temperature  of the products that tell them apart, learned by whoever gives a tensor
    domains      name -> (B,) class of each window, -1 where unknown
    """

    behaviour: Mapping[str, Tensor]
    mask: Tensor
    activity: Mapping[str, Activity]
    latents: Target | None = None
    forecast: Mapping[str, Activity] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    contrasted: Tensor | None = None
    temperature: Tensor | float = 0.1
    domains: Mapping[str, Tensor] = field(default_factory=dict)


Objective = Callable[[Any, Truth], Tensor]
OBJECTIVES: Registry[Objective] = Registry("objective")


def misfit(guess: Tensor, target: Activity, where: Tensor) -> Tensor:
    """Poisson likelihood of counts given log rates, squared error of other values, averaged over `where` (B, P, C).

    The log rate is capped at 8, far above any bin of real counts, so that no step can overflow.
    """
    if target.counts:
        error = F.poisson_nll_loss(guess.clamp(max=8.0), target.values, log_input=True, reduction="none")
    else:
        error = (guess - target.values).square()
    return mean(error, where[..., None].expand_as(error))


def mean(error: Tensor, where: Tensor) -> Tensor:
    """Mean of the entries of `error` that are True in `where`, 0 without any."""
    return (error * where).sum() / where.sum().clamp(min=1)


def average(losses: list[Tensor], truth: Truth) -> Tensor:
    """Mean over signals, tasks or pairs, 0 without any."""
    return torch.stack(losses).mean() if losses else torch.zeros((), device=truth.mask.device)
