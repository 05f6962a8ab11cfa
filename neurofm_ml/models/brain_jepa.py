"""Brain-JEPA: predicting what a slow twin makes of the parcels and times that were not shown (Dong et al. 2024).

A context encoder, a target encoder that follows it as a moving average, and a narrow predictor. Parcels are placed by
their functional gradients, which are kept with the weights; the target encoder is part of the weights too.

Shapes: B batch, P patches, C parcels, D width.
"""

import copy

import torch
from torch import Tensor, nn

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.nn.filling import Filler, ParcelEncoder, latents
from neurofm_ml.nn.parcels import GradientField, Patches, cut, fmri
from neurofm_ml.presets import BrainJEPAConfig
from neurofm_ml.types import Batch, Latents


class BrainJEPA(nn.Module):
    """`vocabulary` names the parcels without a place. Fresh, it knows no gradients: `training.brain_jepa.build` gives them."""

    Config = BrainJEPAConfig

    def __init__(self, cfg: BrainJEPAConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.cfg, self.vocabulary = cfg, vocabulary
        self.gradients = GradientField(len(vocabulary.channels.get("fmri", ())), cfg.n_gradients)
        self.context = PlacedEncoder(cfg)
        self.target = copy.deepcopy(self.context).requires_grad_(False)
        self.who_predictor = nn.Linear(cfg.n_gradients, cfg.d_predictor)
        self.predictor = Filler(cfg.d_model, cfg.d_predictor, cfg.n_predictor_layers, cfg.n_predictor_heads, cfg.d_model)

    def patches(self, batch: Batch) -> Patches:
        return cut(fmri(batch), self.cfg.patch_s, self.cfg.n_samples)

    @torch.no_grad()
    def follow(self, keep: float) -> None:
        """One step of the target encoder towards the context encoder: it keeps a share of itself."""
        torch._foreach_lerp_(list(self.target.parameters()), list(self.context.parameters()), 1 - keep)

    @torch.no_grad()
    def targets(self, batch: Batch, patches: Patches) -> Tensor:
        """What the target encoder makes of the whole window: (B, P, C, D)."""
        tokens: Tensor = self.target(batch, patches, self.gradients(fmri(batch)), patches.mask)
        return tokens

    def predict(self, batch: Batch, patches: Patches, seen: Tensor, asked: Tensor) -> Tensor:
        """The targets (B, P, C, D) where asked (B, P, C), from what was seen (B, P, C)."""
        where = self.gradients(fmri(batch))
        context = self.context(batch, patches, where, seen)
        return self.predictor(context, self.who_predictor(where), patches.token_times, seen, asked)

    def encode(self, batch: Batch) -> Latents:
        """One latent per patch: the mean over its parcels. By the context encoder, which fine-tuning can change."""
        patches = self.patches(batch)
        return latents(self.context(batch, patches, self.gradients(fmri(batch)), patches.mask), patches)

    def n_parameters(self) -> int:
        """Parameters that are trained: without the target encoder."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class PlacedEncoder(nn.Module):
    """Encoder of parcels that are known by their gradients (B, C, G)."""

    def __init__(self, cfg: BrainJEPAConfig) -> None:
        super().__init__()
        self.who = nn.Linear(cfg.n_gradients, cfg.d_model)
        self.encoder = ParcelEncoder(cfg.d_model, cfg.n_layers, cfg.n_heads, cfg.n_samples)

    def forward(self, batch: Batch, patches: Patches, gradients: Tensor, keep: Tensor) -> Tensor:
        """keep (B, P, C) -> (B, P, C, D), 0 where a token is not kept."""
        tokens: Tensor = self.encoder(patches, self.who(gradients), fmri(batch).dt, keep)
        return tokens
