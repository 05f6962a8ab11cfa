"""The loader: every sample once per epoch, resumed exactly under any ranks and threads, memory that does not grow."""

from __future__ import annotations

import gc
import itertools
import os
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm_ml.data import stores
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.mixture import Mixture
from neurofm_ml.data.order import CHUNK, CHUNKS_PER_BLOCK, Order, splitmix64
from neurofm_ml.data.shards import Sample, write_manifest, write_shards

N = 61
TRAIN = 50


def write(out: Path, n: int = N, name: str = "R", fields: Callable[[int], dict[str, Any]] | None = None) -> Path:
    """An artifact of n windows; the first TRAIN are training windows, recordings "a" and "b" take turns of ten."""
    out.mkdir()
    fields = fields or (lambda i: {"x": np.full((4, 3), i, np.float32), "json": {"i": i}})
    samples: list[Sample] = [(f"{name}-{i:06d}", fields(i)) for i in range(n)]
    columns = {
        "key": [key for key, _ in samples],
        "split": ["train" if i < TRAIN else "test" for i in range(n)],
        "recording": ["ab"[i // 10 % 2] for i in range(n)],
    }
    pq.write_table(pa.table(columns), out / "windows.parquet")
    write_manifest(out, [write_shards(samples, out, "all", max_bytes=40_000)], {})
    return out


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("loader") / "shards")


def rows(samples: list[dict[str, Any]]) -> list[int]:
    """A collate that keeps the rows alone, after checking that the right bytes came with them."""
    assert all(s["x"][0, 0] == s["json"]["i"] == s["__row__"] == int(s["__key__"].split("-")[1]) for s in samples)
    return [s["__row__"] for s in samples]


def take(batches: Iterator[list[int]], n: int) -> list[list[int]]:
    return list(itertools.islice(batches, n))


def flat(batches: Sequence[Sequence[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


# ---------------------------------------------------------------- order
def slow_stream(n: int, seed: int, epochs: int) -> list[int]:
    """The order with Python integers and lists: a twin of `Order`, one sample at a time."""

    def mixed(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    def shuffled(items: list[Any], *numbers: int) -> list[Any]:
        state = 0
        for number in numbers:
            state = mixed(state ^ number)
        return [items[i] for i in sorted(range(len(items)), key=lambda i: mixed(state ^ mixed(i)))]

    stream: list[int] = []
    for epoch in range(epochs):
        chunks = shuffled([list(range(i, min(i + CHUNK, n))) for i in range(0, n, CHUNK)], seed, epoch, 0)
        for block in range(-(-len(chunks) // CHUNKS_PER_BLOCK)):
            inside = flat(chunks[block * CHUNKS_PER_BLOCK : (block + 1) * CHUNKS_PER_BLOCK])
            stream += shuffled(inside, seed, epoch, 1, block)
    return stream


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**63), st.data())
def test_order_equals_its_slow_twin_at_any_place(n: int, seed: int, data: st.DataObject) -> None:
    stream = slow_stream(n, seed, epochs=3)
    order = Order(n, seed, shuffle=True)
    for _ in range(5):
        position = data.draw(st.integers(0, 2 * n))
        count = data.draw(st.integers(1, n))
        assert order.at(position, count).tolist() == stream[position : position + count]


def test_splitmix64_gives_the_published_sequence() -> None:
    """First outputs of the reference implementation (Vigna) from state 1234567."""
    states = (1234567 + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_block_mixes_samples_from_the_whole_epoch() -> None:
    """The first 1000 of 100 000 samples must look drawn from everywhere: a tenth from each tenth."""
    first = Order(100_000, seed=0, shuffle=True).at(0, 1000)
    share = np.bincount(first // 10_000, minlength=10) / 1000
    assert share.min() > 0.05
    assert share.max() < 0.15


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
def test_three_epochs_give_every_sample_once_each_in_new_orders(artifact: Path, batch_size: int, threads: int) -> None:
    loader = Loader([artifact], split="train", batch_size=batch_size, seed=3, threads=threads, collate=rows)
    seen = flat(take(iter(loader), -(-3 * TRAIN // batch_size)))
    epochs = [seen[i * TRAIN : (i + 1) * TRAIN] for i in range(3)]
    assert all(sorted(epoch) == list(range(TRAIN)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, range(TRAIN)]}) == 4


def test_a_seed_gives_one_order_and_another_seed_another(artifact: Path) -> None:
    one, same, other = (Loader([artifact], split="train", batch_size=TRAIN, seed=s, collate=rows) for s in (1, 1, 2))
    first = next(iter(one))
    assert first == next(iter(same))
    assert first != next(iter(other))


def test_without_shuffling_the_stream_repeats_the_index(artifact: Path) -> None:
    loader = Loader([artifact], split="train", batch_size=20, seed=0, shuffle=False, collate=rows)
    assert flat(take(iter(loader), 5)) == 2 * list(range(TRAIN))


# ---------------------------------------------------------------- resuming
Segment = tuple[int, int, int, int]  # batch size, ranks, threads, batches


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shuffle=st.booleans(),
    segments=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 2), st.integers(1, 3), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_a_resumed_stream_is_the_uninterrupted_one(artifact: Path, seed: int, shuffle: bool, segments: list[Segment]) -> None:
    """Stopped anywhere and resumed with other ranks, threads and batch sizes: none lost, none repeated."""
    seen: list[int] = []
    state: Mapping[str, Any] | None = None
    for batch_size, world, threads, batches in segments:
        ranks = [
            Loader([artifact], split="train", batch_size=batch_size, seed=seed, rank=r, world=world, shuffle=shuffle, threads=threads, collate=rows)
            for r in range(world)
        ]  # fmt: skip
        if state is not None:
            for loader in ranks:
                loader.load_state_dict(state)
        taken = [take(iter(loader), batches) for loader in ranks]
        for shares in zip(*taken, strict=True):
            seen += flat(shares)
        states = [loader.state_dict() for loader in ranks]
        assert all(s == states[0] for s in states)
        state = states[0]
    epochs = len(seen) // TRAIN + 1
    expected = slow_stream(TRAIN, seed, epochs) if shuffle else epochs * list(range(TRAIN))
    assert seen == expected[: len(seen)]


def test_the_cursor_counts_what_was_received_not_what_was_read_ahead(artifact: Path) -> None:
    loader = Loader([artifact], split="train", batch_size=5, seed=0, threads=4, collate=rows)
    batches = iter(loader)
    for received in range(4):
        assert loader.state_dict()["position"] == 5 * received
        next(batches)


def test_a_cursor_of_other_data_is_refused(artifact: Path, tmp_path: Path) -> None:
    state = Loader([artifact], split="train", batch_size=5, seed=0, collate=rows).state_dict()
    elsewhere = write(tmp_path / "other", fields=lambda i: {"x": np.full((4, 3), i + 1, np.float32), "json": {"i": i}})
    copy = write(tmp_path / "same")
    Loader([copy], split="train", batch_size=9, seed=0, threads=2, collate=rows).load_state_dict(state)
    others: list[tuple[list[Path], dict[str, Any], str]] = [
        ([elsewhere], {}, "belongs to other data"),
        ([artifact, copy], {}, "belongs to other data"),
        ([artifact], {"split": "test"}, "belongs to other data"),
        ([artifact], {"where": {"recording": ["a"]}}, "belongs to other data .* same shards, split, where and shuffle"),
        ([artifact], {"shuffle": False}, "belongs to other data"),
        ([artifact], {"seed": 1}, "made with seed 0, this reader has seed 1"),
    ]
    for folders, changed, message in others:
        loader = Loader(folders, **{"split": "train", "batch_size": 5, "seed": 0, "collate": rows, **changed})
        with pytest.raises(ValueError, match=message):
            loader.load_state_dict(state)


# ---------------------------------------------------------------- one pass, filters, several artifacts
@pytest.mark.parametrize("world", [1, 2, 3])
def test_one_pass_gives_every_sample_once_in_order_and_leaves_the_cursor(artifact: Path, world: int) -> None:
    loaders = [Loader([artifact], split="train", batch_size=8, seed=0, rank=r, world=world, threads=2, collate=rows) for r in range(world)]
    passes = [list(loader.epoch()) for loader in loaders]
    assert flat([batch for turn in itertools.zip_longest(*passes, fillvalue=[]) for batch in turn]) == list(range(TRAIN))
    assert [loader.state_dict()["position"] for loader in loaders] == [0] * world
    assert {len(batch) for batch in flat(passes)} == {8, TRAIN % 8}


def test_where_keeps_what_it_names(artifact: Path) -> None:
    for wanted, kept in ({"recording": ["a"]}, {0, 2, 4}), ({"recording": ["b"]}, {1, 3}), ({"recording": ["a", "b"]}, {0, 1, 2, 3, 4}):
        loader = Loader([artifact], split="train", where=wanted, batch_size=4, seed=0, collate=rows)
        assert flat(list(loader.epoch())) == [i for i in range(TRAIN) if i // 10 in kept]
        assert len(loader) == 10 * len(kept)


def test_where_asks_for_a_signal_by_its_name(tmp_path: Path) -> None:
    def fields(i: int) -> dict[str, Any]:
        return {"x": np.full((4, 3), i, np.float32), **({"gaze": np.full(2, i)} if i % 3 == 0 else {})}

    folder = write(tmp_path / "s", fields=fields)
    for wanted, kept in ([True], lambda i: i % 3 == 0), ([False], lambda i: i % 3 > 0), ([True, False], lambda i: True):
        loader = Loader([folder], split="train", where={"gaze": wanted}, signals=["x"], batch_size=4, seed=0)
        assert [row for batch in loader.epoch() for row in batch["__row__"].tolist()] == [i for i in range(TRAIN) if kept(i)]
    complete = Loader([folder], split="train", where={"gaze": [True]}, batch_size=4, seed=0)  # what all have can be stacked
    assert all(batch["gaze"][:, 0].tolist() == batch["__row__"].tolist() for batch in complete.epoch())


def test_only_the_named_signals_are_read(tmp_path: Path) -> None:
    """What is damaged elsewhere does not matter, and is not looked at."""
    noise = np.random.default_rng(0).normal(size=(TRAIN + 20, 5000))
    names = ("a", "large", "z")
    folder = write(tmp_path / "s", fields=lambda i: {"a": np.full(3, i), "large": noise[i], "z": np.full(2, -i), "json": {"i": i}})
    for path in folder.glob("*.tar"):
        data = bytearray(path.read_bytes())
        for row in noise:
            if (at := data.find(row.tobytes())) >= 0:
                data[at : at + row.nbytes] = bytes(row.nbytes)
        path.write_bytes(data)
    samples = [
        s for batch in Loader([folder], split="train", signals=["z", "a"], batch_size=7, seed=0, collate=list).epoch() for s in batch
    ]
    assert [(s["a"][0], s["z"][0], s["json"]["i"]) for s in samples] == [(i, -i, i) for i in range(TRAIN)]
    assert not any("large" in s for s in samples)
    assert set(next(iter(Loader([folder], split="train", signals=["a"], batch_size=7, seed=0)))) == {
        "a",
        "__key__",
        "__row__",
        "__epoch__",
        "__seed__",
    }
    for signals in (["large"], names):
        with pytest.raises(ValueError, match=r"field 'large' .* checksum"):
            list(Loader([folder], split="train", signals=signals, batch_size=7, seed=0).epoch())
    with pytest.raises(ValueError, match="signals names b, y; these shards have a, large, z"):
        Loader([folder], split="train", signals=["y", "a", "b"], batch_size=7, seed=0)


def test_without_threads_nothing_is_read_before_it_is_asked_for(artifact: Path) -> None:
    read: list[int] = []

    def watched(samples: list[dict[str, Any]]) -> None:
        read.extend(s["__row__"] for s in samples)

    batches = iter(Loader([artifact], split="train", batch_size=5, seed=0, threads=0, collate=watched))
    for received in range(1, 4):
        next(batches)
        assert len(read) == 5 * received


def test_rows_count_through_several_artifacts(artifact: Path, tmp_path: Path) -> None:
    second = write(tmp_path / "second", n=7, name="S")
    loader = Loader([artifact, second], split="train", batch_size=10, seed=0)
    batches = list(loader.epoch())
    got = torch.cat([batch["__row__"] for batch in batches]).tolist()
    assert got == [*range(TRAIN), *range(N, N + 7)]
    assert torch.cat([batch["x"] for batch in batches])[:, 0, 0].tolist() == [*range(TRAIN), *range(7)]
    assert batches[-1]["__key__"][-1] == "S-000006"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": "validation"}, r"no window of .* has \{'split': \['validation'\]"),
        ({"where": {"recording": ["z"]}}, "no window of"),
        ({"where": {"animal": ["a"]}}, "has no column 'animal', and no sample that field; there are key, split, recording, json, x"),
    ],
)
def test_a_filter_that_finds_nothing_is_refused(artifact: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loader([artifact], **{"split": "train", "batch_size": 5, "seed": 0, **changed})


# ---------------------------------------------------------------- batches
def test_stacked_batches_hold_the_written_arrays(tmp_path: Path) -> None:
    def fields(i: int) -> dict[str, Any]:
        rng = np.random.default_rng(i)
        return {"eeg": rng.normal(size=(6, 2)).astype(np.float32), "counts": rng.poisson(3, (5,)).astype(np.uint16), "json": {}}

    loader = Loader([write(tmp_path / "s", fields=fields)], split="train", batch_size=16, seed=0, threads=2)
    for batch in take(iter(loader), 7):
        for k, row in enumerate(batch["__row__"].tolist()):
            expected = fields(row)
            np.testing.assert_array_equal(batch["eeg"][k].numpy(), expected["eeg"])
            np.testing.assert_array_equal(batch["counts"][k].numpy(), expected["counts"])
            assert batch["__key__"][k] == f"R-{row:06d}"


def test_a_held_batch_stays_what_it_was_and_a_dropped_one_is_reused(artifact: Path) -> None:
    loader = Loader([artifact], split="train", batch_size=5, seed=0, threads=2)
    batches = iter(loader)
    held = [next(batches) for _ in range(20)]
    views = [batch["x"][2:, 1].numpy() for batch in held]  # whatever shares memory keeps it
    expected = [batch["__row__"][2:].tolist() for batch in held]
    del held
    reused = {next(batches)["x"].data_ptr() for _ in range(40)}
    assert [view[:, 0].tolist() for view in views] == expected
    assert len(reused) < 10


def test_a_sample_has_the_signals_it_has(tmp_path: Path) -> None:
    def fields(i: int) -> dict[str, Any]:
        return {"x": np.ones((3 + i, 2)), **({"gaze": np.ones(2)} if i % 3 == 0 else {})}

    folder = write(tmp_path / "s", fields=fields)
    for batch in Loader([folder], split="train", batch_size=4, seed=0, collate=list).epoch():
        for sample in batch:
            row = sample["__row__"]
            assert sample["x"].shape == (3 + row, 2)
            assert ("gaze" in sample) == (row % 3 == 0)
    with pytest.raises(ValueError, match=r"field 'gaze' is missing from some samples .* give the Loader a collate"):
        Loader([folder], split="train", batch_size=4, seed=0)


def test_shapes_of_one_size_but_not_alike_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", fields=lambda i: {"x": np.ones((2, 6) if i != 30 else (6, 2))})
    with pytest.raises(ValueError, match="field 'x' of 'R-000030' has another shape or type; give the Loader a collate"):
        list(Loader([folder], split="train", batch_size=8, seed=0).epoch())


@pytest.mark.parametrize("collate", [None, rows])
def test_a_flipped_bit_stops_the_run_at_its_batch(tmp_path: Path, collate: Any) -> None:
    folder = write(tmp_path / "s")
    loader = Loader([folder], split="train", batch_size=10, seed=0, shuffle=False, collate=collate)
    shard = folder / "all-00000.tar"
    data = bytearray(shard.read_bytes())
    at = data.index(np.full((4, 3), 12, np.float32).tobytes())
    data[at + 5] ^= 1
    shard.write_bytes(data)
    batches = iter(loader)
    next(batches)
    with pytest.raises(ValueError, match=r"all-00000.tar: key 'R-000012', field 'x' .* checksum; write the shards again"):
        next(batches)
    assert loader.state_dict()["position"] == 10


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """No mapping, no cache of what was read: the peak is that of a few batches, for any number of samples."""

    def peak(n: int) -> int:
        folder = write(tmp_path / str(n), n=n, fields=lambda i: {"x": np.full((64, 64), i, np.float32)})
        loader = Loader([folder], split="train", batch_size=2, seed=0)
        gc.collect()
        tracemalloc.start()
        for batch in loader.epoch():
            assert batch["x"][0, 0, 0] == batch["__row__"][0]
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    small, large = peak(10), peak(TRAIN)
    four_batches = 4 * 2 * 64 * 64 * 4  # bytes; all samples together are six times as many
    assert large < small + four_batches
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(tmp_path) not in maps.read_text()


def test_few_files_are_open_however_many_shards_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads read on while their file leaves the cache, and what left is closed."""
    monkeypatch.setattr(stores, "_OPEN_FILES", 2)
    folder = write(tmp_path / "s", fields=lambda i: {"x": np.full((40, 100), i, np.float32), "json": {"i": i}})
    assert len(list(folder.glob("*.tar"))) > 20
    loader = Loader([folder], split="train", batch_size=4, seed=0, threads=4, collate=rows)
    assert sorted(flat(take(iter(loader), 25))) == sorted(2 * list(range(TRAIN)))
    descriptors = Path("/proc/self/fd")
    if descriptors.exists():
        assert sum(str(folder) in os.path.realpath(fd) for fd in descriptors.iterdir()) <= 2


# ---------------------------------------------------------------- mixtures
def mixture(a: Path, b: Path, weights: Mapping[str, float], seed: int = 0, threads: int = 1) -> Mixture:
    def named(name: str) -> Callable[[list[dict[str, Any]]], tuple[str, list[int]]]:
        return lambda samples: (name, [s["__row__"] for s in samples])

    loaders = {
        name: Loader([folder], split="train", batch_size=3, seed=seed, threads=threads, collate=named(name))
        for name, folder in {"a": a, "b": b}.items()
    }
    return Mixture(loaders, weights, seed)


def test_a_mixture_draws_by_weight_and_resumes_exactly(artifact: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", n=9, name="S")
    weights = {"a": 3.0, "b": 1.0}
    whole = list(itertools.islice(mixture(artifact, other, weights), 60))
    for stop in (0, 1, 17, 59):
        first = mixture(artifact, other, weights)
        got = list(itertools.islice(first, stop))
        second = mixture(artifact, other, weights, threads=2)
        second.load_state_dict(first.state_dict())
        assert got + list(itertools.islice(second, 60 - stop)) == whole
    for name, per_epoch in ("a", TRAIN), ("b", 9):
        seen = flat([batch for drawn, batch in whole if drawn == name])
        assert all(len(set(seen[i : i + per_epoch])) == len(seen[i : i + per_epoch]) for i in range(0, len(seen), per_epoch))


def test_the_draw_of_a_mixture_depends_on_seed_and_step_alone(artifact: Path) -> None:
    mixed = mixture(artifact, artifact, {"a": 3.0, "b": 1.0})
    forward = [mixed.draw(step) for step in range(1000)]
    assert [mixed.draw(step) for step in reversed(range(1000))] == forward[::-1]
    assert abs(forward.count("a") / 1000 - 0.75) < 4 * (0.75 * 0.25 / 1000) ** 0.5
    assert [mixture(artifact, artifact, {"a": 3.0, "b": 1.0}, seed=1).draw(step) for step in range(100)] != forward[:100]
    assert {mixture(artifact, artifact, {"a": 0.0, "b": 1.0}).draw(step) for step in range(100)} == {"b"}


def test_a_wrong_mixture_is_refused(artifact: Path) -> None:
    bad: list[tuple[dict[str, float], str]] = [
        ({"a": 1.0}, r"weights name \['a'\] but the loaders are \['a', 'b'\]"),
        ({"a": 1.0, "b": -1.0}, "need to be finite, not negative"),
        ({"a": 0.0, "b": 0.0}, "not all zero"),
    ]
    for weights, message in bad:
        with pytest.raises(ValueError, match=message):
            mixture(artifact, artifact, weights)
    state = mixture(artifact, artifact, {"a": 1.0, "b": 1.0}).state_dict()
    with pytest.raises(ValueError, match="same loaders and weights"):
        mixture(artifact, artifact, {"a": 2.0, "b": 1.0}).load_state_dict(state)
