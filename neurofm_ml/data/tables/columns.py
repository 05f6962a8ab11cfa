"""Cells as written -> values of the kind that a card states, and what does not hold.

Numbers come as float64 with NaN where there is no value, words as objects with None there.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from neurofm_ml.data.readers.tables import MISSING, is_number
from neurofm_ml.knowledge.tables import ColumnSpec, TableCard
from neurofm_ml.types import Array


class Fault(NamedTuple):
    """A claim that a cell breaks, and how."""

    claim: str
    said: str


class Column(NamedTuple):
    """values (n_rows,), the kind they have, and the card's words on it (None where it says nothing)."""

    values: Array
    kind: str
    spec: ColumnSpec | None
    faults: list[Fault]


def parse(name: str, cells: Array, card: TableCard, rows: Sequence[str]) -> Column:
    """`cells` (n_rows,) of str, float or None as the card describes the column; `rows` name them in faults."""
    described = {**dict.fromkeys(card.key, ColumnSpec(kind="text")), **card.columns}
    spec = next((s for pattern, s in described.items() if fnmatchcase(name, pattern)), None)
    present = _present(cells, {*card.missing, *(spec.missing if spec else ())})
    kind = spec.kind if spec else _kind(present)
    if kind in ("text", "category"):
        return _words(name, present, kind, spec, rows)
    return _numbers(name, present, kind, spec or ColumnSpec(), rows)._replace(spec=spec)


def _present(cells: Array, codes: set[str]) -> Array:
    """`cells` with None where there is no value. A code that is a number means it however it is written (-9999, -9999.0)."""
    numbers = [float(code) for code in codes if is_number(code)]
    if cells.dtype.kind == "f":
        return np.array([None if v != v or v in numbers else v for v in cells.tolist()], object)
    texts = [None if cell is None or (text := str(cell).strip()) in MISSING or text in codes else text for cell in cells]
    return np.array([None if t is not None and numbers and is_number(t) and float(t) in numbers else t for t in texts], object)


def _kind(present: Array) -> str:
    values = [v for v in present if v is not None]
    return "number" if values and all(isinstance(v, float) or is_number(v) for v in values) else "text"


def _numbers(name: str, present: Array, kind: str, spec: ColumnSpec, rows: Sequence[str]) -> Column:
    values, faults = np.full(len(present), np.nan), []
    for i, cell in enumerate(present):
        if cell is None:
            continue
        if not (isinstance(cell, float) or is_number(cell)):
            faults.append(Fault("types_hold", f"{name} of {rows[i]} is {cell!r}, not a number"))
            continue
        values[i] = float(cell)
        if kind == "whole" and values[i] != np.floor(values[i]):
            faults.append(Fault("types_hold", f"{name} of {rows[i]} is {values[i]:g}, not a whole number"))
    low, high = -np.inf if spec.low is None else spec.low, np.inf if spec.high is None else spec.high
    for i in np.flatnonzero((values < low) | (values > high)).tolist():
        faults.append(Fault("ranges_hold", f"{name} of {rows[i]} is {values[i]:g} {spec.unit}".rstrip() + f", outside {low:g} to {high:g}"))
    return Column(values, kind, spec, faults)


def _words(name: str, present: Array, kind: str, spec: ColumnSpec | None, rows: Sequence[str]) -> Column:
    if kind == "text" or spec is None:
        return Column(np.array([None if v is None else str(v) for v in present], object), "text", spec, [])
    unknown = {i: v for i, v in enumerate(present) if v is not None and v not in spec.codes}
    faults = [Fault("types_hold", f"{name} of {rows[i]} is {v!r}, none of {', '.join(spec.codes)}") for i, v in unknown.items()]
    return Column(np.array([spec.codes.get(v) for v in present], object), kind, spec, faults)
