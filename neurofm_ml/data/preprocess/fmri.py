"""fMRI: head motion measured and undone, spaces, motion indices, confounds regressed out.

Volumes are (X, Y, Z, T) as nibabel gives them; T volumes, V voxels or parcels, K confounds. Motion (T, 6) is x, y, z in
millimetres, then rotations about x, y, z in radians. Parcellation is the affair of the readers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import DerivedStep, Step, as_signal, check_finite
from neurofm_ml.data.preprocess.filters import band_pass
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Recording, Signal

#: Radius in millimetres of the sphere on which rotations are measured (Power et al. 2012).
HEAD_MM = 50.0
#: Gauss-Newton stops when no parameter moves further than this, mm (rotations on the sphere): voxels that enter and leave the view
#: keep it from settling much closer.
_CONVERGED = 0.02
_ITERATIONS = 100


# ---------------------------------------------------------------- indices of motion
def framewise_displacement(motion: Array) -> Array:
    """(T, 6) -> (T,) millimetres: sum of the absolute changes, rotations as arcs on a 50 mm sphere (Power et al. 2012). The first is NaN."""
    steps = np.abs(np.diff(motion, axis=0)) * np.repeat([1.0, HEAD_MM], 3)
    return np.concatenate([[np.nan], steps.sum(axis=1)])


def dvars(values: Array) -> Array:
    """(T, V) -> (T,) root mean square over voxels of the change since the last volume (Power et al. 2012). The first is NaN."""
    steps = np.diff(np.asarray(values, np.float64), axis=0)
    return np.concatenate([[np.nan], np.sqrt(np.mean(steps**2, axis=1))])


# ---------------------------------------------------------------- rigid motion
def rigid(motion: Array, centre: Array) -> Array:
    """(4, 4) that turns millimetres about `centre` (3,) and then shifts them, for one row (6,) of motion parameters."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", motion[3:]).as_matrix()
    matrix[:3, 3] = motion[:3] + centre - matrix[:3, :3] @ centre
    return matrix


def _parameters(matrix: Array, centre: Array) -> Array:
    from scipy.spatial.transform import Rotation

    shift = matrix[:3, :3] @ centre + matrix[:3, 3] - centre
    return np.concatenate([shift, Rotation.from_matrix(matrix[:3, :3]).as_euler("xyz")])


def estimate_motion(volumes: Array, voxel_mm: Sequence[float]) -> Array:
    """(X, Y, Z, T) -> (T, 6): where the head of the first volume is in each volume.

    Least squares of intensities by Gauss-Newton, inverse compositional (Baker & Matthews 2004), on volumes smoothed by one voxel;
    each volume starts from the one before.
    """
    from scipy.ndimage import gaussian_filter

    if volumes.ndim != 4 or min(volumes.shape[:3]) < 4:
        raise ValueError(f"volumes have shape {volumes.shape}; motion needs (X, Y, Z, T) with at least 4 voxels on each side.")
    check_finite(volumes, "set what lies outside the brain to 0")
    size = np.asarray(voxel_mm, np.float64)
    # Relative to its mean: the first volumes of a run are brighter.
    smooth = [gaussian_filter(volume / np.mean(volume), 1.0, output=np.float64) for volume in np.moveaxis(volumes, 3, 0)]
    register = _Registration(smooth[0], size)
    matrix, motion = np.eye(4), np.zeros((len(smooth), 6))
    for k in range(1, len(smooth)):
        matrix = register.find(smooth[k], matrix)
        motion[k] = _parameters(matrix, register.centre)
    return motion


class _Registration:
    """What stays the same over the volumes: the reference's points (N, 3) in millimetres, and how its intensities change with motion."""

    def __init__(self, reference: Array, voxel_mm: Array) -> None:
        self.voxel_mm = voxel_mm
        # The outermost voxels have no neighbour for their gradient.
        inner = (slice(1, -1),) * 3
        self.points = np.stack(np.meshgrid(*(np.arange(1, n - 1) for n in reference.shape), indexing="ij"), -1).reshape(-1, 3) * voxel_mm
        self.centre = (np.array(reference.shape) - 1) / 2 * voxel_mm
        self.values = reference[inner].ravel()
        gradient = np.stack([g[inner].ravel() for g in np.gradient(reference, *voxel_mm)], axis=1)
        self.steepest = np.hstack([gradient, np.cross(self.points - self.centre, gradient)])

    def find(self, volume: Array, matrix: Array) -> Array:
        """(4, 4) from the reference's millimetres to those of `volume`, starting at `matrix`."""
        from scipy.ndimage import map_coordinates, spline_filter

        spline = spline_filter(volume, order=3)
        for _ in range(_ITERATIONS):
            moved = (self.points @ matrix[:3, :3].T + matrix[:3, 3]) / self.voxel_mm
            seen = map_coordinates(spline, moved.T, order=3, mode="constant", cval=np.nan, prefilter=False)
            inside = np.isfinite(seen)
            steepest = self.steepest[inside]
            step = np.linalg.solve(steepest.T @ steepest, steepest.T @ (seen - self.values)[inside])
            matrix = matrix @ np.linalg.inv(rigid(step, self.centre))
            if np.abs(step * np.repeat([1.0, HEAD_MM], 3)).max() < _CONVERGED:
                return matrix
        raise ValueError(
            f"a volume could not be registered to the first in {_ITERATIONS} steps; look at it, and leave it out if the head moved out of view."
        )


def correct_motion(volumes: Array, voxel_mm: Sequence[float], motion: Array) -> Array:
    """(X, Y, Z, T) resampled so that every volume lies as the first; NaN where the head came from out of view."""
    size = np.asarray(voxel_mm, np.float64)
    scale, centre = np.diag([*size, 1.0]), (np.array(volumes.shape[:3]) - 1) / 2 * size
    back = np.linalg.inv(scale)
    corrected = [resample_volume(volumes[..., k], back @ rigid(m, centre) @ scale, volumes.shape[:3]) for k, m in enumerate(motion)]
    return np.stack(corrected, axis=3)


# ---------------------------------------------------------------- spaces
def resample_volume(volume: Array, to_voxels: Array | Callable[[Array], Array], shape: Sequence[int], order: int = 3) -> Array:
    """(X, Y, Z) on a grid of `shape`; `to_voxels` takes the new grid's indices (n, 3) to those of `volume`, NaN outside of it."""
    from scipy.ndimage import map_coordinates

    indices = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 3).astype(np.float64)
    places = to_voxels(indices) if callable(to_voxels) else indices @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    values = map_coordinates(np.asarray(volume, np.float64), places.T, order=order, mode="constant", cval=np.nan)
    return values.reshape(tuple(shape))


def normalise(
    volume: Array,
    affine: Array,
    target_affine: Array,
    target_shape: Sequence[int],
    warp: Array | Callable[[Array], Array],
    order: int = 3,
) -> Array:
    """A volume (X, Y, Z) of a subject in a template's space (MNI, say), as a registration tool's result says.

    affine, target_affine (4, 4): voxel indices to millimetres of either space. `warp` takes millimetres of the template to those of
    the subject: a (4, 4) affine, or a function (n, 3) -> (n, 3) for a deformation field. Nothing is estimated here.
    """
    to_subject = np.linalg.inv(affine)

    def to_voxels(indices: Array) -> Array:
        there = indices @ target_affine[:3, :3].T + target_affine[:3, 3]
        here = warp(there) if callable(warp) else there @ warp[:3, :3].T + warp[:3, 3]
        return here @ to_subject[:3, :3].T + to_subject[:3, 3]

    return resample_volume(volume, to_voxels, target_shape, order)


# ---------------------------------------------------------------- confounds
def remove_confounds(values: Array, confounds: Array, sfreq: float, low_hz: float | None = None, high_hz: float | None = None) -> Array:
    """(T, V) without its linear trend and what (T, K) `confounds` explain of it, between `low_hz` and `high_hz`.

    Both are detrended and filtered alike before the regression, so that filtering brings nothing back (Lindquist et al. 2019).
    """
    from scipy.signal import detrend

    both = np.hstack([np.asarray(values, np.float64), np.asarray(confounds, np.float64)])
    check_finite(both)
    both = detrend(both, axis=0)
    if low_hz is not None or high_hz is not None:
        both = band_pass(both, sfreq, low_hz, high_hz)
    clean, nuisance = both[:, : values.shape[1]], both[:, values.shape[1] :]
    scale = nuisance.std(axis=0)
    nuisance = nuisance / np.where(scale > 0, scale, 1.0)
    return clean - nuisance @ np.linalg.lstsq(nuisance, clean, rcond=None)[0]


# ---------------------------------------------------------------- steps
@config
class FramewiseDisplacement(DerivedStep):
    """Motion in millimetres from six motion parameters: `columns` names them (default: the first six channels)."""

    modalities: ClassVar = ("physio", "pose", "task")
    columns: tuple[str, ...] = ()
    order: Literal["translations first", "rotations first"] = "translations first"

    def derive(self, signal: Signal) -> Signal:
        motion = _columns(signal, self.columns)[:, :6]
        if motion.shape[1] != 6:
            raise ValueError(f"motion has {motion.shape[1]} channels; name three translations and three rotations in `columns`.")
        motion = motion if self.order == "translations first" else np.roll(motion, 3, axis=1)
        return _index(signal, framewise_displacement(motion), "framewise_displacement", "mm")


@config
class Dvars(DerivedStep):
    """How much the image changes from volume to volume."""

    modalities: ClassVar = ("fmri",)

    def derive(self, signal: Signal) -> Signal:
        return _index(signal, dvars(np.asarray(signal.values)), "dvars", signal.unit)


@config
class RemoveConfounds(Step):
    """The signal `confounds` (its `columns`, default all) regressed out, and the band from `low_hz` to `high_hz` kept."""

    modalities: ClassVar = ("fmri",)
    confounds: str
    columns: tuple[str, ...] = ()
    low_hz: float | None = None
    high_hz: float | None = None

    @property
    def fits(self) -> bool:
        return True

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        if self.confounds not in recording.signals:
            raise ValueError(f"confounds is {self.confounds!r}; the signals are {', '.join(recording.signals)}.")
        confounds = as_signal(recording, self.confounds)
        signals = {**recording.signals}
        for name in names:
            signals[name] = self._cleaned(name, as_signal(recording, name), confounds)
        return dataclasses.replace(recording, signals=signals)

    def _cleaned(self, name: str, signal: Signal, confounds: Signal) -> Signal:
        if len(signal.values) != len(confounds.values) or not np.isclose(signal.sfreq, confounds.sfreq):
            raise ValueError(
                f"{name} has {len(signal.values)} rows at {signal.sfreq:g} Hz, {self.confounds} {len(confounds.values)} at "
                f"{confounds.sfreq:g} Hz; cut them to the same volumes."
            )
        columns = _columns(confounds, self.columns)
        values = remove_confounds(np.asarray(signal.values), columns, signal.sfreq, self.low_hz, self.high_hz)
        return dataclasses.replace(signal, values=values.astype(np.float32))


def _columns(signal: Signal, names: Sequence[str]) -> Array:
    """(T, len(names)) float64, all channels when none is named."""
    if unknown := [name for name in names if name not in signal.ch_names]:
        raise ValueError(f"columns names {', '.join(unknown)}; the channels are {', '.join(signal.ch_names)}.")
    values = np.asarray(signal.values, np.float64)
    return values[:, [signal.ch_names.index(name) for name in names]] if names else values


def _index(source: Signal, values: Array, name: str, unit: str) -> Signal:
    return Signal(values[:, None].astype(np.float32), source.sfreq, source.modality, source.t0, (name,), unit=unit)
