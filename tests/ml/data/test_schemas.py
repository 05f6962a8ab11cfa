"""Table schemas: our tables hold to them, and what does not is told with what was expected and what was found."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from neurofm_ml.data.schemas import FOCI, QUALITY, RECORDINGS, SCORES, WINDOWS, Column, Schema, validate
from neurofm_ml.types import MODALITIES, SCORE_COLUMNS

WINDOW = pd.DataFrame(
    {
        "key": ["a-000000", "a-000001", "b-000000"],
        "recording": ["a", "a", "b"],
        "session": ["a", "a", "b"],
        "subject": ["1", "1", "2"],
        "family": None,
        "site": ["x", None, "y"],
        "split": ["train", "train", "test"],
        "start": [0.0, 1.0, -3.5],
        "end": [2.0, 3.0, -1.5],
    }
)


def test_a_table_that_holds_to_its_schema_passes() -> None:
    check = validate(WINDOW, WINDOWS)
    assert (check.name, check.passed, check.severity, check.note) == ("table_is_valid", True, "error", "")
    assert check.numbers["rows"] == 3
    assert check.threshold == "the schema of windows.parquet"


WRONG = {
    "an unknown split": (WINDOW.assign(split="tain"), r"split: .*in_set .*'validation'.*: 3 of 3 rows are not \('tain', 'tain', 'tain'\)"),
    "a key twice": (WINDOW.assign(key=["a", "b", "a"]), r"key: column_values_to_be_unique.*2 of 3 rows are not \('a', 'a'\)"),
    "no end": (WINDOW.drop(columns="end"), r"table: .*found \{'missing': \['end'\]\}"),
    "a column too many": (WINDOW.assign(extra=1), r"table: .*found \{'unexpected': \['extra'\]\}"),
    "words for times": (WINDOW.assign(start=["0", "1", "2"]), r"start: .*type_list .*float64.*3 of 3 rows are not"),
    "numbers for words": (WINDOW.assign(subject=[1, 1, 2]), r"subject: .*type_list \['str'\]"),
    "a time missing": (WINDOW.assign(start=[0.0, np.nan, 1.0]), r"start: column_values_to_not_be_null.*1 of 3 rows"),
    "an infinite time": (WINDOW.assign(end=[2.0, np.inf, 1.0]), r"end: .*max_value 100000000.0: 1 of 3 rows are not \(inf\)"),
    "Unix time": (WINDOW.assign(end=[2.0, 1.7e9, 1.0]), r"end: .*1 of 3 rows are not \(1700000000.0\)"),
    "a word missing": (WINDOW.assign(subject=["1", None, "2"]), r"subject: column_values_to_not_be_null"),
    "no row": (WINDOW.iloc[:0], r"table: table_row_count_to_be_between min_value 1: found 0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_table_is_told_in_words(what: str) -> None:
    table, match = WRONG[what]
    check = validate(table, WINDOWS)
    assert not check.passed
    assert pd.Series([check.note]).str.contains(match, regex=True).all(), check.note
    assert check.numbers["failed"] >= 1


def test_several_wrongs_are_all_told() -> None:
    note = validate(WINDOW.assign(split="x", key="k"), WINDOWS).note
    assert "split:" in note
    assert "key:" in note


def test_columns_that_tell_rows_apart_together() -> None:
    schema = Schema("pairs.parquet", {"a": Column("text"), "b": Column("integer")}, key=("a", "b"))
    table = pd.DataFrame({"a": ["x", "x", "y"], "b": [1, 2, 1]})
    assert validate(table, schema).passed
    assert "compound_columns_to_be_unique" in validate(table.assign(b=1), schema).note


def test_empty_optional_columns_pass_whatever_their_type() -> None:
    """A table in which no age is known has no type for it."""
    row = dict.fromkeys(RECORDINGS.columns, None) | {
        **{name: "x" for name, column in RECORDINGS.columns.items() if column.kind == "text" and column.filled},
        "start_s": 0.0,
        "duration_s": 1.0,
        "n_channels": 3,
    }
    assert validate(pd.DataFrame([row]), RECORDINGS).passed
    assert not validate(pd.DataFrame([{**row, "age": -9999.0}]), RECORDINGS).passed
    assert not validate(pd.DataFrame([{**row, "sex": "1"}]), RECORDINGS).passed


def test_schemas_follow_the_types() -> None:
    assert list(SCORES.columns) == list(SCORE_COLUMNS)
    assert set(QUALITY.columns["modality"].allowed) == {*MODALITIES, ""}
    assert {"direction", "space", "x", "y", "z"} < set(FOCI.columns)


def test_nothing_is_sent_or_printed_and_nothing_is_imported_before() -> None:
    code = (
        "import os, socket, sys, pandas as pd\n"
        "from neurofm_ml.data.schemas import Column, Schema, validate\n"
        "assert 'great_expectations' not in sys.modules\n"
        "def refuse(*_): raise AssertionError('a connection was opened')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "assert validate(pd.DataFrame({'a': ['x']}), Schema('a', {'a': Column('text')})).passed\n"
        "assert os.environ['GX_ANALYTICS_ENABLED'] == 'false'"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
