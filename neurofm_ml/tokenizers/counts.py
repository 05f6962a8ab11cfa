"""Tokenizers of population activity: one token per time bin, the sum of the units' embeddings."""

import torch
from torch import Tensor, nn

from neurofm_ml.tokenizers.base import TOKENIZERS, Tokenizer
from neurofm_ml.types import StreamBatch


@TOKENIZERS.register("spikes")
class SpikeTokenizer(Tokenizer):
    """Binned counts: each unit's embedding weighted by its z-scored root count, added up."""

    def embed(self, patches: Tensor, who: Tensor, stream: StreamBatch) -> Tensor:
        return torch.einsum("bpc,bcd->bpd", patches[..., 0], who)


@TOKENIZERS.register("calcium")
class CalciumTokenizer(SpikeTokenizer):
    """Fluorescence: as for spikes, then a feed-forward layer that can undo the indicator's saturation."""

    def __init__(self, channel_std: Tensor, d_model: int) -> None:
        super().__init__(channel_std, d_model)
        self.feed = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.Linear(d_model, d_model))

    def embed(self, patches: Tensor, who: Tensor, stream: StreamBatch) -> Tensor:
        tokens = super().embed(patches, who, stream)
        return tokens + self.feed(tokens)
