"""Schedules: what is made again as time passes, in UTC. What has not changed is found, not computed.

Dagster concept: schedules.
"""

from collections.abc import Iterator

import dagster as dg

from neurofm_assets.assets import data, models
from neurofm_assets.automation.jobs import judge, study, train
from neurofm_assets.partitions import CARDS, run_key
from neurofm_assets.store import Store


@dg.schedule(job=judge, cron_schedule="0 3 * * *")
def nightly_quality(context: dg.ScheduleEvaluationContext, store: Store) -> Iterator[dg.RunRequest]:
    """Judge the recordings of every dataset that is here."""
    for dataset in store.here(data.recordings, CARDS):
        yield dg.RunRequest(run_key=f"{dataset}:{context.scheduled_execution_time:%Y-%m-%d}", partition_key=dataset)


@dg.schedule(job=train, cron_schedule="0 22 * * 6")
def weekly_pretraining(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """The small model, from whatever shards there are by Saturday night to its release."""
    return dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%d}", partition_key=run_key("small", 0))


@dg.schedule(job=study, cron_schedule="0 22 1 * *")
def monthly_scaling(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """The scaling law of the small model, on the shards that the month leaves."""
    month = f"{context.scheduled_execution_time:%Y-%m}"
    return dg.RunRequest(run_key=month, partition_key="small", asset_selection=[models.scaling_law.key])
