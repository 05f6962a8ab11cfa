"""Files and corpora of coordinates: NiMARE as the twin, stated counts, what is malformed named by its line."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.foci import read_foci, talairach_to_mni
from neurofm_ml.data.foci.sleuth import named
from neurofm_ml.data.foci.space import space_of
from neurofm_ml.jobs import JobSpec, run
from neurofm_ml.knowledge.corpora import CorpusCard, corpora, corpus_files
from neurofm_ml.types import Foci

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
real = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
PAIN = DATA / "fmri/nimare_pain21"

SLEUTH = """// Reference=Talairach
// Smith et al., 2010: faces > houses
// Subjects=20
-16\t-58\t-22
26  -64  -50.5

// Doe: J Exp: Psych 1999; pain
// second line
// Subjects=7
1 2 3
"""


def read_peaks(path: Path) -> Foci:
    foci = read(path)
    assert isinstance(foci, Foci)
    return foci


def flat(dataset: dict[str, Any]) -> list[tuple[str, str, str, tuple[float, float, float]]]:
    """Peaks of NiMARE's own dict: study, contrast, space, millimetres."""
    return [
        (study, f"{study}-{name}", space_of(c["coords"]["space"]), xyz)
        for study, about in dataset.items()
        for name, c in about["contrasts"].items()
        if "coords" in c
        for xyz in zip(c["coords"]["x"], c["coords"]["y"], c["coords"]["z"], strict=True)
    ]


def rows(foci: Foci) -> list[tuple[str, str, str, tuple[float, float, float]]]:
    return [
        (str(s), str(c), str(p), tuple(xyz)) for s, c, p, xyz in zip(foci.study, foci.contrast, foci.space, foci.xyz.tolist(), strict=True)
    ]  # type: ignore[misc]


# ---------------------------------------------------------------- spaces
def test_talairach_to_mni_is_nimare_s() -> None:
    from nimare.utils import mni2tal, tal2mni

    xyz = np.random.default_rng(0).uniform(-60, 60, (50, 3))
    np.testing.assert_allclose(talairach_to_mni(xyz), tal2mni(xyz), atol=1e-9)
    np.testing.assert_allclose(talairach_to_mni(mni2tal(xyz)), xyz, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("MNI", "MNI"),
        ("mni152nlin2009", "MNI"),
        ("Talairach", "TAL"),
        ("", "UNKNOWN"),
        (None, "UNKNOWN"),
        ("UNKNOWN", "UNKNOWN"),
        ("Dog", "OTHER"),
    ],
)
def test_names_of_spaces(name: str | None, space: str) -> None:
    assert space_of(name) == space


# ---------------------------------------------------------------- Sleuth
def test_sleuth_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SLEUTH)
    foci = read_peaks(tmp_path / "a.txt")
    np.testing.assert_array_equal(foci.xyz, [[-16, -58, -22], [26, -64, -50.5], [1, 2, 3]])
    assert foci.study.tolist() == ["Smith et al., 2010"] * 2 + ["Doe: J Exp: Psych 1999"]
    assert foci.contrast[2] == "Doe: J Exp: Psych 1999-pain second line"
    assert set(foci.space) == {"TAL"}
    assert set(foci.direction) == {"unknown"}
    assert foci.sample_size is not None
    assert foci.sample_size.tolist() == [20, 20, 7]


def test_two_experiments_of_one_name_keep_all_their_peaks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("// Reference=MNI\n" + "// S: e\n// Subjects=5\n1 1 1\n" * 2)
    assert read_peaks(tmp_path / "a.txt").xyz.shape == (2, 3)


@pytest.mark.parametrize("name", ["semantic_knowledge_children.txt", "semantic_relatedness_children.txt"])
def test_sleuth_agrees_with_nimare(name: str) -> None:
    from nimare.io import convert_sleuth_to_dict

    spec = find_spec("nimare")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "resources" / name
    theirs = convert_sleuth_to_dict(str(path))
    foci = read_peaks(path)
    assert rows(foci) == flat(theirs)
    sizes = {f"{s}-{n}": c["metadata"]["sample_sizes"] for s, about in theirs.items() for n, c in about["contrasts"].items()}
    assert foci.sample_size is not None
    assert foci.sample_size.tolist() == [sum(sizes[str(contrast)]) for contrast in foci.contrast]


@pytest.mark.parametrize(
    ("heading", "parts"),
    [
        ("Smith 2010: faces", ("Smith 2010", "faces")),
        ("J: Neuro 2010; a: b", ("J: Neuro 2010", "a: b")),
        ("Smith: faces; b", ("Smith: faces", "b")),
        ("Smith", ("Smith", "analysis_1")),
        ("Smith 2010:", ("Smith 2010", "analysis_1")),
    ],
)
def test_headings(heading: str, parts: tuple[str, str]) -> None:
    assert named(heading) == parts


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("// Reference=Dog\n// a\n// Subjects=3\n1 2 3\n", "a.txt, line 1: Sleuth text begins with"),
        ("// Reference=MNI\n// a: b\n// Subjects=3\n1 2\n", "a.txt, line 4: '1 2' is no peak"),
        ("// Reference=MNI\n// a: b\n// Subjects=3\n1 2 dog\n", "a.txt, line 4: '1 2 dog' is no peak"),
        ("// Reference=MNI\n// a: b\n1 2 3\n", "a.txt, line 3: the experiment 'a: b' has no '// Subjects=' line"),
        ("// Reference=MNI\n// a: b\n// Subjects=3\n", "a.txt holds no peak"),
    ],
)
def test_malformed_sleuth_is_refused_by_line(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=match):
        read(tmp_path / "a.txt")


# ---------------------------------------------------------------- JSON
def dataset(**coords: Any) -> dict[str, Any]:
    whole = {"space": "MNI", "x": [1.0, 2.0], "y": [3.0, 4.0], "z": [5.0, 6.0], **coords}
    return {"s1": {"contrasts": {"1": {"coords": whole, "metadata": {"sample_sizes": [10, 12]}}, "2": {"metadata": {}}}}}


def test_a_dataset_and_a_studyset_in_json_agree(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(dataset(z_stat=[2.5, -3.0])))
    points = [
        {"space": "MNI", "coordinates": [1, 3, 5], "values": [{"kind": "z-statistic", "value": 2.5}]},
        {"space": "MNI", "coordinates": [2, 4, 6], "values": [{"kind": "z-statistic", "value": -3.0}]},
    ]
    study = {"id": "s1", "analyses": [{"id": "1", "points": points, "metadata": {"sample_sizes": [10, 12]}}], "metadata": {}}
    (tmp_path / "s.json").write_text(json.dumps({"id": "x", "studies": [study]}))
    first, second = (read_peaks(tmp_path / name) for name in ("d.json", "s.json"))
    assert rows(first) == rows(second) == [("s1", "s1-1", "MNI", (1, 3, 5)), ("s1", "s1-1", "MNI", (2, 4, 6))]
    for foci in (first, second):
        assert foci.direction.tolist() == ["activation", "deactivation"]
        assert foci.sample_size is not None
        assert foci.sample_size.tolist() == [22, 22]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (json.dumps(dataset(y=[3.0])), r"d.json is damaged or no JSON of NiMARE \(ValueError: zip"),
        (json.dumps(dataset())[:-20], r"d.json is damaged or no JSON of NiMARE \(JSONDecodeError"),
        ('{"s1": {"contrasts": {}}}', "d.json holds no peak"),
    ],
)
def test_damaged_json_is_refused(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(ValueError, match=match):
        read(tmp_path / "d.json")


def test_neurosynth_needs_the_spaces_of_its_studies(tmp_path: Path) -> None:
    path = tmp_path / "v_coordinates.tsv.gz"
    peaks = pd.DataFrame(
        {"id": [7, 8], "table_id": [1, 2], "table_num": ["1", "2"], "peak_id": [1, 2], "x": [1.0, 2], "y": [3.0, 4], "z": [5.0, 6]}
    )
    peaks.to_csv(path, sep="\t", index=False)
    with pytest.raises(ValueError, match="does not say in which space its peaks are; put the metadata file"):
        read(path)
    pd.DataFrame({"id": [7], "space": ["TAL"]}).to_csv(tmp_path / "v_metadata.tsv.gz", sep="\t", index=False)
    with pytest.raises(ValueError, match=r"v_metadata.tsv.gz lacks 1 studies of v_coordinates.tsv.gz, first 8"):
        read(path)
    pd.DataFrame({"id": [8, 7], "space": ["MNI", "TAL"]}).to_csv(tmp_path / "v_metadata.tsv.gz", sep="\t", index=False)
    foci = read_peaks(path)
    assert (foci.study.tolist(), foci.contrast.tolist(), foci.space.tolist()) == (["7", "8"], ["1", "2"], ["TAL", "MNI"])


# ---------------------------------------------------------------- corpora
def test_a_user_s_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora/a.txt").write_text(SLEUTH)
    (tmp_path / "corpora/mine.yaml").write_text(
        "name: mine\ntitle: t\nlicence: l\nsource: s\nfile: a.txt\nreader: sleuth\nexpected: {studies: 2, contrasts: 2, peaks: 4}\n"
    )
    result = run(
        JobSpec(job="read_foci", config={"corpus": "mine"}, inputs={"raw": (str(tmp_path / "corpora/a.txt"),)}, out=str(tmp_path / "o"))
    )
    assert result.failed == ["counts_match_the_corpus"], "3 peaks, not 4"
    table = pd.read_parquet(Path(result.path) / "foci.parquet")
    assert table.sample_size.tolist() == [20, 20, 7]
    assert table.space.unique().tolist() == ["TAL"], "as published"


def test_corpora_without_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROFM_DATA", raising=False)
    assert [name for name in corpora() if corpus_files(corpora()[name])] == ["nback_flanker"]
    with pytest.raises(ValueError, match=r"the corpus 'pain21' is not here .*get it from https.* NEUROFM_DATA at it"):
        read("pain21")
    with pytest.raises(ValueError, match="expected names people; the numbers of a corpus are studies, contrasts and peaks"):
        CorpusCard(name="a", title="t", licence="l", source="s", file="a", reader="sleuth", expected={"people": 1})


@real
@pytest.mark.parametrize("name", list(corpora()))
def test_real_corpora_hold_what_their_cards_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))
    raw = tuple(map(str, corpus_files(corpora()[name])))
    result = run(JobSpec(job="read_foci", config={"corpus": name}, inputs={"raw": raw}, out=str(tmp_path / "o")))
    assert all(check["passed"] for check in result.checks)
    assert {key: result.metrics[key] for key in ("studies", "contrasts", "peaks")} == corpora()[name].expected


@real
def test_neurosynth_joins_its_studies() -> None:
    foci, table = read_foci("neurosynth_v7"), read("neurosynth_v7_studies")
    assert not isinstance(table, Foci | list)
    studies = dict(zip(table.columns["study"], table.columns["space"], strict=True))  # type: ignore[union-attr]
    of_study = {str(s): str(p) for s, p in zip(foci.study, foci.space, strict=True)}
    assert of_study == studies
    counts = dict(zip(*np.unique(list(of_study.values()), return_counts=True), strict=True))
    assert counts == {"MNI": 10204, "TAL": 2335, "UNKNOWN": 1832}
    years = table.columns["year"]  # type: ignore[union-attr]
    assert (years.min(), years.max()) == (1997, 2018)


@real
@pytest.mark.parametrize("name", ["test_sleuth_file.txt", "test_sleuth_file2.txt"])
def test_real_sleuth_files_agree_with_nimare(name: str) -> None:
    from nimare.io import convert_sleuth_to_dict

    assert rows(read_peaks(PAIN / name)) == flat(convert_sleuth_to_dict(str(PAIN / name)))


@real
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("test_sleuth_file3.txt", "line 5: '10  20  dog' is no peak"),
        ("test_sleuth_file4.txt", "line 5"),
        ("test_sleuth_file5.txt", "line 1"),
    ],
)
def test_real_malformed_sleuth_files(name: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read(PAIN / name)


@real
def test_the_pain_studies_are_the_same_in_two_formats() -> None:
    first, second = (read_peaks(PAIN / name) for name in ("nidm_pain_dset.json", "nidm_pain_studyset.json"))
    assert sorted(rows(first)) == sorted(rows(second))
    assert first.sample_size is not None
    assert {float(n) for n in first.sample_size} == {9, 12, 13, 14, 16, 20, 24, 25, 32}
