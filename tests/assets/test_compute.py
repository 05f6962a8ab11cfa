"""The forms of Compute: the same artifact and the same page, whichever runs the job."""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neurofm_assets import worker
from neurofm_assets.assets.data import recordings
from neurofm_assets.compute import InProcess, Subprocess, materialization
from neurofm_assets.resources import resources_for
from neurofm_assets.store import Store
from neurofm_ml import jobs, presets
from neurofm_ml.config import patch, to_dict
from neurofm_ml.jobs import JobResult, JobSpec, load_result
from neurofm_ml.presets import Resources
from neurofm_ml.types import EXIT_BAD_INPUT

Materialize = Callable[..., dg.ExecuteInProcessResult]


def result(**changes: object) -> JobResult:
    check = {"name": "is_small", "passed": False, "severity": "error", "numbers": {"value": 3}, "threshold": "< 2", "note": "sub-1"}
    values: dict[str, object] = {
        "job": "toy",
        "fingerprint": "f",
        "data_version": "v",
        "path": "/artifacts/f",
        "reused": False,
        "seconds": 1.5,
        "metrics": {"rows": 3, "loss": float("nan")},
        "checks": (check,),
        "shown": {},
        "artifacts": {},
        "inputs": {"raw": ({"path": "a", "data_version": "b"},)},
        "provenance": {"git_revision": "abc"},
    }
    return JobResult(**{**values, **changes})  # type: ignore[arg-type]


def test_a_page_shows_numbers_plots_place_and_origin(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "card.md").write_text("# Card")
    made = materialization(result(path=str(tmp_path), shown={"curve": "a.png", "card": "card.md", "table": "t.parquet"}), ["uci_eeg"])
    shown = {name: getattr(value, "value", value) for name, value in (made.metadata or {}).items()}
    assert shown["rows"] == 3
    assert shown["loss"] == "nan", "Dagster's page cannot hold it as a number"
    assert shown["curve"] == "![curve](data:image/png;base64,iVBORw==)"
    assert shown["card"] == "# Card"
    assert (shown["curve file"], shown["table"]) == (str(tmp_path / "a.png"), str(tmp_path / "t.parquet"))
    assert shown["path"] == str(tmp_path)
    assert shown["left_out"] == "uci_eeg"
    assert shown["provenance"]["inputs"] == {"raw": ["a"]}
    assert made.data_version == dg.DataVersion("v")


def test_a_check_carries_what_it_judged_and_its_threshold() -> None:
    (check,) = materialization(result(path="/artifacts/quality/simulation/f")).check_results or ()
    assert (check.check_name, check.passed, check.severity) == ("is_small", False, dg.AssetCheckSeverity.ERROR)
    assert check.metadata["partition"] == dg.TextMetadataValue("simulation")
    assert check.metadata["value"] == dg.IntMetadataValue(3)
    assert check.metadata["threshold"] == dg.TextMetadataValue("< 2")
    assert check.description == "sub-1"


@pytest.mark.parametrize(("env", "form"), [("local", InProcess), ("workstation", Subprocess)])
def test_the_environment_chooses_the_form(env: str, form: type) -> None:
    assert type(resources_for(env)["compute"]) is form


def test_an_unknown_environment_is_refused() -> None:
    with pytest.raises(ValueError, match="NEUROFM_ENV is 'cluster'; allowed: local, workstation, kubernetes"):
        resources_for("cluster")


@pytest.mark.parametrize(
    ("job", "cfg", "asked"),
    [
        ("pretrain_neurofmx", presets.pretrain("large"), presets.resources("large")),
        ("pretrain_neurofmx", patch(presets.pretrain("medium"), {"train": {"strategy": "single"}}), presets.resources("small")),
        ("pretrain_eegnet", presets.RECIPES["eegnet"].preset("medium", 0), presets.resources("small")),
        ("fit_scaling", presets.scaling("medium"), presets.resources("small")),
        ("adapt", presets.adapt("medium"), presets.resources("medium")),
    ],
)
def test_gpus_that_no_process_would_use_are_not_asked_for(job: str, cfg: Any, asked: Resources, tmp_path: Path) -> None:
    given = []

    class Kept(InProcess):
        def compute(self, context: dg.AssetExecutionContext, spec: JobSpec, resources: Resources) -> JobResult:
            given.append(dataclasses.replace(resources, hours=asked.hours))
            return result()

    spec = JobSpec(job=job, config=to_dict(cfg), out=str(tmp_path))
    Kept().launch(dg.build_asset_context(), spec, presets.resources(cfg.size))
    assert given == [asked]


# ---------------------------------------------------------------- a process of its own
def test_a_real_job_in_a_process_reports_through_pipes(materialize: Materialize, store: Store) -> None:
    made = materialize("recordings", key="simulation", compute=Subprocess())
    artifact = load_result(Path(store.get(recordings, "simulation")))
    (event,) = made.get_asset_materialization_events()
    seen = event.step_materialization_data.materialization
    assert seen.metadata["path"] == dg.PathMetadataValue(artifact.path)
    assert seen.tags is not None
    assert seen.tags["dagster/data_version"] == artifact.data_version
    assert {c.check_name for c in made.get_asset_check_evaluations()} == set(jobs.JOBS["ingest"].checks)
    (again,) = materialize("recordings", key="simulation", compute=Subprocess()).get_asset_materialization_events()
    assert again.step_materialization_data.materialization.metadata["reused"] == dg.BoolMetadataValue(True)


class Scripted(Subprocess):
    """A worker that runs a script instead of a job."""

    script: str = ""

    def command(self, job_file: Path, resources: Resources) -> list[str]:
        pipes = "import json, os, sys; from pathlib import Path; from dagster_pipes import open_dagster_pipes\n"
        return [sys.executable, "-c", f"{pipes}job_file = Path({str(job_file)!r})\n{self.script}"]


STOPPED_ONCE = """
import dataclasses
from neurofm_assets import worker
from neurofm_ml import jobs
from neurofm_ml.types import Check, Report

seen = job_file.with_name("seen")
if not seen.exists():
    seen.touch()
    sys.exit(75)
light = lambda cfg, inputs, out: Report({"n": 1}, (Check("expected_numbers", True), Check("table_is_valid", True)))
jobs.JOBS._members["ingest"] = dataclasses.replace(jobs.JOBS["ingest"], function=light)
sys.exit(worker.main(str(job_file)))
"""


@pytest.mark.parametrize("script", [STOPPED_ONCE, STOPPED_ONCE.replace("sys.exit(75)", "os.kill(os.getpid(), 15)")])
def test_a_worker_that_was_stopped_is_taken_up_again(script: str, materialize: Materialize) -> None:
    assert materialize("recordings", key="simulation", compute=Scripted(script=script)).success


@pytest.mark.parametrize(
    ("script", "match"),
    [
        ("pass", "exit code 0 and no result"),
        ("sys.exit(75)", "exit code 75 and no result"),
        ("os.kill(os.getpid(), 9)", "exit code -9 and no result"),
        ("raise KeyError('bug')", "exit code 1 and no result"),
        ("sys.exit(2)", "exit code 2 and no result"),
        ("with open_dagster_pipes() as p: p.report_custom_message({'error': 'no such file'})\nsys.exit(2)", "^no such file$"),
    ],
)
def test_a_worker_without_a_result_fails(script: str, match: str, materialize: Materialize) -> None:
    with pytest.raises(dg.Failure, match=match) as caught:
        materialize("recordings", key="simulation", compute=Scripted(script=script, resumes=1))
    assert caught.value.allow_retries == ("no result" in match)


def test_a_cancelled_run_stops_its_worker(materialize: Materialize, tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def cancel() -> None:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=cancel).start()
    script = f"import time; Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        materialize("recordings", key="simulation", compute=Scripted(script=script))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_worker_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = JobSpec(job="ingest", config={"dataset": "simulations"}, out=str(tmp_path / "out"))
    (tmp_path / "job.json").write_text(json.dumps(to_dict(spec)))
    with pytest.warns(match="not launched by a Dagster"):
        assert worker.main(str(tmp_path / "job.json")) == EXIT_BAD_INPUT
    assert "Did you mean 'simulation'" in capsys.readouterr().err
