"""Prediction of neural activity: what was hidden, all of it, the next of it. Shapes: B batch, P patches, C channels, S samples."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from neurofm_ml.objectives.base import OBJECTIVES, Truth, average, misfit


class Encoded(Protocol):
    """activity: signal -> (B, P, C, S), log rates for counts."""

    @property
    def activity(self) -> Mapping[str, Tensor]: ...


@OBJECTIVES.register("masked")
def masked(predicted: Encoded, truth: Truth) -> Tensor:
    """Masked modelling: what was not shown. He et al. 2022 (masked autoencoders); Ye and Pandarinath 2021 for
    the likelihood of spikes."""
    return average([misfit(predicted.activity[name], target, target.scored) for name, target in truth.activity.items()], truth)


@OBJECTIVES.register("reconstruction")
def reconstruction(predicted: Encoded, truth: Truth) -> Tensor:
    """All that was measured, from its corrupted form: the denoising autoencoder of Vincent et al. 2008."""
    losses = []
    for name, target in truth.activity.items():
        assert target.there is not None, "reconstruction needs Activity.there"
        losses.append(misfit(predicted.activity[name], target, target.there))
    return average(losses, truth)


@OBJECTIVES.register("next_step")
def next_step(predicted: Encoded, truth: Truth) -> Tensor:
    """Autoregression: all that was measured, each patch from the bins before its own and the first from nothing.

    That the activity was read so is the business of whoever made the prediction.
    """
    return reconstruction(predicted, truth)
