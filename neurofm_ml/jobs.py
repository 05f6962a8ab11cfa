"""The one entry point for all heavy work: ``run(spec)``, and ``python -m neurofm_ml.jobs job.json``.

A test calls `run` in process, a subprocess runs it on a workstation, a pod on a GPU node: same
function, same ``job.json``, same ``result.json``. Nothing is computed twice: a spec has a
fingerprint (job, config, data versions of the inputs, code version); a finished artifact with the
same fingerprint is returned as it is, an unfinished one is taken up in the working folder that
the fingerprint names, and what is published is complete by construction.

    <out>/<fingerprint>/          a finished artifact: its files, job.json, result.json
    <out>/work-<fingerprint>/     the same while it is being made
    <out>/.<fingerprint>.lock     held by the process that makes it; released by the system when that dies
    <out>/current.json            which fingerprint is the current one

Where NEUROFM_STORE names an object store, what is published here is published there too, and what was
made on another machine is found there: `find` and `load_result` ask it, `run` brings the files of its
inputs and of its artifact, and a working folder goes on from where another machine left it (``artifacts.py``).
"""

import dataclasses
import hashlib
import json
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from neurofm_ml import gang, presets
from neurofm_ml.artifacts import fetch, forget_work, is_shared, publish, read_shared, restore_work, share_current
from neurofm_ml.config import config, from_dict, to_dict
from neurofm_ml.files import file_hash, git_revision, locked, write_json
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.corpora import corpora
from neurofm_ml.knowledge.tables import tables
from neurofm_ml.registry import Registry
from neurofm_ml.types import EXIT_BAD_INPUT, EXIT_PREEMPTED, Preempted, Report

Inputs = Mapping[str, list[Path]]


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
    """What can be run.

    config      class of its config
    function    `(config, inputs, out) -> Report`
    version     goes into the fingerprint: raise it when the same inputs would give other results
    checks      the claims its report makes, and their severity: a failed "error" blocks what flows from the artifact
    resumes     takes up what a killed run left in the working folder; otherwise a run begins with an empty one
    reads       what it reads beside config and inputs (a card), for the fingerprint
    shared      whether every process of a gang works on it, under a config; otherwise the first does and the others wait
    """

    config: type
    function: Callable[[Any, Inputs, Path], Report]
    version: str
    checks: Mapping[str, Literal["warn", "error"]] = dataclasses.field(default_factory=dict)
    resumes: bool = False
    reads: Callable[[Any], Any] = lambda cfg: None
    shared: Callable[[Any], bool] = lambda cfg: False


JOBS: Registry[Job] = Registry("job")


def job(name: str, config_class: type, version: str, **more: Any) -> Callable[[Callable[..., Report]], Callable[..., Report]]:
    """Decorator that registers a job function; `more` are further fields of Job."""

    def add(function: Callable[..., Report]) -> Callable[..., Report]:
        JOBS.add(name, Job(config_class, function, version, **more))
        return function

    return add


def claims(*blocking: str, warn: Sequence[str] = ()) -> dict[str, Literal["warn", "error"]]:
    """The checks a job announces: those that block what flows from the artifact, those that only warn. What each
    claims is said in ``neurofm_ml.knowledge.claims``."""
    return {**dict.fromkeys(blocking, "error"), **dict.fromkeys(warn, "warn")}


# ---------------------------------------------------------------- what there is to run
# Imports stand inside: a process that only plans work must not pay for torch.


@job(
    "ingest",
    presets.IngestConfig,
    "3",
    checks=claims("expected_numbers", "table_is_valid"),
    reads=lambda cfg: to_dict(datasets()[cfg.dataset]),
)
def ingest(cfg: presets.IngestConfig, inputs: Inputs, out: Path) -> Report:
    """Raw files of a dataset -> recordings."""
    from neurofm_ml.data.ingest import ingest

    return ingest(cfg, inputs["raw"], out, _before(out, JOBS["ingest"].version))


QUALITY = claims(
    "values_are_finite",
    "clock_is_sane",
    "channels_vary",
    "sampling_rates_fit",
    "intervals_share_the_clock",
    "no_input_gives_the_target_away",
    "gap_covers_the_overlap",
    "table_is_valid",
    warn=(
        "no_channel_is_flat",
        "behaviour_is_complete",
        "nothing_is_infinite",
        "signals_cover_the_recording",
        "rows_agree",
        "no_long_gaps",
        "clocks_hold",
        "nothing_is_frozen",
        "nothing_is_clipped",
        "no_value_stands_for_missing",
        "amplitudes_are_plausible",
        "positions_are_plausible",
        "no_channel_is_noisy",
        "no_channel_is_alone",
        "no_channel_is_repeated",
        "mains_are_quiet",
        "mains_are_in_place",
        "spectra_reach_nyquist",
        "counts_are_whole",
        "counts_do_not_overlap",
        "rates_are_plausible",
        "spike_times_are_precise",
        "units_fire",
        "refractory_periods_hold",
        "no_artefact_is_sorted",
        "heart_rate_is_plausible",
        "head_motion_is_low",
        "volumes_are_steady",
        "intervals_lie_inside",
        "labels_are_mixed",
        "no_recording_is_repeated",
        "no_person_is_repeated",
    ),
)


@job("assess_quality", presets.QualityConfig, "2", checks=QUALITY)
def assess_quality(cfg: presets.QualityConfig, inputs: Inputs, out: Path) -> Report:
    """Recordings -> quality table and blocking checks."""
    from neurofm_ml.data.quality import assess

    return assess(cfg, inputs["recordings"][0], out)


SHARDS = claims(
    "splits_are_disjoint",
    "no_window_is_repeated_across_splits",
    "shards_verify",
    "neural_signals_are_finite",
    "table_is_valid",
    warn=("splits_are_filled", "recordings_are_used"),
)


@job("write_shards", presets.ShardsConfig, "3", checks=SHARDS)
def write_shards(cfg: presets.ShardsConfig, inputs: Inputs, out: Path) -> Report:
    """Recordings -> windows, splits, shards."""
    from neurofm_ml.data.windows import shard_recordings

    return shard_recordings(cfg, inputs["recordings"][0], out)


@job("fit_scaler", presets.ScalerConfig, "1", checks=claims("scaler_is_finite"))
def fit_scaler(cfg: presets.ScalerConfig, inputs: Inputs, out: Path) -> Report:
    """Training windows of every dataset with this modality -> mean and deviation per channel."""
    from neurofm_ml.data.scaler import fit

    return fit(cfg, inputs["shards"], out)


FOCI = claims("counts_match_the_corpus", "peaks_are_finite", "table_is_valid", warn=("peaks_are_in_the_brain",))


@job("read_foci", presets.FociConfig, "3", checks=FOCI, reads=lambda cfg: to_dict(corpora()[cfg.corpus]))
def read_foci(cfg: presets.FociConfig, inputs: Inputs, out: Path) -> Report:
    """A corpus of coordinates -> one table of peaks."""
    from neurofm_ml.data.foci.job import ingest_foci

    return ingest_foci(cfg, inputs["raw"], out)


TABLE = claims(
    "keys_are_unique",
    "types_hold",
    "ranges_hold",
    "expected_numbers",
    warn=("rows_are_in_every_file", "no_column_is_empty", "files_are_named"),
)


@job("read_table", presets.TableConfig, "1", checks=TABLE, reads=lambda cfg: to_dict(tables()[cfg.table]))
def read_table(cfg: presets.TableConfig, inputs: Inputs, out: Path) -> Report:
    """Files of a table card -> one table, a summary of its columns, and whether the card's words hold."""
    from neurofm_ml.data.tables.job import read_table

    return read_table(cfg, inputs["raw"], out)


@job(
    "pretrain",
    presets.PretrainConfig,
    "1",
    checks=claims("loss_is_finite", warn=("loss_fell",)),
    resumes=True,
    shared=lambda cfg: cfg.train.strategy != "single",
)
def pretrain(cfg: presets.PretrainConfig, inputs: Inputs, out: Path) -> Report:
    """Shards and scalers -> pretrained checkpoint."""
    from neurofm_ml.training.pretrain import pretrain

    return pretrain(cfg, inputs["shards"], inputs["scaler"], out)


@job("adapt", presets.AdaptConfig, "1", checks=claims("loss_is_finite"), resumes=True, shared=lambda cfg: True)
def adapt(cfg: presets.AdaptConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained checkpoint and labelled shards -> fine-tuned decoders, one per recording."""
    from neurofm_ml.training.adapt import adapt

    return adapt(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("fit_baselines", presets.BaselinesConfig, "1", checks=claims(warn=("controls_at_chance",)), resumes=True)
def fit_baselines(cfg: presets.BaselinesConfig, inputs: Inputs, out: Path) -> Report:
    """Labelled shards of one dataset -> predictions and scores of the tuned baselines."""
    from neurofm_ml.evaluation.baselines import fit_baselines

    return fit_baselines(cfg, inputs["shards"][0], inputs["scaler"], out)


@job("score", presets.ScoreConfig, "2", checks=claims("table_is_valid", warn=("controls_at_chance",)))
def score(cfg: presets.ScoreConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained and adapted checkpoints, labelled shards, baselines -> the scores table."""
    from neurofm_ml.evaluation.score import score

    return score(cfg, inputs["pretrained"][0], inputs["adapted"][0], inputs["shards"], inputs["scaler"], inputs["baselines"], out)


@job("export_onnx", presets.OnnxConfig, "1", checks=claims("onnx_matches_torch"))
def export_onnx(cfg: presets.OnnxConfig, inputs: Inputs, out: Path) -> Report:
    """Adapted decoders -> ONNX files, each compared with torch."""
    from neurofm_ml.release.onnx import export

    return export(cfg, inputs["adapted"][0], out)


@job("write_card", presets.CardConfig, "1", checks=claims("every_score_is_shown", warn=("may_be_redistributed",)))
def write_card(cfg: presets.CardConfig, inputs: Inputs, out: Path) -> Report:
    """Scores and provenance -> the model card."""
    from neurofm_ml.release.card import write

    return write(cfg, inputs["scores"][0], inputs["pretrained"][0], inputs["adapted"][0], out)


@job("bundle", presets.BundleConfig, "1", checks=claims("manifest_holds"))
def bundle(cfg: presets.BundleConfig, inputs: Inputs, out: Path) -> Report:
    """Checkpoints, ONNX, scores, card -> one release folder with a manifest."""
    from neurofm_ml.release.bundle import bundle

    return bundle(cfg, {role: paths[0] for role, paths in inputs.items()}, out)


# ---------------------------------------------------------------- running
@dataclasses.dataclass(frozen=True)
class _Plan:
    """A spec with its config built, its inputs identified and its fingerprint known."""

    spec: JobSpec
    job: Job
    config: Any
    inputs: dict[str, tuple[dict[str, str], ...]]
    fingerprint: str

    @property
    def final(self) -> Path:
        return Path(self.spec.out) / self.fingerprint

    @property
    def work(self) -> Path:
        return Path(self.spec.out) / f"work-{self.fingerprint}"


def _plan(spec: JobSpec) -> _Plan:
    entry = JOBS[spec.job]
    cfg: Any = from_dict(entry.config, spec.config)
    inputs = {role: tuple(_identified(Path(p)) for p in paths) for role, paths in spec.inputs.items()}
    versions = {role: [d["data_version"] for d in found] for role, found in inputs.items()}
    identity = {"job": spec.job, "config": to_dict(cfg), "reads": entry.reads(cfg), "inputs": versions, "code": entry.version}
    return _Plan(spec, entry, cfg, inputs, _hash(identity))


def run(spec: JobSpec) -> JobResult:
    """Find the finished artifact of `spec`, or compute and publish it.

    Raises ValueError for a wrong job, config or input, Preempted when it was asked to stop. Whatever
    happens, a half-made artifact is never visible under its final name. In a gang of processes all
    call it with the same spec and get the same artifact; only the first locks and publishes.
    """
    if gang.rank():
        return _help(spec)
    plan = _plan(spec)
    home = Path(spec.out)
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / f".{plan.fingerprint}.lock"):
        result = _finished(plan)
        if result is None:
            _prepare(plan)
        gang.tell("plan", {"fingerprint": plan.fingerprint, "compute": result is None})
        result = _shared(plan, result or _compute(plan))
        _make_current(plan)
        gang.tell("result", result.path)
    return result


def _help(spec: JobSpec) -> JobResult:
    """What the other processes of a gang do: work with the first in its folder where the job is shared, and publish nothing."""
    told, entry = gang.hear("plan"), JOBS[spec.job]
    plan = _Plan(spec, entry, from_dict(entry.config, spec.config), {}, told["fingerprint"])
    if told["compute"] and entry.shared(plan.config):
        _call(plan)
    return load_result(Path(gang.hear("result")))


def find(spec: JobSpec) -> JobResult | None:
    """The finished artifact of `spec`, made the current one; None when it must be computed."""
    plan = _plan(spec)
    result = _finished(plan)
    if result and _is_here(plan.final):
        result = _shared(plan, result)
    if result:
        _make_current(plan)
    return result


def _make_current(plan: _Plan) -> None:
    home = Path(plan.spec.out)
    home.mkdir(parents=True, exist_ok=True)
    write_json(home / "current.json", {"fingerprint": plan.fingerprint})
    share_current(home, plan.fingerprint)


def _finished(plan: _Plan) -> JobResult | None:
    result = _artifact(plan.final)
    return dataclasses.replace(result, reused=True) if result else None


def _shared(plan: _Plan, result: JobResult) -> JobResult:
    """The artifact as all machines have it, its files here: of two that made it at once, the first to publish counts."""
    if not _is_here(plan.final) or not publish(plan.final):
        fetch(plan.final)
        result = dataclasses.replace(load_result(plan.final), reused=result.reused)
    if not result.reused:
        forget_work(plan.work)
    return result


def _is_here(artifact: Path) -> bool:
    return (artifact / "result.json").exists()


def _artifact(path: Path) -> JobResult | None:
    """The finished artifact at `path`, intact here or in the store; None where there is none."""
    if not _is_here(path):
        return _result_of(path)
    try:
        return load_intact(path)
    except ValueError:
        if not is_shared(path):
            raise
        fetch(path)
        return load_intact(path)


class _Roles(dict[str, list[Path]]):
    """Inputs by role; asking for one that was not given is the caller's mistake."""

    def __missing__(self, role: str) -> list[Path]:
        raise ValueError(f'this job needs the input {role!r}; given: {", ".join(self) or "none"}. Add it under "inputs" of the job.')


def _call(plan: _Plan) -> Report:
    """Run the job's function; the processes that share it leave together, so that none still reads what the first publishes."""
    with preemptible():
        report = plan.job.function(
            plan.config, _Roles({role: [Path(p) for p in paths] for role, paths in plan.spec.inputs.items()}), plan.work
        )
        if plan.job.shared(plan.config):
            gang.meet("done")
    return report


def _compute(plan: _Plan) -> JobResult:
    start = time.perf_counter()
    report = _call(plan)
    _check_claims(plan, report)
    artifacts = {str(p.relative_to(plan.work)): file_hash(p) for p in _files(plan.work) if p.name != "job.json"}
    result = JobResult(
        job=plan.spec.job,
        fingerprint=plan.fingerprint,
        data_version=_hash(artifacts),
        path=str(plan.final),
        reused=False,
        seconds=round(time.perf_counter() - start, 3),
        metrics=dict(report.metrics),
        checks=tuple(to_dict(c) for c in report.checks),
        shown=dict(report.shown),
        artifacts=artifacts,
        inputs=plan.inputs,
        provenance=_provenance(plan.job),
    )
    write_json(plan.work / "result.json", to_dict(result))
    shutil.rmtree(plan.final, ignore_errors=True)  # only ever the ruin of an artifact whose result.json was deleted
    plan.work.rename(plan.final)
    return result


def _prepare(plan: _Plan) -> None:
    """The inputs here, and the working folder: as a killed run left it when the job resumes, else empty."""
    for path in (Path(p) for paths in plan.spec.inputs.values() for p in paths):
        if not _is_here(path) and is_shared(path):
            fetch(path)
    if plan.job.resumes:
        restore_work(plan.work)
    else:
        shutil.rmtree(plan.work, ignore_errors=True)
    plan.work.mkdir(exist_ok=True)
    for torn in plan.work.rglob(".*.part"):
        torn.unlink()
    write_json(plan.work / "job.json", to_dict(plan.spec))


def _check_claims(plan: _Plan, report: Report) -> None:
    """The report makes exactly the claims that the job announces: what is shown as a check is one."""
    made = {c.name: c.severity for c in report.checks}
    assert made == dict(plan.job.checks), f"job {plan.spec.job!r} announces the checks {dict(plan.job.checks)} but reports {made}"


def _provenance(entry: Job) -> dict[str, str]:
    return {
        "code_version": entry.version,
        "git_revision": git_revision(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "torch": version("torch"),
    }


def load_result(artifact: Path) -> JobResult:
    """The result.json of a finished artifact, here or in the store. Raises ValueError when there is none or it is damaged."""
    if (result := _result_of(artifact)) is None:
        raise ValueError(f"{artifact} holds no finished artifact (no result.json); materialise it first.")
    return result


def _result_of(artifact: Path) -> JobResult | None:
    here = _is_here(artifact)
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
        return home / shared["fingerprint"]
    if not pointer.exists():
        return None
    artifact = home / json.loads(pointer.read_text())["fingerprint"]
    return artifact if _is_here(artifact) else None


def _before(work: Path, version: str) -> Path | None:
    """The artifact that was current when the one in `work` was begun, where it is intact and the same code made it."""
    artifact = current(work.parent)
    try:
        if artifact is None or load_result(artifact).provenance["code_version"] != version:
            return None
        if not _is_here(artifact):
            fetch(artifact)
        load_intact(artifact)
    except ValueError:
        return None
    return artifact


def fingerprint_of(spec: JobSpec) -> str:
    """The fingerprint `run(spec)` would work under."""
    return _plan(spec).fingerprint


def version_of(path: Path) -> str:
    """Version of what lies at `path`, as the inputs in a result state it."""
    return _identified(path)["data_version"]


def _identified(path: Path) -> dict[str, str]:
    """A path with the version of what lies there: an artifact's own, or the content hash of raw files."""
    if artifact := _artifact(path):
        return {"path": str(path), "data_version": artifact.data_version}
    if not path.exists():
        raise ValueError(f"input {path} does not exist; materialise it first, or check NEUROFM_DATA.")
    files = [path] if path.is_file() else _files(path)
    return {"path": str(path), "data_version": _hash({str(p.relative_to(path.parent)): file_hash(p) for p in files})}


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def preemptible() -> Iterator[None]:
    """SIGTERM raises Preempted inside. Only the main thread can listen to signals; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise Preempted("asked to stop by SIGTERM; run the same job again to go on.")

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def main(argv: list[str]) -> int:
    """Run one job file and print its result as JSON."""
    if len(argv) != 1:
        print("usage: python -m neurofm_ml.jobs job.json", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        result = run(from_dict(JobSpec, json.loads(Path(argv[0]).read_text())))
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_PREEMPTED
    except (ValueError, FileNotFoundError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(json.dumps(to_dict(result), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
