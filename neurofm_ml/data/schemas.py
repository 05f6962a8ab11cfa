"""What each table of ours must look like: columns, types, ranges, categories, what is unique. Judged by Great Expectations.

A table that does not is not published as sound: `validate` gives the blocking check `table_is_valid` of the job that
wrote it. What the numbers in a table mean for the data is the business of `quality`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from neurofm_ml.presets import SPLITS
from neurofm_ml.types import MODALITIES, SCORE_COLUMNS, TRANSFER_COLUMNS, Check

#: How values of a kind are called in pandas.
_TYPES = {
    "text": ["str"],
    "number": ["float64", "float32", "int64", "int32", "uint64", "uint32"],
    "integer": ["int64", "int32", "uint64", "uint32"],
}
#: Wrong values that a note quotes.
_QUOTED = 3
_SCORE_KINDS: Mapping[type, Literal["text", "number", "integer"]] = {str: "text", float: "number", int: "integer"}


@dataclass(frozen=True)
class Column:
    """One column: kind of its values, whether each row has one, the range or the words allowed, whether no two are equal."""

    kind: Literal["text", "number", "integer"]
    filled: bool = True
    least: float | None = None
    most: float | None = None
    allowed: tuple[str, ...] = ()
    unique: bool = False


@dataclass(frozen=True)
class Schema:
    """One table: its columns, no others, and the columns that together tell rows apart."""

    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...] = ()


_ID = Column("text")
_WORDS = Column("text", filled=False)
_SECONDS = Column("number", least=-1e8, most=1e8)
_LENGTH = Column("number", least=0, most=1e8)
_SHARE = Column("number", filled=False, least=0, most=1)
_COUNT = Column("number", filled=False, least=0, most=1e9)
_SIZE = Column("number", filled=False, least=0, most=1e300)
_ANY = Column("number", filled=False, least=-1e300, most=1e300)

RECORDINGS = Schema(
    "recordings.parquet",
    {
        "id": Column("text", unique=True),
        "dataset": _ID,
        "session": _ID,
        "subject": _ID,
        "age": Column("number", filled=False, least=0, most=120),
        "sex": Column("text", filled=False, allowed=("male", "female", "hermaphrodite", "other")),
        "site": _WORDS,
        "family": _WORDS,
        "diagnosis": _WORDS,
        "species": _ID,
        "licence": _ID,
        "start_s": _SECONDS,
        "duration_s": _LENGTH,
        "modalities": _ID,
        "signals": _ID,
        "n_channels": Column("integer", least=1),
    },
)

QUALITY = Schema(
    "quality.parquet",
    {
        "recording": _ID,
        "session": _ID,
        "subject": _ID,
        "signal": _ID,
        "kind": Column("text", allowed=("Signal", "Samples", "SpikeTrain", "Intervals")),
        "modality": Column("text", allowed=(*MODALITIES, "")),
        "n_chans": Column("integer", least=0),
        "unit": _WORDS,
        "sfreq": _SIZE,
        "duration_s": _LENGTH,
        "start_s": _ANY,
        "end_s": _ANY,
        "uncovered": Column("number", filled=False, most=1),
        "rows_off": _SIZE,
        "missing": _SHARE,
        "infinite": _SHARE,
        "flat": _COUNT,
        "flat_names": _WORDS,
        "flat_share": _SHARE,
        "zero": _COUNT,
        "placeholder": _SHARE,
        "clipped": _SHARE,
        "frozen": _SHARE,
        "amplitude": _SIZE,
        "noise": _SIZE,
        "noisy": _COUNT,
        "noisy_names": _WORDS,
        "lone": _COUNT,
        "lone_names": _WORDS,
        "repeated": _COUNT,
        "repeated_names": _WORDS,
        "radius": _SIZE,
        "line_share": _SHARE,
        "line_off_hz": _COUNT,
        "band": _SHARE,
        "rate_off": _SIZE,
        "rate_min_hz": _SIZE,
        "rate_median_hz": _SIZE,
        "rate_max_hz": _SIZE,
        "silent": _COUNT,
        "silent_names": _WORDS,
        "resolution_s": _SIZE,
        "refractory": _SHARE,
        "artefacts": _SHARE,
        "not_counts": _SHARE,
        "overlap": _COUNT,
        "longest_gap_s": _COUNT,
        "drift": _SIZE,
        "jumps": _SHARE,
        "motion_mm": _SIZE,
        "beats_per_minute": _COUNT,
        "outside": _SHARE,
        "label_order": _SHARE,
        "gives_away": Column("number", filled=False, most=1),
    },
    key=("recording", "kind", "signal"),
)

WINDOWS = Schema(
    "windows.parquet",
    {
        "key": Column("text", unique=True),
        "recording": _ID,
        "session": _ID,
        "subject": _ID,
        "family": _WORDS,
        "site": _WORDS,
        "split": Column("text", allowed=SPLITS),
        "start": _SECONDS,
        "end": _SECONDS,
    },
)

FOCI = Schema(
    "foci.parquet",
    {
        "study": _ID,
        "contrast": _ID,
        "direction": Column("text", allowed=("activation", "deactivation", "unknown")),
        "space": Column("text", allowed=("MNI", "TAL", "OTHER", "UNKNOWN")),
        "sample_size": Column("number", filled=False, least=1, most=1e6),
        **dict.fromkeys("xyz", Column("number", least=-200, most=200)),
    },
)

_JUDGED = {
    "value": _ANY, "ci_low": _ANY, "ci_high": _ANY, "control": _ANY, "p": _SHARE, "noise_ceiling": _ANY,
    "n": Column("integer", least=1), "seed": Column("integer", least=0), "k_shot": _COUNT, "parameters": Column("integer", least=0),
    "train_seconds": _SIZE, "samples_per_second": _SIZE, "split": Column("text", allowed=SPLITS),
}  # fmt: skip
SCORES = Schema(
    "scores.parquet",
    {name: _JUDGED.get(name, Column(_SCORE_KINDS[kind])) for name, kind in SCORE_COLUMNS.items()},
    key=("run", "dataset", "recording", "task", "family", "method", "split", "metric", "k_shot"),
)

TRANSFER = Schema(
    "transfer.parquet",
    {
        name: {**_JUDGED, "within": _ANY, "chance": _ANY, "q": _SHARE}.get(name, Column(_SCORE_KINDS[kind]))
        for name, kind in TRANSFER_COLUMNS.items()
    },
    key=("axis", "source", "target", "task"),
)


def validate(table: pd.DataFrame, schema: Schema) -> Check:
    """Check `table_is_valid`: every expectation of the schema holds; the note says which do not, with the values found."""
    results = _run(table, schema)
    failed = [_told(result) for result in results if not result["success"]]
    numbers = {"rows": len(table), "expectations": len(results), "failed": len(failed)}
    return Check("table_is_valid", not failed, numbers=numbers, threshold=f"the schema of {schema.name}", note="; ".join(failed))


def _run(table: pd.DataFrame, schema: Schema) -> list[dict[str, Any]]:
    """Results of Great Expectations, which must not report home and keeps nothing."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    definition = context.data_sources.add_pandas("tables").add_dataframe_asset(schema.name).add_batch_definition_whole_dataframe("all")
    texts = {name: object for name in table if pd.api.types.is_string_dtype(table[name])}
    batch = definition.get_batch({"dataframe": table.astype(texts)})
    suite = gx.ExpectationSuite(name=schema.name, expectations=_expectations(schema, table.columns.tolist()))
    return list(batch.validate(suite, result_format="SUMMARY").to_json_dict()["results"])


def _expectations(schema: Schema, present: Sequence[str]) -> list[Any]:
    import great_expectations.expectations as gxe

    found: list[Any] = [gxe.ExpectTableColumnsToMatchSet(column_set=list(schema.columns), exact_match=True)]
    found.append(gxe.ExpectTableRowCountToBeBetween(min_value=1))
    if schema.key and set(schema.key) <= set(present):
        found.append(gxe.ExpectCompoundColumnsToBeUnique(column_list=list(schema.key), ignore_row_if="all_values_are_missing"))
    for name, column in schema.columns.items():
        if name in present:
            found += _of_column(name, column)
    return found


def _of_column(name: str, column: Column) -> list[Any]:
    import great_expectations.expectations as gxe

    found: list[Any] = [gxe.ExpectColumnValuesToBeInTypeList(column=name, type_list=_TYPES[column.kind])]
    if column.filled:
        found.append(gxe.ExpectColumnValuesToNotBeNull(column=name))
    if column.least is not None or column.most is not None:
        found.append(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=column.least, max_value=column.most))
    if column.allowed:
        found.append(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=list(column.allowed)))
    if column.unique:
        found.append(gxe.ExpectColumnValuesToBeUnique(column=name))
    return found


def _told(result: Mapping[str, Any]) -> str:
    """One failed expectation in words: where, what was expected, what was found."""
    about, found = result["expectation_config"], result["result"]
    kwargs = {key: value for key, value in about["kwargs"].items() if key not in ("batch_id", "column", "ignore_row_if")}
    where = about["kwargs"].get("column", "table")
    expected = f"{about['type'].removeprefix('expect_')} {', '.join(f'{key} {value}' for key, value in kwargs.items())}"
    if raised := [i["exception_message"] for i in result["exception_info"].values() if isinstance(i, dict)]:
        return f"{where}: {expected}: {raised[0]}"
    if "unexpected_count" not in found:
        return f"{where}: {expected}: found {found.get('details', {}).get('mismatched', found['observed_value'])}"
    values = ", ".join(map(repr, found["partial_unexpected_list"][:_QUOTED]))
    return f"{where}: {expected}: {found['unexpected_count']} of {found['element_count']} rows are not ({values})"
