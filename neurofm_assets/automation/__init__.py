"""Automation: what starts by itself, and what of it is on from the beginning.

Work on a GPU never starts by condition: one unguarded condition over partitions launches all of them at once. A test
holds this. What is on by default costs nothing that was not asked for: assets without GPU follow their inputs, failures are
written down, and Jobs of cancelled runs are removed.
Dagster concepts: jobs, schedules, sensors, automation conditions.
"""

import dagster as dg

from neurofm_assets.automation.arrivals import new_raw_files
from neurofm_assets.automation.failures import failure_records
from neurofm_assets.automation.janitor import janitor
from neurofm_assets.automation.jobs import ALL_STEPS, FAMILIES, NEEDED, STEPS, judge, label, prove, study
from neurofm_assets.automation.retraining import new_shards
from neurofm_assets.automation.schedules import monthly_scaling, nightly_quality, weekly_pretraining

data_and_baselines = dg.AutomationConditionSensorDefinition(
    "data_and_baselines",
    target=["quality", "shards", "scaler", "baselines"],
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Data and baselines follow what they are made from.",
)
after_training = dg.AutomationConditionSensorDefinition(
    "after_training",
    target=["onnx", "model_card", "bundle", "scorecard"],
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Releases and reports follow their models.",
)

JOBS = [*STEPS, *FAMILIES.values(), label, prove, study, judge]
SCHEDULES = [nightly_quality, weekly_pretraining, monthly_scaling]
CONDITION_SENSORS = [data_and_baselines, after_training]
SENSORS: list[dg.SensorDefinition] = [new_raw_files, new_shards, failure_records, janitor, *CONDITION_SENSORS]

__all__ = [
    "ALL_STEPS",
    "CONDITION_SENSORS",
    "FAMILIES",
    "JOBS",
    "NEEDED",
    "SCHEDULES",
    "SENSORS",
    "STEPS",
    "failure_records",
    "janitor",
    "monthly_scaling",
    "new_raw_files",
    "new_shards",
    "nightly_quality",
    "weekly_pretraining",
]
