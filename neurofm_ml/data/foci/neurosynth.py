"""Neurosynth's table of coordinates; which space a study is in stands in the table of studies beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofm_ml.data.foci.space import space_of
from neurofm_ml.types import Foci

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("id", "table_id", "table_num", "peak_id", "x", "y", "z")


def is_neurosynth(path: Path, head: bytes) -> bool:
    return head.splitlines()[:1] == ["\t".join(_COLUMNS).encode()]


def read_neurosynth(path: Path) -> Foci:
    """``..._coordinates.tsv.gz``: a table of a paper stands for a contrast, and a direction is never known."""
    beside = path.with_name(path.name.replace("coordinates", "metadata"))
    if beside == path or not beside.exists():
        raise ValueError(f"{path} does not say in which space its peaks are; put the metadata file of the same version beside it.")
    peaks = _read(path, usecols=["id", "table_id", "x", "y", "z"], dtype={"id": str, "table_id": str, "x": float, "y": float, "z": float})
    spaces = _read(beside, usecols=["id", "space"], dtype=str).drop_duplicates("id").set_index("id").space.map(space_of)
    if unknown := sorted(set(peaks.id) - set(spaces.index)):
        raise ValueError(f"{beside} lacks {len(unknown)} studies of {path.name}, first {unknown[0]}; both must be of one version.")
    return Foci(
        xyz=peaks[["x", "y", "z"]].to_numpy(float),
        study=peaks.id.to_numpy(str),
        contrast=peaks.table_id.to_numpy(str),
        direction=np.full(len(peaks), "unknown"),
        space=peaks.id.map(spaces).to_numpy(str),
        source=f"neurosynth/{path.name}",
    )


def _read(path: Path, **options: Any) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_csv(path, sep="\t", **options)
    except Exception as error:  # whatever a damaged file does to the parser
        raise ValueError(f"{path} is damaged or no table of Neurosynth ({error}); get it again.") from None
