"""Reading shards for training: an order without state, a cursor and a prefetching Loader.

The order is a pure function of (seed, epoch, index), so where a run stands is one number: how many
samples all ranks together were given. A run resumes at that number exactly, whatever happened to
the number of ranks, threads or samples per batch. Behind a URL, what the next batches need is asked
for ahead, neighbours in one request. Shapes: B batch; others as the shards have them.
"""

from __future__ import annotations

import bisect
import itertools
import queue
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import xxhash

from neurofm_ml.data.order import CHUNK, CHUNKS_PER_BLOCK, Order, row_seeds
from neurofm_ml.data.shards import Index, Reader, npy_header, parse_npy_header, read_index
from neurofm_ml.types import Array

Collate = Callable[[list[dict[str, Any]]], Any]
Assemble = Callable[["_Source", "_Plan"], Any]
Task = TypeVar("Task")
Result = TypeVar("Result")

#: Bytes asked for at once from behind a URL, a block of the order at most; twice that is in memory.
AHEAD_BYTES = 128_000_000


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


class _Plan(NamedTuple):
    """The block of the order in which a batch begins, its global rows, the epoch that each belongs to, and a seed for
    whatever is random about each."""

    block: tuple[int, int]
    rows: list[int]
    epochs: list[int]
    seeds: list[int]


class _Source:
    """Samples of several artifacts; a global row counts through their indexes in turn."""

    def __init__(self, readers: Sequence[Reader]):
        self.readers = readers
        self.starts = [0, *itertools.accumulate(len(reader.index) for reader in readers)]

    def locate(self, row: int) -> tuple[Reader, int]:
        """The reader of a global row, and the row in its own index."""
        which = bisect.bisect_right(self.starts, row) - 1
        return self.readers[which], row - self.starts[which]

    def key(self, row: int) -> str:
        reader, local = self.locate(row)
        return reader.index.key(local)

    def sample(self, row: int) -> dict[str, Any]:
        """What this sample has of {signal: array, "json": dict}, and its "__key__" and "__row__"."""
        reader, local = self.locate(row)
        return {**reader.sample(local), "__key__": reader.index.key(local), "__row__": row}

    def fetched(self, rows: Array) -> _Source:
        """A source of these global rows (n,) alone, which are asked for now."""
        bounds = itertools.pairwise(self.starts)
        return _Source([r.fetched(rows[(rows >= a) & (rows < b)] - a) for r, (a, b) in zip(self.readers, bounds, strict=True)])


def _matching(index: Index, wanted: Mapping[str, Collection[Any]]) -> Array:
    """Rows of the index whose line in windows.parquet has one of the wanted values in every column.

    A field of the index is a column too: whether the sample has it.
    """
    path = index.files.path("windows.parquet")
    windows = pq.read_table(pa.BufferReader(index.files.read("windows.parquet")))
    line = pc.index_in(index.keys, value_set=windows["key"].combine_chunks())
    if line.null_count:
        raise ValueError(f"{path} lacks {line.null_count} keys of index.parquet; write the shards again.")
    keep = np.ones(len(index), bool)
    for column, values in wanted.items():
        if column in windows.column_names:
            keep &= pc.is_in(windows[column], value_set=pa.array(list(values), windows[column].type)).to_numpy()[line.to_numpy()]
        elif column in index.fields:
            keep &= np.isin(index.sizes(column) >= 0, list(values))
        else:
            have = ", ".join((*windows.column_names, *index.fields))
            raise ValueError(f"{path} has no column {column!r}, and no sample that field; there are {have}.")
    return np.flatnonzero(keep)


class _Stacks:
    """Tensors of several fields, whose members each share one npy header, read straight into their rows."""

    def __init__(self, source: _Source, fields: Sequence[str], first: int, batch_size: int):
        """`first` is a global row that has the fields."""
        self._fields = fields
        reader, local = source.locate(first)
        columns = [reader.index.fields.index(field) for field in fields]
        members = [np.empty(reader.index.size[local, column], np.uint8) for column in columns]
        reader.read_into(local, {column: [member.data] for column, member in zip(columns, members, strict=True)})
        self._headers = [npy_header(member) for member in members]
        kinds = map(parse_npy_header, self._headers)
        self._pools = [_Pool((batch_size, *shape), dtype) for dtype, shape in kinds]

    def __call__(self, source: _Source, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """field -> (len(rows), ...) members of the given global rows."""
        lent = [pool.take() for pool in self._pools]
        memory = [array.reshape(-1).view(np.uint8).data for array, _ in lent]
        sizes = [array[0].nbytes for array, _ in lent]
        headers = [bytearray(len(header)) for header in self._headers]
        for k, row in enumerate(rows):
            reader, local = source.locate(row)
            columns = [reader.index.fields.index(field) for field in self._fields]
            parts = zip(headers, memory, sizes, strict=True)
            reader.read_into(local, {c: [h, m[k * n : (k + 1) * n]] for c, (h, m, n) in zip(columns, parts, strict=True)})
            if headers != self._headers:
                self._refuse(reader.index.key(local), headers)
        return {field: tensor[: len(rows)] for field, (_, tensor) in zip(self._fields, lent, strict=True)}

    def _refuse(self, key: str, headers: Sequence[bytearray]) -> None:
        other = next(f for f, own, h in zip(self._fields, self._headers, headers, strict=True) if own != h)
        raise ValueError(f"field {other!r} of {key!r} has another shape or type; give the Loader a collate.")


def _stackable(readers: Sequence[Reader], chosen: Sequence[Array]) -> list[str]:
    """The array fields that are read, each in every chosen sample and of one size."""
    fields = sorted({reader.index.fields[c] for reader in readers for c in reader.columns})
    for field in fields:
        sizes = [reader.index.sizes(field)[rows] for reader, rows in zip(readers, chosen, strict=True)]
        if len(found := np.unique(np.concatenate(sizes))) > 1 or found[0] < 0:
            raise ValueError(
                f"field {field!r} is missing from some samples or differs in size, so it cannot be stacked; give the Loader a collate."
            )
    return fields


def _stacked(source: _Source, fields: Sequence[str], first: int, batch_size: int) -> Assemble:
    """{field: tensor (B, ...), "__key__": B strings, "__row__", "__epoch__", "__seed__": (B,) int64} of a plan."""
    stacks = _Stacks(source, fields, first, batch_size)

    def assemble(source: _Source, plan: _Plan) -> dict[str, Any]:
        numbers = {"__row__": plan.rows, "__epoch__": plan.epochs, "__seed__": plan.seeds}
        named = {name: torch.tensor(values) for name, values in numbers.items()}
        return {**stacks(source, plan.rows), "__key__": [source.key(row) for row in plan.rows], **named}

    return assemble


def _collated(collate: Collate) -> Assemble:
    def assemble(source: _Source, plan: _Plan) -> Any:
        samples = [source.sample(row) for row in plan.rows]
        return collate([{**s, "__epoch__": e, "__seed__": n} for s, e, n in zip(samples, plan.epochs, plan.seeds, strict=True)])

    return assemble


def _prefetched(work: Callable[[Task], Result], tasks: Iterable[Task], threads: int) -> Iterator[Result]:
    """Results of `work` in the order of the tasks, computed ahead of the consumer in threads, or with 0 threads when asked for."""
    if not threads:
        yield from map(work, tasks)
        return
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        for task in tasks:
            pending.append(pool.submit(work, task))
            if len(pending) > threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _fetched(source: _Source, plans: Iterator[_Plan], batches: int) -> Iterator[tuple[_Source, _Plan]]:
    """Each plan with the source to read it from: those of one block are asked for together, `batches` at most, one such
    group ahead."""
    current: list[tuple[_Source, _Plan]] = []
    for _, block in itertools.groupby(plans, key=attrgetter("block")):
        while group := list(itertools.islice(block, batches)):
            ahead = source.fetched(np.concatenate([plan.rows for plan in group]))
            yield from current
            current = [(ahead, plan) for plan in group]
    yield from current


# ---------------------------------------------------------------- what others use
class Loader:
    """Batches of the windows of one split, without end; iterate it once at a time.

    `shards` are artifacts: folders, or URLs (http, https, s3). `signals` are the only arrays that are read (default:
    all). `where` keeps windows whose column in windows.parquet has one of the given values, such as
    {"recording": ["R2192"]}; the name of a signal says whether a window has it: {"eeg": [True]}. Rank r of `world` gets
    its share of every global batch of `batch_size * world` samples. With `collate`, a batch is what it makes of a list
    of samples {signal: array, "json": dict, "__key__": str, "__row__": int, "__epoch__": int, "__seed__": int}, each with
    the signals it has; it runs in the reading threads. Without it, a batch is {signal: tensor (B, ...), "__key__": list,
    "__row__", "__epoch__", "__seed__": (B,)}, which needs every array of one shape. The seed of a sample is a pure
    function of (seed, epoch, row): augmentation that draws from it survives a resume under other ranks and batch sizes.

    A batch belongs to the consumer for as long as it is held. `state_dict()` counts the batches the consumer got, not
    those read ahead; `load_state_dict` takes effect at the next `iter`. Reading is done by threads (0: none, when asked
    for); worker processes would only copy what they read, so the Loader is not made for torch's DataLoader.
    """

    def __init__(
        self,
        shards: Sequence[Path | str],
        *,
        split: str,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        where: Mapping[str, Collection[Any]] | None = None,
        signals: Sequence[str] | None = None,
        threads: int = 1,
        collate: Collate | None = None,
        checksums: bool = True,
    ):
        indexes = [read_index(artifact) for artifact in shards]
        fields = [*_arrays(indexes, signals), *(["json"] if collate else [])]
        readers = [Reader(index, checksums, fields) for index in indexes]
        wanted = {"split": [split], **(where or {})}
        chosen = [_matching(index, wanted) for index in indexes]
        self._source = _Source(readers)
        self.rows: Array = np.concatenate([rows + start for rows, start in zip(chosen, self._source.starts, strict=False)])
        if not len(self.rows):
            raise ValueError(f"no window of {', '.join(map(str, shards))} has {wanted}; see the columns of windows.parquet there.")
        self._order = Order(len(self.rows), seed, shuffle)
        self._batch_size, self._rank, self._world, self._threads = batch_size, rank, world, threads
        self._ahead = _batches_ahead(readers, chosen, batch_size)
        if collate is None:
            self._assemble = _stacked(self._source.fetched(self.rows[:1]), _stackable(readers, chosen), int(self.rows[0]), batch_size)
        else:
            self._assemble = _collated(collate)
        self._position = 0
        self._fingerprint = _fingerprint(indexes, chosen, f"{shuffle} {CHUNK} x {CHUNKS_PER_BLOCK}")

    def __len__(self) -> int:
        """Samples per epoch, over all ranks."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        """Batches from where the cursor stands; one may span the end of an epoch."""
        step = self._batch_size * self._world
        starts = itertools.count(self._position + self._rank * self._batch_size, step)
        plans = (self._plan(self._order.at(start, self._batch_size), start, self._order.block(start)) for start in starts)
        for batch in self._read(plans):
            self._position += step
            yield batch

    def epoch(self) -> Iterator[Any]:
        """This rank's share of one pass in the order of the index, the last batch short; the cursor stays."""
        starts = range(self._rank * self._batch_size, len(self), self._batch_size * self._world)
        return self._read(self._plan(np.arange(start, min(start + self._batch_size, len(self))), start, (0, 0)) for start in starts)

    def _plan(self, places: Array, position: int, block: tuple[int, int]) -> _Plan:
        """The batch of the samples `places` (B,) among the chosen, at stream positions `position`, ..."""
        rows, epochs = self.rows[places], (position + np.arange(len(places))) // len(self)
        return _Plan(block, rows.tolist(), epochs.tolist(), row_seeds(self._order.seed, epochs, rows).tolist())

    def _read(self, plans: Iterator[_Plan]) -> Iterator[Any]:
        remote = any(reader.index.files.remote for reader in self._source.readers)
        tasks = _fetched(self._source, plans, self._ahead) if remote else ((self._source, plan) for plan in plans)
        return _prefetched(lambda task: self._assemble(*task), tasks, self._threads)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, the same on every rank: samples given out so far, over all ranks."""
        return {"position": self._position, "seed": self._order.seed, "fingerprint": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, under any number of ranks and threads, any batch size, layout or place of the same samples."""
        same_cursor(state, self.state_dict(), "shards, split, where and shuffle")
        self._position = state["position"]


def _arrays(indexes: Sequence[Index], signals: Sequence[str] | None) -> list[str]:
    """The arrays to read. Raises ValueError for a signal that no artifact has."""
    have = sorted({field for index in indexes for field in index.fields} - {"json"})
    if unknown := sorted(set(signals or ()) - set(have)):
        raise ValueError(f"signals names {', '.join(unknown)}; these shards have {', '.join(have)}.")
    return have if signals is None else list(signals)


def _batches_ahead(readers: Sequence[Reader], chosen: Sequence[Array], batch_size: int) -> int:
    """How many batches to ask for at once, at most: a block of the order, whose chunks are then whole, or AHEAD_BYTES."""
    sizes = sum(int(np.maximum(r.index.size[rows][:, r.columns], 0).sum()) for r, rows in zip(readers, chosen, strict=True))
    samples = min(CHUNK * CHUNKS_PER_BLOCK, AHEAD_BYTES * sum(map(len, chosen)) // max(1, sizes))
    return max(1, -(-samples // batch_size))


def _fingerprint(indexes: Sequence[Index], chosen: Sequence[Array], order: str) -> str:
    """What a position in the stream means: which samples, in which order. Where they lie is of no account."""
    digest = xxhash.xxh3_128(order.encode())
    for index, rows in zip(indexes, chosen, strict=True):
        digest.update("\0".join([*index.fields, *index.keys.to_pylist()]).encode())
        digest.update(index.xxh3.tobytes())
        digest.update(rows.tobytes())
    return digest.hexdigest()[:16]


def same_cursor(state: Mapping[str, Any], own: Mapping[str, Any], identity: str) -> None:
    """Refuse a state whose order of samples was another one."""
    if state["seed"] != own["seed"]:
        raise ValueError(f"the cursor was made with seed {state['seed']}, this reader has seed {own['seed']}; use the same seed to resume.")
    if state["fingerprint"] != own["fingerprint"]:
        raise ValueError(
            f"the cursor belongs to other data (fingerprint {state['fingerprint']}, here {own['fingerprint']}): "
            f"resume with the same {identity}, or start without the cursor."
        )
