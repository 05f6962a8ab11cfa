"""The job `read_table`: a table card -> `table.parquet`, `columns.parquet`, and whether the card's words hold."""

import glob
from pathlib import Path
from typing import Any

import numpy as np

from neurofm_ml.config import to_dict
from neurofm_ml.data.tables.columns import Column
from neurofm_ml.data.tables.join import Joined, as_table, join
from neurofm_ml.files import write_json
from neurofm_ml.knowledge.roots import check_inside, data_root
from neurofm_ml.knowledge.tables import NamedFile, TableCard, tables
from neurofm_ml.presets import TableConfig
from neurofm_ml.types import Check, Report

#: Faults named in the note of a check.
_NAMED = 5


def read_table(cfg: TableConfig, raw: list[Path], out: Path) -> Report:
    """Join the files of one card, which are `raw`; write the table, and a row per column: kind, unit, missing share, what values there are."""
    import pandas as pd

    card = tables()[cfg.table]
    joined = join(card)
    table = pd.DataFrame(dict(as_table(card, joined).columns))
    table.to_parquet(out / "table.parquet", index=False)
    summary = pd.DataFrame([_summary(name, column) for name, column in joined.columns.items()])
    summary.to_parquet(out / "columns.parquet", index=False)
    write_json(out / "card.json", to_dict(card))
    metrics = {"n_rows": len(table), "n_columns": len(table.columns), "files": len(raw), "missing": float(summary.missing.mean())}
    return Report(metrics, _checks(card, joined, metrics), {"table": "table.parquet", "columns": "columns.parquet"})


def _summary(name: str, column: Column) -> dict[str, Any]:
    present = np.array([v for v in column.values if v is not None and v == v], column.values.dtype)
    numbers = present if column.kind in ("number", "whole") and len(present) else np.array([np.nan])
    low, middle, high = (float(v) for v in np.quantile(numbers, (0, 0.5, 1)))
    return {
        "column": name,
        "kind": column.kind,
        "described": column.spec is not None,
        "unit": column.spec.unit if column.spec else "",
        "missing": 1 - len(present) / max(len(column.values), 1),
        "distinct": len(set(present)),
        "low": low,
        "median": middle,
        "high": high,
    }


def _checks(card: TableCard, joined: Joined, metrics: dict[str, float]) -> tuple[Check, ...]:
    empty = [name for name, column in joined.columns.items() if all(v is None or v != v for v in column.values)]
    alone = len(joined.keys) - joined.shared
    wrong = [f"{name} is {metrics[name]:g}, the card expects {n:g}" for name, n in card.expected.items() if metrics[name] != n]
    unnamed, found = _unnamed(card, joined)
    return (
        _claim("keys_are_unique", joined),
        _claim("types_hold", joined),
        _claim("ranges_hold", joined),
        Check("expected_numbers", not wrong, "error", {n: metrics[n] for n in card.expected}, "the card's numbers", "; ".join(wrong)),
        Check("rows_are_in_every_file", not alone, "warn", {"rows": len(joined.keys), "in_some_files": alone}, "0 in some files only"),
        Check("no_column_is_empty", not empty, "warn", {"empty": len(empty)}, "0", ", ".join(empty[: 4 * _NAMED])),
        Check(
            "files_are_named", not found, "warn", {"unnamed": unnamed, "with_a_file": len(found)}, "0 rows with a file and no name of it",
            f"{', '.join(found[: 4 * _NAMED])} have a file that the table does not name" if found else "",
        ),
    )  # fmt: skip


def _claim(name: str, joined: Joined) -> Check:
    said = [fault.said for fault in joined.every_fault if fault.claim == name]
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return Check(name, not said, "error", {"faults": len(said)}, "0", "; ".join(said[:_NAMED]) + more)


def _unnamed(card: TableCard, joined: Joined) -> tuple[int, list[str]]:
    """(rows whose column of file names has no value, keys of those among them whose file is here)."""
    root, named = data_root(card), card.named_file
    if named is None or root is None:
        return 0, []
    unnamed = np.flatnonzero([value is None for value in joined.columns[named.column].values])
    patterns = {joined.rows[i]: _pattern(named, dict(zip(card.key, joined.keys[i], strict=True))) for i in unnamed}
    return len(unnamed), [row for row, pattern in patterns.items() if any(root.glob(pattern))]


def _pattern(named: NamedFile, key: dict[str, str]) -> str:
    """The pattern of one row's file. Raises ValueError for names that are not the key's, and for a key that leads out of the root."""
    try:
        pattern = named.pattern.format(**{name: glob.escape(cell) for name, cell in key.items()})
    except (KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"pattern is {named.pattern!r}, which names {error}; the key is {', '.join(key)}.") from None
    check_inside("pattern", pattern)
    return pattern
