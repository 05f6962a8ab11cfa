"""Where channels are: electrodes of a named montage (metres), parcels of a label atlas (MNI millimetres)."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.readers.electrophysiology import montage
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, data_root
from neurofm_ml.types import Array


def positions_of(card: DatasetCard, signal: SignalSpec, ch_names: tuple[str, ...]) -> Array | None:
    """(n_chans, 3), or None where the card names neither montage nor atlas."""
    if not signal.positions:
        return None
    if signal.positions.endswith((".nii", ".nii.gz")):
        atlas = (data_root(card) or Path()) / signal.positions
        if not atlas.exists():
            raise ValueError(f"{atlas} is not there; the card takes positions from it.")
        places = _centroids(atlas, atlas.stat().st_mtime_ns)
    else:
        places = montage(signal.positions)
    if unknown := [name for name in ch_names if name.casefold() not in places]:
        raise ValueError(f"{signal.positions} knows no channel {', '.join(unknown)}; correct ch_names or leave `positions` out.")
    return np.array([places[name.casefold()] for name in ch_names])


@functools.lru_cache(maxsize=4)
def _centroids(path: Path, _changed: int) -> Mapping[str, Array]:
    """Centre of mass of every label of an atlas, by the label as text; kept until the file changes."""
    import nibabel

    image: Any = nibabel.load(path)
    labels = np.asarray(image.dataobj).round().astype(np.int64)
    voxels = np.argwhere(labels)
    _, owner, counts = np.unique(labels[tuple(voxels.T)], return_inverse=True, return_counts=True)
    centres = np.stack([np.bincount(owner, weights=voxels[:, axis]) / counts for axis in range(3)], axis=1)
    mm = nibabel.affines.apply_affine(image.affine, centres)
    return {str(label): xyz for label, xyz in zip(np.unique(labels[labels != 0]), mm, strict=True)}
