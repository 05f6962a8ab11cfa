"""The files of a table card, joined on their key.

Rows keep the order in which they are first seen; a row that a file lacks has no values in its columns, and a key that stands twice
in one file cannot be joined: the first row is kept and the fault named.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neurofm_ml.data.tables.columns import Column, Fault, parse
from neurofm_ml.data.tables.files import read_columns
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.knowledge.tables import TableCard, TableFile, table_files
from neurofm_ml.types import Array, Table

Key = tuple[str, ...]
#: Separates the parts of a key where it is shown.
_JOINT = " / "


class Joined(NamedTuple):
    """keys (n_rows,), columns by name, faults of keys and rows; `shared` rows are in every file."""

    keys: list[Key]
    columns: dict[str, Column]
    faults: list[Fault]
    shared: int

    @property
    def rows(self) -> list[str]:
        """Names of the rows, as they are shown."""
        return [_JOINT.join(key) for key in self.keys]

    @property
    def every_fault(self) -> list[Fault]:
        return [*self.faults, *(fault for column in self.columns.values() for fault in column.faults)]


def load_table(card: TableCard) -> Table:
    """The table of a card. Raises ValueError for files that are not here and for what breaks the card's words."""
    joined = join(card)
    if joined.every_fault:
        first, *others = joined.every_fault
        more = f" (and {len(others)} more faults)" if others else ""
        raise ValueError(f"{card.name}: {first.said}{more}; correct the file, or what the card says of the column.")
    return as_table(card, joined)


def as_table(card: TableCard, joined: Joined) -> Table:
    return Table({name: column.values for name, column in joined.columns.items()}, card.source)


def join(card: TableCard) -> Joined:
    """Read and join every file of the card."""
    root = data_root(card)
    if root is None or not table_files(card):
        raise ValueError(f"the files of {card.name} are not here; get them from {card.source} and point NEUROFM_DATA at them.")
    parts: list[tuple[list[Key], dict[str, Array]]] = []
    faults: list[Fault] = []
    for file in card.files:
        for path in sorted(root.glob(file.file)):
            keys, columns = _part(path, file, card, root, parts[0][0] if parts else [])
            parts.append((keys, columns))
            faults += _key_faults(path, keys)
    order = {key: i for i, key in enumerate(dict.fromkeys(key for keys, _ in parts for key in keys))}
    rows = [_JOINT.join(key) for key in order]
    parsed = {name: parse(name, cells, card, rows) for name, cells in _laid_out(card, parts, order).items()}
    shared = sum(n == len(parts) for n in Counter(key for keys, _ in parts for key in set(keys)).values())
    return Joined(list(order), parsed, faults, shared)


def _part(path: Path, file: TableFile, card: TableCard, root: Path, first: list[Key]) -> tuple[list[Key], dict[str, Array]]:
    """Keys and other columns of one file."""
    own = file.key or card.key
    columns = read_columns(path, file, own, root)
    if not file.in_order:
        named = [columns.pop(name) for name in own]
        return [tuple(str(cell).strip() for cell in cells) for cells in zip(*named, strict=True)], columns
    n_rows = len(next(iter(columns.values())))
    if n_rows != len(first):
        raise ValueError(f"{path} has {n_rows} rows for the {len(first)} of the first file, whose order it shares; give it a key.")
    return first, columns


def _key_faults(path: Path, keys: list[Key]) -> list[Fault]:
    twice = [_JOINT.join(key) for key, n in Counter(keys).items() if n > 1]
    blank = [i for i, key in enumerate(keys) if not all(key)]
    faults = [Fault("keys_are_unique", f"{path.name} has {len(twice)} keys more than once: {', '.join(twice[:10])}")] if twice else []
    return faults + ([Fault("keys_are_unique", f"{path.name} has rows without a key, first row {blank[0]}")] if blank else [])


def _laid_out(card: TableCard, parts: list[tuple[list[Key], dict[str, Array]]], order: dict[Key, int]) -> dict[str, Array]:
    """Cells of every column (n_rows,), the key's first; None (NaN among numbers) where a file lacks the row."""
    whole: dict[str, Array] = {name: np.array([key[i] for key in order], object) for i, name in enumerate(card.key)}
    for keys, columns in parts:
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        rows, taken = [order[key] for key in first], list(first.values())
        for name, cells in columns.items():
            if name in whole:
                raise ValueError(f"{card.name}: two files have a column {name!r}; give one of them a `prefix`, or `keep` other columns.")
            whole[name] = np.full(len(order), np.nan) if cells.dtype.kind == "f" else np.full(len(order), None, object)
            whole[name][rows] = cells[taken]
    return whole
