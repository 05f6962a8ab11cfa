"""A light asset on a cluster that stands in for one: what tests of the launcher begin with.

``python -m cluster.scenes`` is an orchestrator of its own that materialises the asset, to be killed.
"""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg

from cluster.double import Cluster, Node
from cluster.nodes import Image
from cluster.objects import Object
from neurofm_assets.checks import specs_for
from neurofm_assets.compute import Compute, Kubernetes, Site
from neurofm_assets.store import Store
from neurofm_ml.jobs import JOBS, JobResult, current, load_result
from neurofm_ml.presets import IngestConfig, Resources

TESTS = Path(__file__).parents[1]
CPU = Node("cpu-0", {"cpu": "64", "memory": "512Gi"})
GPU = Node("gpu-0", {"cpu": "96", "memory": "1Ti", "nvidia.com/gpu": "8"}, taints=("nvidia.com/gpu",))
TWELVE = dg.StaticPartitionsDefinition(["twelve"])


class Asked(dg.Config):
    """Resources of the light asset."""

    nodes: int = 1
    gpus: int = 0
    hours: float = 1.0


@dg.asset(partitions_def=TWELVE, check_specs=specs_for("counted", "ingest", TWELVE))
def counted(context: dg.AssetExecutionContext, config: Asked, compute: Compute, store: Store) -> dg.MaterializeResult:
    """A chain of hashes, made by the light job of `cluster.light`."""
    spec = store.spec(context, "ingest", IngestConfig(dataset="simulation"))
    return compute.launch(context, spec, Resources(nodes=config.nodes, gpus=config.gpus, hours=config.hours))


def compute(home: Path, site: Mapping[str, Any], **settings: Any) -> Kubernetes:
    """The launcher, on the cluster that KUBECONFIG names."""
    place = {"image": "worker:1", "claim": "neurofm", "mount": str(home), "env": {"NEUROFM_HOME": str(home)}, **site}
    return Kubernetes(site=Site(**place), namespace="default", poll_s=0.05, **settings)


def make(launcher: Kubernetes, home: Path, instance: dg.DagsterInstance, resumes: bool = True, **asked: Any) -> dg.ExecuteInProcessResult:
    """Materialise the asset, in a Dagster run of its own. The light job is one that all processes of a gang work on."""
    light = dataclasses.replace(JOBS["ingest"], resumes=resumes, shared=lambda cfg: True)
    with mock.patch.dict(JOBS._members, ingest=light):
        return dg.materialize(
            [counted],
            partition_key="twelve",
            resources={"compute": launcher, "store": Store(home=str(home))},
            run_config={"ops": {"counted": {"config": asked}}},
            instance=instance,
        )


@dataclass
class Scene:
    """A cluster, the folder that both sides see, and the folder that says what befalls the light job."""

    cluster: Cluster
    home: Path
    counting: Path
    instance: dg.DagsterInstance
    site: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    _acts: list[threading.Thread] = field(default_factory=list)
    _wrong: list[BaseException] = field(default_factory=list)

    def befall(self, act: str, step: int = 7, start: str = "1") -> None:
        """What happens to the light job in its start number `start` ("every": in each), at a step."""
        (self.counting / "plan.json").write_text(json.dumps({start: [act, step]}))

    def when(self, true: Callable[[], Any], act: Callable[[Any], Any]) -> None:
        """Once something is true, do something with it, beside the run."""

        def play() -> None:
            try:
                act(self.cluster.until(true))
            except BaseException as error:
                self._wrong.append(error)

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        self._acts.append(thread)

    def holding(self) -> Object | None:
        """The running pod whose job holds."""
        return next((pod for pod in self.cluster.pods("Running") if "holding" in self.cluster.log(pod)), None)

    def go_on(self, *_: Any) -> None:
        (self.counting / "go").touch()

    def compute(self) -> Kubernetes:
        return compute(self.home, self.site, **self.settings)

    def make(self, **asked: Any) -> dg.ExecuteInProcessResult:
        """One run of the asset; what was to happen beside it has then happened."""
        result = make(self.compute(), self.home, self.instance, **asked)
        for thread in self._acts:
            thread.join()
        assert not self._wrong, self._wrong
        return result

    def orchestrator(self) -> subprocess.Popen[bytes]:
        """The same in a process of its own."""
        return subprocess.Popen([sys.executable, "-m", "cluster.scenes", str(self.home)], env={**os.environ, "PYTHONPATH": str(TESTS)})

    def artifact(self) -> JobResult:
        found = current(self.home / "artifacts/counted/twelve")
        assert found is not None
        return load_result(found)

    def starts(self) -> list[int]:
        """The steps that the light job began at."""
        return [int(line) for line in (self.counting / "starts").read_text().split()]

    def one_at_a_time(self) -> bool:
        """Whether there was never more than one Job, and one pod at work, at a time."""
        return (self.cluster.most("jobs"), self.cluster.most("pods", "Running")) == (1, 1)


@contextmanager
def scene(folder: Path, *nodes: Node) -> Iterator[Scene]:
    """A scene in `folder`, on a cluster with these nodes (one with CPUs); KUBECONFIG names it."""
    home, counting = folder / "home", folder / "counting"
    home.mkdir(parents=True)
    counting.mkdir()
    (counting / "plan.json").write_text("{}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    image = Image({"PATH": path, "PYTHONPATH": f"{TESTS / 'cluster/light'}:{TESTS.parent}", "COUNTING": str(counting)}, folder)
    before = os.environ.get("KUBECONFIG")
    with Cluster.running({"worker:1": image}, nodes or (CPU,)) as cluster, dg.DagsterInstance.ephemeral() as instance:
        os.environ["KUBECONFIG"] = str(cluster.kubeconfig(folder / "kubeconfig"))
        try:
            yield Scene(cluster, home, counting, instance)
        finally:
            os.environ.pop("KUBECONFIG") if before is None else os.environ.update(KUBECONFIG=before)


if __name__ == "__main__":
    with dg.DagsterInstance.ephemeral() as own:
        place = Path(sys.argv[1])
        make(compute(place, {}), place, own)
