"""Files from an archive to a folder: what is here stays, what is cut is taken up, what is wrong never gets its name.

While a file arrives it is ``.<name>.part``, and ``.<name>.version`` beside it says which version of the remote
file its bytes are of. It takes its name when its size and checksum are right and the bytes are on disk.
"""

import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from neurofm_ml import remote
from neurofm_ml.data.sources.base import RemoteFile
from neurofm_ml.data.sources.unpack import suffix_of, unpack

#: Files that arrive at the same time.
THREADS = 4
#: Files that others are found by arrive after all others: without them a part of a recording looks like none.
_LAST = (".vhdr", ".set", ".zgroup", ".zmetadata", ".zattrs", "/zarr.json")
#: Called with the number of bytes that arrived (or, negative, that turned out to be of no use).
Progress = Callable[[int], Any]


@dataclass(frozen=True)
class Fetched:
    """What was asked for, by path under the folder: `new` arrived now, `kept` was here, `differing` was here and has
    another size than in the archive."""

    folder: Path
    new: tuple[str, ...]
    kept: tuple[str, ...]
    differing: tuple[str, ...]


def download_all(files: Sequence[RemoteFile], folder: Path) -> Fetched:
    """Bring what is not here yet. Raises ValueError or ConnectionError at the first file that cannot be brought; what
    arrived until then stays and is not asked for again."""
    _check_distinct(files)
    here = [file for file in files if target_of(file, folder).exists()]
    missing = [file for file in files if file not in here]
    _check_space(missing, folder)
    _bring(missing, folder)
    differing = [file.path for file in here if not file.unpack and file.size not in (None, (folder / file.path).stat().st_size)]
    return Fetched(folder, tuple(f.path for f in missing), tuple(f.path for f in here), tuple(differing))


def target_of(file: RemoteFile, folder: Path) -> Path:
    """Where a file ends up: at its path, or as the folder that it is unpacked to."""
    path = folder / file.path
    return path.with_name(path.name.removesuffix(suffix_of(path))) if file.unpack else path


def _check_distinct(files: Sequence[RemoteFile]) -> None:
    seen: set[str] = set()
    for file in files:
        if file.path in seen:
            raise ValueError(f"the archive has {file.path!r} twice; narrow `include` in the card.")
        seen.add(file.path)


def _check_space(files: Sequence[RemoteFile], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arrived = sum(part.stat().st_size for file in files if (part := _part(folder / file.path)).exists())
    needed, free = sum(file.size or 0 for file in files) - arrived, shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"{needed / 1e9:.1f} GB are still to come, {folder} has {free / 1e9:.1f} GB free; name another folder by --to.")


def _bring(files: Sequence[RemoteFile], folder: Path) -> None:
    stop = threading.Event()
    sizes = [file.size for file in files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar, ThreadPoolExecutor(THREADS) as threads:
        progress = _counter(bar, stop)

        def bring(file: RemoteFile) -> None:
            try:
                if not stop.is_set():
                    download(file, folder, progress)
            except _Stopped:
                pass
            except BaseException:
                stop.set()
                raise

        try:
            for wave in (False, True):
                running = [threads.submit(bring, file) for file in files if file.path.endswith(_LAST) == wave]
                for done in wait(running, return_when=FIRST_EXCEPTION).done:
                    done.result()
        finally:
            stop.set()
            threads.shutdown(cancel_futures=True)


class _Stopped(Exception):  # noqa: N818 (a request, not an error)
    """Another file failed, or the user wants to stop."""


def _counter(bar: Any, stop: threading.Event) -> Progress:
    """Moves the bar, from any thread, and ends a download that is not wanted any more."""
    lock = threading.Lock()

    def count(n: int) -> None:
        if stop.is_set():
            raise _Stopped
        with lock:
            bar.update(n)

    return count


# ---------------------------------------------------------------- one file
def download(file: RemoteFile, folder: Path, progress: Progress = lambda n: None) -> None:
    """Bring one file, unless it is here. Nothing looks complete before it is."""
    target, path = target_of(file, folder), folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _claimed(_part(path)) as part:
        if not target.exists() and not path.exists():
            _receive(file, part, progress)
            part.rename(path)
            _sync(path.parent)
        if file.unpack and not target.exists():
            unpack(path, target)
            path.unlink()


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _version(part: Path) -> Path:
    return part.with_suffix(".version")


@contextmanager
def _claimed(part: Path) -> Iterator[Path]:
    """The file that bytes arrive in, held by this process alone. Nothing stays behind when it was not needed."""
    with part.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{part} is being written by another process; wait for it, or stop it.") from None
        yield part
        part.unlink(missing_ok=True)
        _version(part).unlink(missing_ok=True)


def _receive(file: RemoteFile, part: Path, progress: Progress) -> None:
    """Fill `part` with the whole file. Bytes that turn out to be wrong are thrown away and asked for once more."""
    for last in (False, True):
        if not (file.size and part.stat().st_size == file.size):
            _transfer(file, part, progress)
        if (wrong := _wrong(file, part)) == "":
            return
        progress(-part.stat().st_size)
        os.truncate(part, 0)
        if last:
            raise ValueError(f"{file.url} arrived wrong twice: {wrong}; tell the archive, nothing was kept.")


def _transfer(file: RemoteFile, part: Path, progress: Progress) -> None:
    """Take up where `part` ends until the server has sent all; a cut after more than ever before is no failed attempt."""
    reached = part.stat().st_size
    progress(reached)
    attempts = 0
    while True:
        try:
            return _stream(file, part, progress)
        except ConnectionError:
            attempts = 1 if part.stat().st_size > reached else attempts + 1
            reached = max(reached, part.stat().st_size)
            if attempts >= remote.ATTEMPTS:
                raise
            time.sleep(remote.PAUSE_S * 2**attempts)


def _stream(file: RemoteFile, part: Path, progress: Progress) -> None:
    """One answer of the server, appended to `part` where it goes on from there, else in its place."""
    version = _version(part)
    known = version.read_text() if version.exists() else ""
    with remote.stream(file.url, part.stat().st_size, known, file.headers) as body, part.open("r+b") as out:
        if file.size is not None and body.size not in (None, file.size):
            raise ValueError(f"{file.url}: the archive lists {file.size} bytes, its server sends {body.size}; tell the archive.")
        progress(body.start - part.stat().st_size)
        out.truncate(body.start)
        version.write_text(body.version)
        out.seek(body.start)
        for chunk in body.chunks:
            out.write(chunk)
            progress(len(chunk))
        out.flush()
        os.fsync(out.fileno())


def _wrong(file: RemoteFile, path: Path) -> str:
    """What is wrong with a file that has arrived, "" when nothing is."""
    size = path.stat().st_size
    if file.size not in (None, size):
        return f"{size} bytes where the archive lists {file.size}"
    found = checksum(path, file.algorithm) if file.checksum else ""
    return "" if found == file.checksum else f"its {file.algorithm} is {found}, the archive lists {file.checksum}"


def checksum(path: Path, algorithm: str) -> str:
    """Hash of a file's content: a name of hashlib, or "git", which hashes a blob with its length before it."""
    with path.open("rb") as file:
        if algorithm != "git":
            return hashlib.file_digest(file, algorithm).hexdigest()
        header = f"blob {path.stat().st_size}\0".encode()
        return hashlib.file_digest(file, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()


def _sync(folder: Path) -> None:
    """Let the new name survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
