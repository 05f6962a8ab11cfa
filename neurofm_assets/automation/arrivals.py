"""Arrivals: raw files of datasets, tables and corpora that are new, changed or gone.

A look at every file's size and time is cheap, so each tick takes one; contents are compared only where those have
changed and then held still, and the store says what the present artifact was made from. The cursor stays small:
it keeps one state per source, never its files.
Dagster concept: sensors with a cursor.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from neurofm_assets.assets import atlas, data
from neurofm_assets.automation.jobs import collect, prepare, tabulate
from neurofm_assets.partitions import CARDS
from neurofm_assets.store import Store
from neurofm_ml.jobs import current, load_result, version_of
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.knowledge.corpora import corpora, corpus_files
from neurofm_ml.knowledge.files import raw_files
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.knowledge.tables import table_files, tables

#: Bytes that one tick may read to compare contents: seconds, where a tick has a minute. What is larger by itself is
#: requested unread, and its run finds out whether anything is new.
READ_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class Source:
    """One card: the files it stands for, and the job that makes its partition of an asset."""

    job: str
    asset: dg.AssetsDefinition
    name: str
    files: Callable[[], list[Path]]


@dataclasses.dataclass(frozen=True)
class Known:
    """What the cursor keeps of a source: the state seen last, the state decided on last, how often it was requested."""

    seen: str = ""
    decided: str = ""
    requests: int = 0


def sources() -> Iterator[Source]:
    """Every card there is."""
    for name, card in CARDS.items():
        yield Source(prepare.name, data.recordings, name, partial(dataset_files, card))
    for name in tables():
        yield Source(tabulate.name, data.tables, name, partial(table_files, tables()[name]))
    for name in corpora():
        yield Source(collect.name, atlas.foci, name, partial(corpus_files, corpora()[name]))


def dataset_files(card: DatasetCard) -> list[Path]:
    """`raw_files`, asked only where the card's folder is here: most are not, and looking in vain would be most of a tick."""
    root = data_root(card)
    return raw_files(card) if root and root.exists() else []


@dg.sensor(jobs=[prepare, tabulate, collect], minimum_interval_seconds=30)
def new_raw_files(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult:
    """Prepare the datasets, tables and corpora whose raw files are new, changed or gone.

    Files that still change between two ticks are left for a later one, so nothing half-written is read. What lost all of its
    files keeps its artifacts.
    """
    before = json.loads(context.cursor or "{}")
    tick = Tick(store, context.log.warning)
    after = {key: tick.look(source, Known(**before.get(key, {}))) for key, source in SOURCES.items()}
    kept = {key: changes for key, known in after.items() if (changes := compact(known))}
    return dg.SensorResult(run_requests=tick.requests, cursor=json.dumps(kept))


def compact(known: Known) -> dict[str, Any]:
    """The fields of `known` that say something."""
    return {field.name: value for field in dataclasses.fields(Known) if (value := getattr(known, field.name)) != field.default}


class Tick:
    """One evaluation of the sensor: what it requests, and how much it may still read."""

    def __init__(self, store: Store, warn: Callable[[str], None]) -> None:
        self.store, self.warn = store, warn
        self.requests: list[dg.RunRequest] = []
        self.unread = READ_BYTES

    def look(self, source: Source, known: Known) -> Known:
        """What is to be remembered of the source from now on; adds a request where one is due."""
        stats = {str(path): stat_of(path) for path in source.files()}
        if not stats:
            return known
        state = state_of(stats)
        if state == known.decided:
            return dataclasses.replace(known, seen="")
        if state != known.seen:
            return dataclasses.replace(known, seen=state)
        try:
            changes = self.changes(source, {path: size for path, (size, _) in stats.items()})
        except (ValueError, FileNotFoundError, PermissionError) as error:  # of this source: the others go on
            self.warn(f"{source.name} is looked at again at the next tick: {error}")
            return known
        if changes is None:
            return known
        number = known.requests + any(changes.values())
        if number > known.requests:
            tags = {f"neurofm/files_{what}": str(n) for what, n in changes.items()}
            # Numbered, because files may return to a state that was requested before.
            key = f"{source.name}:{number}:{state}"
            self.requests.append(dg.RunRequest(run_key=key, job_name=source.job, partition_key=source.name, tags=tags))
        return Known(decided=state, requests=number)

    def changes(self, source: Source, sizes: Mapping[str, int]) -> dict[str, int] | None:
        """How many files differ from those that the present artifact was made from; None when a later tick must tell."""
        artifact = current(self.store.path(source.asset, source.name))
        before = {found["path"]: found["data_version"] for found in load_result(artifact).inputs["raw"]} if artifact else {}
        size = sum(sizes.values()) if before else 0
        if size > READ_BYTES:
            return difference(before, dict.fromkeys(sizes, "unread"))
        if size > self.unread:
            return None
        self.unread -= size
        return difference(before, {path: version_of(Path(path)) if before else "" for path in sizes})


def stat_of(path: Path) -> tuple[int, int]:
    """Size and modification time; of a file that vanished while others were looked at, something no file has."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def state_of(stats: Mapping[str, tuple[int, int]]) -> str:
    """One hash of the names, sizes and times of files."""
    return hashlib.sha256(json.dumps(stats, sort_keys=True).encode()).hexdigest()[:16]


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, int]:
    """How many files are new, changed, removed; `before` and `now` map a file to the version of its content."""
    changed = sum(before[name] != version for name, version in now.items() if name in before)
    return {"new": len(now.keys() - before), "changed": changed, "removed": len(before.keys() - now)}


SOURCES = {f"{source.job}/{source.name}": source for source in sources()}
