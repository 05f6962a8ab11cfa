"""Tokenizers of continuous series: one token per patch of time, channels mixed by their place."""

import torch
from torch import Tensor, nn

from neurofm_ml.tokenizers.base import TOKENIZERS, Tokenizer
from neurofm_ml.types import StreamBatch


class PatchTokenizer(Tokenizer):
    """Filter each channel's patch, weight the filters by who the channel is, add up.

    The sampling step enters as its logarithm, so that the model knows how much time a patch holds.
    """

    def __init__(self, channel_std: Tensor, d_model: int) -> None:
        super().__init__(channel_std, d_model)
        self.filters = nn.Linear(self.n_samples, d_model)
        self.step = nn.Linear(1, d_model)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(d_model, d_model))

    def embed(self, patches: Tensor, who: Tensor, stream: StreamBatch) -> Tensor:
        # Channels are added up before they are filtered: the same sum, without a (B, P, C, D) in memory.
        mixed = torch.einsum("bpcs,bcd->bpsd", patches, who)
        filtered = (mixed * self.filters.weight.T).sum(2) + self.filters.bias * who.sum(1, keepdim=True)
        return self.out(filtered + self.step(stream.dt.log()[:, None])[:, None])


@TOKENIZERS.register("eeg")
class EEGTokenizer(PatchTokenizer):
    """Scalp potentials: patches of 1/16 s, electrodes placed in metres on the head."""

    patch_s, n_samples, scale = 1 / 16, 16, 0.1


@TOKENIZERS.register("fmri")
class FMRITokenizer(PatchTokenizer):
    """Parcel series: one volume a patch, whatever its TR; parcels placed in MNI millimetres."""

    scale = 60.0
