"""Embeddings of identity and place: channels, sessions, points in space.

Shapes: B batch, C channels, D width.
"""

import math

import torch
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """Gaussian random Fourier features of points, (..., n_dims) -> (..., 2 n_features).

    Tancik et al. 2020, "Fourier features let networks learn high frequency functions". The
    frequencies are drawn once from `seed` and stored with the weights.
    """

    frequencies: Tensor

    def __init__(self, n_dims: int, n_features: int, scale: float, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("frequencies", torch.randn(n_dims, n_features, generator=generator) / scale)

    def forward(self, points: Tensor) -> Tensor:
        # By hand: a matrix product in bfloat16 would be off by large parts of a turn.
        phase = 2 * math.pi * (points[..., None] * self.frequencies).sum(-2)
        return torch.cat([phase.sin(), phase.cos()], -1)


class ChannelEmbedding(nn.Module):
    """Who each channel is: a learned row where the vocabulary knows it, else its place in space.

    A new session adds rows and nothing else; a montage or an atlas with coordinates needs none.
    channel_std (n_channels,) is the deviation each row starts with: one over the root of the number
    of channels it is summed with. `scale` is the distance over which neighbours should differ; None:
    channels have no place.
    """

    def __init__(self, channel_std: Tensor, d_model: int, scale: float | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(len(channel_std) + 1, d_model, padding_idx=0)
        with torch.no_grad():
            self.table.weight[1:] *= channel_std[:, None]
        self.place = None if scale is None else nn.Sequential(FourierFeatures(3, 32, scale), nn.Linear(64, d_model))

    def forward(self, ids: Tensor, positions: Tensor | None, channel_mask: Tensor) -> Tensor:
        """ids (B, C), positions (B, C, 3), NaN where there is none, or None, channel_mask (B, C) -> (B, C, D), 0 for padding."""
        known = self.table(ids)
        if positions is None or self.place is None:
            return known
        placed = self.place(positions.nan_to_num()) * channel_mask.sum(1).clamp(min=1).rsqrt()[:, None, None]
        return torch.where((ids > 0)[..., None], known, placed * channel_mask[..., None])
