"""The job `read_foci`: a corpus -> `foci.parquet`, a picture, and whether it is what its card says."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neurofm_ml.config import to_dict
from neurofm_ml.data.foci.read import read_corpus
from neurofm_ml.data.schemas import FOCI, validate
from neurofm_ml.files import write_json
from neurofm_ml.knowledge.corpora import corpora
from neurofm_ml.presets import FociConfig
from neurofm_ml.types import Array, Check, Foci, Report

#: Field of view of the MNI152 template, millimetres: lowest and highest x, y, z.
MNI_BOX = np.array([(-90.0, 90.0), (-126.0, 90.0), (-72.0, 108.0)])
#: Share of peaks outside the box beyond which a corpus is suspect.
MAX_OUTSIDE = 0.01


def ingest_foci(cfg: FociConfig, raw: list[Path], out: Path) -> Report:
    """Read the corpus, whose files are `raw`, and write `foci.parquet` (study, contrast, direction, space, sample_size, x, y, z), the card and a picture."""
    import pandas as pd

    card = corpora()[cfg.corpus]
    foci = read_corpus(card)
    labels = {name: getattr(foci, name) for name in ("study", "contrast", "direction", "space")}
    sizes = np.full(len(foci.xyz), np.nan) if foci.sample_size is None else foci.sample_size
    table = pd.DataFrame({**labels, "sample_size": sizes, **dict(zip("xyz", foci.xyz.T, strict=True))})
    table.to_parquet(out / "foci.parquet", index=False)
    write_json(out / "card.json", to_dict(card))
    draw(foci, out / "foci.png")
    counts = {"studies": table.study.nunique(), "contrasts": table.contrast.nunique(), "peaks": len(table)}
    spaces = {f"peaks.{space}": int(n) for space, n in table.space.value_counts().items()}
    directions = {f"peaks.{direction}": int(n) for direction, n in table.direction.value_counts().items()}
    shown = {"peaks": "foci.png", "table": "foci.parquet"}
    checks = (*_checks(foci, counts, card.expected), validate(table, FOCI))
    return Report({**counts, "files": len(raw), **spaces, **directions}, checks, shown)


def outside_box(foci: Foci) -> Array:
    """(n,) True where a peak lies outside the field of view of the template."""
    return np.any((foci.xyz < MNI_BOX[:, 0]) | (foci.xyz > MNI_BOX[:, 1]), axis=1)


def _checks(foci: Foci, counts: dict[str, int], expected: Mapping[str, float]) -> tuple[Check, ...]:
    wrong = [name for name, n in expected.items() if counts[name] != n]
    missing, outside = int((~np.isfinite(foci.xyz)).any(axis=1).sum()), int(outside_box(foci).sum())
    stated = ", ".join(f"{n:g} {name}" for name, n in expected.items()) or "nothing stated"
    return (
        Check("counts_match_the_corpus", not wrong, numbers=counts, threshold=stated),
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
    outside, faint = outside_box(foci), min(0.25, 2500 / len(foci.xyz))
    for axes, (across, up, title) in zip(figure.subplots(1, 3), [(1, 2, "sagittal"), (0, 2, "coronal"), (0, 1, "axial")], strict=True):
        for rows, colour, alpha in ((~outside, "0.2", faint), (outside, "tab:red", 1.0)):
            axes.scatter(foci.xyz[rows, across], foci.xyz[rows, up], s=3, alpha=alpha, color=colour, linewidths=0)
        axes.set(title=title, aspect="equal", xlabel=f"{'xyz'[across]} (mm)", ylabel=f"{'xyz'[up]} (mm)")
    figure.savefig(path, dpi=110)
