"""Augmentation of batches: pure functions of a batch and a generator.

Shapes: B batch, T times, C channels, P patches.
"""

import dataclasses

import torch
from torch import Tensor

from neurofm_ml.presets import AugmentConfig
from neurofm_ml.types import Batch, StreamBatch


def augment(batch: Batch, cfg: AugmentConfig, generator: torch.Generator) -> Batch:
    """Drift, channel dropout, silent stretches and noise on every stream. The counts, which are targets, stay as measured."""
    streams = {}
    for name, stream in batch.streams.items():
        drifted = add_drift(stream, cfg.drift, generator)
        dropped = drop_channels(drifted, cfg.unit_dropout, generator)
        streams[name] = add_noise(mask_channels(dropped, cfg.channel_mask, cfg.channel_mask_s, generator), cfg.noise, generator)
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


def mask_channels(stream: StreamBatch, share: float, seconds: float, generator: torch.Generator) -> StreamBatch:
    """Silence a random `share` of channels for one stretch of `seconds` each: electrodes that lose contact.

    Park et al. 2019 mask bands of a spectrogram so; the rest does not grow, since the loss is a passing one.
    """
    if share == 0:
        return stream
    b, t, c = stream.values.shape
    chosen = torch.rand(b, 1, c, generator=generator, device=generator.device) < share
    length = (seconds / stream.dt).round().clamp(min=1)[:, None, None]
    start = (torch.rand(b, 1, c, generator=generator, device=generator.device) * (t - length + 1).clamp(min=1)).floor()
    place = torch.arange(t, device=generator.device)[:, None]
    silent = chosen & (place >= start) & (place < start + length)
    return dataclasses.replace(stream, values=stream.values.masked_fill(silent, 0.0))


def shift_time(batch: Batch, largest_s: float, generator: torch.Generator) -> Batch:
    """Every signal of every window earlier or later by up to `largest_s` seconds, in whole samples.

    Values, counts and what is known of them move together; the grid and the targets stay, for what is learned is that
    latencies between brain and behaviour differ. What moves in from outside the window is missing, never wrapped around.
    """
    if largest_s == 0:
        return batch
    return dataclasses.replace(batch, streams={name: _shifted(s, largest_s, generator) for name, s in batch.streams.items()})


def _shifted(stream: StreamBatch, largest_s: float, generator: torch.Generator) -> StreamBatch:
    b, t, c = stream.values.shape
    most = (largest_s / stream.dt[:, None] + 1e-3).floor()
    lag = ((2 * most + 1) * torch.rand(b, 1, generator=generator, device=generator.device)).floor() - most
    source = torch.arange(t, device=generator.device) - lag.long()
    inside, place = (source >= 0) & (source < t), source.clamp(0, t - 1)

    def moved(values: Tensor | None) -> Tensor | None:
        """(B, T, C) at its new place, 0 or False where nothing is known."""
        return None if values is None else values.gather(1, place[..., None].expand(b, t, c)) * inside[..., None]

    values = moved(stream.values)
    assert values is not None
    mask = stream.mask.gather(1, place) & inside
    return dataclasses.replace(stream, values=values, mask=mask, counts=moved(stream.counts), seen=moved(stream.seen))


def hide(shape: tuple[int, int], share: float, generator: torch.Generator) -> Tensor:
    """(B, P) True for a random `share` of patches."""
    return torch.rand(shape, generator=generator, device=generator.device) < share


def hide_blocks(shape: tuple[int, int], share: float, length: int, generator: torch.Generator) -> Tensor:
    """(B, P) True for a random `share` of patches, in stretches of `length` that may overlap (Baevski et al. 2020).

    Any patch may begin a stretch, those before the window too, so that every patch is hidden equally often.
    """
    b, n = shape
    begins = hide((b, n + length - 1), 1 - (1 - share) ** (1 / length), generator)
    return begins.unfold(1, length, 1).any(-1)


def hide_strong(energy: Tensor, share: float, focus: float, generator: torch.Generator) -> Tensor:
    """(B, P) True for a `share` of each window's patches, at least one, drawn without replacement.

    A patch's odds are 1 - `focus` + `focus` times its energy (B, P) over the window's mean: from random to hard as
    training goes on (Wang et al. 2023, hard patches mining), where what moves most stands for what is hard to
    reconstruct (Fan et al. 2023, motion-guided masking). Draws as Efraimidis and Spirakis 2006.
    """
    if share == 0:
        return torch.zeros_like(energy, dtype=torch.bool)
    odds = 1 - focus + focus * energy / energy.mean(1, keepdim=True).clamp(min=1e-12)
    keys = torch.rand(energy.shape, generator=generator, device=generator.device).log() / odds.clamp(min=1e-12)
    hardest = keys.topk(max(1, round(share * energy.shape[1])), dim=1).indices
    return torch.zeros_like(energy, dtype=torch.bool).scatter(1, hardest, True)
