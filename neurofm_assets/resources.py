"""Resources: where artifacts are kept and where work runs, chosen by NEUROFM_ENV and nowhere else.

Dagster concept: resources.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neurofm_assets.compute import Compute, InProcess, Kubernetes, Site, Subprocess
from neurofm_assets.store import Store
from neurofm_ml.files import home


def resources_for(env: str) -> Mapping[str, Any]:
    """ "local": jobs run inside the step's process; "workstation": each in a process of its own; "kubernetes": each as a Job."""
    if env not in COMPUTE:
        raise ValueError(f"NEUROFM_ENV is {env!r}; allowed: {', '.join(COMPUTE)}.")
    return {"compute": COMPUTE[env](), "store": Store(home=str(home()))}


def kubernetes() -> Kubernetes:
    """The cluster that the environment describes.

    NEUROFM_IMAGE            worker image (required)
    NEUROFM_SHARED           where the shared volume is mounted, here and in pods (required); NEUROFM_HOME lies in it
    NEUROFM_CLAIM            its PersistentVolumeClaim (neurofm)
    NEUROFM_NAMESPACE        namespace of the Jobs (neurofm)
    NEUROFM_SECRET           Secret whose keys become variables of the pods
    NEUROFM_QUEUE            Kueue's LocalQueue that admits Jobs
    NEUROFM_NODE_SELECTOR    labels of the GPU nodes: ``name=value,name=value``
    NEUROFM_TOLERATIONS      taints of the GPU nodes: ``name,name``
    NEUROFM_RDMA             resource of the network cards of a gang: ``rdma/ib``

    Pods get NEUROFM_HOME, what PASSED_ON names and every NCCL_ variable as they are here.
    """
    site = Site(
        image=_required("NEUROFM_IMAGE"),
        mount=_required("NEUROFM_SHARED"),
        claim=os.environ.get("NEUROFM_CLAIM", "neurofm"),
        env=_passed_on(),
        secret=os.environ.get("NEUROFM_SECRET", ""),
        queue=os.environ.get("NEUROFM_QUEUE", ""),
        node_selector=dict(_pair(text) for text in _listed("NEUROFM_NODE_SELECTOR")),
        tolerations=_listed("NEUROFM_TOLERATIONS"),
        rdma=os.environ.get("NEUROFM_RDMA", ""),
    )
    if not home().is_relative_to(Path(site.mount).resolve()):
        raise ValueError(f"NEUROFM_HOME is {home()}, which pods cannot see; it must lie in NEUROFM_SHARED = {site.mount}.")
    return Kubernetes(site=site, namespace=os.environ.get("NEUROFM_NAMESPACE", "neurofm"))


#: Raw files, cards, the shared store, and how training is followed; keys come by the Secret.
PASSED_ON = (
    *("NEUROFM_DATA", "NEUROFM_CARDS", "NEUROFM_STORE", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_S3_ADDRESSING_STYLE"),
    *("NEUROFM_WANDB_PROJECT", "WANDB_MODE", "NEUROFM_GPU_PRICE_PER_HOUR"),
)
COMPUTE: dict[str, Callable[[], Compute]] = {"local": InProcess, "workstation": Subprocess, "kubernetes": kubernetes}


def _required(name: str) -> str:
    if not os.environ.get(name):
        raise ValueError(f"{name} is not set; NEUROFM_ENV=kubernetes needs it.")
    return os.environ[name]


def _listed(name: str) -> list[str]:
    return [text.strip() for text in os.environ.get(name, "").split(",") if text.strip()]


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f'NEUROFM_NODE_SELECTOR holds {text!r}; write "name=value,name=value".')
    return name, value


def _passed_on() -> dict[str, str]:
    """What pods know of this process' environment."""
    kept = {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith("NCCL_")}
    return {"NEUROFM_HOME": str(home()), **kept}
