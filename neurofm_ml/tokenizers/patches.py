"""Tokenizers of continuous series: one token per patch of time, channels mixed by who they are.

Shapes: B batch, P patches, C channels, S samples of a patch, F features of a patch, D width.
"""

import torch
from torch import Tensor, nn

from neurofm_ml.tokenizers.base import TOKENIZERS, Tokenizer
from neurofm_ml.types import StreamBatch


class PatchTokenizer(Tokenizer):
    """Filter each channel's patch, weight the filters by who the channel is, add up.

    The sampling step enters as its logarithm, so that the model knows how much time a patch holds.
    """

    #: Features of a patch beside its samples.
    n_beside: int = 0

    def __init__(self, channel_std: Tensor, d_model: int) -> None:
        super().__init__(channel_std, d_model)
        self.filters = nn.Linear(self.n_samples + self.n_beside, d_model)
        self.step = nn.Linear(1, d_model)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(d_model, d_model))

    def features(self, patches: Tensor, stream: StreamBatch) -> Tensor:
        """What there is to filter of each channel's patch, (B, P, C, S) -> (B, P, C, F)."""
        return patches

    def embed(self, patches: Tensor, who: Tensor, stream: StreamBatch) -> Tensor:
        filtered = self.filtered(self.features(patches, stream), who)
        return self.out(filtered + self.step(stream.dt.log()[:, None])[:, None])

    def filtered(self, features: Tensor, who: Tensor) -> Tensor:
        """features (B, P, C, F), who (B, C, D) -> (B, P, D), the filters of every channel weighted by who it is."""
        # Channels are added up before they are filtered: the same sum, without a (B, P, C, D) in memory.
        mixed = torch.einsum("bpcs,bcd->bpsd", features, who)
        return (mixed * self.filters.weight.T).sum(2) + self.filters.bias * who.sum(1, keepdim=True)


@TOKENIZERS.register("eeg")
class EEGTokenizer(PatchTokenizer):
    """Scalp potentials: patches of 1/16 s, electrodes placed in metres on the head."""

    patch_s, n_samples, scale = 1 / 16, 16, 0.1


@TOKENIZERS.register("meg")
class MEGTokenizer(PatchTokenizer):
    """Magnetic fields: as for EEG, sensors placed in metres around the head; those that share a place have rows."""

    patch_s, n_samples, scale = 1 / 16, 16, 0.1


@TOKENIZERS.register("fmri")
class FMRITokenizer(PatchTokenizer):
    """Parcel series: one volume a patch, whatever its TR; parcels placed in MNI millimetres."""

    scale = 60.0


class ConvolutionTokenizer(PatchTokenizer):
    """Convolutions in time, the same for every channel, beside the patch itself.

    What they find before channels are mixed is no linear function of the patch: amplitudes of signals that swing around 0.
    """

    def __init__(self, channel_std: Tensor, d_model: int) -> None:
        super().__init__(channel_std, d_model)
        self.convolve = nn.Sequential(nn.Conv1d(1, 8, 5, padding=2), nn.GELU(), nn.Conv1d(8, 8, 4, stride=4), nn.GELU())

    def features(self, patches: Tensor, stream: StreamBatch) -> Tensor:
        found = self.convolve(patches.flatten(0, 2)[:, None]).flatten(1)
        return torch.cat([patches, found.unflatten(0, patches.shape[:3])], -1)

    def filtered(self, features: Tensor, who: Tensor) -> Tensor:
        # Here channels are few and features many.
        return (self.filters(features) * who[:, None]).sum(2)


@TOKENIZERS.register("emg")
class EMGTokenizer(ConvolutionTokenizer):
    """Muscles: patches of 1/16 s, brought to 512 Hz."""

    patch_s, n_samples, n_beside = 1 / 16, 32, 64


@TOKENIZERS.register("intracellular")
class IntracellularTokenizer(ConvolutionTokenizer):
    """Membrane potentials and currents: patches of 1/50 s, brought to 6400 Hz, at which a spike has several samples."""

    patch_s, n_samples, n_beside = 1 / 50, 128, 256
