"""Objectives: what a model is trained for. Each is a function of (prediction, truth) -> scalar loss.

Contract, tested over the registry: finite, with a gradient, smallest where the prediction is the
truth, untouched by padding; 0 when there is nothing to score.

Shapes: B batch, L latents, P patches, C channels, S samples of a patch, K target columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.registry import Registry


class Prediction(Protocol):
    """What objectives read of a model's prediction; `models` says what each holds."""

    @property
    def behaviour(self) -> Mapping[str, Tensor]: ...

    @property
    def activity(self) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class Activity:
    """True activity of one signal: values (B, P, C, S), counts or z-scores, and where to score it (B, P, C)."""

    values: Tensor
    scored: Tensor
    counts: bool


@dataclass(frozen=True)
class Truth:
    """behaviour: task -> (B, L, K), NaN where unknown; mask (B, L) of the grid; activity: signal -> Activity."""

    behaviour: Mapping[str, Tensor]
    mask: Tensor
    activity: Mapping[str, Activity]


Objective = Callable[[Prediction, Truth], Tensor]
OBJECTIVES: Registry[Objective] = Registry("objective")


@OBJECTIVES.register("behaviour")
def behaviour(predicted: Prediction, truth: Truth) -> Tensor:
    """Mean squared error of every decoded target, over bins where the target is known."""
    losses = []
    for task, target in truth.behaviour.items():
        known = truth.mask[..., None] & target.isfinite()
        losses.append(_mean((predicted.behaviour[task] - target.where(known, 0.0)).square(), known))
    return _average(losses, truth)


@OBJECTIVES.register("masked")
def masked(predicted: Prediction, truth: Truth) -> Tensor:
    """Masked modelling: Poisson likelihood of hidden counts, squared error of other hidden values.

    He et al. 2022 (masked autoencoders); Ye and Pandarinath 2021 for the likelihood of spikes. The
    log rate is capped at 8, far above any bin of real counts, so that no step can overflow.
    """
    losses = []
    for name, target in truth.activity.items():
        guess = predicted.activity[name]
        if target.counts:
            error = F.poisson_nll_loss(guess.clamp(max=8.0), target.values, log_input=True, reduction="none")
        else:
            error = (guess - target.values).square()
        losses.append(_mean(error, target.scored[..., None].expand_as(error)))
    return _average(losses, truth)


def _mean(error: Tensor, where: Tensor) -> Tensor:
    return (error * where).sum() / where.sum().clamp(min=1)


def _average(losses: list[Tensor], truth: Truth) -> Tensor:
    return torch.stack(losses).mean() if losses else torch.zeros((), device=truth.mask.device)
