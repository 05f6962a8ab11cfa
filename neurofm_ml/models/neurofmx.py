"""NeuroFMx: tokenizers -> modality embedding -> Perceiver fusion on a time grid -> backbone -> heads.

Takes any subset of modalities in a batch. The latents live on the batch's time grid, so the
backbone sees them in order; the bidirectional form serves offline analysis.

Shapes: B batch, L latents, P patches, C channels, S samples of a patch, K target columns, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.nn.perceiver import GridFusion
from neurofm_ml.nn.recurrent import GRUBlock
from neurofm_ml.nn.ssm import SSMBlock
from neurofm_ml.presets import NeuroFMxConfig
from neurofm_ml.tokenizers import TOKENIZERS, Tokenizer
from neurofm_ml.types import Batch, Latents, StreamBatch


@dataclass(frozen=True)
class Prediction:
    """latents; behaviour: task -> (B, L, K) z-scored; activity: signal -> (B, P, C, S), log rates for spikes."""

    latents: Latents
    behaviour: Mapping[str, Tensor]
    activity: Mapping[str, Tensor]


class NeuroFMx(nn.Module):
    """The multimodal model. `vocabulary` names the rows of its embedding tables and its tasks."""

    def __init__(self, cfg: NeuroFMxConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.cfg, self.vocabulary = cfg, vocabulary
        d, std = cfg.d_model, {m: torch.from_numpy(vocabulary.channel_std(m)) for m in TOKENIZERS}
        self.tokenizers = nn.ModuleDict({m: TOKENIZERS[m](std[m], d) for m in TOKENIZERS})
        self.modality = nn.ParameterDict({m: nn.Parameter(torch.zeros(d)) for m in TOKENIZERS})
        self.session = nn.Embedding(len(vocabulary.sessions) + 1, d, padding_idx=0)
        nn.init.zeros_(self.session.weight)
        self.fusion = GridFusion(d, cfg.n_heads, cfg.context, causal=not cfg.bidirectional)
        self.backbone = nn.ModuleList(_blocks(cfg))
        self.norm = nn.LayerNorm(d) if cfg.prenorm else nn.Identity()
        self.behaviour = nn.ModuleDict({task: nn.Linear(d, k) for task, k in vocabulary.tasks.items()})
        self.activity = nn.ModuleDict({m: ActivityHead(d, TOKENIZERS[m].n_samples, len(std[m])) for m in TOKENIZERS})

    def forward(self, batch: Batch, hidden: Mapping[str, Tensor] | None = None, activity: bool = False) -> Prediction:
        """Latents, every target of the batch, and, where asked for, the activity of every signal.

        `hidden` marks per signal the patches (B, P) that are shown as a mask token.
        """
        latents = self.encode(batch, hidden or {})
        return Prediction(
            latents,
            {task: self.behaviour[task](latents.values) for task in batch.targets},
            {name: self.predict_activity(latents, batch, stream) for name, stream in batch.streams.items() if activity},
        )

    def encode(self, batch: Batch, hidden: Mapping[str, Tensor]) -> Latents:
        """What the model makes of the input: one latent per bin of the batch's grid."""
        sequences = []
        for name, stream in batch.streams.items():
            tokens = self.tokenizer(stream.modality)(stream, hidden.get(name))
            sequences.append(tokens.shifted(self.modality[stream.modality]))
        values, there = self.fusion(sequences, batch.times, batch.dt)
        mask = batch.mask & there
        values = values + self.session(batch.session)[:, None]
        for block in self.backbone:
            values = block(values, mask)
        return Latents(self.norm(values), batch.times, mask)

    def predict_activity(self, latents: Latents, batch: Batch, stream: StreamBatch) -> Tensor:
        """Activity (B, P, C, S) of each patch of a signal, read from the latent of the bin it lies in."""
        tokenizer = self.tokenizer(stream.modality)
        dt = stream.dt[:, None] * tokenizer.size(stream)
        n = stream.values.shape[1] // tokenizer.size(stream)
        centres = stream.t0[:, None] + (torch.arange(n, device=dt.device) + 0.5) * dt
        # The centre of a patch that spans an even number of bins is an edge: it belongs to the bin that starts there.
        bins = torch.floor((centres - batch.times[:, :1]) / batch.dt[:, None] + 0.5 + 1e-3).long().clamp(0, batch.times.shape[1] - 1)
        values = latents.values.gather(1, bins[..., None].expand(-1, -1, latents.values.shape[2]))
        return self.activity[stream.modality](values, tokenizer.who(stream), stream.ids)

    def tokenizer(self, modality: str) -> Tokenizer:
        return cast(Tokenizer, self.tokenizers[modality])

    def n_parameters(self) -> int:
        """Parameters shared by all sessions: without the tables of channels, sessions and readouts."""
        own = ("channels.table", "session.", "behaviour.", ".bias_of")
        return sum(p.numel() for name, p in self.named_parameters() if not any(o in name for o in own))


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


def _blocks(cfg: NeuroFMxConfig) -> list[nn.Module]:
    if cfg.backbone == "gru":
        return [GRUBlock(cfg.d_model, cfg.bidirectional, cfg.dropout) for _ in range(cfg.n_layers // 2)]
    return [
        SSMBlock(cfg.d_model, cfg.n_heads, cfg.d_state, cfg.d_conv, cfg.expand, cfg.bidirectional, cfg.dropout, norm=cfg.prenorm)
        for _ in range(cfg.n_layers)
    ]
