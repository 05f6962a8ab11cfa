"""The one entry point for all heavy work: ``run(spec)``, and ``python -m neurofm_ml.jobs job.json``.

A test calls `run` in process, a subprocess runs it on a workstation, a pod on a GPU node: same
function, same ``job.json``, same ``result.json``. Nothing is computed twice: a spec has a
fingerprint (job, config, data versions of the inputs, code version); a finished artifact with the
same fingerprint is returned as it is, an unfinished one is taken up in the working folder that
the fingerprint names, and what is published is complete by construction.

    <out>/<fingerprint>/          a finished artifact: its files, job.json, result.json
    <out>/work-<fingerprint>/     the same while it is being made
    <out>/current.json            which fingerprint is the current one
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neurofm_ml import presets
from neurofm_ml.config import config, from_dict, to_dict
from neurofm_ml.registry import Registry
from neurofm_ml.types import Report

Inputs = Mapping[str, list[Path]]
EXIT_BAD_INPUT = 2
EXIT_PREEMPTED = 75


class Preempted(Exception):  # noqa: N818 (a request, not an error)
    """Raised by a job that was asked to stop and can be resumed from its working folder."""


@config
class JobSpec:
    """What to run: `inputs` maps a role to artifact folders or raw files, `out` is the artifact's home."""

    job: str
    config: dict[str, Any]
    inputs: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    out: str


@config
class JobResult:
    """What came of it. `data_version` is a hash of the artifact's content, `artifacts` its files' sha256."""

    job: str
    fingerprint: str
    data_version: str
    path: str
    reused: bool
    seconds: float
    metrics: dict[str, Any]
    checks: tuple[dict[str, Any], ...]
    shown: dict[str, str]
    artifacts: dict[str, str]
    inputs: dict[str, tuple[dict[str, str], ...]]
    provenance: dict[str, str]

    @property
    def failed(self) -> list[str]:
        """Names of the blocking checks that did not pass."""
        return [c["name"] for c in self.checks if not c["passed"] and c["severity"] == "error"]


@dataclasses.dataclass(frozen=True)
class Job:
    """A job's config class, its function `(config, inputs, out) -> Report`, and its code version.

    `version` goes into the fingerprint: raise it when the same inputs would give other results."""

    config: type
    function: Callable[[Any, Inputs, Path], Report]
    version: str


JOBS: Registry[Job] = Registry("job")


def job(name: str, config_class: type, version: str) -> Callable[[Callable[..., Report]], Callable[..., Report]]:
    """Decorator that registers a job function."""

    def add(function: Callable[..., Report]) -> Callable[..., Report]:
        JOBS.add(name, Job(config_class, function, version))
        return function

    return add


# ---------------------------------------------------------------- what there is to run
# Imports stand inside: a process that only plans work must not pay for torch.


@job("ingest", presets.IngestConfig, "1")
def ingest(cfg: presets.IngestConfig, inputs: Inputs, out: Path) -> Report:
    """Raw files of a dataset -> recordings."""
    from neurofm_ml.data.ingest import ingest

    return ingest(cfg, inputs["raw"], out)


@job("assess_quality", presets.QualityConfig, "1")
def assess_quality(cfg: presets.QualityConfig, inputs: Inputs, out: Path) -> Report:
    """Recordings -> quality table and blocking checks."""
    from neurofm_ml.data.quality import assess

    return assess(cfg, inputs["recordings"][0], out)


@job("write_shards", presets.ShardsConfig, "1")
def write_shards(cfg: presets.ShardsConfig, inputs: Inputs, out: Path) -> Report:
    """Recordings -> windows, splits, shards."""
    from neurofm_ml.data.windows import shard_recordings

    return shard_recordings(cfg, inputs["recordings"][0], out)


@job("fit_scaler", presets.ScalerConfig, "1")
def fit_scaler(cfg: presets.ScalerConfig, inputs: Inputs, out: Path) -> Report:
    """Training windows of every dataset with this modality -> mean and deviation per channel."""
    from neurofm_ml.data.scaler import fit

    return fit(cfg, inputs["shards"], out)


@job("read_foci", presets.FociConfig, "1")
def read_foci(cfg: presets.FociConfig, inputs: Inputs, out: Path) -> Report:
    """A corpus of coordinates -> one table of peaks."""
    from neurofm_ml.data.foci import ingest_foci

    return ingest_foci(cfg, out)


@job("pretrain", presets.PretrainConfig, "1")
def pretrain(cfg: presets.PretrainConfig, inputs: Inputs, out: Path) -> Report:
    """Shards and scalers -> pretrained checkpoint."""
    from neurofm_ml.training.pretrain import pretrain

    return pretrain(cfg, inputs["shards"], inputs["scaler"], out)


@job("adapt", presets.AdaptConfig, "1")
def adapt(cfg: presets.AdaptConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained checkpoint and labelled shards -> fine-tuned decoders, one per recording."""
    from neurofm_ml.training.adapt import adapt

    return adapt(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("fit_baselines", presets.BaselinesConfig, "1")
def fit_baselines(cfg: presets.BaselinesConfig, inputs: Inputs, out: Path) -> Report:
    """Labelled shards of one dataset -> predictions and scores of the tuned baselines."""
    from neurofm_ml.evaluation.baselines import fit_baselines

    return fit_baselines(cfg, inputs["shards"][0], inputs["scaler"], out)


@job("score", presets.ScoreConfig, "1")
def score(cfg: presets.ScoreConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained and adapted checkpoints, labelled shards, baselines -> the scores table."""
    from neurofm_ml.evaluation.score import score

    return score(cfg, inputs["pretrained"][0], inputs["adapted"][0], inputs["shards"], inputs["scaler"], inputs["baselines"], out)


@job("export_onnx", presets.OnnxConfig, "1")
def export_onnx(cfg: presets.OnnxConfig, inputs: Inputs, out: Path) -> Report:
    """Adapted decoders -> ONNX files, each compared with torch."""
    from neurofm_ml.release.onnx import export

    return export(cfg, inputs["adapted"][0], out)


@job("write_card", presets.CardConfig, "1")
def write_card(cfg: presets.CardConfig, inputs: Inputs, out: Path) -> Report:
    """Scores and provenance -> the model card."""
    from neurofm_ml.release.card import write

    return write(cfg, inputs["scores"][0], inputs["pretrained"][0], inputs["adapted"][0], out)


@job("bundle", presets.BundleConfig, "1")
def bundle(cfg: presets.BundleConfig, inputs: Inputs, out: Path) -> Report:
    """Checkpoints, ONNX, scores, card -> one release folder with a manifest."""
    from neurofm_ml.release.bundle import bundle

    return bundle(cfg, inputs["adapted"][0], inputs["onnx"][0], inputs["scores"][0], inputs["model_card"][0], out)


# ---------------------------------------------------------------- running
def run(spec: JobSpec) -> JobResult:
    """Find the finished artifact of `spec`, or compute and publish it.

    Raises ValueError for a wrong job, config or input. Whatever happens, a half-made artifact is
    never visible under its final name.
    """
    entry = JOBS[spec.job]
    cfg: Any = from_dict(entry.config, spec.config)
    inputs = {role: [_described(Path(p)) for p in paths] for role, paths in spec.inputs.items()}
    fingerprint = _fingerprint(spec, to_dict(cfg), inputs, entry.version)
    home = Path(spec.out)
    final, work = home / fingerprint, home / f"work-{fingerprint}"
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / f".{fingerprint}.lock"):
        if (final / "result.json").exists():
            result = dataclasses.replace(load_result(final), reused=True, path=str(final))
        else:
            result = _compute(spec, entry, cfg, inputs, fingerprint, work, final)
        write_json(home / "current.json", {"fingerprint": fingerprint})
    return result


def _compute(
    spec: JobSpec, entry: Job, cfg: Any, inputs: dict[str, list[dict[str, str]]], fingerprint: str, work: Path, final: Path
) -> JobResult:
    work.mkdir(exist_ok=True)
    write_json(work / "job.json", to_dict(spec))
    start = time.perf_counter()
    report = entry.function(cfg, {role: [Path(d["path"]) for d in found] for role, found in inputs.items()}, work)
    artifacts = {str(p.relative_to(work)): file_hash(p) for p in _files(work) if p.name != "job.json"}
    result = JobResult(
        job=spec.job,
        fingerprint=fingerprint,
        data_version=_hash(artifacts),
        path=str(final),
        reused=False,
        seconds=round(time.perf_counter() - start, 3),
        metrics=dict(report.metrics),
        checks=tuple(to_dict(c) for c in report.checks),
        shown=dict(report.shown),
        artifacts=artifacts,
        inputs={role: tuple(found) for role, found in inputs.items()},
        provenance={
            "code_version": entry.version,
            "git_revision": git_revision(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
    write_json(work / "result.json", to_dict(result))
    if final.exists():
        shutil.rmtree(final)
    work.rename(final)
    return result


def load_result(artifact: Path) -> JobResult:
    """The result.json of a finished artifact. Raises ValueError when there is none or it is damaged."""
    try:
        return from_dict(JobResult, json.loads((artifact / "result.json").read_text()))
    except FileNotFoundError:
        raise ValueError(f"{artifact} holds no finished artifact (no result.json); materialise it first.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{artifact / 'result.json'} is damaged ({error}); delete {artifact} and run the job again.") from None


def current(home: Path) -> Path | None:
    """The current finished artifact under `home`, or None."""
    pointer = home / "current.json"
    if not pointer.exists():
        return None
    artifact = home / json.loads(pointer.read_text())["fingerprint"]
    return artifact if (artifact / "result.json").exists() else None


def fingerprint_of(spec: JobSpec) -> str:
    """The fingerprint `run(spec)` would work under."""
    entry = JOBS[spec.job]
    inputs = {role: [_described(Path(p)) for p in paths] for role, paths in spec.inputs.items()}
    return _fingerprint(spec, to_dict(from_dict(entry.config, spec.config)), inputs, entry.version)


def _fingerprint(spec: JobSpec, cfg: dict[str, Any], inputs: dict[str, list[dict[str, str]]], version: str) -> str:
    versions = {role: [d["data_version"] for d in found] for role, found in inputs.items()}
    return _hash({"job": spec.job, "config": cfg, "inputs": versions, "code": version})


def _described(path: Path) -> dict[str, str]:
    """A path with the version of what lies there: an artifact's own, or the content hash of raw files."""
    if (path / "result.json").exists():
        return {"path": str(path), "data_version": load_result(path).data_version}
    if not path.exists():
        raise ValueError(f"input {path} does not exist; materialise it first, or check NEUROFM_DATA.")
    files = [path] if path.is_file() else _files(path)
    return {"path": str(path), "data_version": _hash({str(p.relative_to(path.parent)): file_hash(p) for p in files})}


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


_HASHES: dict[tuple[str, int, int], str] = {}


def file_hash(path: Path) -> str:
    """sha256 of a file; remembered in the process while size and mtime stay the same."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _HASHES:
        with path.open("rb") as file:
            _HASHES[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _HASHES[key]


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with partial.open("w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time works on one fingerprint; the lock dies with its holder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def git_revision() -> str:
    """Commit of the code that runs, with "+" when the tree has changes; "unknown" outside a checkout."""
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision + ("+" if dirty else "")


def main(argv: list[str]) -> int:
    """Run one job file and print its result as JSON."""
    if len(argv) != 1:
        print("usage: python -m neurofm_ml.jobs job.json", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        spec = from_dict(JobSpec, json.loads(Path(argv[0]).read_text()))
        result = run(spec)
    except Preempted:
        return EXIT_PREEMPTED
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(json.dumps(to_dict(result), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
