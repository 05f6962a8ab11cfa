"""Files everything else stands on: where artifacts live, whole-or-nothing JSON, locks, content hashes, the commit of the code.

A content hash is remembered across processes under `home()`, so that asking whether hundreds of
raw files have changed costs one `stat` each.
"""

import fcntl
import functools
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: A file younger than this may still change without its times telling, so its hash is not remembered.
SETTLED_NS = 2_000_000_000

_remembered: dict[Path, dict[str, str]] = {}


def home() -> Path:
    """Where artifacts, Dagster's storage and remembered hashes live: NEUROFM_HOME, else .neurofm in the checkout
    (where the package is installed without one, in the working directory)."""
    return _home(os.environ.get("NEUROFM_HOME", ""), os.getcwd())


@functools.cache
def _home(given: str, cwd: str) -> Path:
    """Asked for with every content hash."""
    checkout = Path(__file__).parents[1]
    default = (checkout if (checkout / "pyproject.toml").exists() else Path(cwd)) / ".neurofm"
    return Path(cwd, given or default).resolve()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part. numpy scalars become numbers."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with partial.open("w") as file:
        json.dump(value, file, indent=1, default=lambda scalar: scalar.item())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process, and one thread, at a time; the lock dies with its holder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """sha256 of what a file holds now, read from its first byte to its last."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's content, read only when it may have changed.

    Remembered under the file's identity, size and times. The change time cannot be set by hand, so a
    byte flipped behind a kept modification time is seen too.
    """
    stat = path.stat()
    key = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
    memory = home() / "hashes.txt"
    known = _known(memory)
    if key in known:
        return known[key]
    digest = sha256(path)
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED_NS:
        known[key] = digest
        memory.parent.mkdir(parents=True, exist_ok=True)
        with memory.open("a") as file:
            file.write(f"{key} {digest}\n")  # one short write to an appended file: processes do not mix lines
    return digest


def _known(memory: Path) -> dict[str, str]:
    """Hashes remembered in the file `memory`, read once per process; a line torn by a kill is skipped."""
    if memory not in _remembered:
        lines = memory.read_text().splitlines() if memory.exists() else []
        pairs = (line.split() for line in lines)
        _remembered[memory] = {p[0]: p[1] for p in pairs if len(p) == 2 and len(p[1]) == 64}
    return _remembered[memory]


@functools.cache
def git_revision() -> str:
    """Commit of the code that runs, with "+" when the tree has changes: that of the checkout, or, in an image without
    one, NEUROFM_REVISION; else "unknown"."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("NEUROFM_REVISION", "unknown")
