"""Named arrays in files: MATLAB (v5, v7.3), HDF5, npz and npy without pickle, objects of R, columns of text, of tracked
poses and of aligned words."""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neurofm_ml.data.readers import pose, rdata, speech
from neurofm_ml.data.readers.hdf5 import open_hdf5
from neurofm_ml.data.readers.numbers import read_numbers
from neurofm_ml.data.readers.tables import read_table
from neurofm_ml.types import Array

_NO_PICKLE = "pickled objects are refused because they can run code: save plain numbers with np.save."


def load_variables(path: Path, names: Sequence[str]) -> tuple[list[Array], tuple[str, ...]]:
    """Arrays of the named variables ("" is the only one of a file), and the headers of a table that is read whole.

    Raises ValueError naming the variables that are there.
    """
    kind = _kind(path)
    tables = {"text": _from_text, "r": _from_r, "pose": _from_pose}
    if kind in tables:
        return tables[kind](path, names)
    loaders = {"matlab": _from_matlab, "hdf5": _from_hdf5, "npz": _from_npz, "npy": _from_npy, "speech": _from_speech}
    return loaders[kind](path, names), ()


def load_columns(path: Path, names: Sequence[str]) -> list[Array]:
    """Columns (n_rows,) of the named variables: numbers, or text as it is written.

    Columns of a text that are named by numbers are counted from 0 in a table without a header.
    """
    if _kind(path) == "text":
        table = read_table(path, headed=not all(name.isdecimal() for name in names))
        picked = [table.header.index(_pick(path, name, table.header)) for name in names]
        return [np.array([row[i] for row in table.rows], dtype=str) for i in picked]
    return [as_column(array, f"{path}, variable {name!r}") for name, array in zip(names, load_variables(path, names)[0], strict=True)]


def rows_where(path: Path, where: Mapping[str, str], arrays: Sequence[Array]) -> list[Array]:
    """Of arrays with a row per row of the file, the rows whose columns hold the words that `where` asks for."""
    if not where:
        return list(arrays)
    columns = dict(zip(where, map(as_texts, load_columns(path, tuple(where))), strict=True))
    keep = np.all([columns[name] == word for name, word in where.items()], axis=0)
    if not keep.any():
        held = "; ".join(f"{name} holds {', '.join(np.unique(column)[:10])}" for name, column in columns.items())
        raise ValueError(f"{path} has no row where {', '.join(f'{n} is {w!r}' for n, w in where.items())}; {held}.")
    if any(len(array) != len(keep) for array in arrays):
        raise ValueError(f"{path}: {', '.join(where)} have {len(keep)} rows, other variables {[len(a) for a in arrays]}; they must agree.")
    return [array[keep] for array in arrays]


def as_column(array: Array, where: str) -> Array:
    """(n,) numbers or words, which HDF5 keeps as bytes."""
    column = np.array([v.decode() if isinstance(v, bytes) else v for v in array.ravel()]) if array.dtype.kind in "OS" else array.ravel()
    if column.dtype.kind not in "biufU":
        raise ValueError(f"{where} holds {array.dtype}, neither numbers nor words.")
    return column


def as_texts(column: Array) -> Array:
    """(n,) words as they stand; numbers as short as they are exact, so that 1.0 reads 1."""
    return column if column.dtype.kind == "U" else np.array([f"{value:.15g}" for value in column], dtype=str)


def expand(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """`names`, with the columns of a text table that match in place of those that hold a ``*``."""
    if not any("*" in name for name in names):
        return tuple(names)
    header = read_table(path).header
    found = {name: fnmatch.filter(header, name) if "*" in name else [name] for name in names}
    if missing := [name for name, columns in found.items() if not columns]:
        raise ValueError(f"{path} has no column that matches {missing[0]!r}; it has {', '.join(header)}.")
    return tuple(column for columns in found.values() for column in columns)


def _kind(path: Path) -> str:
    """Format of an array file by its first bytes; MATLAB's v7.3 is HDF5 with a MATLAB header before it."""
    with path.open("rb") as file:
        head = file.read(8)
    if path.suffix == ".mat":
        return "matlab"
    if path.suffix.lower() in rdata.SUFFIXES:
        return "r"
    if path.suffix.lower() in speech.SUFFIXES:
        return "speech"
    if pose.holds_pose(path):
        return "pose"
    if head.startswith(b"\x89HDF"):
        return "hdf5"
    if head.startswith(b"PK"):
        return "npz"
    if head.startswith(b"\x93NUMPY") or path.suffix == ".npy":
        return "npy"
    if path.suffix in (".h5", ".hdf5", ".npz"):
        raise ValueError(f"{path} does not begin like a {path.suffix} file; it is damaged or another format, get it again.")
    return "text"


def _pick(path: Path, name: str, present: Sequence[str]) -> str:
    """`name`, or the only variable there is when `name` is empty."""
    if not name and len(present) == 1:
        return present[0]
    if name not in present:
        what = f"has no variable {name!r}; it holds" if name else "holds more than one variable:" if present else "holds"
        where = "`variable` of a signal, `start` or `label` of intervals"
        raise ValueError(f"{path} {what} {', '.join(sorted(present)) or 'none'}. Name one of them ({where}).")
    return name


def _from_matlab(path: Path, names: Sequence[str]) -> list[Array]:
    """Fields of structs are reached by ``struct/field``. Vectors come as (n,)."""
    from h5py import is_hdf5
    from pymatreader import read_mat, whosmat

    try:
        if is_hdf5(path):
            with open_hdf5(path):
                pass
        present = [name for name, _, _ in whosmat(path)]
    except Exception as error:  # whatever a damaged file does to the parser
        raise ValueError(f"{path} is damaged, cut short or no MATLAB file ({error}); get it again.") from None
    roots = [_pick(path, name.split("/")[0], present) for name in names]
    try:
        loaded = read_mat(path, variable_names=list(dict.fromkeys(roots)))
    except Exception as error:  # as above
        raise ValueError(f"{path} is damaged or cut short ({error}); get it again.") from None
    return [_field(path, loaded[root], name.split("/")[1:]) for root, name in zip(roots, names, strict=True)]


def _field(path: Path, value: object, steps: Sequence[str]) -> Array:
    for step in steps:
        fields = value if isinstance(value, dict) else {}
        value = fields[_pick(path, step, list(fields))]
    return _as_array(value)


def _as_array(value: object) -> Array:
    """Cells and struct arrays come as lists; arrays of different shapes lie side by side in an object array."""
    if not isinstance(value, list) or len({np.shape(cell) for cell in value}) <= 1:
        return np.asarray(value)
    cells = np.empty(len(value), object)
    cells[:] = value
    return cells


def _from_hdf5(path: Path, names: Sequence[str]) -> list[Array]:
    import h5py

    with open_hdf5(path) as file:
        present: list[str] = []
        file.visititems(lambda name, item: present.append(name) if isinstance(item, h5py.Dataset) else None)
        return [np.asarray(file[_pick(path, name, present)][()]) for name in names]


def _from_npz(path: Path, names: Sequence[str]) -> list[Array]:
    import zlib
    from zipfile import BadZipFile

    try:
        with np.load(path, allow_pickle=False) as file:
            picked = [_pick(path, name, file.files) for name in names]
            return [_unpickled(path, name, file) for name in picked]
    except (BadZipFile, EOFError, OSError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); get it again.") from None


def _unpickled(path: Path, name: str, file: "np.lib.npyio.NpzFile") -> Array:
    try:
        return file[name]
    except ValueError as error:
        raise ValueError(f"{path}, variable {name!r} cannot be read ({error}); {_NO_PICKLE}") from None


def _from_npy(path: Path, names: Sequence[str]) -> list[Array]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {_NO_PICKLE}") from None
    if any(names):
        raise ValueError(f"{path} holds one array without a name; leave `variable` and `time` out.")
    return [array]


def _from_text(path: Path, names: Sequence[str]) -> tuple[list[Array], tuple[str, ...]]:
    """Named columns as (n,), or for "" the whole table (all columns but those named as time)."""
    table = read_numbers(path, names) or read_table(path)
    named = [_pick(path, name, table.header) for name in names if name]
    rest = [column for column in table.header if column not in named]
    arrays = [table.numbers([name])[:, 0] if name else table.numbers(rest) for name in names]
    return arrays, tuple(rest) if table.named and "" in names else ()


def _from_speech(path: Path, names: Sequence[str]) -> list[Array]:
    tiers = speech.load_tiers(path)
    return [tiers[_pick(path, name, list(tiers))] for name in names]


def _from_pose(path: Path, names: Sequence[str]) -> tuple[list[Array], tuple[str, ...]]:
    """Named columns as (n,), or for "" the whole table."""
    table = pose.read_pose(path)
    picked = [table.columns.index(_pick(path, name, table.columns)) if name else None for name in names]
    return [table.values if i is None else table.values[:, i] for i in picked], table.columns if "" in names else ()


def _from_r(path: Path, names: Sequence[str]) -> tuple[list[Array], tuple[str, ...]]:
    """``object/column`` as (n,), text where the column is text; ``object`` whole as (n_rows, n_columns), with its headers."""
    objects = rdata.read_rdata(path)
    arrays: list[Array] = []
    headers: tuple[str, ...] = ()
    for name in names:
        named, _, column = name.partition("/")
        root = _pick(path, named, list(objects))
        frame = objects[root]
        if not column:
            if words := [str(c) for c, kind in frame.dtypes.items() if kind.kind not in "biuf"]:
                raise ValueError(f"{path}, {root!r} holds words in {', '.join(words)}; name columns of numbers, as in '{root}/column'.")
            arrays.append(frame.to_numpy())
            headers = tuple(map(str, frame.columns))
            continue
        values = frame[_pick(path, column, list(map(str, frame.columns)))]
        arrays.append(values.to_numpy() if values.dtype.kind in "biuf" else values.to_numpy(dtype=str))
    return arrays, headers
