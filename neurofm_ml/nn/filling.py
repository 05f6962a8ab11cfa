"""Seeing some tokens and filling in others: what masked and latent prediction over parcels share.

Shapes: B batch, N tokens (P patches x C parcels, patch by patch), M tokens of the window with most, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neurofm_ml.nn.attention import Transformer
from neurofm_ml.nn.parcels import PatchEmbedding, Patches
from neurofm_ml.nn.pooling import pooled
from neurofm_ml.types import Latents


@dataclass(frozen=True)
class Chosen:
    """Some of N tokens: index (B, M) of each, mask (B, M) False where a window has fewer."""

    index: Tensor
    mask: Tensor

    def take(self, values: Tensor) -> Tensor:
        """values (B, N, ...) -> (B, M, ...)."""
        return values.gather(1, self._wide(values))

    def put(self, values: Tensor, n: int) -> Tensor:
        """values (B, M, D) back where they were taken: (B, N, D), 0 elsewhere."""
        back = values.new_zeros(values.shape[0], n, values.shape[2])
        return back.scatter_add(1, self._wide(values), values * self.mask[..., None])

    def _wide(self, values: Tensor) -> Tensor:
        extra = values.shape[2:]
        return self.index.view(*self.index.shape, *(1 for _ in extra)).expand(*self.index.shape, *extra)


def choose(keep: Tensor) -> Chosen:
    """The tokens where keep (B, N) is True, in their order."""
    m = max(1, int(keep.sum(1).max()))
    index = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :m]
    return Chosen(index, keep.gather(1, index))


def draw(valid: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, N) True for a random `share` of the valid (B, N) of each window, rounded, at least one."""
    scores = torch.rand(valid.shape, generator=generator, device=generator.device).masked_fill(~valid, 2.0)
    rank = scores.argsort(1).argsort(1)
    return valid & (rank < (share * valid.sum(1, keepdim=True)).round().clamp(min=1))


class ParcelEncoder(nn.Module):
    """Transformer over the tokens of parcels that it is shown."""

    def __init__(self, d_model: int, n_layers: int, n_heads: int, n_samples: int) -> None:
        super().__init__()
        self.embed = PatchEmbedding(n_samples, d_model)
        self.transformer = Transformer(d_model, n_layers, n_heads)

    def forward(self, patches: Patches, who: Tensor, dt: Tensor, keep: Tensor) -> Tensor:
        """who (B, C, D), dt (B,) seconds, keep (B, P, C) -> (B, P, C, D), 0 where a token is not kept."""
        seen = choose(keep.flatten(1))
        tokens = seen.take(self.embed(patches, who, dt).flatten(1, 2))
        latents = self.transformer(tokens, seen.take(patches.token_times), seen.mask)
        return seen.put(latents, keep[0].numel()).unflatten(1, keep.shape[1:])


class Filler(nn.Module):
    """Narrow transformer that makes something of every token asked for, from the latents of those that were seen.

    The decoder of masked autoencoders (He et al. 2022), the predictor of joint-embedding ones (Assran et al. 2023).
    """

    def __init__(self, d_in: int, d_model: int, n_layers: int, n_heads: int, d_out: int) -> None:
        super().__init__()
        self.project = nn.Linear(d_in, d_model)
        self.mask_token = nn.Parameter(torch.zeros(d_model))
        self.transformer = Transformer(d_model, n_layers, n_heads)
        self.head = nn.Linear(d_model, d_out)

    def forward(self, latents: Tensor, who: Tensor, times: Tensor, seen: Tensor, asked: Tensor) -> Tensor:
        """latents (B, P, C, Din), who (B, C, D), times (B, P C) seconds, seen and asked (B, P, C) -> (B, P, C, Dout), of
        meaning where asked."""
        tokens = torch.where(seen[..., None], self.project(latents), self.mask_token) + who[:, None]
        used = choose((seen | asked).flatten(1))
        filled = self.head(self.transformer(used.take(tokens.flatten(1, 2)), used.take(times), used.mask))
        return used.put(filled, asked[0].numel()).unflatten(1, asked.shape[1:])


def latents(tokens: Tensor, patches: Patches) -> Latents:
    """tokens (B, P, C, D) as one latent per patch: the mean over its parcels."""
    return Latents(pooled(tokens, patches.mask), patches.times, patches.mask.any(2))
