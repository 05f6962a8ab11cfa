"""Asset checks: the claims each job announces, as Dagster's specs and results.

What is judged and how stands in the library (`neurofm_ml.data.quality`, `neurofm_ml.evaluation`).
Dagster concept: asset checks returned with the materialisation.
"""

import dagster as dg

from neurofm_ml.jobs import JOBS, JobResult

SEVERITY = {"warn": dg.AssetCheckSeverity.WARN, "error": dg.AssetCheckSeverity.ERROR}


def specs_for(asset: str, job: str) -> list[dg.AssetCheckSpec]:
    """Checks of an asset: those its job announces; the ones of severity "error" stop what follows."""
    return [
        dg.AssetCheckSpec(name, asset=asset, blocking=severity == "error", description=name.replace("_", " ").capitalize() + ".")
        for name, severity in JOBS[job].checks.items()
    ]


def results_of(result: JobResult) -> list[dg.AssetCheckResult]:
    """Check results of a finished job, each with the numbers it judged and its threshold."""
    return [
        dg.AssetCheckResult(
            check_name=check["name"],
            passed=check["passed"],
            severity=SEVERITY[check["severity"]],
            description=check["note"] or None,
            metadata={**{k: float(v) for k, v in check["numbers"].items()}, "threshold": check["threshold"]},
        )
        for check in result.checks
    ]
