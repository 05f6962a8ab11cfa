"""Parcels of fMRI: patches of seconds whatever the repetition time, and who a parcel is.

Shapes: B batch, T volumes, P patches, C parcels, S samples of a patch, K volumes of the longest patch, R reference
parcels, G gradients, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.gradients import Gradients
from neurofm_ml.nn.embeddings import FourierFeatures
from neurofm_ml.types import Batch, StreamBatch

#: Millimetres over which the places of parcels differ (their Fourier features).
SCALE_MM = 60.0
#: Millimetres: how far a reference parcel lends its gradients, the deviation of a Gaussian.
REACH_MM = 5.0


# ---------------------------------------------------------------- patches
@dataclass(frozen=True)
class Patches:
    """values (B, P, C, S) z-scored, mask (B, P, C) True = whole and of a real parcel, times (B, P) of the centres, seconds."""

    values: Tensor
    mask: Tensor
    times: Tensor

    @property
    def token_times(self) -> Tensor:
        """(B, P C) seconds: the time of every parcel's patch."""
        return self.times.repeat_interleave(self.values.shape[2], 1)


def fmri(batch: Batch) -> StreamBatch:
    """The one fMRI signal of a batch. Raises ValueError where there is none, or more than one."""
    names = [name for name, stream in batch.streams.items() if stream.modality == "fmri"]
    if len(names) != 1:
        raise ValueError(
            f"the batch holds {len(names)} fMRI signals ({', '.join(names) or 'none'} of {', '.join(batch.streams) or 'nothing'}); "
            "models of parcels read exactly one: name it in Collate(signals=...)."
        )
    return batch.streams[names[0]]


def cut(stream: StreamBatch, patch_s: float, n_samples: int) -> Patches:
    """Whole patches of `patch_s` seconds, in each window as many volumes as come nearest, averaged to `n_samples` points.

    A ragged end is no patch. Where a patch has fewer volumes than points, neighbouring points share a volume.
    """
    size = (patch_s / stream.dt).round().clamp(min=1).long()[:, None]
    longest, n = int(size.max()), stream.values.shape[1] // int(size.min())
    start = torch.arange(n, device=size.device) * size
    within = torch.arange(longest, device=size.device)
    index = start[:, :, None] + within
    inside = (within < size[:, None]) & (index < stream.values.shape[1])
    flat = index.clamp(max=stream.values.shape[1] - 1).flatten(1)
    volumes = stream.values.gather(1, flat[..., None].expand(-1, -1, stream.values.shape[2])).unflatten(1, (n, longest))
    there = (stream.mask.gather(1, flat).unflatten(1, (n, longest)) & inside).sum(2) == size
    values = torch.einsum("bsk,bpkc->bpcs", _overlaps(size, longest, n_samples), volumes * inside[..., None])
    mask = there[..., None] & stream.channel_mask[:, None]
    times = stream.t0[:, None] + (start + size / 2) * stream.dt[:, None]
    return Patches(values * mask[..., None], mask, times)


def _overlaps(size: Tensor, longest: int, n_samples: int) -> Tensor:
    """(B, S, K) how much of each volume lies in each of the S equal parts of a patch of size (B, 1) volumes."""
    edges = torch.arange(n_samples + 1, device=size.device) * size / n_samples
    volumes = torch.arange(longest, device=size.device)
    low = torch.maximum(edges[:, :-1, None], volumes)
    high = torch.minimum(edges[:, 1:, None], volumes + 1)
    return (high - low).clamp(min=0) * n_samples / size[..., None]


class PatchEmbedding(nn.Module):
    """A token for each parcel's patch: what it did, who it is, and the repetition time."""

    def __init__(self, n_samples: int, d_model: int) -> None:
        super().__init__()
        self.activity = nn.Linear(n_samples, d_model)
        self.step = nn.Linear(1, d_model)

    def forward(self, patches: Patches, who: Tensor, dt: Tensor) -> Tensor:
        """who (B, C, D), dt (B,) seconds -> (B, P, C, D)."""
        return self.activity(patches.values) + who[:, None] + self.step(dt.log()[:, None])[:, None, None]


# ---------------------------------------------------------------- who a parcel is
def _refuse(unknown: Tensor, stream: StreamBatch, remedy: str) -> None:
    if bool(unknown.any()):
        row = int(unknown.any(1).nonzero()[0])
        raise ValueError(
            f"{int(unknown[row].sum())} of {int(stream.channel_mask[row].sum())} fMRI parcels of window {row} are unknown: {remedy}."
        )


def _placed(stream: StreamBatch) -> Tensor:
    """(B, C) True where a channel has a place."""
    return torch.zeros_like(stream.channel_mask) if stream.positions is None else stream.positions.isfinite().all(2)


class ParcelIdentity(nn.Module):
    """A learned row where the vocabulary knows the parcel, else its place in MNI millimetres."""

    def __init__(self, n_known: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_known + 1, d_model, padding_idx=0)
        self.place = nn.Sequential(FourierFeatures(3, 32, SCALE_MM), nn.Linear(64, d_model))

    def forward(self, stream: StreamBatch) -> Tensor:
        """(B, C, D), 0 for padding."""
        known = stream.ids > 0
        remedy = "neither in the model's vocabulary (Vocabulary.union extends it) nor placed; give the card MNI positions"
        _refuse(stream.channel_mask & ~known & ~_placed(stream), stream, remedy)
        if stream.positions is None:
            return self.table(stream.ids)
        return torch.where(
            known[..., None], self.table(stream.ids), self.place(stream.positions.nan_to_num()) * stream.channel_mask[..., None]
        )


class GradientField(nn.Module):
    """Functional gradients of parcels, kept with the weights: by row of the vocabulary, else from the reference parcels nearby.

    It is empty until `fill`, or until weights are loaded, whatever the number of their reference parcels.
    """

    places: Tensor
    values: Tensor
    rows: Tensor

    def __init__(self, n_known: int, n_gradients: int) -> None:
        super().__init__()
        self.register_buffer("places", torch.zeros(0, 3))
        self.register_buffer("values", torch.zeros(0, n_gradients))
        self.register_buffer("rows", torch.zeros(n_known + 1, n_gradients))

    def fill(self, gradients: Gradients, vocabulary: Vocabulary) -> None:
        self.places, self.values = torch.from_numpy(gradients.places), torch.from_numpy(gradients.values)
        for i, name in enumerate(vocabulary.channels.get("fmri", ())):
            self.rows[i + 1] = torch.from_numpy(gradients.named.get(name, np.zeros(self.rows.shape[1], np.float32)))

    def forward(self, stream: StreamBatch) -> Tensor:
        """(B, C, G), 0 for padding."""
        known = self.rows[stream.ids].any(2)
        placed = _placed(stream) & bool(len(self.places))
        _refuse(
            stream.channel_mask & ~known & ~placed, stream, "they have no functional gradients; build the model from shards that hold them"
        )
        found = self.rows[stream.ids]
        if stream.positions is not None and len(self.places):
            distance = torch.cdist(stream.positions.nan_to_num(), self.places.expand(len(stream.positions), -1, -1))
            near = (-(distance.square()) / (2 * REACH_MM**2)).softmax(2) @ self.values
            found = torch.where(known[..., None], found, near)
        return found * stream.channel_mask[..., None]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in ("places", "values"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.rows.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
