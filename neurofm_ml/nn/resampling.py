"""Series brought to another sampling rate, where a network has a clock of its own.

Shapes: B batch, T samples, N samples of the new rate, C channels.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

#: Zero crossings of the sinc on each side.
REACH = 8


def resample(values: Tensor, mask: Tensor, dt: float, new_dt: float) -> tuple[Tensor, Tensor]:
    """values (B, T, C), mask (B, T) True = valid, steps in seconds -> (B, N, C), (B, N); both begin with the same sample.

    A windowed sinc that lets nothing through above the lower of the two Nyquist rates (Smith 2002), weighted by what is
    there: samples that are not valid are not read, so padding changes nothing.
    """
    if math.isclose(dt, new_dt, rel_tol=1e-4):
        return values * mask[..., None], mask
    kernel, nearest = (tensor.to(values.device) for tensor in _kernel(values.shape[1], round(new_dt / dt, 6)))
    there = mask.to(values)
    weight = there @ kernel.T
    new_mask = mask[:, nearest]
    resampled = kernel @ (values * there[..., None]) / torch.where(new_mask, weight, 1.0)[..., None]
    return resampled * new_mask[..., None], new_mask


@lru_cache(maxsize=64)
def _kernel(n_times: int, ratio: float) -> tuple[Tensor, Tensor]:
    """(N, T) weights and (N,) the last old sample at or before each new one; `ratio` old samples make a new one."""
    new = torch.arange(math.ceil(n_times / ratio - 1e-6), dtype=torch.float64) * ratio
    away = (new[:, None] - torch.arange(n_times, dtype=torch.float64)) / max(1.0, ratio)
    window = torch.cos(math.pi / 2 * (away / REACH).clamp(-1, 1)).square()
    return (torch.sinc(away) * window / max(1.0, ratio)).float(), (new + 1e-6).floor().long()
