"""Shards behind URLs: the samples, batches and refusals of a folder, in few requests, many of them on their way at once."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from doubles import Double, Fault, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm_ml import remote
from neurofm_ml.config import to_dict
from neurofm_ml.data import loader as loaders
from neurofm_ml.data import stores
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.recordings import load_card, save_recording
from neurofm_ml.data.shards import Reader, read_index, write_manifest, write_shards
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.stores import GAP_BYTES, RANGE_BYTES, Ranges, _is_direct, merged
from neurofm_ml.data.windows import load_block, read_channels, shard_recordings
from neurofm_ml.knowledge.cards import SplitSpec, datasets
from neurofm_ml.presets import ShardsConfig
from neurofm_ml.types import Signal

N = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket with the artifact `shards`: small and larger arrays, one of them in two samples of three."""
    out = tmp_path_factory.mktemp("bucket") / "bucket" / "shards"
    out.mkdir(parents=True)
    rng = np.random.default_rng(0)
    keys = [f"R-{i:06d}" for i in range(N)]

    def fields(i: int) -> dict[str, Any]:
        made = {"json": {"i": i}, "x": np.full((4, 3), i, np.float32), "lfp": rng.normal(size=(50, 20)).astype(np.float32)}
        return made | ({"gaze": np.full((3 + i % 5, 2), i, np.float32)} if i % 3 else {})

    written = write_shards(((key, fields(i)) for i, key in enumerate(keys)), out, "all", 300_000)
    pq.write_table(
        pa.table({"key": keys, "split": ["train"] * N, "recording": ["ab"[i // 10 % 2] for i in range(N)]}), out / "windows.parquet"
    )
    write_manifest(out, [written], {})
    return out


@pytest.fixture
def double(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    with serving(folder.parents[1]) as double:
        monkeypatch.setenv("AWS_ENDPOINT_URL", double.url)
        yield double


@pytest.fixture(params=["http", "s3"])
def url(request: pytest.FixtureRequest, double: Double) -> str:
    return f"{double.url}/bucket/shards" if request.param == "http" else "s3://bucket/shards"


def alike(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return np.array_equal(a, b) if isinstance(a, (np.ndarray, torch.Tensor)) else a == b


def batches(artifact: Path | str, n: int, **options: Any) -> list[Any]:
    loader = Loader([artifact], **{"split": "train", "batch_size": 16, "seed": 0, **options})
    return list(itertools.islice(loader, n))


# ---------------------------------------------------------------- the same as from a folder
OPTIONS: dict[str, dict[str, Any]] = {
    "samples": {"collate": list, "threads": 2},
    "stacked": {"signals": ["x", "lfp"], "threads": 0},
    "in order": {"collate": list, "shuffle": False},
    "filtered": {"collate": list, "where": {"recording": ["b"], "gaze": [True]}, "batch_size": 7},
    "few signals": {"collate": list, "signals": ["gaze"]},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_batches_are_those_of_the_folder(folder: Path, url: str, options: str) -> None:
    """Two epochs and a bit."""
    given = OPTIONS[options]
    assert alike(batches(url, 45, **given), batches(folder, 45, **given))


def test_one_pass_and_single_samples_are_those_of_the_folder(folder: Path, url: str) -> None:
    here, there = (Loader([where], split="train", batch_size=64, seed=0, collate=list) for where in (folder, url))
    assert alike(list(there.epoch()), list(here.epoch()))
    a, b = Reader(read_index(folder)), Reader(read_index(url))
    assert all(alike(a.sample(row), b.sample(row)) for row in (0, 7, N - 1))


def test_a_cursor_moves_between_folder_and_url(folder: Path, url: str) -> None:
    def rows(samples: list[dict[str, Any]]) -> list[int]:
        return [s["__row__"] for s in samples]

    whole = batches(folder, 40, collate=rows)
    first = Loader([folder], split="train", batch_size=16, seed=0, collate=rows)
    head = list(itertools.islice(first, 17))
    second = Loader([url], split="train", batch_size=16, seed=0, collate=rows, threads=3)
    second.load_state_dict(first.state_dict())
    assert head + list(itertools.islice(second, 23)) == whole


def test_small_steps_ahead_lose_nothing(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for few samples only, some chunks are asked for in parts."""
    monkeypatch.setattr(loaders, "AHEAD_BYTES", 200_000)
    assert alike(batches(url, 30, collate=list), batches(folder, 30, collate=list))


def test_requests_cut_anywhere_divide_no_sample(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for length in (1, 5000, 9000):
        monkeypatch.setattr(stores, "RANGE_BYTES", length)
        assert alike(batches(url, 20, collate=list), batches(folder, 20, collate=list))


def test_a_url_and_a_folder_in_one_loader(folder: Path, double: Double) -> None:
    both = [folder, f"{double.url}/bucket/shards"]
    seen = [s for batch in Loader(both, split="train", batch_size=50, seed=0, collate=list).epoch() for s in batch]
    assert [s["__row__"] for s in seen] == list(range(2 * N))
    assert all(alike(a["x"], b["x"]) for a, b in zip(seen[:N], seen[N:], strict=True))


def test_an_artifact_of_windows_is_read_whole_from_a_url(tmp_path: Path) -> None:
    """Card, channels, blocks and vocabulary, as training and evaluation ask for them."""
    card = replace(datasets()["simulation"], recordings=datasets()["simulation"].recordings[:1], window_s=4.0, split=SplitSpec(gap_s=1.0))
    first = simulate(card, 30.0)[0]
    save_recording(first, tmp_path / "in" / "recordings")
    (tmp_path / "in" / "card.json").write_text(json.dumps(to_dict(card)))
    out = tmp_path / "web" / "shards"
    out.mkdir(parents=True)
    shard_recordings(ShardsConfig(dataset="simulation"), tmp_path / "in", out)
    with serving(tmp_path / "web") as double:
        url = f"{double.url}/shards"
        assert load_card(url) == load_card(out)
        assert read_channels(url) == read_channels(out)
        assert build_vocabulary([url]) == build_vocabulary([out])  # type: ignore[list-item]
        a, b = load_block(url, first.id, "train"), load_block(out, first.id, "train")
        for name, signal in b.signals.items():
            other = a.signals[name]
            assert isinstance(signal, Signal)
            assert isinstance(other, Signal)
            np.testing.assert_array_equal(other.values, signal.values)


# ---------------------------------------------------------------- few requests, in time
def asked(double: Double) -> list[int]:
    """Bytes of each range that was asked for."""
    bounds = [r.removeprefix("bytes=").split("-") for method, _, r in double.requests if method == "GET" and r]
    return [int(last) - int(first) + 1 for first, last in bounds]


def test_an_epoch_takes_few_requests_and_every_byte_once(folder: Path, double: Double) -> None:
    """Neighbours are one request, however the batches mix them."""
    loader = Loader([f"{double.url}/bucket/shards"], split="train", batch_size=15, seed=0, collate=list)
    double.requests.clear()
    seen = itertools.islice(loader, N // 15)
    assert len({s["__row__"] for batch in seen for s in batch}) == N
    members, tars = pd.read_parquet(folder / "index.parquet"), list(folder.glob("*.tar"))
    double.requests[:] = double.requests[: len(tars)]  # then the next epoch is asked for
    assert members["size"].sum() <= sum(asked(double)) <= sum(path.stat().st_size for path in tars)


def test_few_signals_take_few_bytes(tmp_path: Path) -> None:
    """What lies between, when it is larger than a request is worth, stays on the server."""
    out = tmp_path / "shards"
    out.mkdir()
    made = {"a": np.zeros(10, np.float32), "large": np.zeros(100_000, np.float32)}
    pq.write_table(pa.table({"key": [f"k{i}" for i in range(20)], "split": ["train"] * 20}), out / "windows.parquet")
    write_manifest(out, [write_shards(((f"k{i}", made) for i in range(20)), out, "all", 10**9)], {})
    with serving(tmp_path) as double:
        loader = Loader([f"{double.url}/shards"], split="train", batch_size=4, seed=0, signals=["a"])
        double.requests.clear()
        assert sum(len(batch["a"]) for batch in loader.epoch()) == 20
        assert asked(double) == 20 * [128 + 40]


def test_requests_are_on_their_way_at_once(double: Double) -> None:
    """One after the other, the requests of an epoch would take their number times the latency; the most seen at once tells."""
    most = now = 0
    send = double.fault

    def counting(path: str) -> Fault | None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        time.sleep(0.02)
        now -= 1
        return send(path)

    loader = Loader([f"{double.url}/bucket/shards"], split="train", batch_size=15, seed=0, collate=list)
    double.fault = counting  # type: ignore[method-assign]
    assert sum(map(len, loader.epoch())) == N
    assert most >= 4


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(1, 4)), min_size=1, max_size=40), st.data())
def test_requests_hold_every_item_whole_and_the_first_needed_first(cells: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Items of one to three neighbouring ranges, needed in any order, at any scale of gaps and lengths."""
    unit = data.draw(st.sampled_from([1000, GAP_BYTES // 3, GAP_BYTES, RANGE_BYTES // 10, RANGE_BYTES]))
    places = {(file, place): (file, place * 5 * unit, length * unit) for file, place, length in cells}
    items = data.draw(st.permutations(list(places.values())))
    parts = data.draw(st.integers(1, 3))
    ranges = [(i, f, s + k * n // parts, s + (k + 1) * n // parts) for i, (f, s, n) in enumerate(items) for k in range(parts)]
    requests = merged(Ranges(["a", "b", "c"], *(np.array(column) for column in zip(*ranges, strict=True))))
    holder = [next(i for i, (n, a, b) in enumerate(requests) if n == "abc"[f] and a <= s and s + k <= b) for f, s, k in items]
    assert list(dict.fromkeys(holder)) == list(range(len(requests)))
    for i, (_, a, b) in enumerate(requests):
        inside = [(s, s + k) for (_, s, k), h in zip(items, holder, strict=True) if h == i]
        assert (min(s for s, _ in inside), max(e for _, e in inside)) == (a, b)
        assert max(s for s, _ in inside) - a < RANGE_BYTES
    for (n1, a1, b1), (n2, a2, b2) in itertools.pairwise(sorted(requests)):
        assert n1 != n2 or b1 <= a2
        assert n1 != n2 or a2 - b1 > GAP_BYTES or b2 - a1 > RANGE_BYTES  # what could be one request is one


# ---------------------------------------------------------------- what goes wrong
def at(folder: Path, key: str, field: str) -> tuple[str, int]:
    """Shard and first byte of a member."""
    members = pd.read_parquet(folder / "index.parquet")
    row = members[(members.key == key) & (members.field == field)].iloc[0]
    return f"/bucket/shards/{row.shard}", int(row.offset)


def in_order(url: str) -> Iterator[Any]:
    return iter(Loader([url], split="train", batch_size=10, seed=0, shuffle=False, collate=list))


def test_a_byte_that_arrives_wrong_stops_the_run_by_name(folder: Path, double: Double) -> None:
    path, offset = at(folder, "R-000012", "x")
    double.faults[path] = Fault(flip=offset + 130)
    stream = in_order(f"{double.url}/bucket/shards")
    next(stream)
    match = rf"{double.url}/bucket/shards/all-00000.tar: key 'R-000012', field 'x' \(byte {offset}\) does not match its checksum"
    with pytest.raises(ValueError, match=match):
        next(stream)


def test_a_server_without_ranges_is_refused(double: Double) -> None:
    double.ranges = False
    with pytest.raises(ValueError, match=r"R-000000', field .* cannot be read: .*the server does not serve parts of a file"):
        next(in_order(f"{double.url}/bucket/shards"))


@pytest.mark.parametrize(
    ("url", "proxies", "direct"),
    [
        ("http://host/a", {}, True),
        ("https://host:8443/a", {"http_proxy": "http://proxy:3128"}, True),
        ("http://host/a", {"http_proxy": "http://proxy:3128"}, False),
        ("http://host/a", {"http_proxy": "http://proxy:3128", "no_proxy": "host"}, True),
        ("http://me:secret@host/a", {}, False),
        ("s3://bucket/a", {}, False),
    ],
)
def test_what_may_stand_between_is_left_to_those_who_know(
    url: str, proxies: dict[str, str], direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    assert _is_direct(url) is direct


FAULTS: dict[str, tuple[Fault, type[Exception], str]] = {
    "gone": (Fault(status=404), ValueError, r"R-000000', field .* cannot be read: .*nothing is there \(404\)"),
    "forbidden": (Fault(status=403), ValueError, r"cannot be read: .*access is refused \(403\)"),
    "busy for long": (Fault(status=503), ConnectionError, r"all-00000.tar: key 'R-000000', field .* cannot be read: .*busy or broken"),
    "cut for ever": (Fault(cut_after=100), ConnectionError, r"all-00000.tar: key 'R-000000', field .* cannot be read"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_had_stops_the_run_by_name(double: Double, case: str) -> None:
    fault, kind, match = FAULTS[case]
    stream = in_order(f"{double.url}/bucket/shards")
    double.faults["/bucket/shards/all-00000.tar"] = fault
    with pytest.raises(kind, match=match):
        next(stream)


def test_a_connection_cut_once_is_taken_up_again(folder: Path, double: Double) -> None:
    for path in folder.glob("*.tar"):
        double.faults[f"/bucket/shards/{path.name}"] = Fault(times=1, cut_after=1000)
    assert alike(batches(f"{double.url}/bucket/shards", 20, collate=list), batches(folder, 20, collate=list))


OPENING: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut shard": (lambda out: (out / "all-00001.tar").write_bytes(b"short"), r"http.*all-00001.tar has 5 bytes where manifest.json says"),
    "no manifest": (lambda out: (out / "manifest.json").unlink(), r"http.*manifest.json: nothing is there \(404\)"),
    "half a manifest": (lambda out: (out / "manifest.json").write_text('{"a'), r"http.*manifest.json is damaged"),
    "half an index": (lambda out: (out / "index.parquet").write_bytes(b"PAR1"), r"http.*index.parquet cannot be read"),
}


@pytest.mark.parametrize("case", OPENING)
def test_a_damaged_artifact_is_refused_on_opening(folder: Path, tmp_path: Path, case: str) -> None:
    damage, match = OPENING[case]
    out = tmp_path / "shards"
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    damage(out)
    with serving(tmp_path) as double, pytest.raises(ValueError, match=match):
        read_index(f"{double.url}/shards")
