"""What a model is shown of a batch, and what it is asked for because it was not shown.

Shapes: B batch, L latents, P patches, H horizons, C channels, S samples of a patch.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neurofm_ml.data.augment import augment, drop_modalities, hide, hide_blocks, hide_strong, shift_time
from neurofm_ml.models import NeuroFMx
from neurofm_ml.objectives import Activity
from neurofm_ml.presets import AugmentConfig
from neurofm_ml.types import Batch, StreamBatch


@dataclass(frozen=True)
class Shown:
    """One batch four times: `whole`, as measured; `clean`, without the modalities that were dropped; `noisy`, as it is
    shown; and the patches (B, P) of each signal that are `hidden` then."""

    whole: Batch
    clean: Batch
    noisy: Batch
    hidden: Mapping[str, Tensor]


def corrupt(model: NeuroFMx, batch: Batch, cfg: AugmentConfig, generator: torch.Generator, progress: float) -> Shown:
    """Augment a batch and hide parts of it; a model in eval mode sees all of it but what is hidden."""
    clean = batch
    if model.training:
        batch = shift_time(batch, cfg.time_shift_s, generator)
        clean = drop_modalities(batch, cfg.modality_dropout, generator)
    hidden = {name: _hidden(model, stream, cfg, generator, progress) for name, stream in clean.streams.items()}
    return Shown(batch, clean, augment(clean, cfg, generator) if model.training else clean, hidden)


def _hidden(model: NeuroFMx, stream: StreamBatch, cfg: AugmentConfig, generator: torch.Generator, progress: float) -> Tensor:
    """(B, P) True for the patches that are shown as a mask token."""
    tokenizer = model.tokenizer(stream.modality)
    if cfg.mask == "adaptive":
        patches, whole = tokenizer.patches(stream)
        return hide_strong(patches.square().mean((2, 3)) * whole, cfg.time_mask, progress, generator)
    shape = (stream.values.shape[0], stream.values.shape[1] // tokenizer.size(stream))
    if cfg.mask == "block":
        length = max(1, round(cfg.mask_s / (float(stream.dt[0]) * tokenizer.size(stream))))
        return hide_blocks(shape, cfg.time_mask, length, generator)
    return hide(shape, cfg.time_mask, generator)


def true_activity(model: NeuroFMx, shown: Shown) -> dict[str, Activity]:
    """Activity of every signal; not shown were hidden patches of every channel, and channels that were silenced."""
    truth = {}
    for name, stream in shown.clean.streams.items():
        values, there = _measured(model, stream)
        silent = model.tokenizer(stream.modality).cut(stream, shown.noisy.streams[name].values == 0).all(-1)
        unseen = shown.hidden[name][..., None] | silent
        truth[name] = Activity(values, unseen & there, stream.counts is not None, there)
    return truth


def true_future(model: NeuroFMx, shown: Shown, forecast_from: Tensor) -> dict[str, Activity]:
    """Activity of every signal in the first patch that begins at each horizon after `forecast_from` (B,) seconds, or later."""
    truth = {}
    horizons = torch.tensor(model.cfg.horizons_s, device=forecast_from.device)
    for name, stream in shown.clean.streams.items():
        values, there = _measured(model, stream)
        width = stream.dt[:, None] * model.tokenizer(stream.modality).size(stream)
        patch = torch.ceil((forecast_from[:, None] + horizons - stream.t0[:, None]) / width - 1e-3).long()
        inside, place = (patch >= 0) & (patch < there.shape[1]), patch.clamp(0, there.shape[1] - 1)
        there = _at(there, place) & inside[..., None]
        truth[name] = Activity(_at(values, place), there, stream.counts is not None, there)
    return truth


def forecast_start(batch: Batch, longest_s: float, generator: torch.Generator) -> Tensor:
    """(B,) seconds at which each window's future begins: after half of what the longest horizon leaves of it, or later."""
    first = batch.times[:, 0] - batch.dt / 2
    usable = (batch.mask.sum(1) * batch.dt - longest_s).clamp(min=0)
    share = 0.5 + 0.5 * torch.rand(len(first), generator=generator, device=generator.device)
    # A bin must have ended by then, whatever the horizon.
    return first + (share * usable).maximum(batch.dt)


def moments(mask: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """(B, L) at most `most` of the bins that are True in `mask`, drawn at random."""
    keys = torch.rand(mask.shape, generator=generator, device=generator.device).masked_fill(~mask, -1.0).flatten()
    chosen = torch.zeros_like(keys, dtype=torch.bool).scatter(0, keys.topk(min(most, len(keys))).indices, True)
    return chosen.view_as(mask) & mask


def only(batch: Batch, modality: str) -> Batch:
    """The batch with the signals of one modality."""
    return dataclasses.replace(batch, streams={name: s for name, s in batch.streams.items() if s.modality == modality})


def _measured(model: NeuroFMx, stream: StreamBatch) -> tuple[Tensor, Tensor]:
    """Values (B, P, C, S) of a signal's patches, counts where they were counted, and where they are (B, P, C)."""
    tokenizer = model.tokenizer(stream.modality)
    patches, whole = tokenizer.patches(stream)
    values = patches if stream.counts is None else tokenizer.cut(stream, stream.counts)
    return values, whole[..., None] & stream.channel_mask[:, None]


def _at(values: Tensor, place: Tensor) -> Tensor:
    """values (B, P, ...), place (B, H) -> (B, H, ...)."""
    index = place.view(*place.shape, *(1,) * (values.dim() - 2)).expand(*place.shape, *values.shape[2:])
    return values.gather(1, index)
