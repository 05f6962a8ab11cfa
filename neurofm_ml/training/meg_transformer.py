"""Masked pretraining of the MEG transformer."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.models import MEGTransformer
from neurofm_ml.models.merged import merged
from neurofm_ml.presets import RECIPES, MEGTransformerPretrainConfig
from neurofm_ml.training.families import FAMILIES, Family
from neurofm_ml.training.loop import LossFunction
from neurofm_ml.types import Batch


def build(cfg: MEGTransformerPretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> MEGTransformer:
    """A fresh model."""
    torch.manual_seed(cfg.seed)
    return MEGTransformer(cfg.model, vocabulary)


def loss(cfg: MEGTransformerPretrainConfig) -> LossFunction:
    """Squared error of the tokens that were hidden, in deviations of the sensor: 1 is what a guess of 0 gets (He et al. 2022)."""

    def masked(model: MEGTransformer, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        stream = merged(batch, "meg")
        valid, (patches, _) = model.sensors.valid(stream), model.sensors.patches(stream)
        hidden = valid & (torch.rand(valid.shape, generator=generator, device=generator.device) < cfg.hidden)
        guess = model.fill(model.tokens(stream, hidden))
        error = ((guess - patches).square().mean(3) * hidden).sum() / hidden.sum().clamp(min=1)
        return error, {"masked": error}

    return masked


FAMILIES.add("meg_transformer", Family(RECIPES["meg_transformer"].modalities, build, loss))
