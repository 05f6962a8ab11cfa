"""Contrast of neural activity with behaviour and stimulus: the same moment is near, every other moment is far.

InfoNCE (Oord et al. 2018) in the symmetric form of Radford et al. 2021. Every member may be missing.
Shapes: B batch, L latents, E width of the embedding, N moments.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.objectives.base import OBJECTIVES, Truth, average


class Embedded(Protocol):
    """embedding (B, L, E) and side: signal -> (B, L, E), of length 1, or 0 where nothing was there."""

    @property
    def embedding(self) -> Tensor | None: ...

    @property
    def side(self) -> Mapping[str, Tensor]: ...


@OBJECTIVES.register("contrastive")
def contrastive(predicted: Embedded, truth: Truth) -> Tensor:
    """Neural activity against each other signal by itself."""
    if predicted.embedding is None:
        return average([], truth)
    return average([_contrast(predicted.embedding, predicted.side[name], truth) for name in truth.roles], truth)


@OBJECTIVES.register("trimodal")
def trimodal(predicted: Embedded, truth: Truth) -> Tensor:
    """Neural activity, behaviour and stimulus, each pair of the three against each other (Guzhov et al. 2022).

    A role that several signals play is embedded as their mean direction, of those that are there.
    """
    if predicted.embedding is None:
        return average([], truth)
    played = {role: [predicted.side[name] for name in truth.roles if truth.roles[name] == role] for role in truth.roles.values()}
    members = [predicted.embedding, *(F.normalize(torch.stack(values).sum(0), dim=-1) for values in played.values())]
    return average([_contrast(one, other, truth) for one, other in combinations(members, 2)], truth)


def info_nce(a: Tensor, b: Tensor, temperature: Tensor | float) -> Tensor:
    """Symmetric InfoNCE of two sets (N, E) whose rows of one number belong together; 0 for fewer than two rows."""
    if len(a) < 2:
        return (a.sum() + b.sum()) * 0
    logits = a @ b.T / temperature
    own = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _contrast(one: Tensor, other: Tensor, truth: Truth) -> Tensor:
    """InfoNCE of two members (B, L, E) at the moments that count and that both have."""
    assert truth.contrasted is not None, "contrast needs Truth.contrasted"
    both = truth.contrasted & (one != 0).any(-1) & (other != 0).any(-1)
    return info_nce(one[both], other[both], truth.temperature)
