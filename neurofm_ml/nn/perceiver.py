"""Perceiver fusion onto a time grid: every latent attends to the tokens around its own bin.

Perceiver IO (Jaegle et al. 2021) with latents that have a time: latent k reads, of each modality,
the `context` tokens nearest to its bin (causal: the last ones that ended with the bin or before),
so the sequence keeps its order, the cost is linear in time, and streaming equals the full forward.
Regular tokens are found by arithmetic and are as far from a latent as there are tokens between; events
are found by search and are as far as there are bins between.

Shapes: B batch, T tokens, L latents, K tokens read by one latent, H heads, D width.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm_ml.types import TokenizedSequence

#: Bins to an event that is not there.
FAR = 1e6


class GridFusion(nn.Module):
    """Cross-attention of grid latents to the tokens of any set of modalities."""

    def __init__(self, d_model: int, n_heads: int, context: int, causal: bool) -> None:
        super().__init__()
        self.n_heads, self.context, self.causal = n_heads, context, causal
        self.query = nn.Parameter(torch.zeros(n_heads, d_model // n_heads))
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)
        # Each head starts by reading mostly the nearest token and learns how far to look.
        self.decay = nn.Parameter(torch.linspace(1.0, 3.0, n_heads))

    def forward(self, sequences: Sequence[TokenizedSequence], times: Tensor, grid_dt: Tensor) -> tuple[Tensor, Tensor]:
        """sequences of any modalities; bin centres times (B, L), width grid_dt (B,), seconds -> latents
        (B, L, D), mask (B, L) True where at least one token was there to read."""
        parts = [self._read(s, times, grid_dt) for s in sequences]
        scores, values, valid = (torch.cat(part, 2) for part in zip(*parts, strict=True))
        weights = scores.masked_fill(~valid[..., None], -1e9).softmax(2) * valid[..., None]
        mixed = (weights[..., None] * values).sum(2)
        return self.out(mixed.flatten(2)), valid.any(2)

    def _read(self, sequence: TokenizedSequence, times: Tensor, grid_dt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, L, K, H) and values (B, L, K, H, D / H) of the tokens near each latent, and which exist (B, L, K)."""
        keys, values = self.key_value(sequence.tokens).unflatten(-1, (2, self.n_heads, -1)).unbind(2)
        scores = self._affinity(keys)
        index, distance = (self._near if _is_regular(sequence) else self._near_events)(sequence, times, grid_dt)
        n_tokens = sequence.tokens.shape[1]
        flat = index.clamp(0, n_tokens - 1).flatten(1)
        there = sequence.mask.gather(1, flat).view_as(index) & (index >= 0) & (index < n_tokens)
        near_scores, near_values = (_gather(v, flat).unflatten(1, index.shape[1:]) for v in (scores, values))
        return near_scores - self._penalty(distance), near_values, there

    def _affinity(self, keys: Tensor) -> Tensor:
        """(B, T, H) how much each head wants each token, from keys (B, T, H, D / H)."""
        return (keys * self.query).sum(-1) * self.query.shape[1] ** -0.5

    def _penalty(self, distance: Tensor) -> Tensor:
        """(..., K) -> (..., K, H), or what broadcasts to it."""
        return F.softplus(self.decay) * distance[..., None]

    def _near(self, sequence: TokenizedSequence, times: Tensor, grid_dt: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (B, L, K) of the tokens nearest each latent, which may lie outside, and their distances (K,) in tokens from its own.

        A thousandth of a token absorbs the rounding of float32 times, up to some 10,000 tokens in a window.
        """
        t0, dt = sequence.t0[:, None], sequence.dt[:, None]
        ended = torch.floor((times + grid_dt[:, None] / 2 - t0) / dt + 1e-3) - 1
        own = ended if self.causal else torch.floor((times - t0) / dt + 1e-3)
        offsets = torch.arange(self.context, device=times.device) - (self.context - 1 if self.causal else self.context // 2)
        return own.long()[:, :, None] + offsets, offsets.abs()

    def _near_events(self, sequence: TokenizedSequence, times: Tensor, grid_dt: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (B, L, K) of the events nearest the centre of each bin (causal: the last ones by its end), which may lie
        outside, and their distances (B, L, K) in bins from the centre."""
        later = sequence.mask.flip(1).cumsum(1).flip(1) > 0
        when = sequence.times.masked_fill(~later, math.inf).contiguous()  # padding comes after everything
        sought = times + grid_dt[:, None] / 2 if self.causal else times
        first_after = torch.searchsorted(when, sought.contiguous(), right=True)[..., None]
        reach = torch.arange(-self.context, 0 if self.causal else self.context, device=times.device)
        index = first_after + reach
        inside = (index >= 0) & (index < when.shape[1])
        found = when.gather(1, index.clamp(0, when.shape[1] - 1).flatten(1)).view_as(index)
        distance = ((found - times[..., None]).abs() / grid_dt[:, None, None]).where(inside & found.isfinite(), FAR)
        nearest = distance.topk(self.context, largest=False).indices
        return index.gather(2, nearest), distance.gather(2, nearest)


class GridMean(GridFusion):
    """The ablation of `GridFusion`: the plain mean of the tokens it would attend to, through the same linear layers."""

    def __init__(self, d_model: int, n_heads: int, context: int, causal: bool) -> None:
        super().__init__(d_model, n_heads, context, causal)
        del self.query, self.decay  # what chooses among tokens

    def _affinity(self, keys: Tensor) -> Tensor:
        return torch.zeros_like(keys[..., 0])

    def _penalty(self, distance: Tensor) -> Tensor:
        return torch.zeros_like(distance[..., None])


def _is_regular(sequence: TokenizedSequence) -> bool:
    return torch.compiler.is_exporting() or not bool(sequence.dt.isnan().any())


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """values (B, T, ...), index (B, n) -> (B, n, ...)."""
    shape = index.shape + (1,) * (values.dim() - 2)
    return values.gather(1, index.view(shape).expand(*index.shape, *values.shape[2:]))
