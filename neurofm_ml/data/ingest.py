"""The job `ingest`: raw files of one dataset -> recordings on disk, a table of them, and whether they are as expected."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurofm_ml.config import to_dict
from neurofm_ml.data.plots import plot_recording
from neurofm_ml.data.readers import READERS
from neurofm_ml.data.recordings import load_recordings, save_recording
from neurofm_ml.knowledge.cards import DatasetCard, datasets, find_recordings
from neurofm_ml.presets import IngestConfig
from neurofm_ml.types import Check, Recording, Report, SpikeTrain

#: Relative difference that an expected number may show (the last digit of a duration).
_TOLERANCE = 1e-3


def ingest(cfg: IngestConfig, raw: list[Path], out: Path) -> Report:
    """Read and save every recording of the dataset. `raw` are its files, [] for the simulation.

    Writes ``recordings/<id>/``, ``recordings.parquet``, ``card.json`` and a picture of the first recording.
    """
    import pandas as pd
    from tqdm import tqdm

    card = datasets()[cfg.dataset]
    shutil.rmtree(out / "recordings", ignore_errors=True)
    found = tqdm(READERS[card.reader](card), desc=f"ingest {card.name}", unit="recording", total=len(find_recordings(card)) or None)
    rows = [_save(recording, out / "recordings") for recording in found]
    if not rows:
        raise ValueError(f"{card.name}: no recording in {len(raw)} raw files; get them from {card.source} and point NEUROFM_DATA at them.")
    pd.DataFrame(rows).drop(columns="channels").to_parquet(out / "recordings.parquet", index=False)
    (out / "card.json").write_text(json.dumps(to_dict(card), indent=1))
    plot_recording(next(load_recordings(out)), card.window_s, out / "first_recording.png")
    metrics = _metrics(rows)
    return Report(metrics, _check_expected(card, metrics), {"first recording": "first_recording.png", "table": "recordings.parquet"})


def _save(recording: Recording, folder: Path) -> dict[str, Any]:
    """Save one recording and return its row of the table. Raises ValueError for an id that was seen before."""
    if (folder / recording.id).exists():
        raise ValueError(f"{recording.dataset}: two recordings are called {recording.id!r}; give them different ids in the card.")
    save_recording(recording, folder)
    who = recording.subject
    channels = {name: len(s.unit_ids) if isinstance(s, SpikeTrain) else len(s.ch_names) for name, s in recording.signals.items()}
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


def _check_expected(card: DatasetCard, metrics: Mapping[str, float]) -> tuple[Check, ...]:
    """One blocking check: the numbers are those that the card expects."""
    unknown = sorted(set(card.expected) - set(metrics))
    if unknown:
        raise ValueError(f"{card.name}: expected names {', '.join(unknown)}; the numbers are {', '.join(metrics)}.")
    wrong = [name for name, value in card.expected.items() if abs(metrics[name] - value) > _TOLERANCE * abs(value)]
    note = "; ".join(f"{name} is {metrics[name]:g}, the card expects {card.expected[name]:g}" for name in wrong)
    numbers = {name: float(metrics[name]) for name in card.expected}
    return (Check("expected_numbers", not wrong, numbers=numbers, threshold=f"the card's numbers within {_TOLERANCE:.1%}", note=note),)
