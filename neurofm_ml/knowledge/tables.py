"""Table cards: rows of subjects, scans or regions, the files they are joined from, and what each column may hold.

One YAML file per card: the package's stand in ``knowledge/tables``, a user's in the folder ``tables`` of
``NEUROFM_CARDS``. Raw files lie under ``NEUROFM_DATA``. How they are read and joined is the business of
``neurofm_ml.data.tables``.
"""

from dataclasses import field
from pathlib import Path
from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.knowledge.cards import NAME
from neurofm_ml.knowledge.roots import check_inside, check_root, data_root
from neurofm_ml.knowledge.yaml_cards import cards_of, mistakes_in
from neurofm_ml.registry import Registry


@config
class ColumnSpec:
    """What a column holds.

    kind         "number", "whole" (whole numbers), "text", or "category": one of `codes`
    unit         of its numbers
    low, high    bounds that no number leaves
    codes        what each code of a category means; the meaning is what the table holds
    missing      codes that mean "no value" in this column, beside the card's
    """

    kind: Literal["number", "whole", "text", "category"] = "number"
    unit: str = ""
    low: float | None = None
    high: float | None = None
    codes: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "category") != bool(self.codes):
            raise ValueError(
                f"a column of kind {self.kind!r} has {len(self.codes)} codes; a category needs them, and nothing else has any."
            )


@config
class TableFile:
    """One file to join, or several of the same make.

    file         pattern under the root: csv, tsv, text, .npy, .npz of a sparse matrix, or JSON (an object per row)
    key          columns that name the row, one for each of the card's `key` (default: those)
    in_order     the file does not name its rows: they are those of the card's first file, in the same order
    names        names of the columns, where the file has none; ``{stem}`` is the file's name without its ending
    names_file   a text with a name of a column per line, under the root
    prefix       goes before the names of its columns; ``{stem}`` as above
    keep         columns to keep (default: all)
    transpose    the columns lie in rows
    """

    file: str
    key: tuple[str, ...] = ()
    in_order: bool = False
    names: tuple[str, ...] = ()
    names_file: str = ""
    prefix: str = ""
    keep: tuple[str, ...] = ()
    transpose: bool = False

    def __post_init__(self) -> None:
        check_inside("file", self.file)
        check_inside("names_file", self.names_file)


@config
class NamedFile:
    """A column that names a file of each row, and the pattern of that file under the root, with the row's key filled in
    (``{SUB_ID:0>7}`` pads it with zeros)."""

    column: str
    pattern: str

    def __post_init__(self) -> None:
        check_inside("pattern", self.pattern)


@config
class TableCard:
    """One table: identity, files, key, columns.

    `columns` maps a name, or a pattern such as ``*_thickness``, to what such columns hold: the first that fits counts. Columns
    without an entry are numbers where every value is one, else text. `missing` are codes that mean "no value", beside blank,
    NA, n/a and nan. `expected` holds n_rows and n_columns (the key's included) that the files must show.
    """

    name: str
    title: str
    licence: str
    source: str
    root: str = ""
    redistribute: bool = False
    citation: str = ""
    notes: str = ""
    key: tuple[str, ...]
    files: tuple[TableFile, ...]
    columns: dict[str, ColumnSpec] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    named_file: NamedFile | None = None
    expected: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name for a table; use a-z, 0-9 and _.")
        if not self.key or not self.files or self.files[0].in_order:
            raise ValueError(f"table {self.name!r} needs a key and files, the first of which holds the key.")
        check_root(self.root)
        if unknown := sorted(set(self.expected) - {"n_rows", "n_columns"}):
            raise ValueError(f"expected names {', '.join(unknown)}; the numbers of a table are n_rows and n_columns.")


def tables() -> Registry[TableCard]:
    """Every table card: the package's, then those of the folder ``tables`` in NEUROFM_CARDS."""
    return cards_of(TableCard, "table", "tables")


def mistakes() -> tuple[str, ...]:
    """What is wrong with the user's table cards that were left out."""
    return mistakes_in(TableCard, "table", "tables")


def table_files(card: TableCard) -> list[Path]:
    """Every file of the card that is here, sorted; [] when one of its patterns matches none: half a table is no table."""
    root = data_root(card)
    found = [sorted(root.glob(f.file)) if root else [] for f in card.files]
    names = [root / f.names_file for f in card.files if root and f.names_file]
    return sorted({file for files in found for file in files}.union(names)) if all(found) else []
