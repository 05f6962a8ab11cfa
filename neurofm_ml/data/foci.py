"""Activation coordinates of published studies: read a corpus, write one table of peaks.

The corpus travels inside the nimare wheel (a selection of NeuroStore: n-back and flanker tasks).
Its tables are read where they lie, so nimare itself, which takes seconds to import, is not needed.
Coordinates stay as published: bringing Talairach peaks to MNI is the business of what uses them.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm_ml.presets import FociConfig
from neurofm_ml.types import Array, Check, Foci, Report

#: Folder of each corpus under nimare's resources.
CORPORA = {"nback_flanker": "nback_vs_flanker_studyset_2026-07"}
#: Field of view of the MNI152 template, millimetres: lowest and highest x, y, z.
MNI_BOX = np.array([(-90.0, 90.0), (-126.0, 90.0), (-72.0, 108.0)])
#: Share of peaks outside the box beyond which a corpus is suspect.
MAX_OUTSIDE = 0.01
STATISTICS = ("t_stat", "z_stat")


def read_foci(corpus: str) -> Foci:
    """Every peak of a corpus, in its order. Direction is the sign of the peak's statistic, where one is given."""
    peaks = pd.read_parquet(corpus_folder(corpus) / "coordinates.parquet", columns=["id", "study_id", "x", "y", "z", "space", *STATISTICS])
    statistic = peaks[list(STATISTICS)].bfill(axis=1).iloc[:, 0].to_numpy(float)
    return Foci(
        xyz=peaks[["x", "y", "z"]].to_numpy(float),
        study=peaks.study_id.to_numpy(str),
        contrast=peaks.id.to_numpy(str),
        direction=np.select([statistic > 0, statistic < 0], ["activation", "deactivation"], "unknown"),
        space=peaks.space.to_numpy(str),
        source=f"nimare/{CORPORA[corpus]}",
    )


def corpus_folder(corpus: str) -> Path:
    """Where the tables of a corpus lie."""
    if corpus not in CORPORA:
        raise ValueError(f"corpus is {corpus!r}; allowed: {', '.join(CORPORA)}.")
    spec = find_spec("nimare")
    folder = Path(spec.origin).parent / "resources" / CORPORA[corpus] if spec and spec.origin else Path("nimare is not installed")
    if not (folder / "coordinates.parquet").exists():
        raise ValueError(f"the corpus {corpus!r} is not in this nimare ({folder}); install the version named in constraints.txt.")
    return folder


def ingest_foci(cfg: FociConfig, out: Path) -> Report:
    """Job `read_foci`: a corpus -> `foci.parquet` (study, contrast, direction, space, x, y, z) and a picture."""
    foci = read_foci(cfg.corpus)
    labels = {name: getattr(foci, name) for name in ("study", "contrast", "direction", "space")}
    table = pd.DataFrame({**labels, **dict(zip("xyz", foci.xyz.T, strict=True))})
    table.to_parquet(out / "foci.parquet", index=False)
    draw(foci, out / "foci.png")
    counts = {"studies": table.study.nunique(), "contrasts": table.contrast.nunique(), "peaks": len(table)}
    spaces = {f"peaks.{space}": int(n) for space, n in table.space.value_counts().items()}
    directions = {f"peaks.{direction}": int(n) for direction, n in table.direction.value_counts().items()}
    return Report({**counts, **spaces, **directions}, _checks(foci, counts, cfg.corpus), {"peaks": "foci.png", "table": "foci.parquet"})


def outside_box(foci: Foci) -> Array:
    """(n,) True where a peak lies outside the field of view of the template."""
    return np.any((foci.xyz < MNI_BOX[:, 0]) | (foci.xyz > MNI_BOX[:, 1]), axis=1)


def _checks(foci: Foci, counts: dict[str, int], corpus: str) -> tuple[Check, ...]:
    stated = json.loads((corpus_folder(corpus) / "selection_summary.json").read_text())["output_tables"]
    expected = {"studies": stated["studies"], "contrasts": stated["analyses"], "peaks": stated["coordinates"]}
    missing, outside = int((~np.isfinite(foci.xyz)).any(axis=1).sum()), int(outside_box(foci).sum())
    return (
        Check("counts_match_the_corpus", counts == expected, numbers=counts, threshold=", ".join(f"{n} {k}" for k, n in expected.items())),
        Check("peaks_are_finite", not missing, numbers={"not_finite": missing}, threshold="0"),
        Check(
            "peaks_are_in_the_brain",
            outside <= MAX_OUTSIDE * len(foci.xyz),
            "warn",
            {"outside": outside, "share": outside / len(foci.xyz)},
            f"<= {MAX_OUTSIDE:.0%} outside the MNI152 field of view",
        ),
    )


def draw(foci: Foci, path: Path) -> None:
    """Peaks seen from the right, the front and above; those outside the template's box in red."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    outside = outside_box(foci)
    for axes, (across, up, title) in zip(figure.subplots(1, 3), [(1, 2, "sagittal"), (0, 2, "coronal"), (0, 1, "axial")], strict=True):
        for rows, colour, alpha in ((~outside, "0.2", 0.25), (outside, "tab:red", 1.0)):
            axes.scatter(foci.xyz[rows, across], foci.xyz[rows, up], s=3, alpha=alpha, color=colour, linewidths=0)
        axes.set(title=title, aspect="equal", xlabel=f"{'xyz'[across]} (mm)", ylabel=f"{'xyz'[up]} (mm)")
    figure.savefig(path, dpi=110)
