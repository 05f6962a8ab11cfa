"""The job `ingest`: raw files of one dataset -> recordings on disk, a table of them, and whether they are as expected.

A dataset grows by recordings. Those whose files, card and reader are what they were in the artifact before are
linked from it instead of being read again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from neurofm_ml import markdown
from neurofm_ml.config import to_dict
from neurofm_ml.data.plots import plot_coverage, plot_recording
from neurofm_ml.data.readers import READERS
from neurofm_ml.data.readers.subjects import subject_of
from neurofm_ml.data.recordings import load_recording, save_recording
from neurofm_ml.data.schemas import RECORDINGS, validate
from neurofm_ml.files import file_hash
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, datasets
from neurofm_ml.knowledge.files import atlases, files_of, find_recordings
from neurofm_ml.knowledge.roots import data_root
from neurofm_ml.presets import IngestConfig
from neurofm_ml.types import Check, Recording, Report, Series, SpikeTrain

#: Seconds that an expected duration, written with a few digits, may differ by; every other number is a count.
_TOLERANCE_S = 0.05
#: Fields of a card that say nothing of how a recording is read.
_NOT_READ = ("title", "source", "citation", "notes", "recordings", "archive", "window_s", "stride_s", "tasks", "expected", "preprocess")
#: Rows of the table that the asset's page shows; the Parquet file has all.
_ROWS_SHOWN = 20


def ingest(cfg: IngestConfig, raw: list[Path], out: Path, before: Path | None = None) -> Report:
    """Read and save every recording of the dataset. `raw` are its files, [] for the simulation; `before` is an
    artifact of an earlier state of it.

    Writes ``recordings/<id>/``, ``recordings.parquet``, ``card.json``, a picture of the first recording, one of what
    every recording covers, and the head of the table for people.
    """
    import pandas as pd

    card = datasets()[cfg.dataset]
    shutil.rmtree(out / "recordings", ignore_errors=True)
    linked = _link(card, before, out / "recordings")
    rows = [_row(recording) for recording in _gathered(card, set(linked), out / "recordings")]
    if not rows:
        where = (data_root(card) or Path("NEUROFM_DATA, which is not set, ")) / card.pattern
        raise ValueError(
            f"{card.name}: no recording in {len(raw)} raw files, looked for as {where}; get them from {card.source} and point "
            "NEUROFM_DATA at them, or correct the card's root and pattern."
        )
    table = pd.DataFrame(rows).drop(columns="channels")
    table.to_parquet(out / "recordings.parquet", index=False)
    (out / "card.json").write_text(json.dumps(to_dict(card), indent=1))
    (out / "sources.json").write_text(json.dumps(_sources(card), indent=1))
    first, *_ = recordings = [load_recording(out / "recordings" / row["id"]) for row in rows]
    plot_recording(first, card.window_s, out / "first_recording.png")
    plot_coverage(recordings, out / "coverage.png")
    (out / "recordings.md").write_text(_described(recordings))
    metrics = {**_metrics(rows), "taken_over": len(linked)}
    shown = {"recordings": "recordings.md", "coverage": "coverage.png", "first recording": "first_recording.png"}
    checks = (_check_expected(card, metrics), validate(table, RECORDINGS))
    return Report(metrics, checks, {**shown, "table": "recordings.parquet"})


# ---------------------------------------------------------------- what is read, what is linked
def _sources(card: DatasetCard) -> dict[str, str]:
    """Recording id -> hash of all it is made from: the card as far as readers use it, the subject, files and atlases."""
    about = {key: value for key, value in to_dict(card).items() if key not in _NOT_READ}
    root = data_root(card)
    shared = [file_hash(root / name) for name in atlases(card) if (root / name).exists()] if root else []
    return {spec.id: _hash([about, shared, *_source(card, spec)]) for spec in find_recordings(card)}


def _source(card: DatasetCard, spec: RecordingSpec) -> list[Any]:
    files = [(path.name, file_hash(path)) for path in files_of(card, spec)]
    return [asdict(spec), asdict(subject_of(card, spec)), files]


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _link(card: DatasetCard, before: Path | None, folder: Path) -> list[str]:
    """Ids of the recordings that are taken over from `before`, whose files are linked (copied across file systems)."""
    if before is None or not (before / "sources.json").exists():
        return []
    known, now = json.loads((before / "sources.json").read_text()), _sources(card)
    same = [name for name, source in now.items() if known.get(name) == source and (before / "recordings" / name).is_dir()]
    for name in same:
        shutil.copytree(before / "recordings" / name, folder / name, copy_function=_link_or_copy)
    return same


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _gathered(card: DatasetCard, linked: set[str], folder: Path) -> Iterator[Recording]:
    """Every recording of the card in order, those not linked read and saved."""
    from tqdm import tqdm

    specs = find_recordings(card)
    missing = tuple(spec for spec in specs if spec.id not in linked)
    fresh = iter(READERS[card.reader](replace(card, recordings=missing))) if missing or not specs else iter(())
    for spec in tqdm(specs, desc=f"ingest {card.name}", unit="recording", disable=None):
        yield load_recording(folder / spec.id) if spec.id in linked else _saved(_next(fresh, card, spec), folder)


def _next(fresh: Iterator[Recording], card: DatasetCard, spec: RecordingSpec) -> Recording:
    """The next recording, which is `spec`. What is wrong with one that the card's pattern found can be gone round."""
    try:
        return next(fresh)
    except ValueError as error:
        if card.recordings:
            raise
        raise ValueError(f"{error} To go on without it, write in the card: leave_out: {{{spec.id}: why}}.") from None


def _saved(recording: Recording, folder: Path) -> Recording:
    """Save one recording. Raises ValueError for an id that was seen before."""
    if (folder / recording.id).exists():
        raise ValueError(f"{recording.dataset}: two recordings are called {recording.id!r}; give them different ids in the card.")
    save_recording(recording, folder)
    return recording


# ---------------------------------------------------------------- what is told of them
def _row(recording: Recording) -> dict[str, Any]:
    """Row of the table of recordings."""
    who = recording.subject
    channels = {name: _n_chans(series) for name, series in recording.signals.items()}
    return {
        "id": recording.id,
        "dataset": recording.dataset,
        "session": recording.session,
        "subject": who.id,
        "age": who.age,
        "sex": who.sex,
        "site": who.site,
        "family": who.family,
        "diagnosis": who.diagnosis,
        "species": recording.species,
        "licence": recording.licence,
        "start_s": recording.bounds[0],
        "duration_s": recording.duration,
        "modalities": ",".join(recording.modalities),
        "signals": ",".join(channels),
        "n_channels": sum(channels.values()),
        "channels": channels,
    }


def _n_chans(series: Series) -> int:
    return len(series.unit_ids) if isinstance(series, SpikeTrain) else len(series.ch_names)


def _described(recordings: list[Recording]) -> str:
    """Markdown: one line per recording, each series in its own words."""
    rows = []
    for r in recordings[:_ROWS_SHOWN]:
        signals = "<br>".join(f"{name}: {series!r}" for name, series in r.signals.items())
        intervals = ", ".join(f"{name} ({len(found.start)})" for name, found in r.intervals.items())
        rows.append((r.id, r.subject.id, r.session, f"{r.duration:g}", signals, intervals))
    more = len(recordings) - _ROWS_SHOWN
    return "\n".join(markdown.table(("recording", "subject", "session", "seconds", "signals", "intervals"), rows)) + (
        f"\n\n... and {more} more\n" if more > 0 else "\n"
    )


def _metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Numbers of the dataset; channels are counted once per session, which shares them."""
    sessions = {row["session"]: row["channels"] for row in rows}
    names = sorted({name for channels in sessions.values() for name in channels})
    seconds = sum(row["duration_s"] for row in rows)
    return {
        "n_recordings": len(rows),
        "n_subjects": len({row["subject"] for row in rows}),
        "duration_s": round(seconds, 3),
        "hours": round(seconds / 3600, 3),
        **{f"n_channels.{name}": sum(channels.get(name, 0) for channels in sessions.values()) for name in names},
    }


def _check_expected(card: DatasetCard, metrics: Mapping[str, float]) -> Check:
    """One blocking check: the numbers are those that the card expects."""
    unknown = sorted(set(card.expected) - set(metrics))
    if unknown:
        raise ValueError(f"{card.name}: expected names {', '.join(unknown)}; the numbers are {', '.join(metrics)}.")
    wrong = [name for name, value in card.expected.items() if abs(metrics[name] - value) > (_TOLERANCE_S if name == "duration_s" else 0)]
    note = "; ".join(f"{name} is {metrics[name]:g}, the card expects {card.expected[name]:g}" for name in wrong)
    numbers = {name: float(metrics[name]) for name in card.expected}
    threshold = f"the card's numbers, the duration within {_TOLERANCE_S:g} s"
    return Check("expected_numbers", not wrong, numbers=numbers, threshold=threshold, note=note)
