"""Windows: recordings preprocessed and put on their grid, cut into stretches of equal length, written as shards and read back.

Which stretches there are is the affair of ``survey.py``. What comes out is the shards artifact:

    <split>-00000.tar ...   windows, one WebDataset sample each; in the layout "modality", <split>-<modality>-00000.tar ...
    windows.parquet         one row per window: key, recording, session, subject, family, site, split, start, end
    channels.json           session -> signal -> modality, rate, names, positions, unit
    recordings.json         recording -> session, subject, history
    certificate.json        proof, from windows.parquet and index.parquet, that no split has seen another
    index.parquet, manifest.json, card.json
"""

import dataclasses
import io
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.data.grid import BEHAVIOUR, to_grid
from neurofm_ml.data.preprocess import UnifiedPreprocessor
from neurofm_ml.data.recordings import load_card, load_recording, load_recordings, save_recording
from neurofm_ml.data.schemas import WINDOWS, validate
from neurofm_ml.data.shards import Reader, Sample, Written, read_index, verify, write_manifest, write_shards
from neurofm_ml.data.splits import SHOWN, certificate, find_repeats
from neurofm_ml.data.stores import open_files
from neurofm_ml.data.survey import Survey, signals_of
from neurofm_ml.files import write_json
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.presets import SPLITS, ShardsConfig
from neurofm_ml.types import Array, Check, Intervals, Recording, Report, Signal, Subject

#: Recordings that are named when windows stand in two splits; the certificate names all.
_NAMED = 5


# ---------------------------------------------------------------- write
def shard_recordings(cfg: ShardsConfig, recordings: Path, out: Path) -> Report:
    """Job `write_shards`: the recordings artifact of one dataset -> its shards artifact in `out`."""
    card = load_card(recordings)
    with tempfile.TemporaryDirectory(prefix=".gridded-", dir=out) as scratch:
        survey = _prepared(recordings, card, Path(scratch))
        table = survey.table()
        written = _written(cfg, survey, table, Path(scratch), out)
    table.to_parquet(out / "windows.parquet", index=False)
    write_json(out / "channels.json", survey.channels)
    write_json(out / "recordings.json", survey.recordings())
    shutil.copyfile(recordings / "card.json", out / "card.json")
    about = {"dataset": card.name, "species": card.species, "licence": card.licence, "redistribute": card.redistribute}
    write_manifest(out, written, {**about, "layout": cfg.layout})
    proof = _proof(survey, table, out)
    write_json(out / "certificate.json", proof)
    return _report(survey, table, proof, out)


def _prepared(recordings: Path, card: DatasetCard, scratch: Path) -> Survey:
    """Every recording preprocessed and on its grid, kept in `scratch`, and the survey of them."""
    survey, preprocess = Survey(card), UnifiedPreprocessor(card)
    for recording in load_recordings(recordings):
        gridded = to_grid(preprocess(recording), card)
        save_recording(gridded, scratch)
        survey.add(gridded, recording.duration)
    return survey


def _written(cfg: ShardsConfig, survey: Survey, table: pd.DataFrame, scratch: Path, out: Path) -> list[Written]:
    series = {**survey.modalities, "json": "json"} if cfg.layout == "modality" else None
    return [
        write_shards(_samples(scratch, survey.card, table[table.split == split]), out, split, int(cfg.shard_mb * 1e6), series)
        for split in SPLITS
    ]


def _samples(scratch: Path, card: DatasetCard, rows: pd.DataFrame) -> Iterator[Sample]:
    """The windows of `rows`, recording by recording, with the signals that each recording has."""
    for name, own in rows.groupby("recording", sort=False):
        gridded = load_recording(scratch / str(name))
        compact = {k: _compact_dtype(signal) for k, signal in signals_of(gridded)}
        for row in own.to_dict("records"):
            window = gridded.slice(row["start"], row["end"])
            arrays = {k: signal.values.astype(compact[k]) for k, signal in signals_of(window)}
            yield row["key"], {**arrays, "json": _meta(row, window, card)}


def _compact_dtype(signal: Signal) -> type[np.generic]:
    """Counts fit in one or two bytes; everything else is float32."""
    values = signal.values
    if signal.modality != "spikes" or not values.size or (values != np.floor(values)).any() or values.min() < 0 or values.max() > 65535:
        return np.float32
    return np.uint8 if values.max() < 256 else np.uint16


def _meta(row: Mapping[Any, Any], window: Recording, card: DatasetCard) -> dict[str, Any]:
    start, end = row["start"], row["end"]
    return {
        "dataset": card.name,
        **{k: row[k] for k in ("recording", "session", "subject", "split", "start", "end")},
        "grid": {"t0": start, "hz": card.grid_hz, "n": round((end - start) * card.grid_hz)},
        "signals": {name: {"modality": s.modality, "t0": s.t0, "sfreq": s.sfreq} for name, s in signals_of(window)},
        "intervals": {name: _listed(intervals) for name, intervals in window.intervals.items() if len(intervals.start)},
    }


def _listed(intervals: Intervals) -> dict[str, Any]:
    """Intervals as JSON: their own bounds in seconds of the recording; a missing number is null."""
    columns = {name: [None if v != v else v for v in values.tolist()] for name, values in intervals.columns.items()}
    return {"start": intervals.start.tolist(), "end": intervals.end.tolist(), "labels": list(intervals.labels), "columns": columns}


# ---------------------------------------------------------------- prove and report
def _proof(survey: Survey, table: pd.DataFrame, out: Path) -> dict[str, Any]:
    reader, members = Reader(read_index(out)), pd.read_parquet(out / "index.parquet")
    measured = [name for name, modality in survey.modalities.items() if modality not in SHOWN]
    repeats, excepted = find_repeats(members, table, measured, lambda key, field: reader.member(reader.index.row_of[key], field))
    return certificate(table, survey.card.split, repeats, excepted)


def _report(survey: Survey, table: pd.DataFrame, proof: dict[str, Any], out: Path) -> Report:
    metrics = {
        "recordings": len(survey.found),
        "windows": len(table),
        **{f"windows.{split}": n for split, n in _per_split(table).items()},
        "seconds_off_grid": round(sum(f.left_out_s for f in survey.found), 3),
        "seconds_in_blocks_below_a_window": round(survey.below_a_window_s(), 3),
        **{f"missing.{name}": round(share, 6) for name, share in survey.missing_shares().items()},
        "bytes": sum(path.stat().st_size for path in out.glob("*.tar")),
    }
    return Report(metrics, _checks(survey, table, proof, out), {"windows": "windows.parquet", "certificate": "certificate.json"})


def _checks(survey: Survey, table: pd.DataFrame, proof: dict[str, Any], out: Path) -> tuple[Check, ...]:
    per_split, modalities = _per_split(table), survey.modalities
    neural = {name: share for name, share in survey.missing_shares().items() if modalities[name] not in BEHAVIOUR}
    empty = [split for split, n in per_split.items() if not n]
    unused = sorted({f.recording for f in survey.found} - set(table.recording))
    return (
        _check_disjoint(survey.card, proof),
        _check_repeats(proof),
        dataclasses.replace(verify(out), name="shards_verify"),
        Check("neural_signals_are_finite", not any(neural.values()), numbers=neural, threshold="no NaN or Inf outside behaviour"),
        Check("splits_are_filled", all(per_split.values()), "warn", per_split, ">= 1 window each", ", ".join(empty)),
        Check("recordings_are_used", not unused, "warn", {"recordings_without_window": len(unused)}, "0", ", ".join(unused)),
        validate(table, WINDOWS),
    )


def _check_disjoint(card: DatasetCard, proof: dict[str, Any]) -> Check:
    kind, pairs = card.split.kind, proof["pairs"]
    if kind == "block":
        numbers = {f"gap_s.{'+'.join(pair['splits'])}": pair["least_gap_s"] for pair in pairs if pair["least_gap_s"] is not None}
    else:
        numbers = {f"shared.{'+'.join(pair['splits'])}": len(pair["shared"][kind]) for pair in pairs}
    rule = f"gap >= {card.split.gap_s:g} s" if kind == "block" else f"no shared {kind}"
    return Check("splits_are_disjoint", all(pair["rule_holds"] for pair in pairs), numbers=numbers, threshold=rule)


def _check_repeats(proof: dict[str, Any]) -> Check:
    found = proof["repeated"]
    named = [f"{r['signal']} of {' and '.join(r['recordings'])} ({' and '.join(r['splits'])})" for r in found]
    note = f"the same windows: {'; '.join(named[:_NAMED])}; give copies one subject in the card, or drop one" if found else ""
    numbers = {"repeated": sum(r["windows"] for r in found), "equal_by_chance": proof["excepted"]["windows"]}
    return Check("no_window_is_repeated_across_splits", not found, numbers=numbers, threshold="0 repeated", note=note)


def _per_split(table: pd.DataFrame) -> dict[str, int]:
    return {split: int((table.split == split).sum()) for split in SPLITS}


# ---------------------------------------------------------------- read back
def read_channels(artifact: Path | str) -> dict[str, dict[str, Any]]:
    """channels.json of a shards artifact: session -> signal -> its channels."""
    table: dict[str, dict[str, Any]] = json.loads(open_files(artifact).read("channels.json"))
    return table


def read_windows(artifact: Path | str) -> pd.DataFrame:
    """windows.parquet of a shards artifact."""
    return pd.read_parquet(io.BytesIO(open_files(artifact).read("windows.parquet")))


def load_block(shards: Path | str, recording: str, split: str) -> Recording:
    """One block of one recording, stitched from its overlapping windows, on the grid, with the intervals that overlap it.

    Raises ValueError when the windows leave a hole, or disagree where they overlap.
    """
    table = read_windows(shards)
    rows = table[(table.recording == recording) & (table.split == split)].sort_values("start")
    if rows.empty:
        have = ", ".join(f"{r}/{s}" for r, s in sorted(set(zip(table.recording, table.split, strict=True))))
        raise ValueError(f"{shards}: recording {recording!r} has no windows in split {split!r}; there are {have}.")
    index = read_index(shards)
    places = [index.row_of[key] for key in rows.key]
    reader = Reader(index).fetched(np.array(places))
    samples = [reader.sample(row) for row in places]
    card, about = load_card(shards), json.loads(index.files.read("recordings.json"))[recording]
    channels = read_channels(shards)[about["session"]]
    names = sorted(samples[0]["json"]["signals"])
    return Recording(
        id=recording,
        dataset=card.name,
        subject=Subject(**about["subject"]),
        session=about["session"],
        species=card.species,
        licence=card.licence,
        signals={name: _stitched(name, samples, channels[name], f"{shards}: {recording}/{split}") for name in names},
        intervals=_gathered(samples),
        span=(float(rows.start.min()), float(rows.end.max())),
        history=(*about["history"], f"load_block({split})"),
    )


def _stitched(name: str, samples: list[dict[str, Any]], about: dict[str, Any], where: str) -> Signal:
    t0, sfreq = (samples[0]["json"]["signals"][name][k] for k in ("t0", "sfreq"))
    at = [round((s["json"]["signals"][name]["t0"] - t0) * sfreq) for s in samples]
    values = np.full((at[-1] + len(samples[-1][name]), len(about["ch_names"])), np.nan, np.float32)
    filled = 0
    for start, sample in zip(at, samples, strict=True):
        part = sample[name].astype(np.float32)
        if start > filled:
            raise ValueError(
                f"{where}: signal {name!r} has a hole of {start - filled} samples at {t0 + filled / sfreq:g} s; write the shards again."
            )
        if not np.array_equal(values[start:filled], part[: filled - start], equal_nan=True):
            raise ValueError(f"{where}: windows disagree on signal {name!r} at {t0 + start / sfreq:g} s; write the shards again.")
        values[start : start + len(part)] = part
        filled = max(filled, start + len(part))
    positions = None if about["positions"] is None else np.asarray(about["positions"])
    return Signal(values, sfreq, about["modality"], t0, tuple(about["ch_names"]), positions, about["unit"])


def _gathered(samples: list[dict[str, Any]]) -> dict[str, Intervals]:
    """The intervals of overlapping windows, each as often as the recording had it."""
    found: dict[str, Counter[tuple[Any, ...]]] = {}
    columns: dict[str, list[str]] = {}
    for sample in samples:
        for name, listed in sample["json"]["intervals"].items():
            columns[name] = list(listed["columns"])
            labels = listed["labels"] or [None] * len(listed["start"])
            rows = Counter(zip(listed["start"], listed["end"], labels, *listed["columns"].values(), strict=True))
            found[name] = found.get(name, Counter()) | rows
    return {name: _intervals(sorted(rows.elements(), key=lambda row: row[0]), columns[name]) for name, rows in found.items()}


def _intervals(rows: list[tuple[Any, ...]], columns: list[str]) -> Intervals:
    start, end, labels, *values = zip(*rows, strict=True)
    named = dict(zip(columns, map(_column, values), strict=True))
    return Intervals(np.array(start), np.array(end), () if labels[0] is None else labels, named)


def _column(values: tuple[Any, ...]) -> Array:
    return np.array([np.nan if value is None else value for value in values])
