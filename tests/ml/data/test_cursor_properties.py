"""Where a run stands, as properties: whatever stops it and however it goes on, no sample is lost and none comes twice."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm_ml.data.loader import Loader
from neurofm_ml.data.mixture import Mixture
from neurofm_ml.data.order import Order, row_seeds
from neurofm_ml.data.shards import write_manifest, write_shards

N = 47
LAYOUTS = ("multimodal", "modality")
#: Filters, and which of the N samples they keep. Every third sample lacks the gaze.
WHERE: dict[str, tuple[dict[str, list[Any]], list[int]]] = {
    "all": ({}, list(range(N))),
    "one recording": ({"recording": ["b"]}, [i for i in range(N) if i // 10 % 2]),
    "with gaze": ({"gaze": [True]}, [i for i in range(N) if i % 3]),
    "one": ({"key": ["R-000031"]}, [31]),
}
#: Batch size, ranks, threads, batches per rank.
Segment = tuple[int, int, int, int]
Seen = tuple[int, int, int]  # row, epoch, seed


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """layout -> the same samples, of mixed sizes and with missing members, in several small tars."""
    return {layout: write(tmp_path_factory.mktemp(layout), layout, N) for layout in LAYOUTS}


def write(out: Path, layout: str, n: int) -> Path:
    keys = [f"R-{i:06d}" for i in range(n)]
    series = {"x": "spikes", "gaze": "eye", "json": "json"} if layout == "modality" else None

    def fields(i: int) -> dict[str, Any]:
        made = {"json": {"i": i}, "x": np.full((2 + i % 3, 5), i, np.float32)}
        return made | ({"gaze": np.full(i % 7, i, np.int16)} if i % 3 else {})

    written = write_shards(((key, fields(i)) for i, key in enumerate(keys)), out, "all", 15_000, series)
    columns = {"key": keys, "split": ["train"] * n, "recording": ["ab"[i // 10 % 2] for i in range(n)]}
    pq.write_table(pa.table(columns), out / "windows.parquet")
    write_manifest(out, [written], {})
    return out


def seen(samples: list[dict[str, Any]]) -> list[Seen]:
    """A collate that keeps who came and when, after checking that the right bytes came along."""
    for s in samples:
        row = s["__row__"]
        assert s["json"]["i"] == row
        assert (s["x"] == row).all()
        assert len(s["x"]) == 2 + row % 3
        assert ("gaze" in s) == (row % 3 > 0)
    return [(s["__row__"], s["__epoch__"], s["__seed__"]) for s in samples]


def run(artifact: Path, segment: Segment, state: Mapping[str, Any] | None, **options: Any) -> tuple[list[Seen], dict[str, Any]]:
    """What all ranks see in turn during one segment, and the state they all end in, as JSON would keep it."""
    batch_size, world, threads, batches = segment
    ranks = [
        Loader([artifact], split="train", batch_size=batch_size, rank=r, world=world, threads=threads, **options) for r in range(world)
    ]
    for loader in ranks:
        if state:
            loader.load_state_dict(state)
    shares = [list(itertools.islice(loader, batches)) for loader in ranks]
    states = [json.loads(json.dumps(loader.state_dict())) for loader in ranks]
    assert all(s == states[0] for s in states)
    return [one for turn in zip(*shares, strict=True) for share in turn for one in share], states[0]


SEGMENTS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 2), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(-5, 2**64), shuffle=st.booleans(), where=st.sampled_from(list(WHERE)), segments=SEGMENTS, data=st.data())
def test_three_epochs_in_pieces(
    artifacts: dict[str, Path], seed: int, shuffle: bool, where: str, segments: list[Segment], data: st.DataObject
) -> None:
    """Each piece under its own ranks, threads, batch size and layout; then alone to the end of the third epoch."""
    wanted, kept = WHERE[where]
    options = {"seed": seed, "shuffle": shuffle, "where": wanted, "collate": seen}
    stream: list[Seen] = []
    state: dict[str, Any] | None = None
    for segment in segments:
        piece, state = run(artifacts[data.draw(st.sampled_from(LAYOUTS))], segment, state, **options)
        stream += piece
    rest, state = run(artifacts["multimodal"], (1, 1, 0, max(0, 3 * len(kept) - len(stream))), state, **options)
    stream += rest
    assert state["position"] == len(stream)
    for epoch in range(3):
        part = stream[epoch * len(kept) : (epoch + 1) * len(kept)]
        assert sorted(row for row, _, _ in part) == kept
        assert {e for _, e, _ in part} == {epoch}
    whole, _ = run(artifacts["multimodal"], (len(stream), 1, 0, 1), None, **options)
    assert stream == whole
    assert len({s for _, _, s in stream}) == len(stream)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**63), stops=st.lists(st.integers(0, 12), max_size=3), threads=st.lists(st.integers(0, 4), min_size=4, max_size=4)
)
def test_a_mixture_in_pieces(artifacts: dict[str, Path], seed: int, stops: list[int], threads: list[int]) -> None:
    """Every loader of a mixture goes through its own epochs, whatever stops the mixture."""

    def mixture(threads: int, layout: str) -> Mixture:
        artifact = artifacts[layout]
        loaders = {
            name: Loader([artifact], split="train", batch_size=5, seed=seed, threads=threads, where=WHERE[name][0], collate=seen)
            for name in ("all", "one recording", "with gaze")
        }
        return Mixture(loaders, {"all": 2.0, "one recording": 1.0, "with gaze": 1.0}, seed)

    def named(mixed: Mixture, steps: int) -> Iterator[tuple[str, list[Seen]]]:
        start = mixed.state_dict()["step"]
        for step, batch in enumerate(itertools.islice(mixed, steps), start):
            yield mixed.draw(step), batch

    total = 40
    whole = list(named(mixture(1, "multimodal"), total))
    pieces: list[tuple[str, list[Seen]]] = []
    state: dict[str, Any] | None = None
    for stop, n_threads, layout in zip([*stops, total], threads, itertools.cycle(LAYOUTS), strict=False):
        mixed = mixture(n_threads, layout)
        if state:
            mixed.load_state_dict(state)
        pieces += named(mixed, min(stop, total - len(pieces)))
        state = json.loads(json.dumps(mixed.state_dict()))
    assert pieces == whole
    for name in ("all", "one recording", "with gaze"):
        rows, kept = [row for drawn, batch in whole if drawn == name for row, _, _ in batch], WHERE[name][1]
        for start in range(0, len(rows) - len(kept) + 1, len(kept)):
            assert sorted(rows[start : start + len(kept)]) == kept


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9000), st.integers(0, 2**64), st.booleans(), st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.data())
def test_an_order_read_in_pieces_is_one_order(n: int, seed: int, shuffle: bool, lengths: list[int], data: st.DataObject) -> None:
    """Any cut, from any place, by any reader: the pieces join, and an epoch is a permutation."""
    position = data.draw(st.integers(0, 3 * n))
    whole = Order(n, seed, shuffle).at(position, sum(lengths))
    one = Order(n, seed, shuffle)
    starts = position + np.cumsum([0, *lengths[:-1]])
    pieces = [one.at(int(start), length) for start, length in zip(starts, lengths, strict=True)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    epoch = data.draw(st.integers(0, 2))
    np.testing.assert_array_equal(np.sort(Order(n, seed, shuffle).at(epoch * n, n)), np.arange(n))


# ---------------------------------------------------------------- what is random about a sample
def noisy(samples: list[dict[str, Any]]) -> dict[tuple[int, int], float]:
    """An augmentation: (epoch, row) -> a number drawn with the sample's seed."""
    return {(s["__epoch__"], s["__row__"]): float(np.random.default_rng(s["__seed__"]).normal()) for s in samples}


def test_augmentation_depends_on_seed_epoch_and_row_alone(artifacts: dict[str, Path]) -> None:
    found: list[dict[tuple[int, int], float]] = []
    for batch_size, world, threads in ((1, 1, 0), (10, 2, 3), (47, 1, 1)):
        drawn: dict[tuple[int, int], float] = {}
        for rank in range(world):
            loader = Loader(
                [artifacts["multimodal"]],
                split="train",
                batch_size=batch_size,
                seed=4,
                rank=rank,
                world=world,
                threads=threads,
                collate=noisy,
            )
            for batch in itertools.islice(loader, -(-2 * N // (batch_size * world))):
                drawn |= batch
        found.append({key: value for key, value in drawn.items() if key[0] < 2})
    assert found[0] == found[1] == found[2]
    assert len(set(found[0].values())) == 2 * N
    other = Loader([artifacts["multimodal"]], split="train", batch_size=N, seed=5, collate=noisy)
    assert not set(next(iter(other)).values()) & set(found[0].values())


def test_stacked_batches_carry_the_same_seeds_and_epochs(tmp_path: Path) -> None:
    out = tmp_path / "shards"
    out.mkdir()
    keys = [f"k{i}" for i in range(10)]
    pq.write_table(pa.table({"key": keys, "split": ["train"] * 10}), out / "windows.parquet")
    write_manifest(out, [write_shards(((key, {"x": np.zeros(3)}) for key in keys), out, "all", 10**6)], {})
    stacked = itertools.islice(Loader([out], split="train", batch_size=4, seed=9, threads=2), 5)
    collated = itertools.islice(Loader([out], split="train", batch_size=4, seed=9, collate=list), 5)
    for batch, samples in zip(stacked, collated, strict=True):
        for name in ("__row__", "__epoch__", "__seed__"):
            assert batch[name].tolist() == [s[name] for s in samples]


def test_seeds_do_not_meet() -> None:
    """300 000 seeds of neighbouring seeds, epochs and rows are distinct, and no shift of one axis is a shift of another."""
    grids = [row_seeds(seed, np.repeat(np.arange(10), 10_000), np.tile(np.arange(10_000), 10)) for seed in (0, 1, 2)]
    every = np.concatenate(grids)
    assert len(np.unique(every)) == len(every)
    assert every.min() >= 0
    bits = (every[:, None] >> np.arange(63)) & 1
    np.testing.assert_allclose(bits.mean(0), 0.5, atol=5 * 0.5 / len(every) ** 0.5)
