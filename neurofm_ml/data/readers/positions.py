"""Where channels are: electrodes of a named montage (metres), parcels of a label atlas or rows of a table (millimetres)."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neurofm_ml.data.readers.montages import montage
from neurofm_ml.data.readers.tables import read_table
from neurofm_ml.knowledge.cards import PLACES, DatasetCard, SignalSpec
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.types import Array


def positions_of(card: DatasetCard, signal: SignalSpec, ch_names: tuple[str, ...]) -> Array | None:
    """(n_chans, 3), or None where the card names neither montage, atlas nor table."""
    if not signal.positions:
        return None
    if not signal.positions.endswith(PLACES):
        return _named(montage(signal.positions), signal.positions, ch_names)
    path = (data_root(card) or Path()) / signal.positions
    if not path.exists():
        raise ValueError(f"{path} is not there; the card takes positions from it.")
    if path.name.endswith((".nii", ".nii.gz")):
        return _named(centroids(path), signal.positions, ch_names)
    return _from_table(path, len(ch_names))


def _named(places: Mapping[str, Array], source: str, ch_names: tuple[str, ...]) -> Array:
    if unknown := [name for name in ch_names if name.casefold() not in places]:
        raise ValueError(f"{source} knows no channel {', '.join(unknown)}; correct ch_names or leave `positions` out.")
    return np.array([places[name.casefold()] for name in ch_names])


def _from_table(path: Path, n_chans: int) -> Array:
    """(n_chans, 3) from columns x, y, z; row k is channel k."""
    table = read_table(path)
    if missing := [name for name in "xyz" if name not in table.header]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; positions need x, y and z.")
    if len(table.rows) != n_chans:
        raise ValueError(f"{path} has {len(table.rows)} rows for {n_chans} channels; they must agree, in the same order.")
    return table.numbers("xyz")


class Atlas(NamedTuple):
    """labels (X, Y, Z) whole numbers, 0 where there is no parcel; affine (4, 4) from voxels to millimetres."""

    labels: Array
    affine: Array


def read_atlas(path: Path) -> Atlas:
    """A label atlas or mask; kept until the file changes. Raises ValueError where there is none, or an image without labels."""
    if not path.exists():
        raise ValueError(f"the atlas or mask {path} is not there; correct `positions` or `mask`.")
    return _atlas(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _atlas(path: Path, _changed: int) -> Atlas:
    import nibabel

    try:
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj)
    except Exception as error:  # whatever a damaged file does to its parsers
        raise ValueError(f"{path} is damaged or no NIfTI ({error}); get it again.") from None
    values = values.reshape(values.shape[:3]) if values.ndim > 3 and set(values.shape[3:]) == {1} else values
    if values.ndim != 3:
        raise ValueError(f"{path} has the shape {values.shape}; an atlas of labels is one volume.")
    labels = np.nan_to_num(values, nan=-1).astype(np.int32)
    if (labels != values).any() or labels.min() < 0 or not labels.any():
        raise ValueError(f"{path} is no atlas of labels: voxels need whole numbers from 0, and some must be above.")
    return Atlas(labels, image.affine)


def centroids(path: Path) -> Mapping[str, Array]:
    """Centre of mass of every label of an atlas, millimetres, by the label as text."""
    import nibabel

    labels, affine = read_atlas(path)
    voxels = np.argwhere(labels)
    found, owner, counts = np.unique(labels[tuple(voxels.T)], return_inverse=True, return_counts=True)
    centres = np.stack([np.bincount(owner, weights=voxels[:, axis]) / counts for axis in range(3)], axis=1)
    return {str(label): xyz for label, xyz in zip(found, nibabel.affines.apply_affine(affine, centres), strict=True)}
