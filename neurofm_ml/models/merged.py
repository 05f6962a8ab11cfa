"""Signals of one modality laid side by side, for families that read one modality as one array of sensors."""

import dataclasses

import torch

from neurofm_ml.types import Batch, StreamBatch


def merged(batch: Batch, modality: str) -> StreamBatch:
    """The channels of all signals of a modality as one stream; a window's channels of a signal it lacks are padding.

    Raises ValueError when there is none, or when they are not sampled together.
    """
    streams = {name: stream for name, stream in batch.streams.items() if stream.modality == modality}
    if not streams:
        raise ValueError(
            f"the batch holds no {modality}, but {', '.join(batch.streams) or 'nothing'}; choose datasets that have {modality}."
        )
    first, *others = streams.values()
    for name, stream in streams.items():
        if stream.values.shape[1] != first.values.shape[1] or not torch.allclose(stream.dt, first.dt[:1], rtol=1e-4):
            raise ValueError(
                f"{modality} signals {', '.join(streams)} differ in sampling ({name!r} has {stream.values.shape[1]} samples of "
                f"{stream.dt.unique().tolist()} s); bring them to one rate in the card's `preprocess`, and batch one rate at a time."
            )
    if not others:
        return first
    every = list(streams.values())
    places = [torch.full((*s.ids.shape, 3), torch.nan) if s.positions is None else s.positions for s in every]
    return dataclasses.replace(
        first,
        values=torch.cat([s.values for s in every], 2),
        mask=torch.stack([s.mask for s in every]).any(0),
        seen=torch.cat([s.valid for s in every], 2),
        ids=torch.cat([s.ids for s in every], 1),
        channel_mask=torch.cat([s.channel_mask & s.mask.any(1, keepdim=True) for s in every], 1),
        positions=torch.cat(places, 1).to(first.values),
    )
