"""Compute: how a job of the library is run for an asset, and how its result becomes a materialisation.

The asset body never knows which form it was given. What a job does is in `neurofm_ml.jobs`.
Dagster concept: resource.
"""

from neurofm_assets.compute.base import Compute, materialization
from neurofm_assets.compute.kubernetes import Kubernetes
from neurofm_assets.compute.local import InProcess, Subprocess
from neurofm_assets.compute.pods import Site

__all__ = ["Compute", "InProcess", "Kubernetes", "Site", "Subprocess", "materialization"]
