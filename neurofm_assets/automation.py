"""Automation: what starts by itself. New raw files are prepared, quality is judged again each night.

Work on a GPU never starts by condition: one unguarded condition over partitions launches all of them
at once. A test holds this.
Dagster concepts: jobs, schedules, sensors.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping

import dagster as dg

from neurofm_assets.assets import atlas, data, evaluation, models, release
from neurofm_assets.partitions import CARDS
from neurofm_assets.store import Store
from neurofm_ml.knowledge.cards import DatasetCard, raw_files

prepare = dg.define_asset_job("prepare", [data.recordings, data.quality, data.shards], description="One dataset, from raw files to shards.")
scale = dg.define_asset_job("scale", [data.scaler], description="Scalers of one modality.")
collect = dg.define_asset_job("collect", [atlas.foci], description="Coordinates of one corpus.")
tabulate = dg.define_asset_job("tabulate", [data.tables], description="One table of subjects, studies or regions.")
compare = dg.define_asset_job("compare", [evaluation.baselines], description="What simple methods reach on one dataset.")
train = dg.define_asset_job(
    "train",
    [models.neurofmx_pretrained, models.neurofmx_adapted, evaluation.scores, release.onnx, release.model_card, release.bundle],
    description="One run, from shards to the release bundle.",
)
judge = dg.define_asset_job("judge", [data.quality], description="Quality of one dataset, again.")

#: Jobs that make the whole graph, in the order of its making.
STEPS = (prepare, scale, collect, tabulate, compare, train)


@dg.schedule(job=judge, cron_schedule="0 3 * * *")
def nightly_quality(context: dg.ScheduleEvaluationContext, store: Store) -> Iterator[dg.RunRequest]:
    """Judge the recordings of every dataset that is here."""
    for dataset in store.here(data.recordings, CARDS):
        yield dg.RunRequest(run_key=f"{dataset}:{context.scheduled_execution_time:%Y-%m-%d}", partition_key=dataset)


@dg.sensor(job=prepare, minimum_interval_seconds=30)
def new_raw_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Prepare the datasets whose raw files are new or changed.

    Files that still change between two ticks are left for a later one, so nothing half-written is read.
    The cursor keeps, per dataset, the state seen last, the state requested last and the files of that, so that a
    request says how many files are new, changed or gone. A dataset all of whose files are gone keeps its artifacts.
    """
    before = json.loads(context.cursor or "{}")
    cursor, requests = {}, []
    for name, card in CARDS.items():
        files = stamps(card)
        if not files:
            continue
        state, known = state_of(files), before.get(name, {"seen": "", "requested": "", "files": {}})
        if known["seen"] == state != known["requested"]:
            tags = {f"neurofm/files_{what}": str(n) for what, n in difference(known["files"], files).items()}
            requests.append(dg.RunRequest(run_key=f"{name}:{state}", partition_key=name, tags=tags))
            known = {"requested": state, "files": files}
        cursor[name] = {**known, "seen": state}
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor))


def stamps(card: DatasetCard) -> dict[str, str]:
    """Raw file of a card that is here -> its size and modification time."""
    return {str(path): f"{path.stat().st_size:x}-{path.stat().st_mtime_ns:x}" for path in raw_files(card)}


def state_of(files: Mapping[str, str]) -> str:
    """One hash of the stamps of a dataset's files."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, int]:
    """How many files are new, changed, removed."""
    changed = sum(before[name] != stamp for name, stamp in now.items() if name in before)
    return {"new": len(now.keys() - before), "changed": changed, "removed": len(before.keys() - now)}


JOBS = [*STEPS, judge]
SCHEDULES = [nightly_quality]
SENSORS = [new_raw_files]
