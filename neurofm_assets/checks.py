"""Asset checks: the claims each job announces, as Dagster's specs and results.

What is judged and how stands in the library (`neurofm_ml.data.quality`, `neurofm_ml.evaluation`).
Dagster concept: asset checks returned with the materialisation.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import dagster as dg

from neurofm_ml.jobs import JOBS, JobResult
from neurofm_ml.knowledge.claims import CLAIMS

SEVERITY = {"warn": dg.AssetCheckSeverity.WARN, "error": dg.AssetCheckSeverity.ERROR}


def specs_for(asset: str, job: str, partitions: dg.PartitionsDefinition) -> list[dg.AssetCheckSpec]:
    """Checks of an asset: those its job announces; the ones of severity "error" stop what follows.

    Each partition has its own verdict: one for all would be that of whichever dataset was judged last.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # said of `partitions_def`, sixty times
        return [
            dg.AssetCheckSpec(name, asset=asset, description=CLAIMS[name], blocking=severity == "error", partitions_def=partitions)
            for name, severity in JOBS[job].checks.items()
        ]


def results_of(result: JobResult) -> list[dg.AssetCheckResult]:
    """Check results of a finished job, each with the partition and the numbers it judged and its threshold."""
    partition = Path(result.path).parent.name
    return [
        dg.AssetCheckResult(
            check_name=check["name"],
            passed=check["passed"],
            severity=SEVERITY[check["severity"]],
            description=check["note"] or None,
            metadata={"partition": partition, "threshold": check["threshold"], **{k: finite(v) for k, v in check["numbers"].items()}},
        )
        for check in result.checks
    ]


def finite(value: Any) -> Any:
    """`value`, NaN and infinities as text: Dagster's pages refuse them as numbers."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)
