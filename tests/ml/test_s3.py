"""Objects written and read by signed requests, through a store that throttles, drops connections and loses answers."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import Double, Fault, Upload, serving

from neurofm_ml import remote, s3
from neurofm_ml.s3 import Gone, Keys, ObjectStore, UploadEnded, sign

DATA = np.random.default_rng(0).bytes(300_000)
ODD = "a b/ü+~=&#%41.bin"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)
    monkeypatch.setattr(s3, "PART_BYTES", 64_000)
    for name in ("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_S3_ADDRESSING_STYLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (tmp_path / "served/bucket").mkdir(parents=True)
    with serving(tmp_path / "served") as double:
        monkeypatch.setenv("AWS_ENDPOINT_URL", double.url)
        double.secret = "secret"
        yield double


@pytest.fixture
def store(double: Double) -> ObjectStore:
    return ObjectStore("s3://bucket/pre fix")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file.bin").write_bytes(DATA)
    return tmp_path / "file.bin"


def kept(double: Double) -> dict[str, bytes]:
    """What lies in the bucket."""
    bucket = double.folder / "bucket"
    return {str(p.relative_to(bucket)): p.read_bytes() for p in bucket.rglob("*") if p.is_file()}


# The examples of Amazon's own documentation (Authenticating Requests, Signature Version 4), with the keys it prints there.
EXAMPLE = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "signature"),
    [
        ("GET", "/test.txt", {"Range": "bytes=0-9"}, b"", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        (
            "PUT",
            "/test%24file.text",
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/?lifecycle=", {}, b"", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("GET", "/?max-keys=2&prefix=J", {}, b"", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_signatures_are_those_of_the_documentation(method: str, url: str, headers: dict[str, str], body: bytes, signature: str) -> None:
    signed = sign(method, HOST + url, headers, hashlib.sha256(body).hexdigest(), EXAMPLE, "us-east-1", 1369353600)
    assert signed["Authorization"].endswith(f"Signature={signature}")


def test_the_double_knows_signatures_as_amazons_own_client_makes_them(double: Double, store: ObjectStore) -> None:
    from pyarrow import fs

    where = {"endpoint_override": double.url.removeprefix("http://"), "scheme": "http", "region": "us-east-1"}
    with fs.S3FileSystem(access_key="access", secret_key="secret", session_token="token", **where).open_output_stream(
        f"bucket/{ODD}"
    ) as stream:
        stream.write(DATA)
    assert kept(double)[ODD] == DATA
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        fs.S3FileSystem(access_key="access", secret_key="other", **where).open_input_file(f"bucket/{ODD}")


def test_what_is_written_is_read_listed_and_deleted(double: Double, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    double.page = 1
    store.write(ODD, DATA)
    store.write("empty", b"")
    assert kept(double) == {f"pre fix/{ODD}": DATA, "pre fix/empty": b""}
    assert store.read(ODD) == b"".join(store.chunks(ODD)) == DATA
    assert store.read("empty") == b"".join(store.chunks("empty")) == b""
    assert store.read("nothing") is None
    assert store.sizes() == {ODD: len(DATA), "empty": 0}
    assert store.sizes("a b/") == {ODD: len(DATA)}
    store.delete([ODD, "nothing"])
    assert store.sizes() == {"empty": 0}


def test_a_store_may_be_a_whole_bucket(double: Double) -> None:
    ObjectStore("s3://bucket").write("a", b"1")
    assert kept(double) == {"a": b"1"}
    assert ObjectStore("s3://bucket/").sizes() == {"a": 1}


def test_large_files_go_in_parts(double: Double, store: ObjectStore, file: Path, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"1")
    store.upload({"large": file, "small": tmp_path / "small"})
    assert kept(double) == {"pre fix/large": DATA, "pre fix/small": b"1"}
    assert sum(method == "PUT" for method, *_ in double.requests) == 5 + 1
    assert not double.uploads


def test_a_server_takes_so_many_parts_and_no_more(double: Double, store: ObjectStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MOST_PARTS", 2)
    store.upload({"large": file})
    assert sum(method == "PUT" for method, *_ in double.requests) == 2
    assert kept(double)["pre fix/large"] == DATA


@pytest.mark.parametrize("every", [2, 3])
def test_a_store_that_throttles_is_asked_again(double: Double, store: ObjectStore, file: Path, every: int) -> None:
    double.throttle = every
    store.upload({"large": file})
    assert b"".join(store.chunks("large")) == DATA
    assert store.sizes() == {"large": len(DATA)}
    assert not double.uploads


@pytest.mark.parametrize("fault", [Fault(3, cut_after=20_000), Fault(3, lose=True), Fault(3, status=500), Fault(3, status=409)], ids=str)
def test_what_breaks_on_the_way_is_sent_again(double: Double, store: ObjectStore, file: Path, fault: Fault) -> None:
    double.faults["/bucket/pre fix/large"] = fault
    store.upload({"large": file})
    assert fault.times == 0
    assert kept(double)["pre fix/large"] == DATA


def complete(double: Double, fault: Fault) -> None:
    """Let something go wrong when an upload is completed."""

    def watch(method: str, path: str) -> None:
        if method == "POST" and double.uploads and path not in double.faults:
            double.faults[path] = fault

    double.on_request = watch


def test_an_upload_whose_last_answer_is_lost_is_done(double: Double, store: ObjectStore, file: Path) -> None:
    complete(double, Fault(1, lose=True))
    store.upload({"large": file})
    assert kept(double)["pre fix/large"] == DATA


@pytest.mark.parametrize("fault", [Fault(3, status=400, code="RequestTimeout"), Fault(3, status=403, code="RequestTimeTooSkewed")], ids=str)
def test_what_came_too_late_is_signed_anew(
    double: Double, store: ObjectStore, file: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[float] = []

    def noted(*request: Any) -> dict[str, str]:
        signed.append(request[-1])
        return sign(*request)

    monkeypatch.setattr(s3, "sign", noted)
    double.faults["/bucket/pre fix/large"] = fault
    store.upload({"large": file})
    assert kept(double)["pre fix/large"] == DATA
    assert fault.times == 0
    assert len(signed) == len(double.requests), "each of them"


def test_a_failed_upload_leaves_nothing(double: Double, store: ObjectStore, file: Path) -> None:
    complete(double, Fault(s3.ATTEMPTS, status=503))
    with pytest.raises(ConnectionError, match=r"s3://bucket/pre fix/large: the store is busy or broken \(503 Fault, 10 attempts\)"):
        store.upload({"large": file})
    assert not kept(double)
    assert not double.uploads


def test_an_upload_that_fails_behind_a_200_has_failed(double: Double, store: ObjectStore, file: Path) -> None:
    complete(double, Fault(1, status=200))
    with pytest.raises(ConnectionError, match=r"large: the store is busy or broken \(200 Fault"):
        store.upload({"large": file})
    assert not kept(double)


@pytest.mark.parametrize("at", ["PUT", "POST"])
def test_an_upload_ended_from_outside_may_succeed_later(double: Double, store: ObjectStore, file: Path, at: str) -> None:
    double.on_request = lambda method, path: double.uploads.clear() if method == at and double.uploads else None
    with pytest.raises(UploadEnded, match=r"large: the upload was ended from outside while it ran; run this again"):
        store.upload({"large": file})
    assert not kept(double)


def test_what_a_killed_upload_left_is_dropped(double: Double, store: ObjectStore) -> None:
    double.uploads = {"a": Upload("/bucket/pre fix/x y", {1: b"1"}), "b": Upload("/bucket/other", {1: b"1"})}
    store.end_uploads()
    assert list(double.uploads) == ["b"]


def test_of_many_writers_one_is_first(double: Double, store: ObjectStore) -> None:
    double.throttle = 3
    start = threading.Barrier(8)

    def write(number: int) -> bool:
        start.wait()
        return store.write_first("name", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(write, range(8)))
    assert sum(first) == 1
    assert store.read("name") == str(first.index(True)).encode()


def test_a_first_write_whose_answer_is_lost_is_first(double: Double, store: ObjectStore) -> None:
    double.faults["/bucket/pre fix/name"] = Fault(1, lose=True)
    assert store.write_first("name", b"1")
    assert not store.write_first("name", b"2")
    assert store.read("name") == b"1"


def test_an_older_store_is_asked_before(double: Double, store: ObjectStore) -> None:
    double.conditional = False
    assert store.write_first("name", b"1")
    assert not store.write_first("name", b"2")
    assert store.read("name") == b"1"


def test_a_store_that_ignores_the_condition_is_asked_after(double: Double, store: ObjectStore) -> None:
    """None of the writers writes before all have asked, or asks again before all have written."""
    double.careless = True
    together, writing = threading.Barrier(4, timeout=60), threading.Event()

    def meet(method: str, path: str) -> None:
        if method == "PUT" or writing.is_set():
            together.wait()
            writing.set()

    double.on_request = meet
    with ThreadPoolExecutor(4) as pool:
        first = list(pool.map(lambda number: store.write_first("name", b"%d" % number), range(4)))
    assert sum(first) == 1
    double.on_request = lambda method, path: None
    assert store.read("name") == b"%d" % first.index(True)


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [
        (Fault(status=403), ValueError, r"s3://bucket/pre fix/x: access is refused \(403 AccessDenied\); check AWS_ACCESS_KEY_ID"),
        (Fault(status=418), ValueError, r"pre fix/x: the store refuses the request \(418 Fault\)"),
        (Fault(status=301), ValueError, r"pre fix/x: the store refuses the request \(301 Fault\); check AWS_REGION"),
        (Fault(status=503), ConnectionError, r"pre fix/x: the store is busy or broken \(503 Fault, 10 attempts\); run this again later"),
        (
            Fault(status=409, code="OperationAborted"),
            ConnectionError,
            r"busy or broken \(409 OperationAborted, 10 attempts\); run this again",
        ),
        (Fault(status=400, code="RequestTimeout"), ConnectionError, r"busy or broken \(400 RequestTimeout, 10 attempts\); run this again"),
        (Fault(status=403, code="RequestTimeTooSkewed"), ConnectionError, r"TooSkewed, 10 attempts\); set this machine's clock"),
        (Fault(cut_after=0), ConnectionError, r"pre%20fix/x cannot be reached or was cut .*; check the network"),
    ],
)
def test_what_keeps_failing_is_an_error_that_says_what_to_do(
    double: Double, store: ObjectStore, fault: Fault, error: type[Exception], match: str
) -> None:
    double.faults["/bucket/pre fix/x"] = fault
    with pytest.raises(error, match=match):
        store.write("x", DATA)
    assert len(double.requests) == (s3.ATTEMPTS if error is ConnectionError else 1)


def test_a_bucket_that_is_not_there_is_named(double: Double) -> None:
    for ask in (lambda store: store.read("x"), lambda store: store.write("x", b"")):
        with pytest.raises(ValueError, match=rf"s3://bocket/x: {double.url} has no bucket 'bocket'; check its name and AWS_ENDPOINT_URL"):
            ask(ObjectStore("s3://bocket"))


def test_a_wrong_secret_is_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    with pytest.raises(ValueError, match=r"access is refused \(403 SignatureDoesNotMatch\)") as refused:
        store.write("x", b"1")
    assert "other" not in str(refused.value)


def test_keys_must_be_set(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ValueError, match="AWS_SECRET_ACCESS_KEY is not set"):
        store.read("x")


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    with pytest.raises(Gone, match=r"s3://bucket/pre fix/x: nothing is there \(404 NoSuchKey\)"):
        list(store.chunks("x"))


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"AWS_ENDPOINT_URL": "https://cwobject.com", "AWS_S3_ADDRESSING_STYLE": "virtual"}, "https://bucket.cwobject.com/pre%20fix/x"),
        ({"AWS_ENDPOINT_URL": "http://minio:9000"}, "http://minio:9000/bucket/pre%20fix/x"),
        ({"AWS_ENDPOINT_URL": "", "AWS_REGION": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/bucket/pre%20fix/x"),
    ],
)
def test_the_bucket_stands_where_the_server_wants_it(
    environment: dict[str, str], url: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sent(Exception):  # noqa: N818 (no error)
        """Where a request would have gone."""

    def send(method: str, url: str, *_: Any, **__: Any) -> None:
        raise Sent(url)

    monkeypatch.setattr(s3, "send", send)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Sent) as sent:
        store.read("x")
    assert str(sent.value) == url
