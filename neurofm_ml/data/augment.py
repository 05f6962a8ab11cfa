"""Augmentation of batches: pure functions of a batch and a generator.

Shapes: B batch, T times, C channels, P patches.
"""

import dataclasses

import torch
from torch import Tensor

from neurofm_ml.presets import AugmentConfig
from neurofm_ml.types import Batch, StreamBatch


def augment(batch: Batch, cfg: AugmentConfig, generator: torch.Generator) -> Batch:
    """Drift, channel dropout and noise on every stream. The counts, which are targets, stay as measured."""
    streams = {}
    for name, stream in batch.streams.items():
        drifted = add_drift(stream, cfg.drift, generator)
        streams[name] = add_noise(drop_channels(drifted, cfg.unit_dropout, generator), cfg.noise, generator)
    return dataclasses.replace(batch, streams=streams)


def drop_modalities(batch: Batch, share: float, generator: torch.Generator) -> Batch:
    """The batch without each signal with probability `share`, never without all: models must work from any subset."""
    if len(batch.streams) == 1:
        return batch
    draw = torch.rand(len(batch.streams), generator=generator, device=generator.device)
    kept = draw >= min(share, float(draw.max()))
    return dataclasses.replace(batch, streams={n: s for (n, s), keep in zip(batch.streams.items(), kept.tolist(), strict=True) if keep})


def add_drift(stream: StreamBatch, largest: float, generator: torch.Generator) -> StreamBatch:
    """An offset per channel over the whole window, of a strength drawn for each window from [0, largest) deviations."""
    b, _, c = stream.values.shape
    strength = torch.rand(b, 1, 1, generator=generator, device=generator.device) * largest
    offset = strength * torch.randn(b, 1, c, generator=generator, device=generator.device)
    return dataclasses.replace(stream, values=stream.values + offset * stream.valid)


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
