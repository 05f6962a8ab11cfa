"""The real pretraining job, as Jobs of a cluster on which nearly everything goes wrong: the weights of the undisturbed run, bit for bit."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from cluster import Cluster, Image, Object
from cluster.double import Fault
from cluster.scenes import CPU

from neurofm_assets.assets.models import neurofmx_pretrained
from neurofm_assets.compute import InProcess
from neurofm_assets.partitions import modalities_of, run_key
from neurofm_assets.store import Store
from neurofm_ml import jobs
from neurofm_ml.config import to_dict
from neurofm_ml.jobs import JobResult, JobSpec
from neurofm_ml.presets import resources

CONFIG = {"train": {"steps": 80, "checkpoint_every": 5}, "datasets": ["simulation"]}


@pytest.fixture
def cluster(tmp_path: Path, neurofm_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
    with Cluster.running({"worker:1": Image(env, tmp_path)}, (CPU,)) as running:
        settings = {"ENV": "kubernetes", "IMAGE": "worker:1", "SHARED": str(neurofm_home), "NAMESPACE": "default", "DATA": ""}
        (tmp_path / "dagster").mkdir()
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
        for name, value in settings.items():
            monkeypatch.setenv(f"NEUROFM_{name}", value)
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path / "kubeconfig")))
        yield running


def orchestrator() -> subprocess.Popen[bytes]:
    """A Dagster run as an operator starts it, and its step as a process of its own."""
    asset = ["-m", "neurofm_assets.definitions", "--select", "neurofmx_pretrained", "--partition", str(run_key("tiny", 0))]
    config = json.dumps({"ops": {"neurofmx_pretrained": {"config": CONFIG}}})
    return subprocess.Popen(
        [sys.executable, "-m", "dagster", "asset", "materialize", *asset, "--config-json", config], start_new_session=True
    )


def run_undisturbed(spec: JobSpec, tmp_path: Path) -> JobResult:
    """The same job by itself, on as many threads as a pod has."""
    spec = dataclasses.replace(spec, out=str(tmp_path / "undisturbed"))
    (tmp_path / "job.json").write_text(json.dumps(to_dict(spec)))
    command = [sys.executable, "-m", "neurofm_ml.jobs", str(tmp_path / "job.json")]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(resources("tiny").cpus)}, check=True)
    found = jobs.find(spec)
    assert found is not None
    return found


@pytest.mark.slow
def test_the_weights_are_those_of_the_undisturbed_run(
    cluster: Cluster, store: Store, materialize: Callable[..., dg.ExecuteInProcessResult], tmp_path: Path
) -> None:
    def here(*assets: str, key: str) -> Any:
        return materialize(*assets, key=key, compute=InProcess())

    here("recordings", "quality", "shards", key="simulation")
    for modality in modalities_of(["simulation"]):
        here("scaler", key=modality)

    home = store.path(neurofmx_pretrained, run_key("tiny", 0))

    def newest() -> int:
        """Step of the newest checkpoint."""
        return max((int(path.name.removeprefix("step-")) for path in home.glob("work-*/checkpoints/step-*")), default=0)

    def pod(number: int) -> Object:
        """The pod of that number, once it has begun and written a checkpoint of its own."""
        before = cluster.until(lambda: cluster.ever("pods") == number and [newest()])[0]
        cluster.until(lambda: newest() > before)
        (found,) = cluster.pods("Running")
        return found

    first = orchestrator()
    cluster.preempt(pod(1))
    cluster.evict(pod(2))
    pod(3)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    cluster.faults += [Fault("GET", "/jobs/", 503, times=3), Fault("GET", "/pods", times=2)]
    assert orchestrator().wait() == 0

    artifact = Path(store.get(neurofmx_pretrained, run_key("tiny", 0)))
    assert (cluster.ever("jobs"), cluster.most("pods", "Running"), cluster.ever("pods")) == (1, 1, 3)
    made, undisturbed = jobs.load_result(artifact), run_undisturbed(jobs.load_spec(artifact), tmp_path)
    assert made.metrics["resumed_from"] > 0
    assert made.fingerprint == undisturbed.fingerprint
    assert made.artifacts["model.safetensors"] == undisturbed.artifacts["model.safetensors"]
