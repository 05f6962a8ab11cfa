"""fMRI in NIfTI: a 4-D run and a label atlas -> one channel per parcel; without an atlas one per voxel, of small runs.

The run is read a block of volumes at a time. An atlas on another grid is brought to the run's by nearest neighbour, so
both must be in the same space. A parcel outside the field of view has no channel and is named in the history.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.readers.base import alone, build, naming
from neurofm_ml.data.readers.positions import Atlas, centroids, read_atlas
from neurofm_ml.data.readers.series import read_series
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec
from neurofm_ml.knowledge.files import recording_files
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.types import Array, Recording, Series, Signal

SUFFIXES = (".nii", ".nii.gz")
#: Seconds between two volumes that a scanner can make; a number beyond is in another unit.
TR_S = (0.02, 30.0)
#: Of a run that is read voxel by voxel.
MAX_VOXELS = 20_000
#: Of the volumes that are in memory together, as float64.
BLOCK_BYTES = 64_000_000
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One run with what was recorded beside it: confounds and other tables lie on the run's clock, a row per volume,
    where the card states neither their rate nor their times."""
    paths = {name: _one_file(card, spec, name, signal) for name, signal in card.signals.items()}
    runs = [name for name, path in paths.items() if path.name.endswith(SUFFIXES)]
    if len(runs) != 1:
        raise ValueError(f"{card.name}/{spec.id}: {len(runs)} of its signals lie in a NIfTI file; the reader 'nifti' needs one.")
    with naming(f"{card.name}/{spec.id}, signal {runs[0]!r}"):
        bold, notes = _described(paths[runs[0]], card.signals[runs[0]], data_root(card) or Path())
    signals: dict[str, Series] = {}
    for name, signal in card.signals.items():
        with naming(f"{card.name}/{spec.id}, signal {name!r}"):
            signals[name] = bold if name == runs[0] else _beside(paths[name], signal, bold)
    return build(card, spec, signals, notes=notes)


def _one_file(card: DatasetCard, spec: RecordingSpec, name: str, signal: SignalSpec) -> Path:
    first, *others = recording_files(card, spec, signal.file or card.pattern)
    if others:
        raise ValueError(f"{card.name}/{spec.id}, signal {name!r}: {len(others) + 1} files match, first {first}; narrow the pattern.")
    return first


def _described(path: Path, signal: SignalSpec, root: Path) -> tuple[Signal, tuple[str, ...]]:
    """The run at `path` as the card's `signal` wants it; atlas and mask lie under `root`."""
    atlas, mask = (root / name if name else None for name in (signal.positions, signal.mask))
    bold, notes = read_bold(path, atlas, mask, signal.sfreq)
    names = signal.ch_names or bold.ch_names
    if len(names) != len(bold.ch_names):
        raise ValueError(f"ch_names has {len(names)} names for the {len(bold.ch_names)} channels in the field of view.")
    values = bold.values * np.float32(signal.scale)
    return replace(bold, values=values, ch_names=names, modality=signal.modality, t0=signal.t0 or 0.0, unit=signal.unit), notes


def _beside(path: Path, signal: SignalSpec, bold: Signal) -> Series:
    if signal.sfreq or signal.time:
        return read_series(path, signal)
    series = read_series(path, replace(signal, sfreq=bold.sfreq))
    if len(series.times) != len(bold.values):
        raise ValueError(
            f"{path} has {len(series.times)} rows for {len(bold.values)} volumes. Where rows of discarded volumes come first, state "
            f"sfreq: {bold.sfreq:g} and t0, the (negative) time of the first row; else get the right file."
        )
    return series


def read_file(path: Path, signal: SignalSpec | None = None) -> Recording:
    """One run as a recording; `signal` may state the rate, and an atlas or mask in the folder of the run."""
    bold, notes = _described(path, signal or SignalSpec(modality="fmri"), path.parent)
    return alone(path, "nifti", {bold.modality: bold}, notes=notes)


def read_bold(
    path: Path, atlas: Path | None = None, mask: Path | None = None, sfreq: float | None = None
) -> tuple[Signal, tuple[str, ...]]:
    """One run, and notes for the history of its recording: parcels of `atlas`, or else the voxels of `mask` (of all).

    Parcels are named by their labels, voxels by their indices ("12-7-3"); positions are in millimetres of the image's space.
    `sfreq` (Hz) overrides the header. Raises ValueError naming the file, what is wrong with it and the remedy.
    """
    image = _open(path)
    rate, notes = _rate(path, image, sfreq)
    with naming(path):
        values, names, positions, more = _in_parcels(image, atlas) if atlas else _in_voxels(image, mask)
    if (bad := np.argwhere(~np.isfinite(values))).size:
        volume, channel = bad[0]
        raise ValueError(
            f"{path}: {len(np.unique(bad[:, 1]))} channels hold values that are not finite, first {names[channel]} at volume {volume}; "
            "repair the run, or leave those voxels out of the atlas or mask."
        )
    return Signal(values, rate, "fmri", 0.0, names, positions), (*notes, *more)


# ---------------------------------------------------------------- the file
def _open(path: Path) -> Any:
    """A 4-D image. Raises ValueError for what is not one."""
    import nibabel

    try:
        # A zipped file that stays open is decompressed once, not once per block.
        image: Any = nibabel.load(path, keep_file_open=True)
    except Exception as error:  # whatever a damaged file does to its parsers
        raise ValueError(f"{path} is damaged or no NIfTI ({error}); get it again.") from None
    shape = image.shape
    if not isinstance(image, nibabel.Nifti1Pair):
        raise ValueError(
            f"{path} is {type(image).__name__} {shape}, no volumes: bring surfaces to parcels first, and read those as an array."
        )
    if len(shape) < 4 or set(shape[3:]) == {1}:
        missing = float(np.isnan(np.asarray(image.dataobj)).mean())
        holes = f", {missing:.1%} of it NaN" if missing else ""
        raise ValueError(f"{path} is one volume {shape}{holes}: a map, mask or anatomy. A recording needs volumes over time (x, y, z, t).")
    if len(shape) > 4:
        raise ValueError(f"{path} has {len(shape)} dimensions {shape}; a run has four (x, y, z, t). Save each of its runs as one file.")
    if not (image.header["sform_code"] or image.header["qform_code"]):
        raise ValueError(f"{path} has no affine (sform and qform codes are 0), so where its voxels lie is not known; write one into it.")
    return image


def _rate(path: Path, image: Any, sfreq: float | None) -> tuple[float, tuple[str, ...]]:
    """Volumes per second, and a note where the card overrides the header."""
    unit, stored = image.header.get_xyzt_units()[1], float(image.header.get_zooms()[3])
    seconds = float(f"{stored * _SECONDS.get(unit, np.nan):.7g}")  # float32 in the file
    if sfreq is None and not TR_S[0] <= seconds <= TR_S[1]:
        raise ValueError(
            f"{path}: its repetition time is {stored:g} in the unit {unit!r}, which no scanner has ({TR_S[0]:g} to {TR_S[1]:g} s). State the "
            "rate in Hz: sfreq in the card, or read(path, SignalSpec(modality='fmri', sfreq=0.5))."
        )
    if sfreq is None:
        return float(f"{1 / seconds:.9g}"), ()
    agrees = abs(seconds * sfreq - 1) < 1e-3
    return sfreq, () if agrees else (f"{sfreq:g} Hz stated; the file's repetition time is {stored:g} in the unit {unit!r}",)


def _series(image: Any, n_chans: int, reduce: Callable[[Array], Array]) -> Array:
    """(n_volumes, n_chans) float32: `reduce` of (n_voxels, n) blocks of volumes, voxels in the file's order."""
    values = np.empty((image.shape[3], n_chans), np.float32)
    for start, block in _blocks(image):
        values[start : start + block.shape[1]] = reduce(block).T
    return values


def _blocks(image: Any) -> Iterator[tuple[int, Array]]:
    n_voxels, n_volumes = int(np.prod(image.shape[:3])), image.shape[3]
    step = max(1, BLOCK_BYTES // (8 * n_voxels))
    for start in range(0, n_volumes, step):
        try:
            block = np.asarray(image.dataobj[..., start : start + step], np.float64)
        except (OSError, EOFError, ValueError, MemoryError, zlib.error) as error:
            raise ValueError(f"it is cut short or damaged at volume {start} of {n_volumes} ({error}); get it again.") from None
        yield start, block.reshape(n_voxels, -1, order="F")


# ---------------------------------------------------------------- parcels and voxels
Found = tuple[Array, tuple[str, ...], Array, tuple[str, ...]]


def _in_parcels(image: Any, path: Path) -> Found:
    """Mean over the voxels of each parcel."""
    atlas = read_atlas(path)
    volume = on_grid(atlas, image.shape[:3], image.affine)
    labels = volume.ravel(order="F")
    voxels = np.flatnonzero(labels)
    if not len(voxels):
        raise ValueError(f"no parcel of {path} lies in its field of view; bring both to the same space.")
    voxels = voxels[np.argsort(labels[voxels], kind="stable")]
    found, starts, counts = np.unique(labels[voxels], return_index=True, return_counts=True)
    values = _series(image, len(found), lambda block: np.add.reduceat(block[voxels], starts, axis=0) / counts[:, None])
    places, names = centroids(path), tuple(map(str, found))
    remarks = {
        f"parcels of {path.name} outside the field of view, left out": [label for label in places if label not in names],
        "parcels that are all zero": [name for name, column in zip(names, values.T, strict=True) if not column.any()],
    }
    notes = tuple(f"{remark}: {', '.join(labels)}" for remark, labels in remarks.items() if labels)
    brought = () if volume is atlas.labels else (f"{path.name} brought to the run's grid (nearest neighbour)",)
    return values, names, np.array([places[name] for name in names]), (*brought, *notes)


def _in_voxels(image: Any, path: Path | None) -> Found:
    inside = on_grid(read_atlas(path), image.shape[:3], image.affine) != 0 if path else np.ones(image.shape[:3], bool)
    voxels = np.flatnonzero(inside.ravel(order="F"))
    if not 1 <= len(voxels) <= MAX_VOXELS:
        raise ValueError(f"{len(voxels)} voxels would be channels; name an atlas (`positions`), or a `mask` of 1 to {MAX_VOXELS} voxels.")
    index = np.stack(np.unravel_index(voxels, image.shape[:3], order="F"), axis=1)
    names = tuple("-".join(map(str, ijk)) for ijk in index)
    values = _series(image, len(voxels), lambda block: block[voxels])
    empty = int((~values.any(axis=0)).sum())
    notes = (f"{empty} of {len(voxels)} voxels are all zero",) if empty else ()
    return values, names, index @ image.affine[:3, :3].T + image.affine[:3, 3], notes


def on_grid(atlas: Atlas, shape: tuple[int, ...], affine: Array) -> Array:
    """(X, Y, Z) labels of `atlas` at the voxel centres of another grid, 0 outside of it: its nearest voxel's."""
    if atlas.labels.shape == shape and np.allclose(atlas.affine, affine, atol=1e-3):
        return atlas.labels
    to_atlas, (i, j, k) = np.linalg.inv(atlas.affine) @ affine, np.ogrid[tuple(map(slice, shape))]
    index = [np.floor(row[0] * i + row[1] * j + row[2] * k + row[3] + 0.5).astype(np.intp) for row in to_atlas[:3]]
    inside = np.logical_and.reduce([(at >= 0) & (at < n) for at, n in zip(index, atlas.labels.shape, strict=True)])
    labels = np.zeros(shape, atlas.labels.dtype)
    labels[inside] = atlas.labels[tuple(at[inside] for at in index)]
    return labels
