"""Tokenizers of population activity: one token per time bin, the sum of the units' embeddings."""

from torch import Tensor, nn

from neurofm_ml.tokenizers.base import TOKENIZERS, Tokenizer
from neurofm_ml.types import StreamBatch


@TOKENIZERS.register("spikes")
class SpikeTokenizer(Tokenizer):
    """Binned counts: each unit's embedding weighted by its z-scored root count, added up."""

    def embed(self, patches: Tensor, who: Tensor, stream: StreamBatch) -> Tensor:
        return self.mix(patches[..., 0], who)

    def mix(self, activity: Tensor, who: Tensor) -> Tensor:
        """z-scored activity (B, P, C), who (B, C, D), or (C, D) where all windows share it -> tokens (B, P, D)."""
        return activity @ who


@TOKENIZERS.register("calcium")
class CalciumTokenizer(SpikeTokenizer):
    """Fluorescence: as for spikes, then a feed-forward layer that can undo the indicator's saturation."""

    def __init__(self, channel_std: Tensor, d_model: int) -> None:
        super().__init__(channel_std, d_model)
        self.feed = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.Linear(d_model, d_model))

    def mix(self, activity: Tensor, who: Tensor) -> Tensor:
        tokens = super().mix(activity, who)
        return tokens + self.feed(tokens)
