"""Values that stay in their file until rows of them are asked for: what readers of big formats give for an array in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from neurofm_ml.types import Array

#: Bytes of float32 values that are in memory at once while all of them are gone through.
CHUNK_BYTES = 16_000_000
#: Rows that lie together in the file (a compressed chunk) are read together up to this many bytes.
MAX_CHUNK_BYTES = 128_000_000

#: Rows [start, stop) of all channels: (stop - start, n_chans) float32.
ReadRows = Callable[[int, int], Array]


@dataclass(frozen=True, eq=False, repr=False)
class LazyArray:
    """A two-dimensional float32 array (n_times, n_chans) that `read` gets from its file.

    Indexing reads the rows asked for and nothing more; ``np.asarray`` reads all. `together` is the number of rows
    that are cheapest to read at once.
    """

    shape: tuple[int, int]
    read: ReadRows
    together: int = 1

    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def nbytes(self) -> int:
        """Bytes of all values, once they are read."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> Array:
        """(stop - start, n_chans). Raises ValueError for a file that gives fewer rows than it promised."""
        found = self.read(start, stop)
        if len(found) != stop - start:
            raise ValueError(f"rows {start} to {stop} were asked for and the file gave {len(found)}; it is cut short, get it again.")
        return found

    def __getitem__(self, key: Any) -> Array:
        """Rows by slice or number, then whatever numpy allows for the channels."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step > 0:
                found = self.rows(start, max(start, stop))[::step]
                return found[(slice(None), *rest)]
        elif isinstance(rows, (int, np.integer)):
            row = range(len(self))[rows]
            return self.rows(row, row + 1)[(0, *rest)]
        raise TypeError(f"rows of values in a file are asked for by a number or a slice onwards, not {rows!r}; use np.asarray to read all.")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.rows(0, len(self)).astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyArray({self.shape[0]} x {self.shape[1]}, {self.nbytes / 1e6:.1f} MB)"


def lazy(shape: tuple[int, int], read: ReadRows, together: int = 1) -> Array:
    """A LazyArray, typed as the array that it stands for; numpy's integers in `shape` would not survive a .npy header."""
    return cast(Array, LazyArray((int(shape[0]), int(shape[1])), read, together))


def chunks(values: Array | LazyArray) -> Iterator[Array]:
    """The rows of `values` (n_times, n_chans) in turn, a piece at a time."""
    rows = max(1, CHUNK_BYTES // max(1, values.shape[1] * 4))
    if isinstance(values, LazyArray):
        together = min(values.together, max(1, MAX_CHUNK_BYTES // max(1, values.shape[1] * 4)))
        rows = -(-rows // together) * together
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


def columns(parts: Sequence[tuple[Array, Sequence[int]]]) -> Array:
    """Channels of one or several arrays of equal length side by side, read from their files when all arrays are."""
    if not any(isinstance(values, LazyArray) for values, _ in parts):
        return np.concatenate([values[:, list(picks)] for values, picks in parts], axis=1)
    shape = (len(parts[0][0]), sum(len(picks) for _, picks in parts))
    together = max(getattr(values, "together", 1) for values, _ in parts)
    return lazy(shape, lambda start, stop: np.concatenate([v[start:stop][:, list(p)] for v, p in parts], axis=1), together)


def laid_end_to_end(parts: Sequence[Array]) -> Array:
    """Arrays (n_times, n_chans) after one another, read from their files when asked for."""
    ends = np.cumsum([len(part) for part in parts])

    def read(start: int, stop: int) -> Array:
        first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(ends, stop, side="left")
        inside = range(int(first), min(int(last), len(parts) - 1) + 1)
        pieces = [parts[i][max(0, start - (begin := int(ends[i]) - len(parts[i]))) : max(0, stop - begin)] for i in inside]
        return np.concatenate(pieces) if pieces else np.empty((0, parts[0].shape[1]), np.float32)

    return lazy((int(ends[-1]), parts[0].shape[1]), read)


def mapped(values: Array, function: Callable[[Array], Array]) -> Array:
    """`function` of every value (n_times, n_chans), row by row as they are read."""
    if isinstance(values, LazyArray):
        return lazy(values.shape, lambda start, stop: function(values.rows(start, stop)), values.together)
    return function(values)
