"""NiMARE's files: the tables of a studyset, and JSON of its Dataset or Studyset (NIMADS), plain or gzipped."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.data.foci.rows import Row, as_foci, direction_of
from neurofm_ml.data.foci.space import space_of
from neurofm_ml.types import Foci

#: Statistics whose sign says whether a peak is an activation, as columns and as NIMADS calls them.
STATISTICS = ("t_stat", "z_stat")
_KINDS = ("t-statistic", "z-statistic", "T", "Z", *STATISTICS)


def read_tables(path: Path) -> Foci:
    """``coordinates.parquet`` of a studyset."""
    import pandas as pd

    try:
        peaks = pd.read_parquet(path, columns=["id", "study_id", "x", "y", "z", "space", *STATISTICS])
    except Exception as error:  # whatever a damaged file does to the parser
        raise ValueError(f"{path} is damaged or no table of peaks ({error}); get it again.") from None
    return Foci(
        xyz=peaks[["x", "y", "z"]].to_numpy(float),
        study=peaks.study_id.to_numpy(str),
        contrast=peaks.id.to_numpy(str),
        direction=direction_of(peaks[list(STATISTICS)].bfill(axis=1).iloc[:, 0].to_numpy(float)),
        space=peaks.space.to_numpy(str),
        source=f"nimare/{path.parent.name}",
    )


def is_json(path: Path, head: bytes) -> bool:
    """Whether the first kilobytes have a field of a Dataset or a Studyset."""
    return head.lstrip().startswith(b"{") and (b'"contrasts"' in head or b'"studies"' in head)


def read_json(path: Path) -> Foci:
    """A Dataset (``{study: {"contrasts": ...}}``) or a Studyset (``{"studies": [...]}``). Contrasts without peaks add nothing."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
        rows = list(_of_studyset(content) if "studies" in content else _of_dataset(content))
    except (KeyError, TypeError, AttributeError, ValueError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or no JSON of NiMARE ({type(error).__name__}: {error}); get it again.") from None
    return as_foci(rows, path.name)


def _of_dataset(content: dict[str, Any]) -> Iterator[Row]:
    for study, about in content.items():
        for name, contrast in about["contrasts"].items():
            coords = contrast.get("coords", {"space": "", "x": [], "y": [], "z": []})
            size = _people(contrast.get("metadata", {}))
            n = len(coords["x"])
            statistic = next((coords[kind] for kind in STATISTICS if kind in coords), [np.nan] * n)
            for x, y, z, value in zip(coords["x"], coords["y"], coords["z"], statistic, strict=True):
                yield Row(study, f"{study}-{name}", space_of(coords["space"]), (x, y, z), value, size)


def _of_studyset(content: dict[str, Any]) -> Iterator[Row]:
    for study in content["studies"]:
        for analysis in study["analyses"]:
            size = _people({**study.get("metadata", {}), **analysis.get("metadata", {})})
            for point in analysis["points"]:
                x, y, z = point["coordinates"]
                values = {v["kind"]: v["value"] for v in point.get("values") or ()}
                statistic = next((float(values[kind]) for kind in _KINDS if values.get(kind) is not None), np.nan)
                yield Row(study["id"], f"{study['id']}-{analysis['id']}", space_of(point["space"]), (x, y, z), statistic, size)


def _people(metadata: dict[str, Any]) -> float:
    """People behind a contrast: all groups together."""
    sizes = metadata.get("sample_sizes") or ([metadata["sample_size"]] if metadata.get("sample_size") else [])
    return float(sum(sizes)) if sizes else np.nan
