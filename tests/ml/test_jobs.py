"""The one entry point: nothing is computed twice, nothing half-made is taken for complete."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from neurofm_ml import jobs
from neurofm_ml.config import config, to_dict
from neurofm_ml.jobs import JobSpec, current, find, load_result, run
from neurofm_ml.jobs.__main__ import main
from neurofm_ml.types import EXIT_BAD_INPUT, EXIT_PREEMPTED, Check, Report


@config
class ToyConfig:
    factor: int = 2
    slow: bool = False


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The job "toy" multiplies a number; the list grows with each time it really runs."""
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))
    times: list[int] = []

    def multiply(cfg: ToyConfig, inputs: jobs.Inputs, out: Path) -> Report:
        times.append(cfg.factor)
        product = cfg.factor * int((inputs["number"][0]).read_text())
        (out / "product.txt").write_text(str(product))
        return Report({"product": product}, (Check("is_small", product < 100, "error", {"product": product}, "< 100"),))

    entry = jobs.Job(ToyConfig, multiply, "1", jobs.claims("is_small"))
    monkeypatch.setitem(jobs.JOBS._members, "toy", entry)
    return times


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    (tmp_path / "number.txt").write_text("21")
    return JobSpec(job="toy", config={}, inputs={"number": (str(tmp_path / "number.txt"),)}, out=str(tmp_path / "products"))


def test_a_result_tells_what_was_made_of_what(spec: JobSpec) -> None:
    result = run(spec)
    assert (Path(result.path) / "product.txt").read_text() == "42"
    assert result.metrics == {"product": 42}
    assert set(result.artifacts) == {"product.txt"}
    assert current(Path(spec.out)) == Path(result.path)
    assert load_result(Path(result.path)) == result
    assert jobs.load_spec(Path(result.path)) == spec


def test_nothing_is_computed_twice(spec: JobSpec, toy: list[int]) -> None:
    assert find(spec) is None
    first = run(spec)
    again = run(dataclasses.replace(spec, config={"factor": 2}))
    assert again == dataclasses.replace(first, reused=True) == find(spec)
    assert toy == [2]


def change_input(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    Path(spec.inputs["number"][0]).write_text("22")
    return spec


def change_config(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    return dataclasses.replace(spec, config={"factor": 3})


def change_code(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.setitem(jobs.JOBS._members, "toy", dataclasses.replace(jobs.JOBS["toy"], version="2"))
    return spec


def change_what_it_reads(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.setitem(jobs.JOBS._members, "toy", dataclasses.replace(jobs.JOBS["toy"], reads=lambda cfg: "a card"))
    return spec


@pytest.mark.parametrize("change", [change_input, change_config, change_code, change_what_it_reads])
def test_what_decides_the_result_decides_the_fingerprint(change: Any, spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(spec)
    changed = change(spec, monkeypatch)
    after = run(changed)
    assert after.fingerprint != before.fingerprint
    assert not after.reused
    assert current(Path(spec.out)) == Path(after.path)


def test_an_artifact_is_known_by_its_content_not_its_place(spec: JobSpec, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(spec, out=str(tmp_path / "elsewhere"))
    assert run(elsewhere).data_version == run(spec).data_version


def flip_a_byte(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short, Path.unlink])
def test_a_damaged_artifact_is_refused(damage: Any, spec: JobSpec, tmp_path: Path) -> None:
    made = Path(run(spec).path)
    damage(made / "product.txt")
    for use in (spec, JobSpec(job="toy", config={}, inputs={"number": (str(made),)}, out=str(tmp_path / "next"))):
        with pytest.raises(ValueError, match=rf"product.txt .*delete {made} and run the job again"):
            run(use)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"job": "tay"}, "Unknown job 'tay'. Did you mean 'toy'"),
        ({"config": {"facto": 1}}, "no field 'facto'. Did you mean 'factor'"),
        ({"config": {"factor": "two"}}, r"ToyConfig.factor is 'two'; it needs a whole number"),
        (
            {"inputs": {"number": ("/nowhere/number.txt",)}},
            "/nowhere/number.txt does not exist; materialise it first, or check NEUROFM_DATA",
        ),
    ],
)
def test_bad_specs_are_refused_by_name(change: dict[str, Any], match: str, spec: JobSpec) -> None:
    with pytest.raises(ValueError, match=match):
        run(dataclasses.replace(spec, **change))


def test_a_damaged_result_is_refused(spec: JobSpec) -> None:
    made = Path(run(spec).path)
    (made / "result.json").write_text((made / "result.json").read_text()[:40])
    with pytest.raises(ValueError, match=rf"result.json is damaged .*delete {made}"):
        run(spec)


def test_a_failed_job_publishes_nothing(spec: JobSpec) -> None:
    Path(spec.inputs["number"][0]).write_text("not a number")
    with pytest.raises(ValueError, match="invalid literal"):
        run(spec)
    assert current(Path(spec.out)) is None
    assert not list(Path(spec.out).glob("[0-9a-f]*"))


def test_a_job_begins_with_an_empty_folder_unless_it_resumes(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def leftovers(resumes: bool) -> list[str]:
        monkeypatch.setitem(jobs.JOBS._members, "toy", dataclasses.replace(jobs.JOBS["toy"], resumes=resumes, version=str(resumes)))
        work = Path(spec.out) / f"work-{jobs.fingerprint_of(spec)}"
        work.mkdir(parents=True)
        (work / "checkpoint").write_text("step 7")
        (work / ".result.json.123.part").write_text("torn")
        (work / ".dataset.part" / ".rows.npy.7.part").mkdir(parents=True)
        return sorted(run(spec).artifacts)

    assert leftovers(resumes=False) == ["product.txt"]
    assert leftovers(resumes=True) == ["checkpoint", "product.txt"]


def test_checkpoints_are_kept_until_the_artifact_is_in_its_place(spec: JobSpec, toy: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def train(cfg: ToyConfig, inputs: jobs.Inputs, out: Path) -> Report:
        last = out / "checkpoints" / "last"
        toy.append(last.exists())
        last.parent.mkdir(exist_ok=True)
        last.write_text("step 7")
        (out / "weights").write_text("7")
        return Report({}, (Check("is_small", True),))

    monkeypatch.setitem(jobs.JOBS._members, "toy", dataclasses.replace(jobs.JOBS["toy"], function=train, resumes=True))
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rename", None)
        with pytest.raises(TypeError):
            run(spec)
    remove = shutil.rmtree

    def killed_on_removal(path: Path, ignore_errors: bool) -> None:
        assert path.name != "checkpoints"
        remove(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", killed_on_removal)
        with pytest.raises(AssertionError):
            run(spec)
    result = run(spec)
    assert toy == [False, True]
    assert set(result.artifacts) == {"weights"}
    assert dataclasses.replace(jobs.load_intact(Path(result.path)), reused=True) == result
    assert sorted(path.name for path in Path(result.path).iterdir()) == ["job.json", "result.json", "weights"]


def test_an_input_that_was_not_given_is_asked_for_by_name(tmp_path: Path) -> None:
    asked = JobSpec(job="assess_quality", config={"dataset": "simulation"}, inputs={}, out=str(tmp_path))
    with pytest.raises(ValueError, match="needs the input 'recordings'; given: none"):
        run(asked)


def test_failed_claims_are_named(spec: JobSpec) -> None:
    assert run(dataclasses.replace(spec, config={"factor": 1})).failed == []
    assert run(dataclasses.replace(spec, config={"factor": 100})).failed == ["is_small"]


def test_a_report_makes_exactly_the_claims_it_announced(spec: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(jobs.JOBS._members, "toy", dataclasses.replace(jobs.JOBS["toy"], checks=jobs.claims("is_large")))
    with pytest.raises(AssertionError, match="is_large"):
        run(spec)


# ---------------------------------------------------------------- as processes
SLOW = """
import sys, time
from pathlib import Path
from neurofm_ml import jobs
from neurofm_ml.config import config
from neurofm_ml.jobs.__main__ import main
from neurofm_ml.types import Report

@config
class Nothing:
    "A config without fields."

def count(cfg, inputs, out):
    steps = out / "steps"
    with steps.open("a") as file:
        while steps.stat().st_size < 20:
            file.write("."); file.flush(); time.sleep(float(sys.argv[2]))
    with (Path(sys.argv[1]).parent / "times").open("a") as file:
        file.write("once ")
    return Report({"steps": steps.stat().st_size})

jobs.JOBS.add("slow", jobs.Job(Nothing, count, "1", resumes=True))
sys.exit(main([sys.argv[1]]))
"""


@pytest.fixture
def slow_spec(tmp_path: Path) -> Path:
    path = tmp_path / "slow.json"
    path.write_text(json.dumps(to_dict(JobSpec(job="slow", config={}, out=str(tmp_path / "slow")))))
    return path


def start(spec: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SLOW, str(spec), str(pause)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(pattern: str, folder: Path) -> Path:
    while not (found := [p for p in folder.glob(pattern) if p.stat().st_size]):
        time.sleep(0.01)
    return found[0]


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, EXIT_PREEMPTED)])
def test_a_stopped_run_is_taken_up_where_it_was(stop: signal.Signals, code: int, slow_spec: Path, tmp_path: Path) -> None:
    process = start(slow_spec, pause=60)
    wait_for("work-*/steps", tmp_path / "slow")
    process.send_signal(stop)
    assert process.wait() == code
    process.communicate()
    assert current(tmp_path / "slow") is None
    steps = wait_for("work-*/steps", tmp_path / "slow")
    steps.write_text("x" * 10)
    out, err = start(slow_spec, pause=0).communicate()
    assert json.loads(out)["metrics"] == {"steps": 20}, err
    made = current(tmp_path / "slow")
    assert made is not None
    assert (made / "steps").read_text() == "x" * 10 + "." * 10


def test_two_processes_share_one_run(slow_spec: Path, tmp_path: Path) -> None:
    both = [start(slow_spec, pause=0.02) for _ in range(2)]
    results = [json.loads(process.communicate()[0]) for process in both]
    assert sorted(r["reused"] for r in results) == [False, True]
    assert (tmp_path / "times").read_text() == "once "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSONDecodeError"),
        ('{"job": "ingest", "config": {"dataset": "wrm"}, "out": "x"}', "Unknown dataset 'wrm'"),
        ('{"job": "ingest", "config": {}}', "JobSpec needs 'out'"),
        (None, "FileNotFoundError"),
    ],
)
def test_a_wrong_job_file_ends_with_code_2_and_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("job.json").write_text(content)
    assert main(["job.json"]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_every_job_has_a_config_that_survives_json() -> None:
    for name in jobs.JOBS:
        assert dataclasses.is_dataclass(jobs.JOBS[name].config)
        assert set(jobs.JOBS[name].checks.values()) <= {"warn", "error"}
