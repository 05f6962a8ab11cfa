"""Finished artifacts: what their result.json says, whether they are intact, which is current, and what identifies an input."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from neurofm_ml.artifacts import fetch, is_shared, read_shared, within
from neurofm_ml.config import from_dict
from neurofm_ml.files import file_hash
from neurofm_ml.jobs.spec import JobResult, JobSpec


def load_result(artifact: Path) -> JobResult:
    """The result.json of a finished artifact, here or in the store. Raises ValueError when there is none or it is damaged."""
    if (result := _result_of(artifact)) is None:
        raise ValueError(f"{artifact} holds no finished artifact (no result.json); materialise it first.")
    return result


def _result_of(artifact: Path) -> JobResult | None:
    here = is_here(artifact)
    said = None if here else read_shared(artifact, "result.json")
    if not here and said is None:
        return None
    try:
        said = said or json.loads((artifact / "result.json").read_text())
        return dataclasses.replace(from_dict(JobResult, said), path=str(artifact))
    except ValueError as error:
        raise ValueError(f"{artifact / 'result.json'} is damaged ({error}); delete {artifact} and run the job again.") from None


def load_spec(artifact: Path) -> JobSpec:
    """The job.json that a finished artifact was made from."""
    return from_dict(JobSpec, json.loads(file_of(artifact, "job.json").read_text()))


def file_of(artifact: Path, name: str) -> Path:
    """One file of a finished artifact, brought here where only the store has it."""
    if not (artifact / name).exists() and is_shared(artifact):
        fetch(artifact, [name])
    return artifact / name


def load_intact(artifact: Path) -> JobResult:
    """The result of a finished artifact whose files are, byte for byte, what was published."""
    result = load_result(artifact)
    for name, digest in result.artifacts.items():
        path = artifact / name
        if not path.exists() or file_hash(path) != digest:
            what = "has changed since it was published" if path.exists() else "is missing"
            raise ValueError(f"{path} {what}; delete {artifact} and run the job again.")
    return result


def current(home: Path) -> Path | None:
    """The current finished artifact under `home`, or None."""
    pointer = home / "current.json"
    if shared := read_shared(home, "current.json"):
        return within(home, shared["fingerprint"])
    if not pointer.exists():
        return None
    artifact = home / json.loads(pointer.read_text())["fingerprint"]
    return artifact if is_here(artifact) else None


def before(work: Path, version: str) -> Path | None:
    """The artifact that was current when the one in `work` was begun, where it is intact and the same code made it."""
    artifact = current(work.parent)
    try:
        if artifact is None or load_result(artifact).provenance["code_version"] != version:
            return None
        if not is_here(artifact):
            fetch(artifact)
        load_intact(artifact)
    except ValueError:
        return None
    return artifact


def version_of(path: Path) -> str:
    """Version of what lies at `path`, as the inputs in a result state it."""
    return identified(path)["data_version"]


def identified(path: Path) -> dict[str, str]:
    """A path with the version of what lies there: an artifact's own, or the content hash of raw files."""
    if artifact := artifact_at(path):
        return {"path": str(path), "data_version": artifact.data_version}
    if not path.exists():
        raise ValueError(f"input {path} does not exist; materialise it first, or check NEUROFM_DATA.")
    files = [path] if path.is_file() else files_of(path)
    return {"path": str(path), "data_version": content_hash({str(p.relative_to(path.parent)): file_hash(p) for p in files})}


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def content_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def is_here(artifact: Path) -> bool:
    return (artifact / "result.json").exists()


def artifact_at(path: Path) -> JobResult | None:
    """The finished artifact at `path`, intact here or in the store; None where there is none."""
    if not is_here(path):
        return _result_of(path)
    try:
        return load_intact(path)
    except ValueError:
        if not is_shared(path):
            raise
        fetch(path)
        return load_intact(path)
