"""Who was recorded: the card's own words joined with its table of subjects (phenotype, participants.tsv)."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from neurofm_ml.data.readers.tables import is_number, read_table
from neurofm_ml.data.readers.variables import load_columns
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SubjectTable
from neurofm_ml.knowledge.files import fill, path_of
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.types import Subject

#: Fields of a subject that are numbers.
NUMBERS = ("age", "iq")


def subject_of(card: DatasetCard, spec: RecordingSpec) -> Subject:
    """The subject of one recording; fields that the table leaves blank are None."""
    subject = spec.subject or Subject(spec.names["subject"])
    table, root = card.subjects, data_root(card)
    if table is None or root is None:
        return subject
    path = path_of(card, table.file, spec)
    if not path.exists():
        raise ValueError(f"{path} is not there; the card names it as its table of subjects.")
    if not table.key:
        columns = tuple(table.fields.values())
        row = {c: str(v[0]) for c, v in zip(columns, load_columns(path, columns), strict=True)}
        return replace(subject, **{field: _cell(table, field, row, path) for field in table.fields})
    key = fill(table.match, spec).lstrip("0")
    rows = _rows(path, table.key, path.stat().st_mtime_ns).get(key, [])
    if len(rows) != 1:
        remedy = "keep one row per subject" if rows else "add it or correct `match`"
        raise ValueError(
            f"{path}: column {table.key!r} has {len(rows) or 'no'} row{'s' * (len(rows) > 1)} {key!r} for recording {spec.id!r}; {remedy}."
        )
    return replace(subject, **{field: _cell(table, field, rows[0], path) for field in table.fields})


@functools.lru_cache(maxsize=4)
def _rows(path: Path, key: str, _changed: int) -> Mapping[str, list[Mapping[str, str]]]:
    """Rows of a table (one per subject, where it is right) by the text in column `key`, without its leading zeros; kept until the file changes."""
    table = read_table(path)
    if key not in table.header:
        raise ValueError(f"{path} has no column {key!r}; it has {', '.join(table.header)}.")
    rows: dict[str, list[Mapping[str, str]]] = {}
    for cells in table.rows:
        row = dict(zip(table.header, cells, strict=True))
        rows.setdefault(row[key].lstrip("0"), []).append(row)
    return rows


def _cell(table: SubjectTable, field: str, row: Mapping[str, str], path: Path) -> Any:
    column = table.fields[field]
    if column not in row:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(row)}.")
    text = row[column].strip()
    if text in table.missing:
        return None
    if field in table.codes:
        if text not in table.codes[field]:
            raise ValueError(f"{path}: column {column!r} holds {text!r}; the card knows {', '.join(table.codes[field])}.")
        return table.codes[field][text]
    if field not in NUMBERS:
        return text
    if not is_number(text):
        raise ValueError(f"{path}: column {column!r} holds the {field} {text!r}, no number; give it codes, or name it under `missing`.")
    return float(text) * (table.age_scale if field == "age" else 1.0)
