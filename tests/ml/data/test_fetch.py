"""Downloads that resume, verify and never look complete before they are; the command that starts them."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from doubles import Double, Fault, serving

from neurofm_ml import remote
from neurofm_ml.data import __main__ as cli
from neurofm_ml.data import sources
from neurofm_ml.data.sources import Fetched, RemoteFile, Source
from neurofm_ml.data.sources import download as downloads
from neurofm_ml.data.sources.download import checksum, download, download_all
from neurofm_ml.data.sources.unpack import unpack

DATA = np.random.default_rng(0).bytes(200_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote/a.bin").write_bytes(DATA)
    with serving(tmp_path / "remote") as double:
        yield double


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def offered(double: Double) -> RemoteFile:
    """What an archive says of the file that the double serves."""
    return RemoteFile(f"{double.url}/a.bin", "sub/a.bin", len(DATA), SHA, "sha256")


def visible(folder: Path) -> dict[str, bytes]:
    """What looks like a file of the dataset: everything that is not hidden."""
    paths = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob(".*"))


def cut_for_good(double: Double, file: RemoteFile, folder: Path) -> None:
    """A download that fails after 50,000 bytes, from a server that is then in order again."""
    double.faults["/a.bin"], double.ranges = Fault(cut_after=50_000), False
    with pytest.raises(ConnectionError, match=r"a.bin cannot be reached or was cut"):
        download(file, folder)
    double.ranges = True
    double.faults.clear()
    double.requests.clear()


# ---------------------------------------------------------------- one file
@pytest.mark.parametrize("known", ["all", "size", "nothing"])
def test_a_file_arrives_whole(offered: RemoteFile, here: Path, known: str) -> None:
    size, digest = len(DATA) if known != "nothing" else None, SHA if known == "all" else ""
    download(replace(offered, size=size, checksum=digest), here)
    assert visible(here) == {"sub/a.bin": DATA}
    assert hidden(here) == []


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("md5", hashlib.md5(b"hello\n").hexdigest()),
        ("sha256", hashlib.sha256(b"hello\n").hexdigest()),
        ("git", "ce013625030ba8dba906f756967f9e9ca394464a"),  # git hash-object of the same bytes
    ],
)
def test_checksums_are_those_that_archives_state(tmp_path: Path, algorithm: str, digest: str) -> None:
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert checksum(tmp_path / "hello", algorithm) == digest


def test_a_cut_download_goes_on_where_it_stopped(double: Double, offered: RemoteFile, here: Path) -> None:
    double.faults["/a.bin"] = Fault(3, cut_after=50_000)
    download(offered, here)
    assert visible(here) == {"sub/a.bin": DATA}
    assert double.got("/a.bin") == ["", "bytes=50000-", "bytes=100000-", "bytes=150000-"]
    assert double.sent == len(DATA)


@pytest.mark.parametrize("without", ["ranges", "etags"])
def test_without_ranges_a_cut_download_starts_over(double: Double, offered: RemoteFile, here: Path, without: str) -> None:
    setattr(double, without, False)
    double.faults["/a.bin"] = Fault(1, cut_after=50_000)
    download(offered, here)
    assert visible(here) == {"sub/a.bin": DATA}


def test_a_download_starts_over_when_the_file_changed_in_between(double: Double, offered: RemoteFile, here: Path) -> None:
    cut_for_good(double, replace(offered, checksum=""), here)
    other = bytes(len(DATA))
    (double.folder / "a.bin").write_bytes(other)
    download(replace(offered, checksum=""), here)
    assert visible(here) == {"sub/a.bin": other}


def test_a_download_that_is_cut_for_good_leaves_no_file_and_is_taken_up_later(double: Double, offered: RemoteFile, here: Path) -> None:
    cut_for_good(double, offered, here)
    assert visible(here) == {}
    download(offered, here)
    assert double.got("/a.bin") == ["bytes=50000-"]
    assert visible(here) == {"sub/a.bin": DATA}


def test_a_slow_body_is_waited_for_and_a_silent_one_is_asked_again(
    double: Double, offered: RemoteFile, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.faults["/a.bin"] = Fault(1, pause_s=0.005)
    download(offered, here)
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.05)
    double.faults["/a.bin"] = Fault(1, pause_s=0.5)
    download(replace(offered, path="again.bin"), here)
    assert visible(here) == {"sub/a.bin": DATA, "again.bin": DATA}


def test_one_wrong_byte_is_found_and_the_file_is_asked_for_again(double: Double, offered: RemoteFile, here: Path) -> None:
    double.faults["/a.bin"] = Fault(1, flip=77)
    download(offered, here)
    assert visible(here) == {"sub/a.bin": DATA}


@pytest.mark.parametrize(
    ("change", "fault", "error", "match"),
    [
        ({}, Fault(flip=77), ValueError, r"a.bin arrived wrong twice: its sha256 is .*, the archive lists"),
        ({"checksum": "0" * 32, "algorithm": "md5"}, None, ValueError, "arrived wrong twice: its md5 is"),
        ({"size": 7}, None, ValueError, "the archive lists 7 bytes, its server sends 200000"),
        ({}, Fault(status=403), ValueError, r"access is refused \(403\); check that the keys"),
        ({}, Fault(status=404), ValueError, r"nothing is there \(404\)"),
        ({}, Fault(status=503), ConnectionError, r"busy or broken \(503, 3 attempts\); run this again later"),
        ({}, Fault(cut_after=0), ConnectionError, "cannot be reached or was cut"),
    ],
)
def test_what_cannot_be_right_never_gets_its_name(
    double: Double, offered: RemoteFile, here: Path, change: dict[str, object], fault: Fault | None, error: type[Exception], match: str
) -> None:
    if fault:
        double.faults["/a.bin"] = fault
    with pytest.raises(error, match=match):
        download(replace(offered, **change), here)  # type: ignore[arg-type]
    assert visible(here) == {}


@pytest.mark.parametrize("left", [DATA, DATA[:1000], DATA + b"more", b""])
@pytest.mark.parametrize("size", [len(DATA), None])
def test_whatever_a_killed_download_left_the_file_arrives(
    offered: RemoteFile, double: Double, here: Path, left: bytes, size: int | None
) -> None:
    (here / "sub").mkdir(parents=True)
    (here / "sub/.a.bin.part").write_bytes(left)
    (here / "sub/.a.bin.version").write_text(f'"{hashlib.md5(DATA).hexdigest()}"')
    download(replace(offered, size=size), here)
    assert visible(here) == {"sub/a.bin": DATA}
    assert hidden(here) == []


def test_two_processes_do_not_write_one_file(offered: RemoteFile, here: Path) -> None:
    part = here / "sub/.a.bin.part"
    part.parent.mkdir(parents=True)
    with downloads._claimed(part), pytest.raises(ValueError, match="is being written by another process"):
        download(offered, here)


KILLED = """
import sys
from pathlib import Path
from neurofm_ml.data.sources import RemoteFile
from neurofm_ml.data.sources.download import download_all
download_all([RemoteFile(sys.argv[1] + "/a.bin", "a.bin", int(sys.argv[2]), sys.argv[3], "sha256")], Path(sys.argv[4]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_nothing_that_looks_complete(double: Double, here: Path, how: signal.Signals) -> None:
    double.faults["/a.bin"] = Fault(1, pause_s=0.1, piece=1 << 12)
    command = [sys.executable, "-c", KILLED, double.url, str(len(DATA)), SHA, str(here)]
    # A shell that starts tests in the background has them ignore SIGINT, and children inherit that.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    part = here / ".a.bin.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.communicate()
    arrived = part.stat().st_size
    assert 0 < arrived < len(DATA)
    assert visible(here) == {}
    double.requests.clear()
    subprocess.run(command, check=True)
    assert visible(here) == {"a.bin": DATA}
    assert double.got("/a.bin") == [f"bytes={arrived}-"]


# ---------------------------------------------------------------- many files
def test_what_is_here_is_kept_and_named_when_it_differs(offered: RemoteFile, double: Double, here: Path) -> None:
    (here / "sub").mkdir(parents=True)
    (here / "sub/mine.bin").write_bytes(b"mine")
    (here / "sub/same.bin").write_bytes(DATA)
    files = [offered, replace(offered, path="sub/mine.bin"), replace(offered, path="sub/same.bin")]
    assert download_all(files, here) == Fetched(here, ("sub/a.bin",), ("sub/mine.bin", "sub/same.bin"), ("sub/mine.bin",))
    assert visible(here) == {"sub/a.bin": DATA, "sub/mine.bin": b"mine", "sub/same.bin": DATA}
    assert len(double.got("/a.bin")) == 1


def test_many_files_arrive_together_and_headers_come_last(double: Double, offered: RemoteFile, here: Path) -> None:
    names = ["head.vhdr", *(f"{i}.eeg" for i in range(20)), "x.zarr/.zgroup", "x.zarr/0"]
    for name in names:
        double.routes[f"/{name}"] = name.encode()
    download_all([RemoteFile(f"{double.url}/{name}", name) for name in names], here)
    assert visible(here) | {"x.zarr/.zgroup": b"x.zarr/.zgroup"} == {name: name.encode() for name in names}
    assert {path for _, path, _ in double.requests[-2:]} == {"/head.vhdr", "/x.zarr/.zgroup"}


def test_one_failure_stops_the_others_and_what_arrived_stays(double: Double, offered: RemoteFile, here: Path) -> None:
    files = [offered, *(RemoteFile(f"{double.url}/none{i}", f"none{i}") for i in range(100))]
    with pytest.raises(ValueError, match=r"none\d+: nothing is there \(404\)"):
        download_all(files, here)
    assert len(double.requests) <= 2 * downloads.THREADS
    assert set(visible(here)) <= {"sub/a.bin"}


def test_a_full_disk_is_seen_before_anything_arrives(double: Double, offered: RemoteFile, here: Path) -> None:
    with pytest.raises(ValueError, match=r"1000000.0 GB are still to come, .* GB free; name another folder by --to"):
        download_all([replace(offered, size=10**15)], here)
    assert double.requests == []


def test_a_name_taken_twice_is_refused(offered: RemoteFile, here: Path) -> None:
    with pytest.raises(ValueError, match=r"has 'sub/a.bin' twice"):
        download_all([offered, offered], here)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../a", "a/../../b", "a/..", "..\\a", "C:/a", "a//b", "./a", "a\0b"])
def test_a_name_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="it is refused"):
        RemoteFile("http://host/a", path)


# ---------------------------------------------------------------- zip and tar
def make_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def make_tar(members: dict[str, bytes], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            packed.addfile(info)
    return buffer.getvalue()


MEMBERS = {"s1/a.mat": b"a", "s1/deep/b.mat": b"b"}


@pytest.mark.parametrize(("name", "data"), [("s1.zip", make_zip(MEMBERS)), ("s1.tar.gz", make_tar(MEMBERS))])
def test_a_packed_file_becomes_a_folder(double: Double, here: Path, name: str, data: bytes) -> None:
    double.routes[f"/{name}"] = data
    file = RemoteFile(f"{double.url}/{name}", name, len(data), hashlib.md5(data).hexdigest(), "md5", unpack=True)
    assert download_all([file], here).new == (name,)
    assert visible(here) == MEMBERS
    assert hidden(here) == []
    assert download_all([file], here).kept == (name,)
    assert len(double.requests) == 1


def test_a_packed_file_that_was_not_unpacked_yet_is_unpacked(double: Double, here: Path) -> None:
    here.mkdir()
    (here / "s1.zip").write_bytes(make_zip({"a.mat": b"a"}))
    (here / ".s1.unpacking").mkdir()
    (here / ".s1.unpacking/old").write_text("from a killed process")
    download_all([RemoteFile(f"{double.url}/s1.zip", "s1.zip", unpack=True)], here)
    assert visible(here) == {"s1/a.mat": b"a"}
    assert double.requests == []


BAD = [
    ("x.zip", make_zip({"../evil": b"x"}), ValueError, r"leaves its folder; it is refused"),
    ("x.zip", make_zip({"/etc/evil": b"x"}), ValueError, "no plain path"),
    ("x.zip", make_zip(MEMBERS)[:-30], ValueError, "x.zip is damaged .* was deleted; run this again"),
    ("x.tar.gz", make_tar({"../evil": b"x"}), ValueError, "is damaged .*outside the destination"),
    ("x.tar.gz", make_tar({}, link="/etc/passwd"), ValueError, "is damaged .*absolute path"),
    ("x.tar.gz", make_tar(MEMBERS)[:-20], ValueError, "is damaged"),
    ("x.rar", b"", ValueError, r"is none of .*\.zip; unpack it by hand"),
]


@pytest.mark.parametrize(("name", "data", "error", "match"), BAD, ids=range(len(BAD)))
def test_a_packed_file_that_is_wrong_becomes_no_folder(tmp_path: Path, name: str, data: bytes, error: type[Exception], match: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / name).write_bytes(data)
    with pytest.raises(error, match=match):
        download_all([RemoteFile("http://127.0.0.1:9/x", name, unpack=True)], home)
    assert not (home / "x").exists()
    assert {p.name for p in tmp_path.rglob("*")} & {"evil", "link"} == set()


def test_a_packed_file_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.zip").write_bytes(make_zip(MEMBERS))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1}))
    with pytest.raises(ValueError, match="unpacks to"):
        unpack(tmp_path / "x.zip", tmp_path / "x")


# ---------------------------------------------------------------- the command
CARD = {
    "name": "mine", "title": "Mine", "species": "Mus musculus", "licence": "CC0", "source": "https://lab.example/mine", "reader": "arrays",
    "root": "lab/mine", "pattern": "sub/{id}.bin", "signals": {"lfp": {"modality": "lfp", "sfreq": 100}}, "grid_hz": 10, "window_s": 1,
    "stride_s": 1,
}  # fmt: skip


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the card `mine`; NEUROFM_DATA is an empty folder in which the card's root is."""
    (tmp_path / "data/lab/mine").mkdir(parents=True)
    (tmp_path / "cards").mkdir()
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))

    def write(**changes: object) -> None:
        (tmp_path / "cards/mine.yaml").write_text(yaml.safe_dump({**CARD, **changes}))

    return write


@pytest.fixture
def toy(offered: RemoteFile, monkeypatch: pytest.MonkeyPatch) -> list[RemoteFile]:
    """Files that the archive "zenodo" lists in these tests."""
    files = [offered]
    monkeypatch.setitem(
        sources.SOURCES._members,
        "zenodo",
        Source(lambda archive: [f for f in files if sources.base.is_wanted(f.path, archive)], "sign at X."),
    )
    return files


ARCHIVE = {"adapter": "zenodo", "id": "7", "gigabytes": 0.5}


@pytest.mark.usefixtures("toy")
def test_fetch_brings_a_dataset_and_then_it_is_here(card: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card(archive=ARCHIVE)
    assert cli.main(["datasets"]) == 0
    assert next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mine")).split() == [
        "mine", "lfp", "Mus", "musculus", "0.50", "CC0", "no;", "fetch", "mine", "(sign", "at", "X.", "first)",
    ]  # fmt: skip
    assert cli.main(["fetch", "mine"]) == 0
    assert capsys.readouterr().out == f"mine: 1 files fetched, 0 were here, in {tmp_path / 'data/lab/mine'}\n"
    assert (tmp_path / "data/lab/mine/sub/a.bin").read_bytes() == DATA
    assert cli.main(["fetch", "mine"]) == 0
    assert "0 files fetched, 1 were here" in capsys.readouterr().out
    cli.main(["datasets"])
    assert next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mine")).split()[-1] == "yes"


@pytest.mark.usefixtures("toy")
def test_fetch_goes_where_it_is_told(card: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card(archive=ARCHIVE)
    assert cli.main(["fetch", "mine", "--to", str(tmp_path / "else")]) == 0
    assert capsys.readouterr().out.endswith(f"export NEUROFM_DATA={tmp_path / 'else'}\n")
    assert visible(tmp_path / "else") == {"lab/mine/sub/a.bin": DATA}
    assert cli.main(["fetch", "zenodo:7@2", "--to", str(tmp_path / "bare")]) == 0
    assert visible(tmp_path / "bare") == {"sub/a.bin": DATA}


def test_fetch_says_what_differs_and_what_the_card_does_not_find(
    card: Callable[..., None], toy: list[RemoteFile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card(archive=ARCHIVE, pattern="{id}.edf")
    (tmp_path / "data/lab/mine/sub").mkdir(parents=True)
    (tmp_path / "data/lab/mine/sub/a.bin").write_bytes(b"mine")
    assert cli.main(["fetch", "mine"]) == 0
    said = capsys.readouterr().err
    assert "sub/a.bin has another size than in the archive; it was kept" in said
    assert "the card still does not find what it looks for" in said


@pytest.mark.parametrize(
    ("words", "code", "match"),
    [
        (["fetch", "nine"], 2, "Unknown dataset 'nine'. Did you mean 'mine'?"),
        (["fetch", "simulation"], 2, "simulation needs no files: it is made when it is read."),
        (["fetch", "abide1_phenotype"], 2, "abide1_phenotype names no archive; get its files from http"),
        (["fetch", "laird"], 2, "laird names no archive; get its files from http"),
        (["fetch", "zenodoo:7", "--to", "x"], 2, "Unknown archive 'zenodoo'. Did you mean 'zenodo'?"),
        (["fetch", "zenodo:7"], 2, "say where the files of zenodo:7 go by --to DIR"),
        (["fetch", "mine", "--include", "*.edf"], 2, "zenodo 7: no file matches *.edf; correct id, version or include. Access: sign at X."),
    ],
)
@pytest.mark.usefixtures("toy")
def test_a_wrong_call_is_one_line(
    card: Callable[..., None], words: list[str], code: int, match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card(archive=ARCHIVE)
    assert cli.main(words) == code
    said = capsys.readouterr().err
    assert match in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "code", "match"),
    [
        (
            Fault(status=403),
            2,
            r"zenodo 7: .*access is refused (403); check that the keys are set and the data's terms are signed. Access: sign at X.",
        ),
        (Fault(status=503), 1, "zenodo 7: "),
    ],
)
@pytest.mark.usefixtures("toy")
def test_a_failed_fetch_names_the_remedy(
    card: Callable[..., None], double: Double, fault: Fault, code: int, match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card(archive=ARCHIVE)
    double.faults["/a.bin"] = fault
    assert cli.main(["fetch", "mine"]) == code
    said = capsys.readouterr().err
    assert all(part in said for part in match.split(".*"))
    assert said.count("\n") == 1


def test_where_to_is_asked_for_when_nothing_says_it(
    card: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card(archive=ARCHIVE)
    monkeypatch.delenv("NEUROFM_DATA")
    assert cli.main(["fetch", "eegmmidb"]) == 2
    assert "say where the files of eegmmidb go: set NEUROFM_DATA, or give --to DIR" in capsys.readouterr().err
    assert cli.main(["fetch", "mine", "--to", str(tmp_path)]) == 2
    assert "leave --to out" in capsys.readouterr().err


def test_the_command_loads_nothing_heavy() -> None:
    code = "import sys, neurofm_ml.data.__main__ as m; m.main(['datasets']); print(sorted({'torch', 'mne', 'pandas', 'pynwb'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    assert "simulation " in shown
