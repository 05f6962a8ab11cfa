"""Columns of numbers from plain csv and tsv, parsed by Arrow: what `tables.py` reads cell by cell, many times as fast.

A file that is anything else (comments, blanks as separators, ragged lines, words among the numbers) is left to `tables.py`,
which can say what is wrong with it and where.
"""

import csv
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neurofm_ml.data.readers.tables import MISSING, is_number, separators
from neurofm_ml.types import Array


class NumberTable(NamedTuple):
    """Columns (n_rows,) float64 by name; `header` and `named` as in a TextTable."""

    header: tuple[str, ...]
    named: bool
    columns: dict[str, Array]

    def numbers(self, names: Sequence[str]) -> Array:
        """(n_rows, n_columns) float64; missing cells are NaN."""
        values = np.empty((len(self.columns[names[0]]), len(names)))
        for i, name in enumerate(names):
            values[:, i] = self.columns[name]
        return values


def read_numbers(path: Path, names: Sequence[str]) -> NumberTable | None:
    """The columns `names` ("" stands for all) of a plain table of numbers; None for a file that is none."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    separator, header, named = _first_row(path)
    if not separator or len(set(header)) < len(header) or not {*names} - {""} <= {*header}:
        return None
    wanted = list(header) if "" in names else list(names)
    options: dict[str, Any] = {
        "read_options": arrow.ReadOptions(column_names=list(header), skip_rows=int(named)),
        "parse_options": arrow.ParseOptions(delimiter=separator),
        "convert_options": arrow.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.float64()), null_values=sorted(MISSING)
        ),
    }
    try:
        table = arrow.read_csv(path, **options)
    except (pa.ArrowInvalid, OSError):
        return None
    return NumberTable(header, named, {name: table[name].to_numpy() for name in wanted})


def _first_row(path: Path) -> tuple[str, tuple[str, ...], bool]:
    """Separator ("" for none, or for a comment), names of the columns, and whether the file names them."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            first = file.readline()
    except (UnicodeDecodeError, EOFError, OSError, zlib.error):
        return "", (), False
    separator = next((s for s in separators(path) if s in first), "")
    if not separator or first.startswith("#"):
        return "", (), False
    cells = [cell.strip() for cell in next(csv.reader([first], delimiter=separator))]
    named = not all(map(is_number, cells))
    return separator, tuple(cells) if named else tuple(map(str, range(len(cells)))), named
