"""Retraining: one run of the small model when what it would learn from has changed.

Dagster concept: sensors with a cursor.
"""

import hashlib
import json
from pathlib import Path

import dagster as dg

from neurofm_assets.assets.data import scalers_for, shards
from neurofm_assets.assets.evaluation import baselines
from neurofm_assets.automation.jobs import train
from neurofm_assets.partitions import LABELLED, modalities_of, read_by, run_key
from neurofm_assets.store import Store
from neurofm_ml import presets
from neurofm_ml.jobs import load_result

KEY = run_key("small", 0)
GOING = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(job=train, minimum_interval_seconds=300)
def new_shards(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult:
    """Train (small, seed 0) once the shards have other contents than at the last request and hold still.

    One request, however many datasets have changed, and none while a run of it is going.
    """
    cursor = json.loads(context.cursor or '{"seen": "", "requested": "", "number": 0}')
    try:
        state = state_of(learned_from(store))
    except ValueError as error:
        return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
    if state == cursor["requested"]:
        return dg.SensorResult(skip_reason="trained on these shards", cursor=context.cursor)
    if state != cursor["seen"]:
        return dg.SensorResult(skip_reason="shards have changed since the last look", cursor=json.dumps(cursor | {"seen": state}))
    if is_going(context.instance):
        return dg.SensorResult(skip_reason=f"a run of {KEY} is going", cursor=context.cursor)
    number = cursor["number"] + 1
    request = dg.RunRequest(run_key=f"{number}:{state}", partition_key=KEY)
    return dg.SensorResult([request], cursor=json.dumps({"seen": state, "requested": state, "number": number}))


def learned_from(store: Store) -> dict[str, str]:
    """Dataset -> shards of every dataset that is here. Raises ValueError, saying why, while they are not ready to be learned from:
    a dataset is blocked, a scaler or the baselines were made from other shards.
    """
    _, chosen, _ = store.choose(shards, presets.pretrain("small", 0), read_by(presets.READ))
    scalers_for(store, chosen, modalities_of(chosen))
    labelled = [name for name in LABELLED if name in chosen]
    store.require_made_from(store.gather(baselines, labelled), "shards", [chosen[name] for name in labelled])
    return chosen


def state_of(chosen: dict[str, str]) -> str:
    """One hash of the contents of the shards of each dataset."""
    versions = {name: load_result(Path(path)).data_version for name, path in chosen.items()}
    return hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:16]


def is_going(instance: dg.DagsterInstance) -> bool:
    """Whether a run of the same partition is waiting or at work, whoever asked for it."""
    runs = instance.get_runs(dg.RunsFilter(job_name=train.name, statuses=GOING, tags={"dagster/partition": KEY}))
    return bool(runs)
