"""Work on several nodes: two pods that meet through torchrun, and a gang that is started whole again when it loses one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.double import Node
from cluster.scenes import Scene, scene

pytestmark = pytest.mark.slow
NODES = tuple(Node(f"cpu-{k}", {"cpu": "3", "memory": "16Gi"}) for k in (0, 1))
INDEX = "batch.kubernetes.io/job-completion-index"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path, *NODES) as made:
        yield made


def pod_with(stage: Scene, index: str) -> Callable[[], Any]:
    """The gang's pod of that index, once the job holds."""
    return lambda: stage.holding() and next(pod for pod in stage.cluster.pods("Running") if pod["metadata"]["annotations"][INDEX] == index)


def gangs(stage: Scene) -> int:
    """Gangs that there have been; each Job had both its pods, and no two pods of one index were there at a time."""
    assert stage.cluster.most("jobs") == 1
    assert stage.cluster.most("pods", "Running") == 2
    assert stage.cluster.ever("pods") == 2 * stage.cluster.ever("jobs")
    return stage.cluster.ever("jobs")


def test_two_pods_make_one_artifact(stage: Scene) -> None:
    stage.make(nodes=2)
    assert gangs(stage) == 1
    assert stage.starts() == [0]
    assert stage.artifact().metrics == {"steps": 12}
    assert {pod["spec"]["nodeName"] for pod in stage.cluster.pods()} == {"cpu-0", "cpu-1"}


@pytest.mark.parametrize(
    ("index", "befallen", "resumed"),
    [
        ("0", lambda cluster, pod: cluster.preempt(pod), 6),
        ("1", lambda cluster, pod: cluster.preempt(pod), 6),
        ("0", lambda cluster, pod: cluster.crash(pod), 4),
        ("1", lambda cluster, pod: cluster.crash(pod), 6),
    ],
    ids=["the first preempted", "the second preempted", "the first lost", "the second lost"],
)
def test_a_gang_that_loses_a_pod_is_started_again_from_its_checkpoint(
    index: str, befallen: Callable[..., None], resumed: int, stage: Scene
) -> None:
    stage.befall("hold")
    stage.when(pod_with(stage, index), lambda pod: befallen(stage.cluster, pod))
    stage.make(nodes=2)
    assert gangs(stage) == 2
    assert stage.starts() == [0, resumed]
    assert stage.artifact().metrics == {"steps": 12}


def test_wrong_input_ends_a_gang_at_once(stage: Scene) -> None:
    stage.befall("wrong", start="every")
    with pytest.raises(Exception, match="electrode A1 is not here; name another"):
        stage.make(nodes=2)
    assert stage.starts() == [0]


def test_two_processes_in_one_pod(stage: Scene) -> None:
    stage.cluster.add_node(Node("gpu-0", {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "2"}))
    stage.make(gpus=2)
    assert stage.starts() == [0]
    assert stage.artifact().metrics == {"steps": 12}
    (pod,) = stage.cluster.pods()
    assert "--nproc-per-node=2" in pod["spec"]["containers"][0]["command"]
