"""Shards: plain WebDataset tars with an index, a manifest, and reads that verify every byte.

An artifact holds `<prefix>-00000.tar`, ... (members `<key>.<field>.npy` and `<key>.json`, no pickle,
the same bytes for the same samples), `index.parquet` (where each member lies, and its xxh3) and
`manifest.json` (sha256 and size of each shard), written last: without it there is no artifact.
Which window goes into which shard is `windows.py`'s affair, the order of reading `loader.py`'s.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from neurofm_ml.files import sha256
from neurofm_ml.types import Array, Check

SCHEMA_VERSION = 1
REMEDY = "write the shards again, or restore the file"
_OPEN_FILES = 128

Sample = tuple[str, Mapping[str, Array | Mapping[str, Any]]]


class Member(NamedTuple):
    """One file in a tar: `size` bytes from byte `offset` of `shard`; a row of index.parquet."""

    shard: str
    key: str
    field: str
    offset: int
    size: int
    xxh3_64: int


_SCHEMA = pa.schema(
    {"shard": pa.string(), "key": pa.string(), "field": pa.string(), "offset": pa.int64(), "size": pa.int64(), "xxh3_64": pa.uint64()}
)


# ---------------------------------------------------------------- writing
def write_shards(samples: Iterable[Sample], out: Path, prefix: str, max_bytes: int) -> list[Member]:
    """Stream samples (key, {field: array, "json": dict}) into `out/<prefix>-00000.tar`, ...

    A shard holds `max_bytes` at most (its tar's end, under 12 kB, aside); a sample larger than that
    gets one of its own. The same samples give the same bytes.
    Returns the members in writing order, for `write_index`.
    """
    members: list[Member] = []
    for number, group in itertools.groupby(_numbered(samples, max_bytes), key=itemgetter(0)):
        path = out / f"{prefix}-{number:05d}.tar"
        with _new_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for _, key, payloads in group:
                members += [_add(tar, path.name, key, field, payload) for field, payload in payloads.items()]
    return members


def write_index(artifact: Path, members: Sequence[Member]) -> None:
    """Write `index.parquet`: one row per member, those of a sample together. A key may occur once."""
    table = pa.table(dict(zip(Member._fields, zip(*members, strict=True), strict=True)), schema=_SCHEMA)
    names = list(zip(table["key"].to_pylist(), table["field"].to_pylist(), strict=True))
    if len(set(names)) < len(names):
        key, field = Counter(names).most_common(1)[0][0]
        raise ValueError(f"key {key!r} has the field {field!r} twice; give every sample of {artifact} its own key.")
    with _new_file(artifact / "index.parquet") as file:
        pq.write_table(table, file)


def write_manifest(artifact: Path, extra: Mapping[str, Any]) -> None:
    """Write `manifest.json` with the caller's fields; the last file written, it says the artifact is complete."""
    table = pq.read_table(artifact / "index.parquet")
    samples: dict[str, set[str]] = {}
    for shard, key in zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True):
        samples.setdefault(shard, set()).add(key)
    shards = [
        {"name": name, "bytes": (artifact / name).stat().st_size, "sha256": sha256(artifact / name), "samples": len(keys)}
        for name, keys in samples.items()
    ]
    manifest = {**extra, "schema_version": SCHEMA_VERSION, "index": _fingerprint(table), "shards": shards}
    with _new_file(artifact / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=1, sort_keys=True).encode())


def _numbered(samples: Iterable[Sample], max_bytes: int) -> Iterator[tuple[int, str, dict[str, bytes]]]:
    """Each sample, encoded, with the number of the shard it goes to."""
    shard = filled = 0
    for key, fields in samples:
        payloads = {field: _encode(key, field, fields[field]) for field in sorted(fields)}
        size = sum(tarfile.BLOCKSIZE + _padded(len(p)) for p in payloads.values())
        if filled and filled + size > max_bytes:
            shard, filled = shard + 1, 0
        filled += size
        yield shard, key, payloads


def _encode(key: str, field: str, value: Array | Mapping[str, Any]) -> bytes:
    """npy of an array, sorted JSON of the sample's "json"; WebDataset splits names at the first dot."""
    if not re.fullmatch(r"[^./\s]+", key) or key.startswith("__"):
        raise ValueError(f"key {key!r} needs characters other than dots, slashes and spaces, and no leading '__'.")
    if not re.fullmatch(r"[a-z0-9_]+", field):
        raise ValueError(f"field {field!r} of sample {key!r} needs lower-case letters, digits and underscores.")
    if field == "json":
        try:
            return json.dumps(value, sort_keys=True, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"json of sample {key!r} cannot be written ({error}); give numbers, strings, lists and null for missing."
            ) from None
    array = np.asarray(value, order="C")
    if array.dtype.hasobject:
        raise ValueError(f"field {field!r} of sample {key!r} has dtype {array.dtype}, which needs pickle; give a numeric array.")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, shard: str, key: str, field: str, payload: bytes) -> Member:
    info = tarfile.TarInfo(f"{key}.json" if field == "json" else f"{key}.{field}.npy")  # mtime, uid, gid 0 and mode 644 by default
    info.size = len(payload)
    tar.addfile(info, io.BytesIO(payload))
    return Member(shard, key, field, tar.offset - _padded(len(payload)), len(payload), xxhash.xxh3_64_intdigest(payload))


def _padded(size: int) -> int:
    """`size` rounded up to tar blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


@contextmanager
def _new_file(path: Path) -> Iterator[io.BufferedWriter]:
    """A file that takes its name once it is whole, and leaves nothing behind when writing fails."""
    part = path.with_name(f".{path.name}.part")
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

    keys (N,) strings; shard (N,) into shards; offset, size (N, F) bytes, -1 where a sample lacks the
    field; xxh3 (N, F) uint64.
    """

    folder: Path
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

    def sizes(self, field: str) -> Array:
        """(N,) bytes of a field, -1 where a sample lacks it."""
        return self.size[:, self.fields.index(field)] if field in self.fields else np.full(len(self), -1)


def read_manifest(artifact: Path) -> dict[str, Any]:
    """The manifest of a complete artifact."""
    path = artifact / "manifest.json"
    if not path.exists():
        raise ValueError(f"{artifact} has no manifest.json: its shards were never finished; run write_shards for this dataset.")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); {REMEDY}.") from None
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema_version {manifest.get('schema_version')}, this code reads {SCHEMA_VERSION}; write the shards again."
        )
    return manifest


def read_index(artifact: Path) -> Index:
    """The index of an artifact whose index and shard sizes agree with its manifest."""
    manifest = read_manifest(artifact)
    for shard in manifest["shards"]:
        path = artifact / shard["name"]
        found = path.stat().st_size if path.exists() else 0
        if found != shard["bytes"]:
            raise ValueError(f"{path} has {found} bytes where manifest.json says {shard['bytes']}: it is cut short; {REMEDY}.")
    path = artifact / "index.parquet"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path} cannot be read ({error}); {REMEDY}.") from None
    if _fingerprint(table) != manifest["index"]:
        raise ValueError(f"{path} is not the index manifest.json speaks of; {REMEDY}.")
    return _indexed(artifact, manifest["index"], table)


def _indexed(artifact: Path, fingerprint: str, table: pa.Table) -> Index:
    shards, shard = _coded(table["shard"])
    fields, column = _coded(table["field"])
    keys, row = _coded(table["key"])
    of_row = np.empty(len(keys), np.int32)
    of_row[row] = shard
    cells = {"offset": np.int64(-1), "size": np.int64(-1), "xxh3_64": np.uint64(0)}
    matrices = []
    for name, missing in cells.items():
        matrix = np.full((len(keys), len(fields)), missing)
        matrix[row, column] = table[name].to_numpy()
        matrices.append(matrix)
    return Index(artifact, fingerprint, tuple(shards.to_pylist()), tuple(fields.to_pylist()), keys, of_row, *matrices)


def _coded(column: pa.ChunkedArray) -> tuple[pa.StringArray, Array]:
    """Distinct values in order of appearance, and each entry's place among them."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary, coded.indices.to_numpy()


# ---------------------------------------------------------------- reading
class _OpenFile(io.FileIO):
    """Closed when its last user lets go: a file that left the cache may be in another thread's hands."""

    def __del__(self) -> None:
        self.close()


class Reader:
    """Samples of one artifact by row. Threads may share it.

    Bytes come by `pread` into fresh memory: a mapped file would count as resident as a whole, and
    writing into an array would change later reads.
    """

    def __init__(self, index: Index, checksums: bool = True):
        self.index = index
        self._checksums = checksums
        self._file = lru_cache(maxsize=_OPEN_FILES)(lambda shard: _OpenFile(str(index.folder / index.shards[shard])))

    def sample(self, row: int) -> dict[str, Any]:
        """{field: array, "json": dict} with the fields this sample has."""
        index = self.index
        present = [c for c in range(len(index.fields)) if index.offset[row, c] >= 0]
        start = int(index.offset[row, present].min())
        span = np.empty(int((index.offset[row, present] + index.size[row, present]).max()) - start, np.uint8)
        if self._pread(row, [span], start) != len(span):
            raise self.damaged(row, present[-1], "is cut short")
        return {index.fields[c]: self._decoded(row, c, span, start) for c in present}

    def read_into(self, row: int, column: int, parts: Sequence[Any]) -> None:
        """Fill writable buffers, in turn, with the bytes of a member."""
        if self._pread(row, parts, int(self.index.offset[row, column])) != self.index.size[row, column]:
            raise self.damaged(row, column, "is cut short")
        if self._checksums:
            self._check(row, column, parts)

    def _pread(self, row: int, parts: Sequence[Any], offset: int) -> int:
        file = self._file(self.index.shard[row])
        return os.preadv(file.fileno(), parts, offset)

    def damaged(self, row: int, column: int, what: str) -> ValueError:
        """The error that names shard, key and field of a member."""
        index = self.index
        where = f"{index.folder / index.shards[index.shard[row]]}: key {index.key(row)!r}, field {index.fields[column]!r}"
        return ValueError(f"{where} (byte {index.offset[row, column]}) {what}; {REMEDY}.")

    def _check(self, row: int, column: int, parts: Sequence[Any]) -> None:
        digest = xxhash.xxh3_64()
        for part in parts:
            digest.update(part)
        if digest.intdigest() != self.index.xxh3[row, column]:
            raise self.damaged(row, column, "does not match its checksum")

    def _decoded(self, row: int, column: int, span: Array, start: int) -> Any:
        """One member out of the bytes of its sample."""
        at = int(self.index.offset[row, column]) - start
        payload = span[at : at + int(self.index.size[row, column])]
        if self._checksums:
            self._check(row, column, [payload])
        try:
            return json.loads(payload.tobytes()) if self.index.fields[column] == "json" else decode_npy(payload)
        except (ValueError, TypeError, IndexError) as error:
            raise self.damaged(row, column, f"cannot be decoded ({error})") from None


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
            reader.read_into(row, column, [np.empty(index.size[row, column], np.uint8)])
        except ValueError as error:
            damage.append(str(error))
            hurt.add(index.shards[index.shard[row]])
    for shard in read_manifest(artifact)["shards"]:
        if shard["name"] not in hurt and sha256(artifact / shard["name"]) != shard["sha256"]:
            damage.append(f"{artifact / shard['name']} is damaged between its members (sha256 differs from manifest.json); {REMEDY}.")
    return damage
