"""Resources: where artifacts are kept and where work runs, chosen by NEUROFM_ENV and nowhere else.

Dagster concept: resources.
"""

from collections.abc import Mapping
from typing import Any

from neurofm_assets.compute import InProcess, Subprocess
from neurofm_assets.store import Store
from neurofm_ml.files import home

COMPUTE = {"local": InProcess, "workstation": Subprocess}


def resources_for(env: str) -> Mapping[str, Any]:
    """ "local": jobs run inside the step's process; "workstation": each in a process of its own."""
    if env not in COMPUTE:
        raise ValueError(f"NEUROFM_ENV is {env!r}; allowed: {', '.join(COMPUTE)}.")
    return {"compute": COMPUTE[env](), "store": Store(home=str(home()))}
