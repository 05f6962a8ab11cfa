"""Augmentation of batches: pure functions of a batch and a generator.

Shapes: B batch, T times, C channels, P patches.
"""

import dataclasses

import torch
from torch import Tensor

from neurofm_ml.presets import AugmentConfig
from neurofm_ml.types import Batch, StreamBatch


def augment(batch: Batch, cfg: AugmentConfig, generator: torch.Generator) -> Batch:
    """Noise and channel dropout on every stream. The counts, which are targets, stay as measured."""
    streams = {name: add_noise(drop_channels(s, cfg.unit_dropout, generator), cfg.noise, generator) for name, s in batch.streams.items()}
    return dataclasses.replace(batch, streams=streams)


def drop_channels(stream: StreamBatch, largest: float, generator: torch.Generator) -> StreamBatch:
    """Silence a share p of each window's channels, p uniform in [0, largest); the rest grow by 1 / (1 - p)."""
    b, _, c = stream.values.shape
    p = torch.rand(b, 1, generator=generator, device=generator.device) * largest
    keep = (torch.rand(b, c, generator=generator, device=generator.device) >= p) / (1 - p)
    return dataclasses.replace(stream, values=stream.values * keep[:, None].to(stream.values))


def add_noise(stream: StreamBatch, deviation: float, generator: torch.Generator) -> StreamBatch:
    """Gaussian noise, in deviations of the channel, wherever there is a value (a dropped channel stays 0)."""
    noise = deviation * torch.randn(stream.values.shape, generator=generator, device=generator.device)
    return dataclasses.replace(stream, values=stream.values + noise * (stream.values != 0))


def hide(shape: tuple[int, int], share: float, generator: torch.Generator) -> Tensor:
    """(B, P) True for a random `share` of patches."""
    return torch.rand(shape, generator=generator, device=generator.device) < share
