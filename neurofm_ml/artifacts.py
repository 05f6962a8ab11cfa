"""Artifacts shared by machines: a local folder under NEUROFM_HOME, and its twin in the object store NEUROFM_STORE.

NEUROFM_HOME is where work is done: fast, of one machine (or of a few, on a shared volume). NEUROFM_STORE,
``s3://bucket/prefix``, is what all machines see; where it is not set, nothing here does anything. What lies
in the home at ``artifacts/shards/worm/0a1b`` lies in the store under the same name:

    <artifact>/files-<data version>/...   its files and job.json
    <artifact>/result.json                written last, and only where there is none: it makes the artifact visible
    <home of artifacts>/current.json      which fingerprint is the current one
    <working folder>/files/<sha256>       what an unfinished job would need to go on elsewhere
    <working folder>/manifest.json        which of these, under which names; written last

Files of other content have other names, so that two writers never mix theirs: the first to write
result.json (the last, where the store knows no "only where there is none") has made the artifact, the
other takes it over. That is also why there is no lease that would have to expire: a second machine
working on the same fingerprint wastes its time and harms nothing, and on a cluster there is no second
one, since the Job is named by the fingerprint.

Every file is verified by its sha256 while it arrives. In the store as in the home, what has no
result.json is not there yet: a killed transfer is taken up by the next one.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from neurofm_ml import gang
from neurofm_ml.files import file_hash, home, locked, write_json
from neurofm_ml.s3 import IN_FLIGHT, Gone, ObjectStore, UploadEnded

log = logging.getLogger(__name__)

RESULT, JOB, CURRENT = "result.json", "job.json", "current.json"
_MANIFEST = "manifest.json"


class Damaged(ValueError):  # noqa: N818 (says what happened, as Preempted does)
    """A file in the store is not what was put there."""


def twin(folder: Path) -> ObjectStore | None:
    """The place of a local folder in the shared store; None where there is no store, or the folder lies outside the home."""
    if not (url := os.environ.get("NEUROFM_STORE")):
        return None
    if not re.match("s3://[^/]", url):
        raise ValueError(f"NEUROFM_STORE is {url!r}; it must be s3://bucket/prefix, or not be set.")
    inside = folder.resolve()
    return ObjectStore(f"{url.rstrip('/')}/{inside.relative_to(home()).as_posix()}") if inside.is_relative_to(home()) else None


def read_shared(folder: Path, name: str) -> dict[str, Any] | None:
    """A JSON file of a folder as the store has it; None where it has none."""
    store = twin(folder)
    return _read(store, name) if store else None


def _read(store: ObjectStore, name: str) -> dict[str, Any] | None:
    said = store.read(name)
    try:
        return None if said is None else dict(json.loads(said))
    except ValueError as error:
        raise ValueError(f"{store.url}/{name} is damaged ({error}); delete {store.url}/ and run the job again.") from None


# ---------------------------------------------------------------- finished artifacts
def is_shared(artifact: Path) -> bool:
    """Whether the store holds the finished artifact."""
    return read_shared(artifact, RESULT) is not None


def publish(artifact: Path) -> bool:
    """Bring a finished local artifact into the store; False when the store has it with other content, which then counts."""
    if (store := twin(artifact)) is None:
        return True
    said = (artifact / RESULT).read_bytes()
    result = json.loads(said)
    known = _read(store, RESULT)
    if known is None:
        _upload(store, artifact, result)
        known = result if store.write_first(RESULT, said) else _read(store, RESULT)
        assert known is not None
        if known is result:  # where it replaced another's, which tidied up before: again what is missing
            _upload(store, artifact, result)
        _tidy(store, _folder(known))
    return _folder(known) == _folder(result)


def _upload(store: ObjectStore, artifact: Path, result: Mapping[str, Any]) -> None:
    """Those files that the store does not have yet."""
    there = store.sizes(folder := _folder(result))
    files = {folder + name: artifact / name for name in (*result["artifacts"], JOB)}
    try:
        store.upload({name: path for name, path in files.items() if there.get(name) != path.stat().st_size})
    except UploadEnded:  # another machine published the artifact meanwhile, and tidied up
        if store.read(RESULT) is None:
            raise


def _tidy(store: ObjectStore, folder: str) -> None:
    """Remove what killed or slower uploads left of an artifact whose files are in `folder`."""
    store.delete([name for name in store.sizes() if name != RESULT and not name.startswith(folder)])
    store.end_uploads()


def fetch(artifact: Path, names: Iterable[str] | None = None) -> None:
    """Bring files of an artifact from the store: these, or all of them and then result.json, which makes it complete here."""
    store = twin(artifact)
    result = _read(store, RESULT) if store else None
    if store is None or result is None:
        raise ValueError(f"{artifact} is neither here nor in the store (NEUROFM_STORE); materialise it first.")
    digests = {**result["artifacts"], JOB: None}
    wanted = {f"{_folder(result)}{name}": (within(artifact, name), digests[name]) for name in (digests if names is None else names)}
    artifact.mkdir(parents=True, exist_ok=True)
    with locked(artifact.with_name(f".{artifact.name}.fetch.lock")), ThreadPoolExecutor(IN_FLIGHT, "fetch") as pool:
        list(pool.map(lambda name: _bring(store, name, *wanted[name]), wanted))
        if names is None:
            write_json(artifact / RESULT, result)


def files_url(artifact: Path) -> str:
    """URL under which the files of a finished artifact lie in the store."""
    store = twin(artifact)
    result = _read(store, RESULT) if store else None
    if store is None or result is None:
        raise ValueError(
            f"{artifact} is not in the store (NEUROFM_STORE is {os.environ.get('NEUROFM_STORE')!r}); materialise it with a store."
        )
    return f"{store.url}/{_folder(result)}".rstrip("/")


def _folder(result: Mapping[str, Any]) -> str:
    return f"files-{result['data_version']}/"


def within(folder: Path, name: str) -> Path:
    """Where a file goes that the store names."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} is named by the store and lies outside {folder}; do not use what is there.")
    return path


def _bring(store: ObjectStore, name: str, path: Path, digest: str | None) -> None:
    """One file from the store, unless it is here; `digest` is its sha256, None for job.json, which no result describes."""
    if digest and path.exists() and file_hash(path) == digest:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, found = path.with_name(f".{path.name}.part"), hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for chunk in store.chunks(name):
                found.update(chunk)
                file.write(chunk)
        if digest and found.hexdigest() != digest:
            raise Damaged(
                f"{store.url}/{name} is damaged: it does not have the sha256 it was published with; "
                f"delete {store.url}/ and run the job again."
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def share_current(home: Path, fingerprint: str) -> None:
    """Tell all machines which artifact is the current one."""
    if store := twin(home):
        store.write(CURRENT, json.dumps({"fingerprint": fingerprint}).encode())


# ---------------------------------------------------------------- working folders
def save_work(inside: Path) -> None:
    """Bring the working folder that `inside` lies in to the store, so that another machine can go on from here.

    For a job to call whenever it has saved its state; of a gang, the first process does it. A store that
    does not answer, or refuses, is no reason to stop a training whose checkpoint is safe on this machine.
    """
    work = next((path for path in (inside, *inside.parents) if path.name.startswith("work-")), None)
    store = twin(work) if work and gang.rank() == 0 else None
    if work is None or store is None:
        return
    try:
        _save(store, work)
    except (ConnectionError, ValueError, FileNotFoundError) as error:  # FileNotFoundError: another process of the gang dropped a checkpoint
        log.warning("%s is not in the store as it is now (%s); the next checkpoint tries again.", work, error)


def _save(store: ObjectStore, work: Path) -> None:
    files = {path.relative_to(work).as_posix(): (path, file_hash(path)) for path in _state(work)}
    there = store.sizes("files/")
    store.upload({name: path for path, digest in files.values() if (name := f"files/{digest}") not in there})
    manifest = {"saved": _newest(work), "files": {name: digest for name, (_, digest) in files.items()}}
    store.write(_MANIFEST, json.dumps(manifest).encode())
    store.delete(sorted(there.keys() - {f"files/{digest}" for _, digest in files.values()}))


def restore_work(work: Path) -> None:
    """Take over the working folder that another machine saved, where it is newer than what is here.

    A file that is damaged or gone is left out with a warning: the job finds an older checkpoint, or begins anew.
    Where the store fails or refuses, what is here and there stays as it is.
    """
    store = twin(work)
    manifest = _read(store, _MANIFEST) if store else None
    if store is None or manifest is None or manifest["saved"] <= _newest(work):
        return
    partial = work.with_name(f".{work.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, digest in manifest["files"].items():
        try:
            _bring(store, f"files/{digest}", within(partial, name), digest)
        except (Gone, Damaged) as error:
            log.warning("%s Going on without it.", error)
    shutil.rmtree(work, ignore_errors=True)
    partial.rename(work)


def is_saved(work: Path) -> bool:
    """Whether the store holds a working folder."""
    store = twin(work)
    return store is not None and store.read(_MANIFEST) is not None


def forget_work(work: Path) -> None:
    """Remove a saved working folder, whose artifact is published."""
    if store := twin(work):
        store.delete([name for name in store.sizes() if name != _MANIFEST])
        store.end_uploads()
        store.delete([_MANIFEST])  # last: by it the next process sees what a killed one did not remove


def _state(work: Path) -> list[Path]:
    """The files of a working folder, but for job.json, which is written anew, and what is half-written."""
    files = (path for path in sorted(work.rglob("*")) if path.is_file())
    return [path for path in files if path.name != JOB and not any(part.startswith(".") for part in path.relative_to(work).parts)]


def _newest(work: Path) -> int:
    """When a working folder was last written to, nanoseconds since 1970; 0 when there is none."""
    return max((path.stat().st_mtime_ns for path in _state(work)), default=0)
