"""The training step of NeuroFMx: corrupt a batch, predict, weigh the objectives.

Shapes: B batch, P patches, C channels, S samples of a patch.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from neurofm_ml.data.augment import augment, drop_modalities, hide
from neurofm_ml.models import NeuroFMx
from neurofm_ml.objectives import OBJECTIVES, Activity, Truth
from neurofm_ml.presets import AugmentConfig
from neurofm_ml.types import Batch

Loss = Callable[[NeuroFMx, Batch, torch.Generator, float], tuple[Tensor, dict[str, Tensor]]]


def weighted_loss(cfg: AugmentConfig, weights: Mapping[str, float]) -> Loss:
    """Loss function for `fit`: the objectives with a positive weight, all read from one corrupted forward pass."""
    objectives = {name: OBJECTIVES[name] for name, weight in weights.items() if weight > 0}

    def loss(model: NeuroFMx, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        batch = drop_modalities(batch, cfg.modality_dropout, generator)
        hidden = {name: hide(_patch_grid(model, batch, name), cfg.time_mask, generator) for name in batch.streams}
        noisy = augment(batch, cfg, generator)
        with_activity = "masked" in objectives
        predicted = model(noisy, hidden, {"activity"} if with_activity else ())
        truth = Truth(batch.targets, predicted.latents.mask, _activity(model, batch, noisy, hidden) if with_activity else {})
        parts = {name: objective(predicted, truth) for name, objective in objectives.items()}
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return total, parts

    return loss


def _patch_grid(model: NeuroFMx, batch: Batch, name: str) -> tuple[int, int]:
    stream = batch.streams[name]
    return stream.values.shape[0], stream.values.shape[1] // model.tokenizer(stream.modality).size(stream)


def _activity(model: NeuroFMx, batch: Batch, noisy: Batch, hidden: Mapping[str, Tensor]) -> dict[str, Activity]:
    """What was not shown: hidden patches of every channel, and dropped channels throughout."""
    truth = {}
    for name, stream in batch.streams.items():
        patches, whole = model.tokenizer(stream.modality).patches(stream)
        dropped = stream.channel_mask & (noisy.streams[name].values == 0).all(1)
        scored = (hidden[name][..., None] | dropped[:, None]) & whole[..., None] & stream.channel_mask[:, None]
        values = patches if stream.counts is None else stream.counts[..., None]
        truth[name] = Activity(values, scored, counts=stream.counts is not None)
    return truth
