"""What moves in the scanner: framewise displacement and DVARS (Power et al. 2012, NeuroImage 59:2142).

Shapes: T volumes, C parcels or motion parameters.
"""

import re

import numpy as np

from neurofm_ml.types import Array, Series, Signal

#: Rotations become millimetres on a sphere of this radius.
HEAD_MM = 50.0
#: A volume jumps when its DVARS is this many times the median one.
JUMP = 2.0
#: Names that SPM, FSL, fMRIPrep and AFNI give to motion parameters.
_TRANSLATION = re.compile(r"trans.*|[xyz]|d[xyz]|d[slp]", re.IGNORECASE)
_ROTATION = re.compile(r"rot.*|pitch|roll|yaw", re.IGNORECASE)


def dvars(values: Array) -> Array:
    """(T - 1,) root mean square over parcels (T, C) of the change from volume to volume, in deviations of each parcel."""
    return np.asarray(np.sqrt(np.mean(np.diff(values / np.maximum(values.std(axis=0), 1e-300), axis=0) ** 2, axis=1)))


def volume_numbers(values: Array) -> dict[str, float]:
    """Share of volumes that jump."""
    change = dvars(values)
    return {"jumps": float(np.mean(change > JUMP * np.median(change)))} if len(change) else {}


def framewise_displacement(translation: Array, rotation: Array) -> Array:
    """(T - 1,) millimetres; translation (T, 3) millimetres, rotation (T, 3) radians."""
    return np.asarray(np.abs(np.diff(translation, axis=0)).sum(axis=1) + HEAD_MM * np.abs(np.diff(rotation, axis=0)).sum(axis=1))


def motion_numbers(series: Series) -> dict[str, float]:
    """Mean framewise displacement of a signal of three translations and three rotations, known by their names, in
    millimetres and the angle that its unit names ("mm, rad", "deg, mm"); else nothing."""
    if not isinstance(series, Signal) or not ("mm" in series.unit and ("rad" in series.unit or "deg" in series.unit)):
        return {}
    moved, turned = ([i for i, name in enumerate(series.ch_names) if kind.fullmatch(name)] for kind in (_TRANSLATION, _ROTATION))
    if (len(moved), len(turned)) != (3, 3):
        return {}
    values = np.asarray(series.values, np.float64)
    turns = values[:, turned] if "rad" in series.unit else np.deg2rad(values[:, turned])
    return {"motion_mm": float(np.nanmean(framewise_displacement(values[:, moved], turns)))}
