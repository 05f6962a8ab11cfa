"""Stereotactic spaces: how their names are spelled, and Talairach to MNI."""

import numpy as np

from neurofm_ml.types import Array

#: MNI (ICBM-152) to Talairach millimetres, affine for templates other than SPM's and FSL's (icbm_other): Lancaster et al. 2007, Hum Brain
#: Mapp 28:1194, as published with BrainMap's GingerALE.
_ICBM_TO_TALAIRACH = np.array(
    [
        [0.9357, 0.0029, -0.0072, -1.0423],
        [-0.0065, 0.9396, -0.0726, -1.3940],
        [0.0103, 0.0752, 0.8967, 3.6475],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def talairach_to_mni(xyz: Array) -> Array:
    """(n, 3) Talairach millimetres -> (n, 3) MNI millimetres, by the inverse of Lancaster's icbm2tal."""
    to_mni = np.linalg.inv(_ICBM_TO_TALAIRACH)
    return np.asarray(xyz @ to_mni[:3, :3].T + to_mni[:3, 3])


def space_of(name: str | None) -> str:
    """The space that a study names as one of those of Foci."""
    text = (name or "").strip().upper()
    if text.startswith(("MNI", "TAL")):
        return text[:3]
    return "UNKNOWN" if text in ("", "UNKNOWN", "N/A", "NAN") else "OTHER"
