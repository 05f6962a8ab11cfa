"""The coordinate corpus of the nimare wheel: counts, spaces, and coordinates that lie where brains are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurofm_ml.data.foci import read_foci
from neurofm_ml.data.foci.job import MNI_BOX, draw, ingest_foci, outside_box
from neurofm_ml.presets import FociConfig
from neurofm_ml.types import Foci


def test_the_corpus_has_its_studies_contrasts_and_peaks() -> None:
    foci = read_foci("nback_flanker")
    assert [len(np.unique(a)) for a in (foci.study, foci.contrast)] == [320, 906]
    assert foci.xyz.shape == (9492, 3)
    assert dict(zip(*np.unique(foci.space, return_counts=True), strict=True)) == {"MNI": 7819, "TAL": 1159, "OTHER": 347, "UNKNOWN": 167}
    assert set(foci.direction) == {"activation", "deactivation", "unknown"}
    assert foci.xyz[0] == pytest.approx((3, 26, 37))
    assert "320 studies, 9492 peaks, MNI/OTHER/TAL/UNKNOWN" in repr(foci)


def test_every_contrast_belongs_to_one_study_and_both_hemispheres_are_seen() -> None:
    foci = read_foci("nback_flanker")
    table = pd.DataFrame({"study": foci.study, "contrast": foci.contrast})
    assert table.groupby("contrast").study.nunique().max() == 1
    assert 0.4 < (foci.xyz[:, 0] > 0).mean() < 0.6


def test_ingest_writes_the_peaks_and_reports_those_outside_the_brain(tmp_path: Path) -> None:
    report = ingest_foci(FociConfig(), [], tmp_path)
    foci, table = read_foci("nback_flanker"), pd.read_parquet(tmp_path / "foci.parquet")
    np.testing.assert_array_equal(table[["x", "y", "z"]].to_numpy(), foci.xyz)
    assert list(table.direction) == list(foci.direction)
    assert (report.metrics["studies"], report.metrics["contrasts"], report.metrics["peaks"]) == (320, 906, 9492)
    assert report.metrics["peaks.TAL"] == 1159
    assert all(check.passed for check in report.checks)
    outside = next(check for check in report.checks if check.name == "peaks_are_in_the_brain")
    assert outside.numbers["outside"] == 16
    assert (tmp_path / report.shown["peaks"]).read_bytes().startswith(b"\x89PNG")


def test_the_picture_is_the_same_each_time(tmp_path: Path) -> None:
    foci = read_foci("nback_flanker")
    draw(foci, tmp_path / "a.png")
    draw(foci, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_box_is_closed() -> None:
    corners = np.array([MNI_BOX[:, 0], MNI_BOX[:, 1], MNI_BOX[:, 1] + (1, 0, 0), MNI_BOX[:, 0] - (0, 0, 1)])
    names = np.array(["s"] * 4)
    assert outside_box(Foci(corners, names, names, names, names, "test")).tolist() == [False, False, True, True]


def test_nimare_is_not_imported() -> None:
    code = "import sys; from neurofm_ml.data.foci import read_foci; read_foci('nback_flanker'); assert 'nimare' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_corpus() -> None:
    with pytest.raises(ValueError, match=r"Unknown corpus 'pain'. Did you mean 'pain21'\?"):
        read_foci("pain")
