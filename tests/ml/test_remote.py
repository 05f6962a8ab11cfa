"""Files behind URLs: exact bytes, attempts that succeed, errors that say what to do."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doubles import Double, Fault, serving

from neurofm_ml import remote
from neurofm_ml.remote import S3Store, fetch, is_url, join, open_store, stream

DATA = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bucket/a b").mkdir(parents=True)
    (tmp_path / "bucket/a b/file.bin").write_bytes(DATA)
    with serving(tmp_path) as double:
        monkeypatch.setenv("AWS_ENDPOINT_URL", double.url)
        yield double


@pytest.fixture(params=["http", "s3"])
def url(request: pytest.FixtureRequest, double: Double) -> str:
    return f"{double.url}/bucket" if request.param == "http" else "s3://bucket"


@pytest.mark.parametrize(
    ("where", "expected"), [("http://a", True), ("https://a/b", True), ("s3://a", True), ("/http://a", False), (Path("s3"), False)]
)
def test_urls_are_told_from_paths(where: object, expected: bool) -> None:
    assert is_url(where) is expected


def test_names_are_quoted_for_http_only() -> None:
    assert join("http://host/a/", "b c/d#e") == "http://host/a/b%20c/d%23e"
    assert join("s3://host/a", "b c") == "s3://host/a/b c"


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="'/data' is no URL that NeuroFM reads"):
        open_store("/data")


@pytest.mark.parametrize(("start", "length"), [(0, None), (0, 10), (5, 0), (1000, 1), (299_990, 10), (299_990, None), (7, 200_000)])
def test_the_bytes_asked_for_arrive(url: str, start: int, length: int | None) -> None:
    store = open_store(url)
    assert store.size("a b/file.bin") == len(DATA)
    assert store.read("a b/file.bin", start, length) == DATA[start:][:length]


def test_bytes_beyond_the_end_are_an_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"file.bin: 20 bytes from 299990 on were asked for, there are 10"):
        open_store(url).read("a b/file.bin", 299_990, 20)


def test_many_threads_read_at_once(url: str) -> None:
    store, starts = open_store(url), range(0, 290_000, 5000)
    with ThreadPoolExecutor(12) as threads:
        parts = list(threads.map(lambda start: store.read("a b/file.bin", start, 5000), starts))
    assert parts == [DATA[start : start + 5000] for start in starts]


def test_connections_are_kept_open(double: Double) -> None:
    seen = set()
    double.routes["/who"] = lambda query: seen.add(threading.get_ident()) or b"{}"
    for _ in range(5):
        fetch(f"{double.url}/who")
    assert len(seen) == 1, "the server has one thread for each connection"


@pytest.mark.parametrize(
    "fault", [Fault(1, cut_after=1000), Fault(1, status=503), Fault(1, status=429, headers={"Retry-After": "0"}), Fault(1, cut_after=0)]
)
def test_what_fails_for_a_while_is_asked_again(double: Double, url: str, fault: Fault) -> None:
    double.faults["/bucket/a b/file.bin"] = met = replace(fault)
    assert open_store(url).read("a b/file.bin", 10, 5000) == DATA[10:5010]
    assert met.times == 0


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [
        (Fault(status=403), ValueError, r"file.bin: access is refused \(403\); check that the keys are set"),
        (Fault(status=404), ValueError, r"file.bin: nothing is there \(404\); check the name"),
        (Fault(status=418), ValueError, r"file.bin: the server answers 418"),
        (Fault(status=503), ConnectionError, r"file.bin: the server is busy or broken \(503, 6 attempts\)"),
        (Fault(cut_after=100), ConnectionError, r"file.bin cannot be reached or was cut"),
    ],
)
def test_what_keeps_failing_is_an_error_that_says_what_to_do(double: Double, fault: Fault, error: type[Exception], match: str) -> None:
    double.faults["/bucket/a b/file.bin"] = fault
    with pytest.raises(error, match=match):
        open_store(f"{double.url}/bucket").read("a b/file.bin", 0, 5000)


def test_a_slow_body_times_out(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    double.faults["/bucket/a b/file.bin"] = Fault(pause_s=1.0)
    with pytest.raises(ConnectionError, match="Read timed out"):
        open_store(f"{double.url}/bucket").read("a b/file.bin")


@pytest.mark.parametrize(("status", "match"), [(404, r"s3://bucket/nowhere.bin: nothing is there"), (403, "access is refused")])
def test_s3_says_what_to_do(double: Double, status: int, match: str) -> None:
    double.faults["/bucket/nowhere.bin"] = Fault(status=status)
    with pytest.raises(ValueError, match=match):
        open_store("s3://bucket").size("nowhere.bin")


def test_a_server_without_ranges_is_named(double: Double) -> None:
    double.ranges = False
    store = open_store(f"{double.url}/bucket")
    assert store.read("a b/file.bin") == DATA
    with pytest.raises(ValueError, match="does not serve parts of a file"):
        store.read("a b/file.bin", 10, 20)


def test_nobody_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9/x cannot be reached .*; check the network"):
        fetch("http://127.0.0.1:9/x")


def test_a_stream_goes_on_where_it_stopped_while_the_file_is_the_same(double: Double, url: str) -> None:
    file = join(url, "a b/file.bin")
    with stream(file) as body:
        assert (body.start, body.size, b"".join(body.chunks)) == (0, len(DATA), DATA)
    with stream(file, 1000, body.version) as rest:
        assert (rest.start, rest.size, b"".join(rest.chunks)) == (1000, len(DATA), DATA[1000:])
    with stream(file, 1000, '"another version"') as again:
        assert (again.start, b"".join(again.chunks)) == (0, DATA)


def test_a_stream_from_the_end_on_starts_over(double: Double) -> None:
    file = join(f"{double.url}/bucket", "a b/file.bin")
    with stream(file) as body:
        version = body.version
    with stream(file, len(DATA), version) as again:
        assert (again.start, b"".join(again.chunks)) == (0, DATA)


def test_what_goes_wrong_beside_a_stream_is_not_blamed_on_it(url: str) -> None:
    with pytest.raises(OSError, match=r"^disk full$"), stream(join(url, "a b/file.bin")):
        raise OSError("disk full")


def test_a_folder_is_listed(double: Double) -> None:
    (double.folder / "bucket/b.txt").write_text("hi")
    double.page = 1
    assert S3Store("s3://bucket").entries("") == [("a b", None), ("b.txt", 2)]
    with pytest.raises(ValueError, match="s3://bucket/none: nothing is there"):
        S3Store("s3://bucket").entries("none")


def test_headers_go_with_every_request_and_are_not_shown(double: Double) -> None:
    double.required = {"Authorization": "Basic secret"}
    store = open_store(f"{double.url}/bucket", {"Authorization": "Basic secret"})
    assert store.size("a b/file.bin") == len(store.read("a b/file.bin"))
    assert "secret" not in repr(store)
    with pytest.raises(ValueError, match=r"access is refused \(401\)"):
        open_store(f"{double.url}/bucket").size("a b/file.bin")


def test_the_double_takes_what_pyarrow_writes(double: Double) -> None:
    from pyarrow import fs

    system = fs.S3FileSystem(access_key="a", secret_key="b", endpoint_override=double.url.removeprefix("http://"), scheme="http")
    with system.open_output_stream("bucket/new/large.bin") as stream:
        stream.write(DATA * 40)
    with system.open_output_stream("bucket/new/small.bin") as stream:
        stream.write(DATA[:100])
    double.page = 1
    listed = system.get_file_info(fs.FileSelector("bucket", recursive=True))
    assert {i.path: i.size for i in listed if i.is_file} == {
        "bucket/a b/file.bin": len(DATA),
        "bucket/new/large.bin": 40 * len(DATA),
        "bucket/new/small.bin": 100,
    }
    assert open_store("s3://bucket/new").read("large.bin") == DATA * 40
