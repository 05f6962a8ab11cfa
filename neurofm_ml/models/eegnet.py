"""EEGNet (Lawhern et al. 2018, J Neural Eng 15:056013): a small convolutional network for any cap at any sampling rate.

Its filters run on a clock of their own, to which every window is brought. A spatial filter has one weight for each
electrode of the vocabulary; electrodes that are known by their place have weights that are a function of it.
What is padded, in time or among channels, is 0 between all layers and has no part in any statistic.

Shapes: B batch, T samples of the network's clock, C channels, F temporal filters, S spatial filters of each, G = F S,
L latents, D width, K classes.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.models.merged import merged
from neurofm_ml.nn.embeddings import ChannelEmbedding
from neurofm_ml.nn.resampling import resample
from neurofm_ml.presets import EEGNetConfig
from neurofm_ml.tokenizers.base import refuse_unknown
from neurofm_ml.types import Batch, Latents, StreamBatch

#: Samples of the clock averaged after the spatial, and of those after the separable convolutions; taps of the latter.
POOLS, TAPS = (4, 8), 16
#: Largest norms of a spatial filter and of a readout's row.
SPATIAL_NORM, READOUT_NORM = 1.0, 0.25
#: Metres over which the weights of a spatial filter may change.
SCALE = 0.1
#: Share of each batch in the running statistics.
MOMENTUM = 0.1


class EEGNet(nn.Module):
    """Window labels from EEG. `vocabulary` names its electrodes and, under `labels`, what it tells apart."""

    Config = EEGNetConfig

    def __init__(self, cfg: EEGNetConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.cfg, self.vocabulary = cfg, vocabulary
        f, g, d = cfg.filters, cfg.filters * cfg.depth, cfg.d_model
        self.temporal = nn.Conv1d(1, f, cfg.kernel, bias=False)
        self.temporal_norm = MaskedBatchNorm(f)
        self.spatial = ChannelEmbedding(torch.from_numpy(vocabulary.channel_std("eeg")), g, SCALE)
        self.spatial_norm = MaskedBatchNorm(g)
        self.separable = nn.Sequential(nn.Conv1d(g, g, TAPS, groups=g, bias=False), nn.Conv1d(g, d, 1, bias=False))
        self.separable_norm = MaskedBatchNorm(d)
        self.dropout = nn.Dropout(cfg.dropout)
        tasks = {task: len(classes) for task, classes in vocabulary.labels.items() if classes}
        self.readouts = nn.ModuleDict({task: nn.Linear(d * cfg.stretches, n) for task, n in tasks.items()})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """task -> logits (B, K), for every task of the batch that has classes."""
        latents = self.encode(batch)
        seen = in_stretches(latents.values, latents.mask, self.cfg.stretches).mT.flatten(1)
        heads = {task: cast(nn.Linear, self.readouts[task]) for task in batch.labels if task in self.readouts}
        return {task: F.linear(seen, limited(head.weight, READOUT_NORM, 1), head.bias) for task, head in heads.items()}

    def encode(self, batch: Batch) -> Latents:
        """One latent (D,) for every 32 samples of the network's clock."""
        stream = merged(batch, "eeg")
        step = 1 / self.cfg.sfreq
        values, mask = resample(stream.values * stream.valid, stream.mask, float(stream.dt[0]), step)
        x = self._filtered(values, mask, stream)
        x, mask = coarser(x, mask, POOLS[0])
        x = self.separable(same_length(self.dropout(x), TAPS))
        x, mask = coarser(F.elu(self.separable_norm(x, mask[:, None])) * mask[:, None], mask, POOLS[1])
        dt = step * POOLS[0] * POOLS[1]
        times = stream.t0[:, None] + (torch.arange(x.shape[2], device=x.device) + 0.5) * dt
        return Latents(self.dropout(x).mT, times, mask)

    def _filtered(self, values: Tensor, mask: Tensor, stream: StreamBatch) -> Tensor:
        """values (B, T, C), mask (B, T) -> what the spatial filters see of each temporal filter's output, (B, G, T)."""
        b, _, c = values.shape
        refuse_unknown(stream, placed=True)
        weights = self.spatial(stream.ids, stream.positions, stream.channel_mask)
        weights = limited(weights, SPATIAL_NORM, 1).unflatten(2, (self.cfg.filters, self.cfg.depth))
        x = self.temporal(same_length(values.mT.flatten(0, 1)[:, None], self.cfg.kernel)).unflatten(0, (b, c))
        valid = stream.channel_mask[:, :, None] & mask[:, None]
        x = self.temporal_norm(x.transpose(1, 2).flatten(2), valid.flatten(1)[:, None]).unflatten(2, (c, -1))
        x = torch.einsum("bfct,bcfs->bfst", x, weights).flatten(1, 2)
        return F.elu(self.spatial_norm(x, mask[:, None])) * mask[:, None]

    def n_parameters(self) -> int:
        """Parameters shared by all sessions: without the weights of electrodes known by name, and readouts."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith(("spatial.table", "readouts")))


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe and Szegedy 2015) whose statistics are those of valid entries, however much is padded."""

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:  # type: ignore[override]
        """x (B, F, T), valid (B, 1, T) -> (B, F, T), 0 where not valid. In float32 whatever the precision of the layers around it."""
        x = x.float()
        mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        if self.training:
            n = valid.sum()
            mean = (x * valid).sum((0, 2)) / n
            variance = ((x - mean[:, None]).square() * valid).sum((0, 2)) / n
            with torch.no_grad():
                cast(Tensor, self.running_mean).lerp_(mean, MOMENTUM)
                cast(Tensor, self.running_var).lerp_(variance * n / (n - 1), MOMENTUM)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (x * scale[:, None] + (self.bias - mean * scale)[:, None]) * valid


def limited(weights: Tensor, largest: float, dim: int) -> Tensor:
    """Weights whose norm along `dim` is at most `largest`: longer ones are shortened."""
    return weights * (largest / weights.norm(dim=dim, keepdim=True).clamp(min=largest))


def same_length(x: Tensor, taps: int) -> Tensor:
    """x (B, F, T) with as many zeros on both sides as a convolution of `taps` takes away."""
    return F.pad(x, ((taps - 1) // 2, taps // 2))


def coarser(x: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means of `size` neighbours: x (B, F, T), mask (B, T); a ragged end makes none."""
    n = x.shape[2] // size
    whole = mask[:, : n * size].unflatten(1, (n, size)).all(2)
    return x[:, :, : n * size].unflatten(2, (n, size)).mean(3) * whole[:, None], whole


def in_stretches(values: Tensor, mask: Tensor, n: int) -> Tensor:
    """values (B, L, D) averaged over n equal stretches of what is valid, (B, n, D); mask (B, L) True first, then False.

    Fewer than n valid latents are each read as often as they make up stretches.
    """
    valid = mask.sum(1, keepdim=True)[..., None]
    place = torch.arange(values.shape[1], device=values.device)[None, None]
    stretch = torch.arange(n, device=values.device)[None, :, None]
    first, last = stretch * valid // n, ((stretch + 1) * valid + n - 1) // n
    weights = ((place >= first) & (place < last) & mask[:, None]).to(values)
    return weights @ values / weights.sum(2, keepdim=True).clamp(min=1)
