"""Automation: what starts by itself. New raw files are prepared, quality is judged again each night.

Work on a GPU never starts by condition: one unguarded condition over partitions launches all of them
at once. A test holds this.
Dagster concepts: jobs, schedules, sensors.
"""

import hashlib
import json
from collections.abc import Iterator

import dagster as dg

from neurofm_assets.assets import atlas, data, evaluation, models, release
from neurofm_assets.partitions import CARDS
from neurofm_assets.store import Store
from neurofm_ml.knowledge.cards import DatasetCard, raw_files

prepare = dg.define_asset_job("prepare", [data.recordings, data.quality, data.shards], description="One dataset, from raw files to shards.")
scale = dg.define_asset_job("scale", [data.scaler], description="Scalers of one modality.")
collect = dg.define_asset_job("collect", [atlas.foci], description="Coordinates of one corpus.")
compare = dg.define_asset_job("compare", [evaluation.baselines], description="What simple methods reach on one dataset.")
train = dg.define_asset_job(
    "train",
    [models.neurofmx_pretrained, models.neurofmx_adapted, evaluation.scores, release.onnx, release.model_card, release.bundle],
    description="One run, from shards to the release bundle.",
)
judge = dg.define_asset_job("judge", [data.quality], description="Quality of one dataset, again.")

#: Jobs that make the whole graph, in the order of its making.
STEPS = (prepare, scale, collect, compare, train)


@dg.schedule(job=judge, cron_schedule="0 3 * * *")
def nightly_quality(context: dg.ScheduleEvaluationContext, store: Store) -> Iterator[dg.RunRequest]:
    """Judge the recordings of every dataset that is here."""
    for dataset in store.here(data.recordings, CARDS):
        yield dg.RunRequest(run_key=f"{dataset}:{context.scheduled_execution_time:%Y-%m-%d}", partition_key=dataset)


@dg.sensor(job=prepare, minimum_interval_seconds=30)
def new_raw_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Prepare the datasets whose raw files are new or changed.

    Files that still change between two ticks are left for a later one, so nothing half-written is read.
    The cursor keeps, per dataset, the state seen last and the state requested last.
    """
    before = json.loads(context.cursor or "{}")
    now = {name: state for name, card in CARDS.items() if (state := state_of(card))}
    settled = {name: state for name, state in now.items() if before.get(name, {}).get("seen") == state}
    requests = [
        dg.RunRequest(run_key=f"{name}:{state}", partition_key=name)
        for name, state in settled.items()
        if before[name].get("requested") != state
    ]
    cursor = {name: {"seen": state, "requested": settled.get(name, before.get(name, {}).get("requested"))} for name, state in now.items()}
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor))


def state_of(card: DatasetCard) -> str | None:
    """Names, sizes and modification times of a card's raw files, hashed; None when none is here."""
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in raw_files(card)]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16] if files else None


JOBS = [*STEPS, judge]
SCHEDULES = [nightly_quality]
SENSORS = [new_raw_files]
