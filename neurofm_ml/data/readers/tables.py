"""Numbers in text: csv, tsv and blank-separated columns, with or without a header, plain or gzipped."""

import csv
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neurofm_ml.types import Array

#: Cells that mean "no value".
MISSING = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "null"})


class TextTable(NamedTuple):
    """Cells of a text file. `header` names the columns ("0", "1", ... where the file does not);
    `lines` (n_rows,) are line numbers from 1."""

    path: Path
    header: tuple[str, ...]
    named: bool
    lines: list[int]
    rows: list[list[str]]

    def numbers(self, columns: Sequence[str]) -> Array:
        """(n_rows, n_columns) float64; missing cells are NaN. Raises ValueError naming line and column."""
        wanted = [self.header.index(name) for name in columns]
        try:
            flat = np.fromiter((as_number(row[i]) for row in self.rows for i in wanted), np.float64, len(self.rows) * len(wanted))
        except ValueError:
            raise ValueError(f"{self.path}, {self._first_word(wanted)} is no number; correct it or name other columns.") from None
        return flat.reshape(len(self.rows), len(wanted))

    def _first_word(self, wanted: list[int]) -> str:
        k, i = next((k, i) for k, row in enumerate(self.rows) for i in wanted if not is_number(row[i]))
        return f"line {self.lines[k]}, column {self.header[i]!r}: {self.rows[k][i]!r}"


def read_table(path: Path, headed: bool = True) -> TextTable:
    """Split a text file into cells. Raises ValueError naming the line whose number of columns differs.

    The first line is a header where it does not hold numbers alone, unless `headed` is False.
    """
    numbered = _lines(path)
    comments = [text for _, text in numbered if text.startswith("#")]
    body = [(number, text) for number, text in numbered if not text.startswith("#")]
    if not body:
        raise ValueError(f"{path} holds no numbers; it is empty or all comments.")
    separator = next((s for s in separators(path) if s in body[0][1]), None)
    try:
        lines, rows = [number for number, _ in body], _split([text for _, text in body], separator)
    except csv.Error as error:
        raise ValueError(f"{path} is no text of columns ({error}); it is damaged, get it again.") from None
    if len(rows) != len(lines):
        raise ValueError(f"{path} has cells that go on in the next line; write each row on one line.")
    for number, row in zip(lines, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}, line {number} has {len(row)} columns where the first has {len(rows[0])}; correct or delete that line."
            )
    if headed and not all(map(is_number, rows[0])):
        return TextTable(path, tuple(rows[0]), True, lines[1:], rows[1:])
    header = _commented_header(comments, separator, len(rows[0])) if headed else ()
    return TextTable(path, header or tuple(map(str, range(len(rows[0])))), bool(header), lines, rows)


def read_stream(path: Path) -> Array:
    """(n,) every number of a text in reading order, however many a line holds. Raises ValueError naming the line."""
    numbers: list[float] = []
    for k, text in _lines(path):
        try:
            numbers += map(as_number, text.split())
        except ValueError as error:
            raise ValueError(f"{path}, line {k}: {error}; correct it.") from None
    return np.array(numbers)


def _lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of the lines that are not blank."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            return [(k, text.rstrip("\r\n")) for k, text in enumerate(file, 1) if text.strip()]
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is no text that can be read ({error}); get the file again or give it its format's extension.") from None


def _split(texts: Sequence[str], separator: str | None) -> list[list[str]]:
    if separator is None:
        return [text.split() for text in texts]
    return [[cell.strip() for cell in row] for row in csv.reader(texts, delimiter=separator)]


def _commented_header(comments: Sequence[str], separator: str | None, width: int) -> tuple[str, ...]:
    """The last comment, where it has as many words as there are columns (``#1 #2 #3`` of AFNI's .1D)."""
    words = tuple(w.lstrip("#").strip() for w in _split(comments[-1:], separator)[0]) if comments else ()
    return words if len(words) == width and all(words) else ()


def separators(path: Path) -> tuple[str, ...]:
    """What may part columns, in order of looking; blanks do where none of them is there."""
    return ("\t", ",", ";") if ".tsv" in path.suffixes else (",", ";", "\t")


def as_number(cell: str) -> float:
    """Raises ValueError for a word; "2024_01" is one, though Python reads it as a number."""
    if "_" in cell:
        raise ValueError(f"could not convert string to float: {cell!r}")
    return np.nan if cell in MISSING else float(cell)


def is_number(cell: str) -> bool:
    try:
        as_number(cell)
    except ValueError:
        return False
    return True
