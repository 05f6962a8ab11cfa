"""Windows: recordings on their grid, cut into stretches of equal length, written as shards and read back.

Which stretch belongs to which split is the affair of `splits.py`. What comes out is the shards artifact:

    <split>-00000.tar ...   windows, one WebDataset sample each
    windows.parquet         one row per window: key, shard, recording, session, subject, split, start, end
    channels.json           session -> signal -> modality, rate, names, positions, unit
    certificate.json        proof, from windows.parquet alone, that no split has seen another
    index.parquet, manifest.json, card.json
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from neurofm_ml.data.grid import BEHAVIOUR, to_grid
from neurofm_ml.data.recordings import load_card, load_recording, load_recordings
from neurofm_ml.data.shards import Reader, Sample, read_index, verify, write_index, write_manifest, write_shards
from neurofm_ml.data.splits import UNIT, Blocks, assign, blocks, certificate
from neurofm_ml.files import write_json
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.presets import SPLITS, ShardsConfig
from neurofm_ml.types import Check, Recording, Report, Signal, Subject


class Window(NamedTuple):
    """Grid bins [start, end) of one split."""

    split: str
    start: int
    end: int


def windows(plan: Blocks, card: DatasetCard) -> list[Window]:
    """Windows of ``card.window_s`` every ``card.stride_s`` in each block, the last flush with the block's end.

    A block shorter than one window holds none.
    """
    length, stride = round(card.window_s * card.grid_hz), round(card.stride_s * card.grid_hz)
    if not 1 <= stride <= length:
        raise ValueError(
            f"card {card.name!r}: stride_s is {card.stride_s:g}; it needs one bin ({1 / card.grid_hz:g} s) to one window ({card.window_s:g} s)."
        )
    return [Window(split, start, start + length) for split, (a, b) in plan.items() for start in _starts(a, b, length, stride)]


def _starts(a: int, b: int, length: int, stride: int) -> list[int]:
    last = b - length
    return sorted({*range(a, last + 1, stride), last}) if last >= a else []


# ---------------------------------------------------------------- write
def shard_recordings(cfg: ShardsConfig, recordings: Path, out: Path) -> Report:
    """Job `write_shards`: the recordings artifact of one dataset -> its shards artifact in `out`."""
    card = load_card(recordings)
    survey = Survey(card)
    for recording in load_recordings(recordings):
        survey.add(recording)
    table = survey.table()
    proof = certificate(table, card.split)
    members = []
    for split in SPLITS:
        members += write_shards(_samples(recordings, card, table[table.split == split]), out, split, int(cfg.shard_mb * 1e6))
    write_index(out, members)
    table.insert(1, "shard", table.key.map({member.key: member.shard for member in members}))
    table.to_parquet(out / "windows.parquet", index=False)
    write_json(out / "certificate.json", proof)
    write_json(out / "channels.json", survey.channels)
    shutil.copyfile(recordings / "card.json", out / "card.json")
    about = {"dataset": card.name, "species": card.species, "licence": card.licence, "redistribute": card.redistribute}
    write_manifest(out, about)
    return _report(survey, table, proof, out)


class Found(NamedTuple):
    """One recording on its grid: `n` bins from `t0`; `left_out_s` seconds not covered by every neural signal."""

    recording: str
    session: str
    subject: str
    t0: float
    n: int
    left_out_s: float


@dataclass
class Survey:
    """What there is to cut, from one pass over the recordings."""

    card: DatasetCard
    found: list[Found] = field(default_factory=list)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, list[float]] = field(default_factory=dict)

    def add(self, recording: Recording) -> None:
        gridded = to_grid(recording, self.card)
        n = round(gridded.duration * self.card.grid_hz)
        left_out = recording.duration - gridded.duration
        self.found.append(Found(recording.id, recording.session, recording.subject.id, gridded.bounds[0], n, left_out))
        known = self.channels.setdefault(recording.session, {})
        for name, signal in _signals(gridded):
            self._check_length(recording.id, name, signal)
            self.missing.setdefault(name, []).append(float(np.mean(~np.isfinite(signal.values))))
            about = _about(signal)
            if known.setdefault(name, about) != about:
                raise ValueError(
                    f"{recording.id}: signal {name!r} has other channels, rate or unit than an earlier recording of session "
                    f"{recording.session!r}; give it a session of its own (the card's field 'session')."
                )

    def _check_length(self, recording: str, name: str, signal: Signal) -> None:
        samples = self.card.window_s * signal.sfreq
        if abs(samples - round(samples)) > 1e-3:
            raise ValueError(
                f"card {self.card.name!r}: a window of {self.card.window_s:g} s holds {samples:g} samples of {name!r} ({recording}, "
                f"{signal.sfreq:g} Hz); set window_s to a whole number of samples of every signal."
            )

    def table(self) -> pd.DataFrame:
        """The window table, split by split, without shards. Raises ValueError when it is empty."""
        rows = [row for found, plan in self.plans() for row in self._rows(found, plan)]
        if not rows:
            longest = max((f.n for f in self.found), default=0) / self.card.grid_hz
            raise ValueError(
                f"card {self.card.name!r}: no block holds a window of {self.card.window_s:g} s (the longest recording has {longest:g} s); "
                "set a smaller window_s, or a smaller gap_s."
            )
        return pd.DataFrame(rows).sort_values("split", key=lambda s: s.map(SPLITS.index), kind="stable", ignore_index=True)

    def _rows(self, found: Found, plan: Blocks) -> Iterator[dict[str, Any]]:
        for k, window in enumerate(windows(plan, self.card)):
            yield {
                "key": f"{re.sub(r'[^A-Za-z0-9_-]', '_', found.recording)}-{k:06d}",
                "recording": found.recording,
                "session": found.session,
                "subject": found.subject,
                "split": window.split,
                "start": found.t0 + window.start / self.card.grid_hz,
                "end": found.t0 + window.end / self.card.grid_hz,
            }

    def plans(self) -> list[tuple[Found, Blocks]]:
        """Each recording with its blocks."""
        spec = self.card.split
        if spec.kind == "block":
            return [(found, blocks(found.n, self.card)) for found in self.found]
        units = [getattr(found, UNIT[spec.kind]) for found in self.found]
        splits = assign(units, spec)
        return [(found, {splits[unit]: (0, found.n)}) for found, unit in zip(self.found, units, strict=True)]

    def below_a_window_s(self) -> float:
        """Seconds in blocks too short for a window."""
        lengths = [(end - start) / self.card.grid_hz for _, plan in self.plans() for start, end in plan.values()]
        return sum(length for length in lengths if length < self.card.window_s - 1e-6)

    def missing_shares(self) -> dict[str, float]:
        """signal -> share of values that are NaN or infinite."""
        return {name: float(np.mean(shares)) for name, shares in self.missing.items()}


def _signals(gridded: Recording) -> list[tuple[str, Signal]]:
    """Signals of a recording on the grid, where nothing else is left."""
    return [(name, cast(Signal, series)) for name, series in gridded.signals.items()]


def _about(signal: Signal) -> dict[str, Any]:
    return {
        "modality": signal.modality,
        "sfreq": signal.sfreq,
        "ch_names": list(signal.ch_names),
        "positions": None if signal.positions is None else np.asarray(signal.positions, float).tolist(),
        "unit": signal.unit,
    }


def _samples(recordings: Path, card: DatasetCard, rows: pd.DataFrame) -> Iterator[Sample]:
    """The windows of `rows`, recording by recording."""
    for name, own in rows.groupby("recording", sort=False):
        gridded = to_grid(load_recording(recordings / "recordings" / str(name)), card)
        compact = {k: _compact_dtype(signal) for k, signal in _signals(gridded)}
        for row in own.to_dict("records"):
            window = gridded.slice(row["start"], row["end"])
            arrays = {k: signal.values.astype(compact[k]) for k, signal in _signals(window)}
            yield row["key"], {**arrays, "json": _meta(row, window, card)}


def _compact_dtype(signal: Signal) -> type[np.generic]:
    """Counts fit in one or two bytes; everything else is float32."""
    values = signal.values
    if signal.modality != "spikes" or not values.size or (values != np.floor(values)).any() or values.min() < 0:
        return np.float32
    return np.uint8 if values.max() < 256 else np.uint16


def _meta(row: Mapping[Any, Any], window: Recording, card: DatasetCard) -> dict[str, Any]:
    start, end = row["start"], row["end"]
    return {
        "dataset": card.name,
        **{k: row[k] for k in ("recording", "session", "subject", "split", "start", "end")},
        "grid": {"t0": start, "hz": card.grid_hz, "n": round((end - start) * card.grid_hz)},
        "signals": {name: {"modality": s.modality, "t0": s.t0, "sfreq": s.sfreq} for name, s in _signals(window)},
    }


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
    spec, per_split = survey.card.split, _per_split(table)
    neural = {name: share for name, share in survey.missing_shares().items() if survey.card.signals[name].modality not in BEHAVIOUR}
    unused = len(survey.found) - table.recording.nunique()
    shared = {f"shared.{'+'.join(pair['splits'])}": len(pair["shared"]) for pair in proof["pairs"]}
    gaps = {f"gap_s.{'+'.join(pair['splits'])}": pair["least_gap_s"] for pair in proof["pairs"] if pair["least_gap_s"] is not None}
    rule = f"gap >= {spec.gap_s:g} s" if spec.kind == "block" else f"no shared {spec.kind}"
    return (
        Check("splits_are_disjoint", proof["disjoint"], numbers=gaps if spec.kind == "block" else shared, threshold=rule),
        dataclasses.replace(verify(out), name="shards_verify"),
        Check("neural_signals_are_finite", not any(neural.values()), numbers=neural, threshold="no NaN or Inf outside behaviour"),
        Check("splits_are_filled", all(per_split.values()), "warn", per_split, ">= 1 window each"),
        Check("recordings_are_used", not unused, "warn", {"recordings_without_window": unused}, "0"),
    )


def _per_split(table: pd.DataFrame) -> dict[str, int]:
    return {split: int((table.split == split).sum()) for split in SPLITS}


# ---------------------------------------------------------------- read back
def read_channels(artifact: Path) -> dict[str, dict[str, Any]]:
    """channels.json of a shards artifact: session -> signal -> its channels."""
    table: dict[str, dict[str, Any]] = json.loads((artifact / "channels.json").read_text())
    return table


def load_block(shards: Path, recording: str, split: str) -> Recording:
    """One block of one recording, stitched from its overlapping windows, on the grid.

    Raises ValueError when the windows leave a hole, or disagree where they overlap.
    """
    table = pd.read_parquet(shards / "windows.parquet")
    rows = table[(table.recording == recording) & (table.split == split)].sort_values("start")
    if rows.empty:
        have = ", ".join(f"{r}/{s}" for r, s in sorted(set(zip(table.recording, table.split, strict=True))))
        raise ValueError(f"{shards}: recording {recording!r} has no windows in split {split!r}; there are {have}.")
    index = read_index(shards)
    row_of = {key: row for row, key in enumerate(index.keys.to_pylist())}
    reader = Reader(index)
    samples = [reader.sample(row_of[key]) for key in rows.key]
    card, first = load_card(shards), samples[0]["json"]
    channels = read_channels(shards)[first["session"]]
    names = sorted(first["signals"])
    return Recording(
        id=recording,
        dataset=card.name,
        subject=Subject(first["subject"]),
        session=first["session"],
        species=card.species,
        licence=card.licence,
        signals={name: _stitched(name, samples, channels[name], f"{shards}: {recording}/{split}") for name in names},
        span=(float(rows.start.min()), float(rows.end.max())),
        history=(f"load_block({split})",),
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
