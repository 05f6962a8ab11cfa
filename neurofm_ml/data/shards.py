"""Shards: plain WebDataset tars with an index, a manifest, and reads that verify every byte.

An artifact holds `<prefix>-00000.tar`, ... (members `<key>.<field>.npy` and `<key>.json`, no pickle,
the same bytes for the same samples), `index.parquet` (where each member lies, and its xxh3) and
`manifest.json` (sha256 and size of each shard), written last: without it there is no artifact. The
members of a sample may lie in one tar or be divided over several series of tars; the index joins them.
Which window goes into which shard is `windows.py`'s affair, the order of reading `loader.py`'s, how
bytes come from a folder or a URL `stores.py`'s.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from neurofm_ml.data.stores import Buffer, Bytes, Ranges, Store, open_files
from neurofm_ml.files import sha256
from neurofm_ml.types import Array, Check

SCHEMA_VERSION = 2
REMEDY = "write the shards again, or restore the file"
#: Members this close (a tar's header and filling lie between) are read from a file at once.
_NEAR = 4096
_BETWEEN = memoryview(bytearray(_NEAR))

Sample = tuple[str, Mapping[str, Array | Mapping[str, Any]]]
Payload = tuple[bytes | memoryview, ...]


class Member(NamedTuple):
    """One file in a tar: `size` bytes from byte `offset` of `shard`; a row of index.parquet."""

    shard: str
    key: str
    field: str
    offset: int
    size: int
    xxh3_64: int


class Shard(NamedTuple):
    """One tar, as the manifest tells of it."""

    name: str
    bytes: int
    sha256: str
    samples: int


_SCHEMA = pa.schema(
    {"shard": pa.string(), "key": pa.string(), "field": pa.string(), "offset": pa.int64(), "size": pa.int64(), "xxh3_64": pa.uint64()}
)


# ---------------------------------------------------------------- writing
@dataclass(frozen=True)
class Written:
    """Members in writing order, and the tars they are in."""

    members: list[Member]
    shards: list[Shard]


def write_shards(samples: Iterable[Sample], out: Path, prefix: str, max_bytes: int, series: Mapping[str, str] | None = None) -> Written:
    """Stream samples (key, {field: array, "json": dict}) into `out/<prefix>-00000.tar`, ...

    With `series`, a field goes to the tars `<prefix>-<its series>-00000.tar`, ... A shard holds `max_bytes` at most
    (its tar's end, under 12 kB, aside); a sample larger than that gets one of its own. The same samples give the
    same bytes.
    """
    written = Written([], [])
    rows: dict[str, _Series] = {}
    try:
        for key, fields in samples:
            for name, payloads in _divided(key, fields, prefix, series).items():
                rows.setdefault(name, _Series(out, name, max_bytes, written)).add(key, payloads)
        for row in rows.values():
            row.finish()
    finally:
        for row in rows.values():
            row.discard()
    return written


def write_manifest(artifact: Path, written: Sequence[Written], about: Mapping[str, Any]) -> None:
    """Write `index.parquet`, one row per member, then `manifest.json` with the caller's fields: the artifact is complete."""
    table = _table([member for part in written for member in part.members], artifact)
    with _new_file(artifact / "index.parquet") as file:
        pq.write_table(table, file)
    shards = [shard._asdict() for part in written for shard in part.shards]
    manifest = {**about, "schema_version": SCHEMA_VERSION, "index": _fingerprint(table), "shards": shards}
    with _new_file(artifact / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=1, sort_keys=True).encode())


def _table(members: Sequence[Member], artifact: Path) -> pa.Table:
    """The index. A sample may have a field once."""
    table = pa.table(dict(zip(Member._fields, zip(*members, strict=True), strict=True)), schema=_SCHEMA)
    names = list(zip(table["key"].to_pylist(), table["field"].to_pylist(), strict=True))
    if len(set(names)) < len(names):
        key, field = Counter(names).most_common(1)[0][0]
        raise ValueError(f"key {key!r} has the field {field!r} twice; give every sample of {artifact} its own key.")
    return table


def _divided(key: str, fields: Mapping[str, Any], prefix: str, series: Mapping[str, str] | None) -> dict[str, dict[str, Payload]]:
    """Name of a series of tars -> the encoded fields that go there, in alphabetical order."""
    divided: dict[str, dict[str, Payload]] = {}
    for field in sorted(fields):
        name = prefix if series is None else f"{prefix}-{series[field]}"
        divided.setdefault(name, {})[field] = _encode(key, field, fields[field])
    return divided


class _Series:
    """Tars `<name>-00000.tar` and so on; the next one begins when a sample would not fit."""

    def __init__(self, out: Path, name: str, max_bytes: int, written: Written):
        self._out, self._name, self._max_bytes, self._written = out, name, max_bytes, written
        self._number = 0
        self._tar: _Tar | None = None

    def add(self, key: str, payloads: Mapping[str, Payload]) -> None:
        """The fields of one sample, in one tar."""
        size = sum(tarfile.BLOCKSIZE + _padded(_length(payload)) for payload in payloads.values())
        if self._tar and self._tar.size + size > self._max_bytes:
            self.finish()
        if self._tar is None:
            self._tar = _Tar(self._out / f"{self._name}-{self._number:05d}.tar")
            self._number += 1
        self._tar.samples += 1
        self._written.members.extend(self._tar.add(key, field, payload) for field, payload in payloads.items())

    def finish(self) -> None:
        """Give the open tar its name."""
        if self._tar:
            self._written.shards.append(self._tar.finish())
            self._tar = None

    def discard(self) -> None:
        """Remove what is half written."""
        if self._tar:
            self._tar.discard()


class _Tar:
    """A tar being written; its bytes are hashed on their way to the file, which takes its name once it is whole."""

    def __init__(self, path: Path):
        self._path, self._part = path, _part(path)
        self._file = self._part.open("wb")
        self._sha256 = hashlib.sha256()
        self.size = self.samples = 0

    def add(self, key: str, field: str, payload: Payload) -> Member:
        info = tarfile.TarInfo(f"{key}.json" if field == "json" else f"{key}.{field}.npy")  # mtime, uid, gid 0 and mode 644 by default
        info.size = _length(payload)
        self._write(info.tobuf(tarfile.PAX_FORMAT))
        offset, digest = self.size, xxhash.xxh3_64()
        for part in payload:
            digest.update(part)
            self._write(part)
        self._write(bytes(_padded(info.size) - info.size))
        return Member(self._path.name, key, field, offset, info.size, digest.intdigest())

    def finish(self) -> Shard:
        end = self.size + 2 * tarfile.BLOCKSIZE
        self._write(bytes(-(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE - self.size))
        self._file.close()
        self._part.replace(self._path)
        return Shard(self._path.name, self.size, self._sha256.hexdigest(), self.samples)

    def discard(self) -> None:
        self._file.close()
        self._part.unlink()

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)


def _encode(key: str, field: str, value: Array | Mapping[str, Any]) -> Payload:
    """npy of an array, sorted JSON of the sample's "json"; WebDataset splits names at the first dot."""
    if not re.fullmatch(r"[^./\s]+", key) or key.startswith("__"):
        raise ValueError(f"key {key!r} needs characters other than dots, slashes and spaces, and no leading '__'.")
    if not re.fullmatch(r"[a-z0-9_]+", field):
        raise ValueError(f"field {field!r} of sample {key!r} needs lower-case letters, digits and underscores.")
    if field == "json":
        try:
            return (json.dumps(value, sort_keys=True, allow_nan=False).encode(),)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"json of sample {key!r} cannot be written ({error}); give numbers, strings, lists and null for missing."
            ) from None
    array = np.asarray(value, order="C")
    if array.dtype.hasobject:
        raise ValueError(f"field {field!r} of sample {key!r} has dtype {array.dtype}, which needs pickle; give a numeric array.")
    return _npy_header(array.dtype, array.shape), array.reshape(-1).view(np.uint8).data


@lru_cache(maxsize=4096)
def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What stands before the data of an array in C order in an npy file of version 1.0."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return file.getvalue()


def _length(payload: Payload) -> int:
    return sum(map(len, payload))


def _padded(size: int) -> int:
    """`size` rounded up to tar blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _part(path: Path) -> Path:
    """Name of a file until it is whole."""
    return path.with_name(f".{path.name}.part")


@contextmanager
def _new_file(path: Path) -> Iterator[io.BufferedWriter]:
    """A file that takes its name once it is whole, and leaves nothing behind when writing fails."""
    part = _part(path)
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _fingerprint(table: pa.Table) -> str:
    """Hash of an index's content, whatever version of Parquet holds it."""
    digest = hashlib.sha256()
    for field in _SCHEMA:
        column = table[field.name]
        digest.update("\0".join(column.to_pylist()).encode() if field.type == pa.string() else column.to_numpy().tobytes())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------- the index
@dataclass(frozen=True, eq=False)
class Index:
    """Where everything lies in one artifact: N samples (rows, in writing order) by F fields.

    keys (N,) strings; shard (N, F) into shards, offset, size (N, F) bytes, all -1 where a sample lacks
    the field; xxh3 (N, F) uint64.
    """

    files: Store
    fingerprint: str
    shards: tuple[str, ...]
    fields: tuple[str, ...]
    keys: pa.StringArray
    shard: Array
    offset: Array
    size: Array
    xxh3: Array

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, row: int) -> str:
        """Key of a sample."""
        return str(self.keys[row])

    @cached_property
    def row_of(self) -> dict[str, int]:
        """key -> row"""
        return {key: row for row, key in enumerate(self.keys.to_pylist())}

    def sizes(self, field: str) -> Array:
        """(N,) bytes of a field, -1 where a sample lacks it."""
        return self.size[:, self.fields.index(field)] if field in self.fields else np.full(len(self), -1)


def read_manifest(artifact: Path | str) -> dict[str, Any]:
    """The manifest of a complete artifact, in a folder or behind a URL."""
    return _manifest(open_files(artifact))


def _manifest(files: Store) -> dict[str, Any]:
    path = files.path("manifest.json")
    try:
        manifest: dict[str, Any] = json.loads(files.read("manifest.json"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: the shards were never finished; run write_shards for this dataset.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); {REMEDY}.") from None
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema_version {manifest.get('schema_version')}, this code reads {SCHEMA_VERSION}; write the shards again."
        )
    return manifest


def read_index(artifact: Path | str) -> Index:
    """The index of an artifact, in a folder or behind a URL, whose index and shard sizes agree with its manifest."""
    files = open_files(artifact)
    manifest = _manifest(files)
    shards = manifest["shards"]
    for shard, found in zip(shards, files.sizes([shard["name"] for shard in shards]), strict=True):
        if found != shard["bytes"]:
            path = files.path(shard["name"])
            raise ValueError(f"{path} has {found} bytes where manifest.json says {shard['bytes']}: it is cut short; {REMEDY}.")
    path = files.path("index.parquet")
    try:
        table = pq.read_table(pa.BufferReader(files.read("index.parquet")))
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path} cannot be read ({error}); {REMEDY}.") from None
    if _fingerprint(table) != manifest["index"]:
        raise ValueError(f"{path} is not the index manifest.json speaks of; {REMEDY}.")
    return _indexed(files, manifest["index"], table)


def _indexed(files: Store, fingerprint: str, table: pa.Table) -> Index:
    shards, shard = _coded(table["shard"])
    named, coded = _coded(table["field"])
    fields = sorted(named.to_pylist())
    column = np.array([fields.index(name) for name in named.to_pylist()])[coded]
    keys, row = _coded(table["key"])
    cells = (
        (shard, np.int32(-1)),
        (table["offset"].to_numpy(), np.int64(-1)),
        (table["size"].to_numpy(), np.int64(-1)),
        (table["xxh3_64"].to_numpy(), np.uint64(0)),
    )
    matrices = []
    for values, missing in cells:
        matrix = np.full((len(keys), len(fields)), missing)
        matrix[row, column] = values
        matrices.append(matrix)
    return Index(files, fingerprint, tuple(shards.to_pylist()), tuple(fields), keys, *matrices)


def _coded(column: pa.ChunkedArray) -> tuple[pa.StringArray, Array]:
    """Distinct values in order of appearance, and each entry's place among them."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary, coded.indices.to_numpy()


# ---------------------------------------------------------------- reading
class Reader:
    """Samples of one artifact by row, with all `fields` or those named. Threads may share it.

    `files` is where the bytes come from, when not straight from the artifact.
    """

    def __init__(self, index: Index, checksums: bool = True, fields: Sequence[str] | None = None, files: Bytes | None = None):
        self.index = index
        self.columns = [c for c, field in enumerate(index.fields) if fields is None or field in fields]
        self._checksums = checksums
        self._fields = fields
        self._files = files or index.files

    def fetched(self, rows: Array) -> Reader:
        """A reader of these rows (n,) alone; behind a URL, they are asked for now, in few requests and in this order."""
        _, places = np.unique(rows, return_index=True)
        cells = rows[np.sort(places)][:, None], np.array(self.columns, int)
        present = self.index.offset[cells] >= 0
        file, start, size = (matrix[cells][present] for matrix in (self.index.shard, self.index.offset, self.index.size))
        ranges = Ranges(self.index.shards, np.nonzero(present)[0], file, start, start + size)
        return Reader(self.index, self._checksums, self._fields, self.index.files.fetch(ranges))

    def sample(self, row: int) -> dict[str, Any]:
        """{field: array, "json": dict} with the fields this sample has."""
        sizes = self.index.size[row].tolist()
        payloads = {c: np.empty(sizes[c], np.uint8) for c in self.columns if sizes[c] >= 0}
        self.read_into(row, {c: [payload.data] for c, payload in payloads.items()})
        return {self.index.fields[c]: self._parsed(row, c, payload) for c, payload in payloads.items()}

    def member(self, row: int, field: str) -> Any:
        """One field of a sample that has it."""
        column = self.index.fields.index(field)
        payload = np.empty(self.index.size[row, column], np.uint8)
        self.read_into(row, {column: [payload.data]})
        return self._parsed(row, column, payload)

    def read_into(self, row: int, parts: Mapping[int, Sequence[Buffer]]) -> None:
        """Fill writable buffers with the bytes of members: column -> buffers, filled in turn."""
        index = self.index
        shard, offset, size = (matrix[row].tolist() for matrix in (index.shard, index.offset, index.size))
        for group in _neighbours(sorted((shard[c], offset[c], offset[c] + size[c], c) for c in parts)):
            start, end = group[0][1], group[-1][2]
            if self._read(row, group[-1][3], start, _joined(group, parts)) != end - start:
                raise self.damaged(row, group[-1][3], "is cut short")
        if self._checksums:
            for column, payload in parts.items():
                self._check(row, column, payload)

    def _read(self, row: int, column: int, offset: int, parts: Sequence[Buffer]) -> int:
        try:
            return self._files.read_into(self.index.shards[self.index.shard[row, column]], offset, parts)
        except (ConnectionError, ValueError) as error:
            raise type(error)(f"{self._where(row, column)} cannot be read: {error}") from None

    def damaged(self, row: int, column: int, what: str) -> ValueError:
        """The error that names shard, key and field of a member."""
        return ValueError(f"{self._where(row, column)} {what}; {REMEDY}.")

    def _where(self, row: int, column: int) -> str:
        index = self.index
        path = index.files.path(index.shards[index.shard[row, column]])
        return f"{path}: key {index.key(row)!r}, field {index.fields[column]!r} (byte {index.offset[row, column]})"

    def _check(self, row: int, column: int, parts: Sequence[Any]) -> None:
        digest = xxhash.xxh3_64()
        for part in parts:
            digest.update(part)
        if digest.intdigest() != self.index.xxh3[row, column]:
            raise self.damaged(row, column, "does not match its checksum")

    def _parsed(self, row: int, column: int, payload: Array) -> Any:
        try:
            return json.loads(payload.tobytes()) if self.index.fields[column] == "json" else decode_npy(payload)
        except (ValueError, TypeError, IndexError) as error:
            raise self.damaged(row, column, f"cannot be decoded ({error})") from None


#: (shard, start, end, column)
_Cell = tuple[int, int, int, int]


def _neighbours(cells: Sequence[_Cell]) -> Iterator[list[_Cell]]:
    """Sorted cells in groups that lie together."""
    group: list[_Cell] = []
    for cell in cells:
        if group and (cell[0] != group[-1][0] or cell[1] - group[-1][2] > _NEAR):
            yield group
            group = []
        group.append(cell)
    if group:
        yield group


def _joined(group: Sequence[_Cell], parts: Mapping[int, Sequence[Buffer]]) -> list[Buffer]:
    """The buffers of neighbours one after the other, with some for what lies between, which nobody reads."""
    buffers: list[Buffer] = []
    at = group[0][1]
    for _, start, end, column in group:
        if start > at:
            buffers.append(_BETWEEN[: start - at])
        buffers += parts[column]
        at = end
    return buffers


def decode_npy(payload: Array) -> Array:
    """The array in npy bytes (n,) uint8, sharing their memory. Objects, which need pickle, are refused."""
    header = npy_header(payload)
    dtype, shape = parse_npy_header(header)
    return np.ndarray(shape, dtype, payload, len(header))


def npy_header(payload: Array) -> bytes:
    """The bytes before the data of an npy file as `write_shards` makes it."""
    return payload[: 10 + int(payload[8]) + 256 * int(payload[9])].tobytes()


@lru_cache(maxsize=4096)
def parse_npy_header(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """(dtype, shape) that an npy header declares."""
    file = io.BytesIO(header)
    if (version := np.lib.format.read_magic(file)) != (1, 0):
        raise ValueError(f"npy version {version} instead of (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or fortran_order:
        raise ValueError(f"dtype {dtype}, Fortran order {fortran_order}: only plain numbers in C order are read, never pickle")
    return dtype, shape


# ---------------------------------------------------------------- verification
def verify(artifact: Path) -> Check:
    """Whether every byte is what was written; the note names shard, key and field of what is not."""
    damage = find_damage(artifact)
    note = "; ".join(damage[:5]) + (f"; and {len(damage) - 5} more" if len(damage) > 5 else "")
    return Check("shards_intact", not damage, numbers={"damaged": len(damage)}, threshold="0 damaged", note=note)


def find_damage(artifact: Path) -> list[str]:
    """One line per damaged member or shard; reads everything."""
    try:
        reader = Reader(read_index(artifact))
    except ValueError as error:
        return [str(error)]
    index = reader.index
    damage: list[str] = []
    hurt: set[str] = set()
    for row, column in zip(*np.nonzero(index.offset >= 0), strict=True):
        try:
            reader.read_into(row, {column: [bytearray(index.size[row, column])]})
        except ValueError as error:
            damage.append(str(error))
            hurt.add(index.shards[index.shard[row, column]])
    for shard in read_manifest(artifact)["shards"]:
        if shard["name"] not in hurt and sha256(artifact / shard["name"]) != shard["sha256"]:
            damage.append(f"{artifact / shard['name']} is damaged between its members (sha256 differs from manifest.json); {REMEDY}.")
    return damage
