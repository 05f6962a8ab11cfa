"""A training that is killed on one machine goes on on another, from what it left in the shared store, to the same bits."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from doubles import Double, serving
from toy_training import in_process, toy_run

from neurofm_ml import jobs, remote, s3
from neurofm_ml.config import config
from neurofm_ml.jobs import JobSpec, run
from neurofm_ml.types import Report


@config
class Nothing:
    pass


def fit_toy(cfg: Nothing, inputs: jobs.Inputs, out: Path) -> Report:
    history = toy_run(out)
    return Report({"resumed_from": history.resumed_from})


def on_machine(home: Path, environment: dict[str, str]) -> jobs.JobResult:
    """Run the toy as a job in the home of one machine, sharing by the environment's store."""
    torch.set_num_threads(1)
    remote.PAUSE_S, s3.PART_BYTES = 0.001, 10_000
    os.environ.update(environment, NEUROFM_HOME=str(home), CUDA_VISIBLE_DEVICES="")
    jobs.JOBS._members["toy"] = jobs.Job(Nothing, fit_toy, "1", resumes=True)
    return run(JobSpec(job="toy", config={}, out=str(home / "artifacts/toy/x")))


def in_background(home: Path, environment: dict[str, str]) -> None:
    on_machine(home, environment)


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    threads = torch.get_num_threads()
    for module, name in ((remote, "PAUSE_S"), (s3, "PART_BYTES")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setitem(jobs.JOBS._members, "toy", jobs.Job(Nothing, fit_toy, "1", resumes=True))
    for name in ("NEUROFM_HOME", "NEUROFM_STORE", "CUDA_VISIBLE_DEVICES", *STORE):
        monkeypatch.setenv(name, "")
    (tmp_path / "served/bucket").mkdir(parents=True)
    with serving(tmp_path / "served") as double:
        yield double
    torch.set_num_threads(threads)


STORE = {"NEUROFM_STORE": "s3://bucket/team", "AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret"}


def test_a_training_goes_on_elsewhere_to_the_same_bits(double: Double, tmp_path: Path) -> None:
    """Killed while its fourth checkpoint (of one every 7 updates) is on its way, it goes on from the third."""
    environment = {**STORE, "AWS_ENDPOINT_URL": double.url}
    double.secret = "secret"
    left = iter(range(3))
    victim = in_process(in_background, tmp_path / "one", environment)

    def kill(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("manifest.json") and next(left, None) is None:
            os.kill(victim.pid, signal.SIGKILL)
            raise ConnectionAbortedError("the request dies with its process")

    double.on_request = kill
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    double.on_request, double.throttle = (lambda method, path: None), 5
    resumed = on_machine(tmp_path / "two", environment)
    assert resumed.metrics["resumed_from"] == 3 * 7
    alone = on_machine(tmp_path / "three", {"NEUROFM_STORE": ""})
    assert not alone.reused
    for name in ("model.safetensors", "metrics.csv"):
        assert resumed.artifacts[name] == alone.artifacts[name]
    again = on_machine(tmp_path / "one", environment)
    assert again.reused
    assert again.data_version == resumed.data_version
    names = [str(path) for path in (double.folder / "bucket").rglob("*") if path.is_file()]
    assert not [name for name in names if re.search("/work-", name)], "what was saved on the way is removed"
    assert not double.uploads
