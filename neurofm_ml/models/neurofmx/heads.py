"""What NeuroFMx says from its latents: activity, its future, a shared space with behaviour and stimulus, domains.

Shapes: B batch, L latents, P patches, F horizons, C channels, S samples of a patch, K target columns, D width,
E width of the shared space.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm_ml.nn.conditioning import FiLM, reverse_gradient
from neurofm_ml.nn.pooling import pooled
from neurofm_ml.types import Latents

#: What can be asked for besides behaviour, which is always decoded.
HEADS = ("activity", "contrastive", "forecast", "domains")


@dataclass(frozen=True)
class Prediction:
    """What the model says of a batch; what was not asked for is empty.

    behaviour  task -> (B, L, K) z-scored
    activity   signal -> (B, P, C, S), log rates for spikes
    embedding  (B, L, E) of the neural input, of length 1, or 0 where nothing was there
    side       behaviour or stimulus signal -> its embedding (B, L, E), likewise
    forecast   signal -> (B, F, C, S): activity of the patch that begins at each horizon
    domains    "species", "subject" -> (B, n_classes) logits, behind gradient reversal
    """

    latents: Latents
    behaviour: Mapping[str, Tensor]
    activity: Mapping[str, Tensor] = field(default_factory=dict)
    embedding: Tensor | None = None
    side: Mapping[str, Tensor] = field(default_factory=dict)
    forecast: Mapping[str, Tensor] = field(default_factory=dict)
    domains: Mapping[str, Tensor] = field(default_factory=dict)


class ActivityHead(nn.Module):
    """Predicts what each channel does from a latent and who the channel is (a low-rank observation model)."""

    def __init__(self, d_model: int, n_samples: int, n_channels: int) -> None:
        super().__init__()
        self.latent = nn.Linear(d_model, d_model)
        self.weight = nn.Parameter(torch.ones(d_model, n_samples) * d_model**-0.5)
        self.bias_of = nn.Embedding(n_channels + 1, 1)
        nn.init.zeros_(self.bias_of.weight)

    def forward(self, latents: Tensor, who: Tensor, ids: Tensor) -> Tensor:
        """latents (B, P, D), who (B, C, D), ids (B, C) -> (B, P, C, S)."""
        observed = torch.einsum("bcd,ds->bcds", who, self.weight)
        return torch.einsum("bpd,bcds->bpcs", self.latent(latents), observed) + self.bias_of(ids)[:, None]


class ForecastHead(nn.Module):
    """Carries a latent forward by horizons in seconds; one head for all horizons, conditioned by FiLM.

    What comes out is read by the same observation model as the present, so that at the start the forecast is that
    nothing changes.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.horizon = nn.Sequential(nn.Linear(1, d_model), nn.SiLU())
        self.enter = nn.Linear(d_model, d_model)
        self.film = FiLM(d_model, d_model)
        self.leave = nn.Linear(d_model, d_model)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, latent: Tensor, horizon_s: Tensor) -> Tensor:
        """latent (B, D) and horizons (F,) in seconds -> (B, F, D)."""
        moved = self.film(self.enter(latent)[:, None], self.horizon(horizon_s.log()[:, None]))
        return latent[:, None] + self.leave(F.gelu(moved))


class Projection(nn.Module):
    """Into the space that neural activity shares with behaviour and stimulus (InfoNCE; van den Oord et al. 2018)."""

    def __init__(self, d_model: int, d_shared: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.Linear(d_model, d_shared))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """values (B, L, D), mask (B, L) -> (B, L, E) of length 1, 0 outside the mask."""
        return F.normalize(self.project(values), dim=-1) * mask[..., None]


class DomainHead(nn.Module):
    """Tells who was recorded from the mean latent of a window, behind gradient reversal: the latents learn to hide it.

    Ganin et al. 2016, "Domain-adversarial training of neural networks".
    """

    def __init__(self, d_model: int, n_classes: int) -> None:
        super().__init__()
        self.tell = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.Linear(d_model, n_classes))

    def forward(self, latents: Latents, reversal: float) -> Tensor:
        """(B, L, D) latents -> (B, n_classes) logits."""
        logits: Tensor = self.tell(reverse_gradient(pooled(latents.values, latents.mask), reversal))
        return logits
