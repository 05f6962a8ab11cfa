"""Training BrainLM: hidden patches filled in, or the next one predicted.

Shapes: B batch, P patches, C parcels, S samples of a patch.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.models import BrainLM
from neurofm_ml.nn.filling import draw
from neurofm_ml.presets import RECIPES, BrainLMPretrainConfig
from neurofm_ml.training.families import FAMILIES, Family
from neurofm_ml.training.loop import LossFunction
from neurofm_ml.types import Batch


def build(cfg: BrainLMPretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> BrainLM:
    torch.manual_seed(cfg.seed)
    return BrainLM(cfg.model, vocabulary)


def loss(cfg: BrainLMPretrainConfig) -> LossFunction:
    """Mean squared error of what the encoder did not see; beside it, for comparison, the error of predicting zero, the mean."""

    def masked(model: BrainLM, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        patches = model.patches(batch)
        hidden = draw(patches.mask.flatten(1), cfg.hidden, generator).view_as(patches.mask)
        error = mean_square(model.reconstruct(batch, patches, hidden) - patches.values, hidden)
        return error, {"masked": error, "variance": mean_square(patches.values, hidden)}

    def autoregressive(model: BrainLM, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Also beside it: the error of predicting that nothing changes."""
        patches = model.patches(batch)
        scored, future = patches.mask[:, 1:] & patches.mask[:, :-1], patches.values[:, 1:]
        error = mean_square(model.predict_next(batch, patches) - future, scored)
        still = mean_square(future - patches.values[:, :-1], scored)
        return error, {"next": error, "variance": mean_square(future, scored), "persistence": still}

    return masked if cfg.model.form == "masked" else autoregressive


def mean_square(values: Tensor, where: Tensor) -> Tensor:
    """() mean square of values (B, P, C, S) over the patches where (B, P, C), 0 where there is none."""
    return (values.square().mean(3) * where).sum() / where.sum().clamp(min=1)


FAMILIES.add("brainlm", Family(RECIPES["brainlm"].modalities, build, loss, shortest_s=lambda cfg: cfg.model.patch_s))
