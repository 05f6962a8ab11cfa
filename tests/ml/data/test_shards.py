"""Shards: the same bytes for the same samples, plain WebDataset, and no damage that passes unseen."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data import shards
from neurofm_ml.data.shards import Reader, Sample, find_damage, read_index, verify, write_manifest, write_shards

N = 12


def samples(n: int = N) -> Iterator[Sample]:
    """Three of four samples have an EEG, all have counts of their own length."""
    for i in range(n):
        rng = np.random.default_rng(i)
        fields = {"json": {"start": i / 4, "recording": "R1"}, "counts": rng.poisson(2.0, (20 + i, 5)).astype(np.uint8)}
        if i % 4:
            fields["eeg"] = rng.normal(size=(50, 3)).astype(np.float32)
        yield f"R1-{i:06d}", fields


def write(out: Path, max_bytes: int = 20_000, given: Iterable[Sample] | None = None) -> Path:
    out.mkdir()
    write_manifest(out, [write_shards(given or samples(), out, "train", max_bytes)], {"dataset": "planted", "licence": "CC0"})
    return out


def flip(path: Path, offset: int) -> None:
    """Invert one bit of one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def test_two_writes_give_the_same_bytes_whatever_the_order_of_fields(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    second = write(tmp_path / "b", given=((key, dict(reversed(fields.items()))) for key, fields in samples()))
    names = sorted(p.name for p in first.iterdir())
    assert sum(name.endswith(".tar") for name in names) >= 2
    assert names == sorted(p.name for p in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_every_sample_reads_back_equal_and_writable(tmp_path: Path) -> None:
    reader = Reader(read_index(write(tmp_path / "a")))
    for row, (key, fields) in enumerate(samples()):
        got = reader.sample(row)
        assert reader.index.key(row) == key
        assert got.keys() == fields.keys()
        assert got.pop("json") == fields.pop("json")
        for name, array in got.items():
            assert array.dtype == fields[name].dtype
            np.testing.assert_array_equal(array, fields[name])
            array += 1  # memory of its own: the next read must not see this
        np.testing.assert_array_equal(reader.sample(row)["counts"], fields["counts"])


def test_webdataset_reads_the_same_samples(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    urls = [str(p) for p in sorted(write(tmp_path / "a").glob("*.tar"))]
    read = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode())
    assert len(read) == N
    for got, (key, fields) in zip(read, samples(), strict=True):
        assert got["__key__"] == key
        assert got["json"] == fields["json"]
        assert ("eeg.npy" in got) == ("eeg" in fields)
        np.testing.assert_array_equal(got["counts.npy"], fields["counts"])


def test_shards_keep_their_size_and_the_manifest_counts_them(tmp_path: Path) -> None:
    out = write(tmp_path / "a")
    manifest = shards.read_manifest(out)
    assert manifest["dataset"] == "planted"
    assert sum(s["samples"] for s in manifest["shards"]) == N
    assert {s["name"]: s["bytes"] for s in manifest["shards"]} == {p.name: p.stat().st_size for p in out.glob("*.tar")}
    assert all(s["bytes"] <= 3 * 10_240 for s in manifest["shards"])  # 20 kB and an end that tar fills to 10 kB
    assert len(list(write(tmp_path / "b", max_bytes=1).glob("*.tar"))) == N


def test_fields_divided_over_series_are_joined_by_the_index(tmp_path: Path) -> None:
    series = {"counts": "spikes", "eeg": "eeg", "json": "json"}
    whole, out = write(tmp_path / "whole"), tmp_path / "divided"
    out.mkdir()
    write_manifest(out, [write_shards(samples(), out, "train", 3000, series)], {})
    names = sorted(path.name for path in out.glob("*.tar"))
    assert {name.rsplit("-", 1)[0] for name in names} == {"train-spikes", "train-eeg", "train-json"}
    assert len(names) > 3
    one, other = Reader(read_index(whole)), Reader(read_index(out))
    assert one.index.keys == other.index.keys
    assert one.index.fields == other.index.fields == ("counts", "eeg", "json")
    np.testing.assert_array_equal(one.index.xxh3, other.index.xxh3)
    for row in range(N):
        a, b = one.sample(row), other.sample(row)
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert verify(out).passed
    counted = {shard["name"]: shard["samples"] for shard in shards.read_manifest(out)["shards"]}
    assert [sum(n for name, n in counted.items() if s in name) for s in ("spikes", "eeg", "json")] == [N, N - N // 4, N]


def test_the_manifest_tells_what_lies_in_the_files(tmp_path: Path) -> None:
    """Hashed on their way, the tars are hashed right."""
    out = write(tmp_path / "a")
    for shard in shards.read_manifest(out)["shards"]:
        data = (out / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        with tarfile.open(out / shard["name"]) as tar:
            members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in members} == {(0, 0, 0, 0o644)}
        assert len({m.name.split(".")[0] for m in members}) == shard["samples"]


def test_long_and_accented_keys_are_found(tmp_path: Path) -> None:
    keys = ["x" * 150, "décodage-" + "y" * 95, "z"]
    write_manifest(tmp_path, [write_shards(((k, {"a": np.full(3, i)}) for i, k in enumerate(keys)), tmp_path, "train", 10**6)], {})
    reader = Reader(read_index(tmp_path))
    assert [(reader.index.key(i), reader.sample(i)["a"][0]) for i in range(3)] == [(k, i) for i, k in enumerate(keys)]


def test_an_interrupted_write_leaves_no_shard(tmp_path: Path) -> None:
    def failing() -> Iterator[Sample]:
        yield from samples(3)
        raise RuntimeError("the recording ended")

    with pytest.raises(RuntimeError, match="the recording ended"):
        write_shards(failing(), tmp_path, "train", 10**6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["counts", "eeg", "json"])
def test_a_flipped_bit_is_caught_by_name(tmp_path: Path, field: str) -> None:
    out = write(tmp_path / "a")
    assert verify(out).passed
    index = read_index(out)
    row, column = 6, index.fields.index(field)
    shard = index.shards[index.shard[row, column]]
    flip(out / shard, int(index.offset[row, column] + index.size[row, column] - 1))
    check = verify(out)
    assert (check.passed, check.severity, check.numbers["damaged"]) == (False, "error", 1)
    for name in (shard, "'R1-000006'", repr(field), "write the shards again"):
        assert name in check.note
    with pytest.raises(ValueError, match=f"{shard}: key 'R1-000006', field '{field}' .* checksum"):
        Reader(index).sample(row)


def test_every_flipped_byte_of_a_shard_is_caught(tmp_path: Path) -> None:
    out = write(tmp_path / "a")
    path = sorted(out.glob("*.tar"))[-1]
    for offset in np.random.default_rng(0).integers(0, path.stat().st_size, 20):
        flip(path, int(offset))
        assert len(find_damage(out)) == 1
        flip(path, int(offset))
    assert find_damage(out) == []


def cut(out: Path) -> None:
    path = out / "train-00000.tar"
    path.write_bytes(path.read_bytes()[:-5000])


def edit_manifest(out: Path, **changes: object) -> None:
    path = out / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated tar": (cut, r"train-00000.tar has \d+ bytes where manifest.json says \d+: it is cut short"),
    "missing tar": (lambda out: (out / "train-00001.tar").unlink(), "train-00001.tar has 0 bytes"),
    "no manifest": (lambda out: (out / "manifest.json").unlink(), "never finished; run write_shards"),
    "half a manifest": (lambda out: (out / "manifest.json").write_text('{"shards"'), "manifest.json is damaged"),
    "other schema": (lambda out: edit_manifest(out, schema_version=99), "schema_version 99, this code reads 2"),
    "half an index": (lambda out: (out / "index.parquet").write_bytes(b"PAR1"), "index.parquet cannot be read"),
    "index of other shards": (lambda out: edit_manifest(out, index="0" * 16), "not the index manifest.json speaks of"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_artifact_is_refused(tmp_path: Path, case: str) -> None:
    damage, message = DAMAGE[case]
    out = write(tmp_path / "a")
    damage(out)
    with pytest.raises(ValueError, match=message):
        read_index(out)
    assert not verify(out).passed


BAD_SAMPLES: dict[str, tuple[list[Sample], str]] = {
    "pickled objects": ([("a", {"x": np.array([{}, None], object)})], "field 'x' of sample 'a' has dtype object, which needs pickle"),
    "dot in key": ([("a.b", {"x": np.ones(2)})], "key 'a.b' needs characters other than dots"),
    "capital field": ([("a", {"X": np.ones(2)})], "field 'X' of sample 'a' needs lower-case"),
    "NaN in json": ([("a", {"json": {"age": float("nan")}})], r"json of sample 'a' cannot be written \(Out of range float"),
    "array in json": ([("a", {"json": {"xyz": np.ones(2)}})], r"json of sample 'a' cannot be written \(Object of type ndarray"),
    "key twice": ([("a", {"x": np.ones(2)}), ("b", {"x": np.ones(2)}), ("a", {"x": np.ones(2)})], "key 'a' has the field 'x' twice"),
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_a_bad_sample_is_refused(tmp_path: Path, case: str) -> None:
    bad, message = BAD_SAMPLES[case]
    with pytest.raises(ValueError, match=message):
        write_manifest(tmp_path, [write_shards(bad, tmp_path, "train", 10**6)], {})


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (npy(np.array([{"a": 1}], object)), "never pickle"),
        (pickle.dumps([1, 2]), "cannot be decoded"),
        (npy(np.ones(3), version=(2, 0)), "npy version"),
        (npy(np.ones((2, 3), order="F")), "C order"),
        (npy(np.ones(9))[:-8], "cannot be decoded"),
        (b"", "cannot be decoded"),
    ],
)
def test_foreign_bytes_with_a_right_checksum_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes, message: str
) -> None:
    monkeypatch.setattr(shards, "_encode", lambda key, field, value: (payload,))
    write_manifest(tmp_path, [write_shards([("a", {"x": np.ones(2)})], tmp_path, "train", 10**6)], {})
    with pytest.raises(ValueError, match=f"key 'a', field 'x' .*{message}"):
        Reader(read_index(tmp_path)).sample(0)
