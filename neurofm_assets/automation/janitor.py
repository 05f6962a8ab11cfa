"""The janitor: work that went on elsewhere after its run was cancelled is stopped.

Dagster concept: sensors.
"""

import dagster as dg

from neurofm_assets.compute import Compute


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def janitor(context: dg.SensorEvaluationContext, compute: Compute) -> dg.SkipReason:
    """Delete the Jobs of cancelled runs. Where runs do their work themselves there is nothing to delete."""
    gone = compute.sweep(context.instance)
    return dg.SkipReason(f"stopped {', '.join(gone)}" if gone else "nothing was left behind")
