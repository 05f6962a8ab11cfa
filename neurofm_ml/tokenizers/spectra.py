"""Tokenizers of field potentials inside the brain: the patch itself, and the power of its bands up to high gamma.

Shapes: B batch, P patches, C channels, S samples of a patch, K bands, D width.
"""

import torch
from torch import Tensor, nn

from neurofm_ml.tokenizers.base import TOKENIZERS
from neurofm_ml.tokenizers.patches import PatchTokenizer
from neurofm_ml.types import StreamBatch

#: Hz. A sixteenth of a second resolves 16 Hz; what is slower, the patches show one after the other.
BANDS = ((8.0, 24.0), (24.0, 40.0), (40.0, 72.0), (72.0, 104.0), (104.0, 152.0), (152.0, 248.0))
#: Share of a z-scored signal's power below which a band counts as silent.
FLOOR = 1e-6


def log_band_power(values: Tensor, dt: float) -> Tensor:
    """values (..., n) sampled every `dt` seconds -> (..., K): log power of each of BANDS, between FLOOR and 1 brought to +- 2.

    The power is that of a Hann window's periodogram: A^2 / 2 for a sine of amplitude A inside a band. Bands that reach above
    half the sampling rate, or that hold no frequency of so short a stretch, are 0.
    """
    n = values.shape[-1]
    window = torch.hann_window(n, device=values.device)
    spectrum = torch.fft.rfft((values - values.mean(-1, keepdim=True)) * window)
    power = 2 * (spectrum.real**2 + spectrum.imag**2) / (n * (window**2).sum())
    frequencies, edges = torch.fft.rfftfreq(n, dt, device=values.device)[:, None], torch.tensor(BANDS, device=values.device)
    inside = (frequencies >= edges[:, 0]) & (frequencies < edges[:, 1]) & (edges[:, 1] <= 0.5 / dt)
    decades = torch.log10(power @ inside.to(power) + FLOOR)
    return (decades + 3) / 1.5 * inside.any(0)


class BandTokenizer(PatchTokenizer):
    """Potentials on or in the cortex: patches of 1/16 s brought to 512 Hz and their bands; contacts placed in metres."""

    patch_s, n_samples, n_beside, scale = 1 / 16, 32, len(BANDS), 0.05

    def features(self, patches: Tensor, stream: StreamBatch) -> Tensor:
        return torch.cat([patches, log_band_power(self.cut(stream, stream.values), float(stream.dt[0]))], -1)


@TOKENIZERS.register("ecog")
class ECoGTokenizer(BandTokenizer):
    """Grids and strips."""


@TOKENIZERS.register("ieeg")
class IEEGTokenizer(BandTokenizer):
    """Depth electrodes."""


@TOKENIZERS.register("lfp")
class LFPTokenizer(PatchTokenizer):
    """Local field potentials: patches of 1/8 s, and a convolution over the bands of their short-time Fourier transform,
    whose frames are half a patch long and overlap by half; contacts placed in metres."""

    patch_s, n_samples, n_beside, scale = 1 / 8, 32, 16, 0.02

    def __init__(self, channel_std: Tensor, d_model: int) -> None:
        super().__init__(channel_std, d_model)
        self.convolve = nn.Sequential(nn.Conv1d(len(BANDS), self.n_beside, 3), nn.GELU())

    def features(self, patches: Tensor, stream: StreamBatch) -> Tensor:
        bands = log_band_power(_frames(self.cut(stream, stream.values)), float(stream.dt[0]))
        found = self.convolve(bands.flatten(0, 2).mT).squeeze(-1)
        return torch.cat([patches, found.unflatten(0, patches.shape[:3])], -1)


def _frames(patches: Tensor) -> Tensor:
    """(B, P, C, samples) -> (B, P, C, 3, half of them): the beginning, the middle and the end of each patch."""
    n = patches.shape[-1]
    length = max(1, n // 2)
    return torch.stack([patches[..., start : start + length] for start in (0, (n - length) // 2, n - length)], -2)
