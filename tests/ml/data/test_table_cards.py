"""Tables: files joined on their key as pandas joins them, codes and kinds as the card says, faults named, the real sets whole."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from neurofm_ml.data import read
from neurofm_ml.data.tables import load_table
from neurofm_ml.jobs import JobResult, JobSpec, run
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.corpora import corpora
from neurofm_ml.knowledge.tables import ColumnSpec, NamedFile, TableCard, TableFile, table_files, tables
from neurofm_ml.types import Table

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
real = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))


def make_card(root: Path, **fields: Any) -> TableCard:
    files = (TableFile(file="people.tsv"),)
    return TableCard(
        **{"name": "t", "title": "t", "licence": "l", "source": "me", "root": str(root), "key": ("id",), "files": files} | fields
    )


def run_job(card: str, out: Path) -> JobResult:
    raw = tuple(map(str, table_files(tables()[card])))
    return run(JobSpec(job="read_table", config={"table": card}, inputs={"raw": raw}, out=str(out / card)))


def not_passed(result: JobResult) -> dict[str, str]:
    return {c["name"]: c["note"] for c in result.checks if not c["passed"]}


# ---------------------------------------------------------------- joining
def test_files_are_joined_as_pandas_joins_them(tmp_path: Path) -> None:
    left = pd.DataFrame({"id": ["b", "a", "c"], "age": [3.0, 1.0, 2.0]})
    right = pd.DataFrame({"name": ["c", "d", "b"], "score": [0.5, 1.5, 2.5]})
    left.to_csv(tmp_path / "people.tsv", sep="\t", index=False)
    right.to_csv(tmp_path / "scores.csv", index=False)
    table = load_table(make_card(tmp_path, files=(TableFile(file="people.tsv"), TableFile(file="scores.csv", key=("name",), prefix="x_"))))
    merged = left.merge(right.rename(columns={"name": "id", "score": "x_score"}), on="id", how="outer").set_index("id")
    assert table.columns["id"].tolist() == ["b", "a", "c", "d"], "in the order of first sight"
    for name in ("age", "x_score"):
        np.testing.assert_array_equal(table.columns[name], merged[name].loc[table.columns["id"]])


def test_a_key_of_two_columns_and_lists_in_json(tmp_path: Path) -> None:
    people = {"p1": {"task": ["a", "b"], "age": ["20", "n/a"]}, "p2": {"task": ["a"], "age": [31]}}
    (tmp_path / "people.json").write_text(json.dumps(people))
    table = load_table(make_card(tmp_path, key=("person", "task"), files=(TableFile(file="people.json"),)))
    assert table.columns["person"].tolist() == ["p1", "p1", "p2"]
    assert table.columns["task"].tolist() == ["a", "b", "a"]
    np.testing.assert_array_equal(table.columns["age"], [20, np.nan, 31])


def test_files_that_do_not_name_their_rows(tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text("id\tx\nr1\t1\nr2\t2\nr3\t3\n")
    weights = np.array([[0, 0.5], [0.25, 0], [0, 0]])
    sparse.save_npz(tmp_path / "w.npz", sparse.csc_matrix(weights))
    (tmp_path / "words.txt").write_text("pain\nface\n")
    for name in ("D1", "D2"):
        (tmp_path / f"{name}.csv").write_text(f"0.1,0.2,{name[1]}\n")
    files = (
        TableFile(file="people.tsv"),
        TableFile(file="w.npz", in_order=True, names_file="words.txt", prefix="topic_"),
        TableFile(file="D*.csv", in_order=True, transpose=True, names=("{stem}",), prefix="pet_"),
    )
    table = load_table(make_card(tmp_path, files=files))
    assert list(table.columns) == ["id", "x", "topic_pain", "topic_face", "pet_D1", "pet_D2"]
    np.testing.assert_array_equal(np.stack([table.columns["topic_pain"], table.columns["topic_face"]], axis=1), weights)
    np.testing.assert_array_equal(table.columns["pet_D2"], [0.1, 0.2, 2])


# ---------------------------------------------------------------- what cells mean
def test_missing_codes_kinds_and_categories(tmp_path: Path) -> None:
    (tmp_path / "people.tsv").write_text(
        "id\tiq\tbmi\tsex\tnote\tempty\n007\t100\t20.5\t1\t12\t\n8\t-9999.0\t6.53\t2\tn/a\tn/a\n9\t\t-9999\t-9999\tword\t-9999\n"
    )
    columns = {
        "iq": ColumnSpec(kind="whole", low=40, high=160),
        "bm*": ColumnSpec(unit="kg/m2", missing=("6.53",)),
        "sex": ColumnSpec(kind="category", codes={"1": "male", "2": "female"}),
    }
    table = load_table(make_card(tmp_path, missing=("-9999",), columns=columns))
    np.testing.assert_array_equal(table.columns["iq"], [100, np.nan, np.nan])
    np.testing.assert_array_equal(table.columns["bmi"], [20.5, np.nan, np.nan])
    assert table.columns["sex"].tolist() == ["male", "female", None]
    assert table.columns["note"].tolist() == ["12", None, "word"]
    assert table.columns["id"].tolist() == ["007", "8", "9"], "a key is no number"
    assert table.columns["empty"].tolist() == [None] * 3


@pytest.mark.parametrize(
    ("text", "columns", "match"),
    [
        ("id\tx\na\t1\nb\t2\na\t3\n", {}, "people.tsv has 1 keys more than once: a; correct"),
        ("id\tx\na\t1\n\t2\n", {}, "people.tsv has rows without a key, first row 1"),
        ("id\tx\na\t1\nb\ttwo\n", {"x": {}}, "x of b is 'two', not a number"),
        ("id\tx\na\t1.5\n", {"x": {"kind": "whole"}}, "x of a is 1.5, not a whole number"),
        ("id\tx\na\t-9999\nb\t7\n", {"x": {"unit": "years", "low": 0}}, "x of a is -9999 years, outside 0 to inf"),
        (
            "id\tx\na\tm\nb\tu\nc\tv\n",
            {"x": {"kind": "category", "codes": {"m": "male"}}},
            r"x of b is 'u', none of m \(and 1 more faults\)",
        ),
        ("id\tx\tx\na\t1\t2\n", {}, "has two columns called x"),
        ("name\tx\na\t1\n", {}, "has no column id; it has name, x"),
    ],
)
def test_what_breaks_the_card_is_named(tmp_path: Path, text: str, columns: dict[str, Any], match: str) -> None:
    (tmp_path / "people.tsv").write_text(text)
    card = make_card(tmp_path, columns={name: ColumnSpec(**spec) for name, spec in columns.items()})
    with pytest.raises(ValueError, match=match):
        load_table(card)


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        (TableFile(file="b.csv", in_order=True), "x\n1\n2\n", "b.csv has 2 rows for the 1 of the first file"),
        (TableFile(file="b.csv", in_order=True, names=("p", "q")), "1\n", "b.csv has 2 names for 1 columns"),
        (TableFile(file="b.csv"), "id,x\na,1\n", "two files have a column 'x'; give one of them a `prefix`"),
        (TableFile(file="b.csv", keep=("y",)), "id,z\na,1\n", "b.csv has no column y"),
        (TableFile(file="b.json"), '{"a": {"y": [1, 2], "z": [1]}}', "the lists of 'a' differ in length"),
        (TableFile(file="b.json"), "[1]", "b.json needs an object of objects"),
    ],
)
def test_files_that_cannot_be_joined(tmp_path: Path, file: TableFile, text: str, match: str) -> None:
    (tmp_path / "people.tsv").write_text("id\tx\na\t1\n")
    (tmp_path / file.file).write_text(text)
    with pytest.raises(ValueError, match=match):
        load_table(make_card(tmp_path, files=(TableFile(file="people.tsv"), file)))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"name": "My Table"}, "'My Table' is no name for a table"),
        ({"files": (TableFile(file="a", in_order=True),)}, "needs a key and files, the first of which holds the key"),
        ({"expected": {"rows": 3}}, "expected names rows; the numbers of a table are n_rows and n_columns"),
    ],
)
def test_wrong_cards_are_refused(tmp_path: Path, fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_card(tmp_path, **fields)
    with pytest.raises(ValueError, match="'number' has 1 codes"):
        ColumnSpec(codes={"1": "a"})
    with pytest.raises(ValueError, match=r"must stay inside the card's root"):
        NamedFile(column="f", pattern="../x")


# ---------------------------------------------------------------- a user's card, the job
def test_a_user_s_card_becomes_a_table_with_its_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/mine.yaml").write_text(
        "name: mine\ntitle: t\nlicence: l\nsource: s\nkey: [id]\nmissing: ['-9999']\nfiles: [{file: a.csv}, {file: b.csv}]\n"
        "named_file: {column: file, pattern: 'scan_{id:0>3}.*'}\n"
        "columns: {age: {unit: years, low: 0, high: 120}, file: {kind: text, missing: [no_filename]}}\nexpected: {n_rows: 3}\n"
    )
    (tmp_path / "tables/a.csv").write_text("id,age,file\n1,20,scan_001\n2,-9999,no_filename\n3,200,no_filename\n")
    (tmp_path / "tables/b.csv").write_text("id,score,never\n1,0.5,\n2,1.5,\n2,7,\n")
    (tmp_path / "tables/scan_002.nii").touch()
    result = run_job("mine", tmp_path / "out")
    assert result.failed == ["keys_are_unique", "ranges_hold"]
    assert not_passed(result) == {
        "keys_are_unique": "b.csv has 1 keys more than once: 2",
        "ranges_hold": "age of 3 is 200 years, outside 0 to 120",
        "rows_are_in_every_file": "",
        "no_column_is_empty": "never",
        "files_are_named": "2 have a file that the table does not name",
    }
    table = pd.read_parquet(Path(result.path) / "table.parquet").set_index("id")
    assert table.score.tolist()[:2] == [0.5, 1.5], "of two rows with one key, the first"
    summary = pd.read_parquet(Path(result.path) / "columns.parquet").set_index("column")
    assert summary.loc["age", ["kind", "unit", "described", "high"]].tolist() == ["number", "years", True, 200]
    assert summary.loc["age", "missing"] == pytest.approx(1 / 3)
    assert summary.loc["score", "described"] is np.False_
    with pytest.raises(ValueError, match=r"mine: b.csv has 1 keys more than once: 2 \(and 1 more faults\)"):
        read("mine")


def test_a_wrong_card_of_a_user_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/a.yaml").write_text("name: a\nkeys: [id]\n")
    (tmp_path / "tables/b.yaml").write_text("name: mriqc_iqms\ntitle: t\nlicence: l\nsource: s\nkey: [id]\nfiles: [{file: a.csv}]\n")
    assert tables()["mriqc_iqms"].key == ("subject_id",)
    assert "a.yaml: card has no field 'keys'. Did you mean 'key'?" in caplog.text
    assert "'mriqc_iqms' is already registered" in caplog.text


def test_a_table_that_is_not_here_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROFM_DATA", raising=False)
    with pytest.raises(ValueError, match=r"files of cnp_phenotype are not here; get them from https://openneuro"):
        read("cnp_phenotype")


def test_a_name_means_one_thing() -> None:
    names = [*datasets(), *tables(), *corpora()]
    assert len(set(names)) == len(names)


# ---------------------------------------------------------------- the real tables
#: What is known to be wrong with them: none of it blocks.
KNOWN = {
    "abide1_phenotype": {"no_column_is_empty", "files_are_named"},
    "cnp_phenotype": {"no_column_is_empty"},
    "region_multiview": {"rows_are_in_every_file"},
}


@real
@pytest.mark.parametrize("name", list(tables()))
def test_real_tables_hold_what_their_cards_say(name: str, tmp_path: Path) -> None:
    result = run_job(name, tmp_path)
    assert not result.failed
    assert set(not_passed(result)) == KNOWN.get(name, set())
    assert len(pd.read_parquet(Path(result.path) / "table.parquet")) == tables()[name].expected["n_rows"]


def real_table(name: str) -> Table:
    table = read(name)
    assert isinstance(table, Table)
    return table


@real
def test_the_phenotype_of_abide(tmp_path: Path) -> None:
    table = real_table("abide1_phenotype")
    raw = pd.read_csv(DATA / "fmri/abide1_pcp_timeseries/Phenotypic_V1_0b_preprocessed1.csv")
    for name in ("FIQ", "BMI", "SRS_RAW_TOTAL"):
        expected = raw[name].replace(-9999, np.nan)
        assert np.isnan(table.columns[name]).sum() == expected.isna().sum() + (name == "BMI")
        assert np.nanmin(table.columns[name]) >= 0
    assert list(table.columns["DX_GROUP"]).count("autism") == 191
    note = not_passed(run_job("abide1_phenotype", tmp_path))["files_are_named"]
    assert note.startswith("50002, 50108, 50137")
    assert len(note.split(" have ")[0].split(", ")) == 13, "of the 13 without a name, every one has a series"


@real
def test_the_morphometry_joined_by_pandas() -> None:
    table = real_table("abide1_fs6_morphometry")
    folder = DATA / "fmri/abide1_fs6_morphometry"
    merged = None
    for path in sorted(folder.glob("*.tsv")):
        part = pd.read_csv(path, sep="\t").rename(columns=lambda c, own=path: c).pipe(lambda t: t.rename(columns={t.columns[0]: "subject"}))
        merged = part if merged is None else merged.merge(part, on="subject")
    assert merged is not None
    merged = merged.set_index("subject").loc[table.columns["subject"]]
    assert set(merged.columns) == set(table.columns) - {"subject"}
    for name in merged:
        np.testing.assert_array_equal(table.columns[name], merged[name])


@real
def test_regions_topics_and_listeners() -> None:
    regions = real_table("region_multiview")
    assert sum(name.startswith("pet_") for name in regions.columns) == 38
    assert sum(name.startswith("gene_") for name in regions.columns) == 810
    assert np.isnan(regions.columns["meg_alpha"]).sum() == 14, "subcortical regions have genes only"
    assert regions.columns["parcel"][0] == "7Networks_LH_Vis_1"
    studies = real_table("neurosynth_v7_studies")
    topics = np.stack([studies.columns[name] for name in studies.columns if name.startswith("topic_")], axis=1)
    assert topics.shape == (14371, 50)
    assert np.nanmax(topics.sum(axis=1)) <= 1 + 1e-6
    assert "topic_0_network_state_resting" in studies.columns
    listeners = real_table("narratives_participants")
    assert (len(set(listeners.columns["participant_id"])), len(listeners.columns["task"])) == (345, 769)
    assert listeners.columns["age"][:2].tolist() == [22, 23]
