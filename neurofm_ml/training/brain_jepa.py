"""Training Brain-JEPA: latents of other parcels, other times and both, predicted from a part of the window.

Shapes: B batch, P patches, C parcels, D width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.gradients import compute_gradients
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.models import BrainJEPA
from neurofm_ml.nn.filling import draw
from neurofm_ml.presets import RECIPES, BrainJEPAPretrainConfig
from neurofm_ml.training.brainlm import mean_square
from neurofm_ml.training.families import FAMILIES, Family
from neurofm_ml.training.history import History
from neurofm_ml.training.loop import LossFunction
from neurofm_ml.types import Batch, Check

#: Least variance of an embedding over windows and times, whose channels have unit size together, and least number of
#: dimensions it must be spread over.
MIN_VARIANCE, MIN_DIMENSIONS = 0.01, 1.5


def build(cfg: BrainJEPAPretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> BrainJEPA:
    """A fresh model that knows the functional gradients of the training windows."""
    torch.manual_seed(cfg.seed)
    model = BrainJEPA(cfg.model, vocabulary)
    model.gradients.fill(compute_gradients(shards, cfg.model.n_gradients), vocabulary)
    return model


def loss(cfg: BrainJEPAPretrainConfig) -> LossFunction:
    """Smooth L1 distance of predicted from target latents, the three kinds of targets alike.

    Its size depends on how much the targets vary; what is logged as "explained" does not: 1 - squared error / variance.

    The target encoder follows before each forward pass: a function of the weights and the progress alone, so that a resumed
    run goes on in the same bits.
    """

    def latent(model: BrainJEPA, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        model.follow((1 - (1 - cfg.momentum) * (1 - progress)) ** (1 / cfg.train.accumulate))
        patches = model.patches(batch)
        seen, asked = spacetime(patches.mask, cfg, generator)
        targets = model.targets(batch, patches)
        scored = torch.stack(list(asked.values())).any(0)
        predicted = model.predict(batch, patches, seen, scored)
        distance = F.smooth_l1_loss(predicted, targets, reduction="none").mean(3)
        parts = {name: (distance * where).sum() / where.sum().clamp(min=1) for name, where in asked.items()}
        spread = dispersion(targets, patches.mask)
        explained = 1 - mean_square(predicted.detach() - targets, scored) / spread["embedding_variance"]
        return torch.stack(list(parts.values())).mean(), {**parts, **spread, "explained": explained}

    return latent


def spacetime(valid: Tensor, cfg: BrainJEPAPretrainConfig, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """What is seen (B, P, C), some parcels during one stretch of time, and what is asked for of the rest, by kind."""
    parcels = draw(valid.any(1), cfg.seen_parcels, generator)[:, None]
    during = stretch(valid.any(2), cfg.seen_time, generator)[:, :, None]
    parts = {"cross_parcel": ~parcels & during, "cross_time": parcels & ~during, "double_cross": ~parcels & ~during}
    asked = {name: part & valid & draw((part & valid).any(1), cfg.asked, generator)[:, None] for name, part in parts.items()}
    return parcels & during & valid, asked


def stretch(valid: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, P) True for contiguous patches, a `share` of those up to the last valid (B, P), at least one, at a random place."""
    patches = torch.arange(valid.shape[1], device=valid.device)
    n = ((patches + 1) * valid).amax(1, keepdim=True)
    length = (share * n).round().clamp(min=1)
    start = (torch.rand(n.shape, generator=generator, device=generator.device) * (n - length + 1)).floor()
    return (patches >= start) & (patches < start + length)


@torch.no_grad()
def dispersion(tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How far embeddings are from collapse: tokens (B, P, C, D), mask (B, P, C).

    Of each parcel, over windows and times, so that knowing where a parcel lies counts for nothing: the variance, mean over
    channels; the mean square covariance of two channels; the number of dimensions over which the variance is spread
    (participation ratio of the eigenvalues, (sum l)^2 / sum l^2).
    """
    flat, valid = tokens.flatten(0, 1).float(), mask.flatten(0, 1)[..., None]
    centred = (flat - (flat * valid).sum(0) / valid.sum(0).clamp(min=1)) * valid
    rows = centred.flatten(0, 1)
    covariance = rows.T @ rows / valid.sum().clamp(min=1)
    d, variances, square = len(covariance), covariance.diagonal(), covariance.square().sum()
    return {
        "embedding_variance": variances.mean(),
        "embedding_covariance": (square - variances.square().sum()) / (d * (d - 1)),
        "embedding_dimensions": variances.sum().square() / square.clamp(min=1e-12),
    }


def checks(history: History) -> tuple[Check, ...]:
    """Whether the embedding still varies, at the end of a run."""
    numbers = {name: history.last(f"embedding_{name}") for name in ("variance", "covariance", "dimensions")}
    fine = numbers["variance"] >= MIN_VARIANCE and numbers["dimensions"] >= MIN_DIMENSIONS
    return (Check("no_collapse", fine, numbers=numbers, threshold=f"variance >= {MIN_VARIANCE:g}, dimensions >= {MIN_DIMENSIONS:g}"),)


FAMILIES.add("brain_jepa", Family(RECIPES["brain_jepa"].modalities, build, loss, shortest_s=lambda cfg: cfg.model.patch_s, checks=checks))
