"""Reading shards for training: an order without state, a cursor, a prefetching Loader, and a Mixture of them.

The order is a pure function of (seed, epoch, index), so where a run stands is one number: how many
samples all ranks together were given. A run resumes at that number exactly, whatever happened to
the number of ranks, threads or samples per batch. Shapes: B batch; others as the shards have them.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import queue
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from neurofm_ml.data.shards import Index, Reader, npy_header, parse_npy_header, read_index
from neurofm_ml.types import Array

Collate = Callable[[list[dict[str, Any]]], Any]
Plan = TypeVar("Plan")
Result = TypeVar("Result")

# Chunks of neighbours keep reads near-sequential; many chunks in a block mix subjects well
# (8 x 256 mixes better than 64 x 16 at the same number of samples in flight).
CHUNK = 8
CHUNKS_PER_BLOCK = 256


# ---------------------------------------------------------------- order
def splitmix64(x: Array) -> Array:
    """Output function of the SplitMix64 generator (Steele et al. 2014) on uint64: integers alone, so
    no library version can change an order."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashed(*numbers: int) -> Array:
    """(1,) uint64 that depends on every one of the integers and on their order."""
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = splitmix64(state ^ np.uint64(number % 2**64))
    return state


def permutation(n: int, *numbers: int) -> Array:
    """(n,) a permutation of range(n) chosen by the integers."""
    return np.argsort(splitmix64(hashed(*numbers) ^ splitmix64(np.arange(n, dtype=np.uint64))), kind="stable")


class Order:
    """Which of n samples stands at each place of an endless stream, epoch after epoch.

    Shuffled: the n samples are cut into chunks of CHUNK neighbours, the chunks permuted, and samples
    permuted within blocks of CHUNKS_PER_BLOCK chunks. Not shuffled: 0..n-1, again and again.
    """

    def __init__(self, n: int, seed: int, shuffle: bool):
        self.n, self.seed, self.shuffle = n, seed, shuffle
        self._chunks: tuple[int, Array, Array] = (-1, np.empty(0), np.empty(0))
        self._block: tuple[tuple[int, int], Array] = ((-1, -1), np.empty(0))

    def at(self, position: int, count: int) -> Array:
        """(count,) samples at stream positions position, position + 1, ..."""
        parts = []
        while count > 0:
            epoch, place = divmod(position, self.n)
            part = self._rest_of_block(epoch, place)[:count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        return np.concatenate(parts)

    def _rest_of_block(self, epoch: int, place: int) -> Array:
        if not self.shuffle:
            return np.arange(place, self.n)
        _, starts = self._permuted_chunks(epoch)
        block = int(np.searchsorted(starts[::CHUNKS_PER_BLOCK], place, side="right")) - 1
        return self._permuted_block(epoch, block)[place - starts[block * CHUNKS_PER_BLOCK] :]

    def _permuted_chunks(self, epoch: int) -> tuple[Array, Array]:
        """Chunk numbers in this epoch's order, and the place where each starts."""
        if self._chunks[0] != epoch:
            order = permutation(-(-self.n // CHUNK), self.seed, epoch, 0)
            ends = np.cumsum(np.minimum(CHUNK, self.n - order * CHUNK))
            self._chunks = (epoch, order, np.concatenate([[0], ends[:-1]]))
        return self._chunks[1:]

    def _permuted_block(self, epoch: int, block: int) -> Array:
        if self._block[0] != (epoch, block):
            chunks = self._permuted_chunks(epoch)[0][block * CHUNKS_PER_BLOCK : (block + 1) * CHUNKS_PER_BLOCK]
            samples = (chunks[:, None] * CHUNK + np.arange(CHUNK)).ravel()
            samples = samples[samples < self.n]
            self._block = ((epoch, block), samples[permutation(len(samples), self.seed, epoch, 1, block)])
        return self._block[1]


# ---------------------------------------------------------------- assembling batches
class _Pool:
    """Arrays of one shape, lent out and taken back when the last tensor on them dies.

    So memory is reused like a ring, and yet a batch stays what it is for as long as anyone holds it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]):
        self._shape, self._dtype = shape, dtype
        self._free: queue.SimpleQueue[Array] = queue.SimpleQueue()

    def take(self) -> tuple[Array, torch.Tensor]:
        """An array to fill, and the tensor on it that keeps it lent."""
        try:
            array = self._free.get_nowait()
        except queue.Empty:
            array = np.empty(self._shape, self._dtype)
        lent = array.view()
        weakref.finalize(lent, self._free.put, array).atexit = False
        return array, torch.from_numpy(lent)


class _Source:
    """The selected samples of several artifacts; a global row counts through their indexes in turn."""

    def __init__(self, shards: Sequence[Path], wanted: Mapping[str, Collection[Any]], checksums: bool):
        self.readers = [Reader(read_index(Path(folder)), checksums) for folder in shards]
        self.chosen = [_matching(reader.index, wanted) for reader in self.readers]
        self._starts = [0, *itertools.accumulate(len(reader.index) for reader in self.readers)]
        self.rows = np.concatenate([rows + start for rows, start in zip(self.chosen, self._starts, strict=False)])
        if not len(self.rows):
            raise ValueError(f"no window of {', '.join(map(str, shards))} has {dict(wanted)}; see the columns of windows.parquet there.")

    def locate(self, row: int) -> tuple[Reader, int]:
        """The reader of a global row, and the row in its own index."""
        which = bisect.bisect_right(self._starts, row) - 1
        return self.readers[which], row - self._starts[which]

    def key(self, row: int) -> str:
        reader, local = self.locate(row)
        return reader.index.key(local)

    def sample(self, row: int) -> dict[str, Any]:
        """What this sample has of {signal: array, "json": dict}, and its "__key__" and "__row__"."""
        reader, local = self.locate(row)
        return {**reader.sample(local), "__key__": reader.index.key(local), "__row__": row}


def _matching(index: Index, wanted: Mapping[str, Collection[Any]]) -> Array:
    """Rows of the index whose line in windows.parquet has one of the wanted values in every column."""
    windows = pq.read_table(index.folder / "windows.parquet")
    if unknown := [column for column in wanted if column not in windows.column_names]:
        raise ValueError(f"{index.folder / 'windows.parquet'} has no column {unknown[0]!r}; it has {', '.join(windows.column_names)}.")
    line = pc.index_in(index.keys, value_set=windows["key"].combine_chunks())
    if line.null_count:
        raise ValueError(f"{index.folder / 'windows.parquet'} lacks {line.null_count} keys of index.parquet; write the shards again.")
    keep = np.ones(len(windows), bool)
    for column, values in wanted.items():
        keep &= pc.is_in(windows[column], value_set=pa.array(list(values), windows[column].type)).to_numpy()
    return np.flatnonzero(keep[line.to_numpy()])


class _Stack:
    """Tensors of one field, whose members all share one npy header, read straight into their rows."""

    def __init__(self, source: _Source, field: str, batch_size: int):
        self._source, self._field = source, field
        reader, local = source.locate(int(source.rows[0]))
        column = reader.index.fields.index(field)
        first = np.empty(reader.index.size[local, column], np.uint8)
        reader.read_into(local, column, [first])
        self._header = npy_header(first)
        dtype, shape = parse_npy_header(self._header)
        self._pool = _Pool((batch_size, *shape), dtype)

    def __call__(self, rows: Sequence[int]) -> torch.Tensor:
        """(len(rows), ...) members of the given global rows."""
        array, tensor = self._pool.take()
        header = bytearray(len(self._header))
        for row, out in zip(rows, array.reshape(len(array), -1).view(np.uint8), strict=False):
            reader, local = self._source.locate(row)
            column = reader.index.fields.index(self._field)
            reader.read_into(local, column, [header, out])
            if header != self._header:
                raise ValueError(
                    f"field {self._field!r} of {reader.index.key(local)!r} has another shape or type; give the Loader a collate."
                )
        return tensor[: len(rows)]


def _stackable(source: _Source) -> list[str]:
    """The array fields, each in every selected sample and of one size."""
    fields = sorted({field for reader in source.readers for field in reader.index.fields} - {"json"})
    for field in fields:
        sizes = [r.index.sizes(field)[rows] for r, rows in zip(source.readers, source.chosen, strict=True)]
        if len(found := np.unique(np.concatenate(sizes))) > 1 or found[0] < 0:
            raise ValueError(
                f"field {field!r} is missing from some samples or differs in size, so it cannot be stacked; give the Loader a collate."
            )
    return fields


def _stacked(source: _Source, batch_size: int) -> Callable[[Sequence[int]], dict[str, Any]]:
    """rows -> {field: tensor (B, ...), "__key__": B strings, "__row__": (B,) int64}."""
    stacks = {field: _Stack(source, field, batch_size) for field in _stackable(source)}

    def assemble(rows: Sequence[int]) -> dict[str, Any]:
        tensors = {field: stack(rows) for field, stack in stacks.items()}
        return {**tensors, "__key__": [source.key(row) for row in rows], "__row__": torch.tensor(rows)}

    return assemble


def _collated(source: _Source, collate: Collate) -> Callable[[Sequence[int]], Any]:
    return lambda rows: collate([source.sample(row) for row in rows])


def _prefetched(work: Callable[[Plan], Result], plans: Iterable[Plan], threads: int) -> Iterator[Result]:
    """Results of `work` in the order of the plans, computed ahead of the consumer in threads."""
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        for plan in plans:
            pending.append(pool.submit(work, plan))
            if len(pending) > threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------- what others use
class Loader:
    """Batches of the windows of one split, without end; iterate it once at a time.

    `shards` are artifact folders; `where` keeps windows whose column in windows.parquet has one of
    the given values, such as {"recording": ["R2192"]}. Rank r of `world` gets its share of every
    global batch of `batch_size * world` samples. With `collate`, a batch is what it makes of a list
    of samples {signal: array, "json": dict, "__key__": str, "__row__": int}, each with the signals it
    has; it runs in the reading threads. Without it, a batch is {signal: tensor (B, ...), "__key__":
    list, "__row__": (B,)}, which needs every array of one shape.

    A batch belongs to the consumer for as long as it is held. `state_dict()` counts the batches the
    consumer got, not those read ahead; `load_state_dict` takes effect at the next `iter`.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        *,
        split: str,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        where: Mapping[str, Collection[Any]] | None = None,
        threads: int = 1,
        collate: Collate | None = None,
        checksums: bool = True,
    ):
        source = _Source(shards, {"split": [split], **(where or {})}, checksums)
        self.rows: Array = source.rows
        self._order = Order(len(source.rows), seed, shuffle)
        self._batch_size, self._rank, self._world, self._threads = batch_size, rank, world, threads
        self._assemble = _stacked(source, batch_size) if collate is None else _collated(source, collate)
        self._position = 0
        self._fingerprint = _fingerprint(source, f"{shuffle} {CHUNK} x {CHUNKS_PER_BLOCK}")

    def __len__(self) -> int:
        """Samples per epoch, over all ranks."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        """Batches from where the cursor stands; one may span the end of an epoch."""
        step = self._batch_size * self._world
        starts = itertools.count(self._position + self._rank * self._batch_size, step)
        plans = (self.rows[self._order.at(start, self._batch_size)].tolist() for start in starts)
        for batch in _prefetched(self._assemble, plans, self._threads):
            self._position += step
            yield batch

    def epoch(self) -> Iterator[Any]:
        """This rank's share of one pass in the order of the index, the last batch short; the cursor stays."""
        starts = range(self._rank * self._batch_size, len(self), self._batch_size * self._world)
        plans = (self.rows[start : start + self._batch_size].tolist() for start in starts)
        return _prefetched(self._assemble, plans, self._threads)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, the same on every rank: samples given out so far, over all ranks."""
        return {"position": self._position, "seed": self._order.seed, "fingerprint": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, under any number of ranks and threads and any batch size."""
        _same_cursor(state, self.state_dict(), "shards, split, where and shuffle")
        self._position = state["position"]


class Mixture:
    """Batches drawn from several loaders by weight; the loader of step k is a pure function of (seed, k)."""

    def __init__(self, loaders: Mapping[str, Loader], weights: Mapping[str, float], seed: int):
        if set(weights) != set(loaders):
            raise ValueError(f"weights name {sorted(weights)} but the loaders are {sorted(loaders)}; give each loader a weight.")
        self._loaders = {name: loaders[name] for name in sorted(loaders)}
        shares = np.array([weights[name] for name in self._loaders], float)
        if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
            raise ValueError(f"weights are {dict(weights)}; they need to be finite, not negative, and not all zero.")
        self._edges = np.cumsum(shares / shares.max())
        self._edges /= self._edges[-1]
        self._seed = seed
        self._step = 0

    def draw(self, step: int) -> str:
        """Name of the loader that gives batch `step`."""
        uniform = float(hashed(self._seed, step)[0] >> np.uint64(11)) * 2.0**-53
        return list(self._loaders)[int(np.searchsorted(self._edges, uniform, side="right"))]

    def __iter__(self) -> Iterator[Any]:
        streams = {name: iter(loader) for name, loader in self._loaders.items()}
        while True:
            batch = next(streams[self.draw(self._step)])
            self._step += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Step and the state of every loader."""
        states = {name: loader.state_dict() for name, loader in self._loaders.items()}
        return {"step": self._step, "seed": self._seed, "fingerprint": self._fingerprint(), "loaders": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _same_cursor(state, self.state_dict(), "loaders and weights")
        for name, loader in self._loaders.items():
            loader.load_state_dict(state["loaders"][name])
        self._step = state["step"]

    def _fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([list(self._loaders), self._edges.tolist()]).encode()).hexdigest()[:16]


def _fingerprint(source: _Source, order: str) -> str:
    """What a position in the stream means: which samples, in which order."""
    digest = hashlib.sha256(" ".join([order, *(reader.index.fingerprint for reader in source.readers)]).encode())
    digest.update(source.rows.tobytes())
    return digest.hexdigest()[:16]


def _same_cursor(state: Mapping[str, Any], own: Mapping[str, Any], identity: str) -> None:
    """Refuse a state whose order of samples was another one."""
    if state["seed"] != own["seed"]:
        raise ValueError(f"the cursor was made with seed {state['seed']}, this reader has seed {own['seed']}; use the same seed to resume.")
    if state["fingerprint"] != own["fingerprint"]:
        raise ValueError(
            f"the cursor belongs to other data (fingerprint {state['fingerprint']}, here {own['fingerprint']}): "
            f"resume with the same {identity}, or start without the cursor."
        )
