"""One file of a table -> its columns as they are written: text, or numbers where the format holds numbers.

A column is (n_rows,), of str or float64. What the cells mean is not looked at here.
"""

import json
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.tables import read_table
from neurofm_ml.data.readers.variables import load_variables
from neurofm_ml.knowledge.tables import TableFile
from neurofm_ml.types import Array

Columns = dict[str, Array]


def read_columns(path: Path, file: TableFile, key: tuple[str, ...], root: Path) -> Columns:
    """The columns of one file under the names that the card gives them. Raises ValueError naming the file."""
    header, cells = _cells(path, key)
    cells = cells.T if file.transpose else cells
    names = file.names or (_lines(root / file.names_file) if file.names_file else header)
    names = tuple(name.replace("{stem}", _stem(path)) for name in names)
    if len(names) != cells.shape[1]:
        raise ValueError(f"{path} has {len(names)} names for {cells.shape[1]} columns; correct `names`, `names_file` or `transpose`.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} has two columns called {', '.join(repeated)}; name them anew (`names`).")
    if unknown := sorted({*file.keep, *(() if file.in_order else key)} - set(names)):
        raise ValueError(f"{path} has no column {', '.join(unknown)}; it has {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}.")
    prefix = file.prefix.replace("{stem}", _stem(path))
    kept = [name for name in names if not file.keep or name in file.keep or name in key]
    return {name if name in key else prefix + name: cells[:, names.index(name)] for name in kept}


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())


def _cells(path: Path, key: tuple[str, ...]) -> tuple[tuple[str, ...], Array]:
    """(names of the columns, (n_rows, n_columns) of str or float64)."""
    if path.name.endswith(".json"):
        return _from_objects(path, key)
    if path.suffix == ".npz":
        return _numbered(_from_sparse(path))
    if path.suffix == ".npy":
        return _numbered(np.atleast_2d(load_variables(path, ("",))[0][0]))
    table = read_table(path)
    return table.header, np.array(table.rows, object)


def _numbered(cells: Array) -> tuple[tuple[str, ...], Array]:
    return tuple(map(str, range(cells.shape[1]))), cells.astype(np.float64)


def _from_sparse(path: Path) -> Array:
    """The matrix that scipy.sparse.save_npz wrote, without unpickling anything."""
    from scipy import sparse

    (kind, shape, data, indices, indptr), _ = load_variables(path, ("format", "shape", "data", "indices", "indptr"))
    build = {b"csr": sparse.csr_matrix, b"csc": sparse.csc_matrix}.get(bytes(kind.item()))
    if build is None:
        raise ValueError(f"{path} holds a sparse matrix of the format {kind.item()!r}; csr and csc can be read.")
    return np.asarray(build((data, indices, indptr), shape=tuple(shape)).todense())


def _from_objects(path: Path, key: tuple[str, ...]) -> tuple[tuple[str, ...], Array]:
    """``{"sub-01": {"age": ["22", "23"], "task": ["a", "b"]}}``: the first column of the key, then the fields; a list has a row per
    entry, and the lists of one object are equally long."""
    try:
        objects = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); get it again.") from None
    if not isinstance(objects, dict) or not all(isinstance(o, dict) for o in objects.values()):
        raise ValueError(f"{path} needs an object of objects: one per row, under what names the row.")
    fields = list(dict.fromkeys(field for o in objects.values() for field in o))
    rows = [row for name, o in objects.items() for row in _rows_of(path, name, o, fields)]
    return (key[0], *fields), np.array(rows, object)


def _rows_of(path: Path, name: str, fields: dict[str, object], order: list[str]) -> list[list[str]]:
    lists = {field: value if isinstance(value, list) else [value] for field, value in fields.items()}
    lengths = {field: len(value) for field, value in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: the lists of {name!r} differ in length: {lengths}.")
    n = next(iter(lengths.values()), 0)
    return [[name, *("" if (v := lists.get(f, [""] * n)[i]) is None else str(v) for f in order)] for i in range(n)]
