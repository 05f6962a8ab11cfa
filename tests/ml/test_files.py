import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml import files
from neurofm_ml.files import file_hash, git_revision, home, write_json


@pytest.fixture(autouse=True)
def neurofm_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def an_old_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.utime(path, (1, 1))
    return path


def test_hash_is_sha256(tmp_path: Path) -> None:
    path = an_old_file(tmp_path / "a", b"abc")
    assert file_hash(path) == hashlib.sha256(b"abc").hexdigest()


def test_a_hash_is_remembered_by_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = an_old_file(tmp_path / "a", b"abc")
    monkeypatch.setattr(files.time, "time_ns", lambda: 2**62)
    digest = file_hash(path)
    files._remembered.clear()  # what another process starts from
    monkeypatch.setattr(files.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert file_hash(path) == digest


def test_a_change_behind_a_kept_size_and_modification_time_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = an_old_file(tmp_path / "a", b"abc")
    monkeypatch.setattr(files.time, "time_ns", lambda: 2**62)
    before = file_hash(path)
    time.sleep(0.02)  # the clock of the file system ticks
    an_old_file(path, b"abd")
    assert file_hash(path) != before


def test_a_young_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"abc", b"abd", b"abe"):
        path.write_bytes(content)
        assert file_hash(path) == hashlib.sha256(content).hexdigest()


def test_a_torn_memory_is_skipped(tmp_path: Path, neurofm_home: Path) -> None:
    neurofm_home.mkdir()
    (neurofm_home / "hashes.txt").write_text("1:2:3:4:5 abcdef\nhalf a li")
    assert file_hash(an_old_file(tmp_path / "a", b"abc")) == hashlib.sha256(b"abc").hexdigest()


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"loss": np.float32(0.5), "n": np.int64(3)})
    with pytest.raises(AttributeError):
        write_json(path, {"loss": 1, "bad": object()})
    assert path.read_text() == '{\n "loss": 0.5,\n "n": 3\n}'


def test_home_is_the_checkout_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROFM_HOME")
    assert home() == Path(__file__).resolve().parents[2] / ".neurofm"


def test_an_image_without_a_checkout_knows_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = git_revision.__wrapped__  # past its memory
    monkeypatch.setenv("PATH", "")
    assert asked() == "unknown"
    monkeypatch.setenv("NEUROFM_REVISION", "abc")
    assert asked() == "abc"
