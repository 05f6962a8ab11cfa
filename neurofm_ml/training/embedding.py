"""Contrastive embedding of one recording: bins in which the animal did alike lie close on a sphere.

InfoNCE in which every bin of a batch is a positive of every other, as much as their behaviours are alike (Dufumier et al.
2021; with labels in classes it is Khosla et al. 2020; CEBRA, Schneider et al. 2023, draws one positive instead). All pairs
of a batch are compared in one matrix product, and a batch is made of stretches of neighbouring bins, so that a convolution
is computed once for all bins that share it.

Shapes: T bins, N channels, K behavioural columns, E outputs; a batch has S segments of M bins.
"""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm_ml.presets import EmbeddingConfig
from neurofm_ml.training.schedule import warmup_cosine
from neurofm_ml.types import Array

WARMUP = 0.05


def embed(activity: Array, behaviour: Array, cfg: EmbeddingConfig | None = None, *, seed: int = 0) -> Array:
    """(T, E) embedding of a recording on the unit sphere; `fit_embedding` keeps what was learned for other bins."""
    return fit_embedding(activity, behaviour, cfg, seed=seed).embed(activity)


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """A fitted embedding: the encoder, and mean and deviation (N,) of what it was fitted on."""

    encoder: "Encoder"
    mean: Array
    std: Array

    @torch.no_grad()
    def embed(self, activity: Array) -> Array:
        """Contiguous bins (T, N) of the same channels -> (T, E) on the unit sphere; the ends see their last bin repeated."""
        if activity.ndim != 2 or activity.shape[1] != len(self.mean):
            raise ValueError(f"activity has shape {activity.shape}; this embedding was fitted on (T, {len(self.mean)}).")
        values: Array = self.encoder(self.encoder.padded(_tensor((activity - self.mean) / self.std)[None]))[0].numpy()
        return values


def fit_embedding(activity: Array, behaviour: Array, cfg: EmbeddingConfig | None = None, *, seed: int = 0) -> Embedding:
    """Learn an embedding of `activity` (T, N), contiguous bins, in which bins with like `behaviour` (T, K) are neighbours.

    Counts are best given as their square roots. Bins whose behaviour is NaN are seen but teach nothing; without behaviour give
    the times of the bins (T, 1) and a `bandwidth` of as many deviations of them as neighbours may be apart. The same
    arguments give the same embedding. Raises ValueError where there is too little to learn from.
    """
    cfg = cfg or EmbeddingConfig()
    behaviour = _checked(activity, behaviour, cfg)
    mean, std = activity.mean(0), activity.std(0)
    std = np.where(std > 0, std, 1.0)
    alike = (behaviour - np.nanmean(behaviour, 0)) / np.nanstd(behaviour, 0) / cfg.bandwidth
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        encoder = Encoder(activity.shape[1], cfg)
    _train(encoder, _tensor((activity - mean) / std), _tensor(alike), cfg, torch.Generator().manual_seed(seed))
    return Embedding(encoder.eval(), mean, std)


def _checked(activity: Array, behaviour: Array, cfg: EmbeddingConfig) -> Array:
    """Behaviour (T, K), NaN throughout where a column is unknown."""
    if activity.ndim != 2 or behaviour.ndim != 2 or len(activity) != len(behaviour):
        raise ValueError(f"activity and behaviour need shapes (T, N) and (T, K), got {activity.shape} and {behaviour.shape}.")
    if not np.isfinite(activity).all():
        raise ValueError("activity has NaN or infinite entries; drop or repair them before fitting.")
    if len(activity) < cfg.segment:
        raise ValueError(f"activity has {len(activity)} bins; EmbeddingConfig.segment = {cfg.segment} needs at least as many.")
    known = np.asarray(np.isfinite(behaviour).all(1))
    if known.sum() < 2 or not np.ptp(behaviour[known], axis=0).all():
        raise ValueError("behaviour has a column that is constant or unknown throughout, which teaches nothing; leave it out.")
    return np.where(known[:, None], behaviour, np.nan)


class Encoder(nn.Module):
    """Channels mixed, then residual convolutions over time of doubling reach; (B, M + 2 reach, N) to (B, M, E) of length one."""

    def __init__(self, n_channels: int, cfg: EmbeddingConfig) -> None:
        super().__init__()
        self.mix = nn.Linear(n_channels, cfg.d_model)
        self.layers = nn.ModuleList(nn.Conv1d(cfg.d_model, cfg.d_model, 3, dilation=2**k) for k in range(cfg.n_layers))
        self.out = nn.Linear(cfg.d_model, cfg.n_outputs)
        self.reach = 2**cfg.n_layers - 1

    def padded(self, activity: Tensor) -> Tensor:
        """(B, T, N) with its ends repeated, so that as many bins come out as go in."""
        return F.pad(activity.mT, (self.reach, self.reach), mode="replicate").mT

    def forward(self, activity: Tensor) -> Tensor:
        hidden = self.mix(activity).mT
        for k, layer in enumerate(self.layers):
            hidden = hidden[..., 2**k : -(2**k)] + layer(F.gelu(hidden))
        return F.normalize(self.out(F.gelu(hidden).mT), dim=-1)


def _train(encoder: Encoder, activity: Tensor, behaviour: Tensor, cfg: EmbeddingConfig, generator: torch.Generator) -> None:
    """activity (T, N) z-scored, behaviour (T, K) in bandwidths."""
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    padded = encoder.padded(activity[None])[0]
    bins, seen = torch.arange(cfg.segment), torch.arange(cfg.segment + 2 * encoder.reach)
    for step in range(cfg.steps):
        for group in optimizer.param_groups:
            group["lr"] = cfg.lr * warmup_cosine(step, cfg.steps, WARMUP)
        starts = torch.randint(len(activity) - cfg.segment + 1, (cfg.n_segments, 1), generator=generator)
        shown = _hide_channels(padded[starts + seen], cfg.dropout, generator)
        loss = contrastive_loss(encoder(shown).flatten(0, 1), behaviour[starts + bins].flatten(0, 1), cfg.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _hide_channels(activity: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """(S, M, N) with a share of the channels of each segment at zero, drawn evenly from 0 to `largest`; the rest grows to fill in."""
    share = largest * torch.rand(len(activity), 1, 1, generator=generator)
    kept = torch.rand(len(activity), 1, activity.shape[2], generator=generator) >= share
    return activity * (kept / (1 - share))


def contrastive_loss(embedded: Tensor, behaviour: Tensor, temperature: float) -> Tensor:
    """Cross entropy between how alike embeddings (n, E) of length one and behaviours (n, K), in bandwidths, are.

    Row by row: softmax of the products over the temperature against softmax of -distance^2 / 2, without the diagonal.
    Rows with NaN are left out.
    """
    known = behaviour.isfinite().all(1)
    embedded, behaviour = embedded[known], behaviour[known]
    alone = torch.eye(len(embedded), dtype=torch.bool, device=embedded.device)
    square = behaviour.square().sum(1)
    distance = square[:, None] + square - 2 * behaviour @ behaviour.T
    wanted = (-distance / 2).masked_fill(alone, -torch.inf).softmax(1)
    found = (embedded @ embedded.T / temperature).masked_fill(alone, -1e9).log_softmax(1)
    return -(wanted * found).sum() / max(len(embedded), 1)


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
