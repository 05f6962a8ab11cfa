"""The types that flow through NeuroFM: series, recordings, batches, tokens, checks.

Times are seconds, rates are Hz. Everything is frozen and validated on construction; slicing by
time returns the same type, so a window *is* a Recording cut to one interval.
Importing this module needs numpy alone (tensors appear in annotations only).

Shapes: B batch, T times or tokens, C channels (or units, or regions), D width, L latents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

MODALITIES = (
    "spikes", "intracellular", "lfp", "calcium", "eeg", "meg", "ecog", "ieeg", "fmri", "emg",
    "eye", "pose", "physio", "task", "video", "audio", "language", "foci",
)  # fmt: skip
#: Modalities whose channels are units or implanted electrodes of their session: another session's are so by name alone.
OWN_CHANNELS = ("spikes", "intracellular", "calcium", "lfp", "ecog", "ieeg")

Array = np.ndarray[Any, np.dtype[Any]]


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_modality(modality: str) -> None:
    _need(modality in MODALITIES, f"modality is {modality!r}; allowed: {', '.join(MODALITIES)}.")


def _check_times(times: Array, what: str) -> None:
    _need(times.ndim == 1, f"{what} needs shape (n,), got {times.shape}.")
    _need(bool(np.isfinite(times).all()), f"{what} has NaN or infinite entries; drop or repair them before building the series.")
    if len(times) > 1 and (back := np.flatnonzero(np.diff(times) < 0)).size:
        i = int(back[0])
        raise ValueError(
            f"{what} is not sorted: entry {i + 1} is {times[i + 1]:g} after {times[i]:g}; sort it or split the recording there."
        )


def _check_columns(values: Array, ch_names: tuple[str, ...]) -> None:
    _need(values.ndim == 2, f"values need shape (n_times, n_chans), got {values.shape}.")
    _need(values.shape[1] == len(ch_names), f"values have {values.shape[1]} channels but ch_names has {len(ch_names)}.")
    _need(len(set(ch_names)) == len(ch_names), "ch_names has repeated names; make them unique.")


@dataclass(frozen=True, eq=False, repr=False)
class Signal:
    """Regular series (binned counts too): sample k is at ``t0 + k / sfreq``.

    values (n_times, n_chans); positions (n_chans, 3) in metres (MNI millimetres for fMRI) or None.
    """

    values: Array
    sfreq: float
    modality: str
    t0: float = 0.0
    ch_names: tuple[str, ...] = ()
    positions: Array | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        _check_modality(self.modality)
        _need(bool(np.isfinite(self.sfreq)) and self.sfreq > 0, f"sfreq is {self.sfreq!r} Hz; it needs a positive finite rate.")
        _need(bool(np.isfinite(self.t0)), f"t0 is {self.t0!r}; it needs a finite time in seconds.")
        if not self.ch_names and self.values.ndim == 2:
            object.__setattr__(self, "ch_names", tuple(str(i) for i in range(self.values.shape[1])))
        _check_columns(self.values, self.ch_names)
        if self.positions is not None:
            _need(
                self.positions.shape == (len(self.ch_names), 3),
                f"positions need shape ({len(self.ch_names)}, 3), got {self.positions.shape}.",
            )

    @property
    def times(self) -> Array:
        """(n_times,) seconds."""
        return self.t0 + np.arange(len(self.values)) / self.sfreq

    @property
    def span(self) -> tuple[float, float]:
        return self.t0, self.t0 + len(self.values) / self.sfreq

    def slice(self, start: float, end: float) -> Signal:
        """Samples with ``start <= t < end``; times of samples are kept."""
        lo, hi = (int(np.ceil(round((t - self.t0) * self.sfreq, 6))) for t in (start, end))
        lo, hi = min(max(lo, 0), len(self.values)), min(max(hi, 0), len(self.values))
        return dataclasses.replace(self, values=self.values[lo : max(lo, hi)], t0=self.t0 + lo / self.sfreq)

    def __repr__(self) -> str:
        n, c = self.values.shape
        return f"Signal({self.modality}, {n / self.sfreq:g} s at {self.sfreq:g} Hz, {c} channels, {self.values.nbytes / 1e6:.1f} MB)"


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Irregular series: gaze, head direction on a video clock. times (n,), values (n, n_chans)."""

    times: Array
    values: Array
    modality: str
    ch_names: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        _check_modality(self.modality)
        _check_times(self.times, "times")
        if not self.ch_names and self.values.ndim == 2:
            object.__setattr__(self, "ch_names", tuple(str(i) for i in range(self.values.shape[1])))
        _check_columns(self.values, self.ch_names)
        _need(len(self.times) == len(self.values), f"times has {len(self.times)} entries but values {len(self.values)}.")

    @property
    def span(self) -> tuple[float, float]:
        return (float(self.times[0]), float(self.times[-1])) if len(self.times) else (0.0, 0.0)

    def slice(self, start: float, end: float) -> Samples:
        lo, hi = np.searchsorted(self.times, (start, end), side="left")
        return dataclasses.replace(self, times=self.times[lo:hi], values=self.values[lo:hi])

    def __repr__(self) -> str:
        start, end = self.span
        return f"Samples({self.modality}, {end - start:g} s, {len(self.times)} samples, {len(self.ch_names)} channels)"


@dataclass(frozen=True, eq=False, repr=False)
class SpikeTrain:
    """Point process of many units: times (n_spikes,) sorted seconds, unit_index (n_spikes,) into unit_ids."""

    times: Array
    unit_index: Array
    unit_ids: tuple[str, ...]
    modality: str = "spikes"

    def __post_init__(self) -> None:
        _check_modality(self.modality)
        _check_times(self.times, "spike times")
        _need(
            self.unit_index.shape == self.times.shape,
            f"unit_index has shape {self.unit_index.shape}, times {self.times.shape}; they must agree.",
        )
        _need(len(set(self.unit_ids)) == len(self.unit_ids), "unit_ids has repeated names; make them unique.")
        if len(self.unit_index):
            lo, hi = int(self.unit_index.min()), int(self.unit_index.max())
            _need(lo >= 0 and hi < len(self.unit_ids), f"unit_index spans {lo}..{hi} but there are {len(self.unit_ids)} unit_ids.")

    @property
    def span(self) -> tuple[float, float]:
        return (float(self.times[0]), float(self.times[-1])) if len(self.times) else (0.0, 0.0)

    def slice(self, start: float, end: float) -> SpikeTrain:
        lo, hi = np.searchsorted(self.times, (start, end), side="left")
        return dataclasses.replace(self, times=self.times[lo:hi], unit_index=self.unit_index[lo:hi])

    def __repr__(self) -> str:
        start, end = self.span
        return f"SpikeTrain({end - start:g} s, {len(self.unit_ids)} units, {len(self.times)} spikes)"


@dataclass(frozen=True, eq=False, repr=False)
class Intervals:
    """Trials, events, artefacts: start (n,), end (n,) seconds, labels (n,), extra columns (n,) each."""

    start: Array
    end: Array
    labels: tuple[str, ...] = ()
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_times(self.start, "interval starts")
        _need(self.end.shape == self.start.shape, f"end has shape {self.end.shape}, start {self.start.shape}; they must agree.")
        if (bad := np.flatnonzero(~(self.end >= self.start))).size:
            i = int(bad[0])
            raise ValueError(f"interval {i} ends at {self.end[i]:g} before it starts at {self.start[i]:g}.")
        for name, column in {"labels": self.labels or self.start, **self.columns}.items():
            _need(len(column) == len(self.start), f"column {name!r} has {len(column)} entries for {len(self.start)} intervals.")

    def slice(self, start: float, end: float) -> Intervals:
        """Intervals that overlap ``[start, end)``; their own bounds are kept."""
        keep = np.flatnonzero((self.start < end) & ((self.end > start) | (self.start >= start)))
        labels = tuple(self.labels[i] for i in keep) if self.labels else ()
        return Intervals(self.start[keep], self.end[keep], labels, {k: v[keep] for k, v in self.columns.items()})

    def __repr__(self) -> str:
        return f"Intervals({len(self.start)}, columns {', '.join(self.columns) or 'none'})"


Series = Signal | Samples | SpikeTrain


@dataclass(frozen=True)
class Subject:
    """Who was recorded; None where the source does not say. age in years, iq on the scale with mean 100 and deviation 15."""

    id: str
    age: float | None = None
    sex: str | None = None
    site: str | None = None
    family: str | None = None
    diagnosis: str | None = None
    iq: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """Everything measured together: named series and intervals on one clock.

    `history` lists what was done to the data since it was read, in order.
    """

    id: str
    dataset: str
    subject: Subject
    session: str
    species: str
    licence: str
    signals: Mapping[str, Series]
    intervals: Mapping[str, Intervals] = field(default_factory=dict)
    span: tuple[float, float] | None = None
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _need(bool(self.signals), f"recording {self.id!r} has no signals.")
        if self.span is None:
            # An empty series has no span of its own.
            spans = [s.span for s in self.signals.values() if len(s.times if isinstance(s, SpikeTrain) else s.values)] or [(0.0, 0.0)]
            object.__setattr__(self, "span", (min(s[0] for s in spans), max(s[1] for s in spans)))
        start, end = self.bounds
        _need(
            bool(np.isfinite([start, end]).all()) and end >= start,
            f"recording {self.id!r} spans {start} to {end}; the end must follow the start.",
        )

    @property
    def bounds(self) -> tuple[float, float]:
        """(start, end) in seconds."""
        assert self.span is not None
        return self.span

    @property
    def duration(self) -> float:
        return self.bounds[1] - self.bounds[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities present, in the order of MODALITIES."""
        present = {s.modality for s in self.signals.values()}
        return tuple(m for m in MODALITIES if m in present)

    def slice(self, start: float, end: float) -> Recording:
        """The part with ``start <= t < end`` of every series."""
        return dataclasses.replace(
            self,
            signals={k: s.slice(start, end) for k, s in self.signals.items()},
            intervals={k: i.slice(start, end) for k, i in self.intervals.items()},
            span=(start, end),
        )

    def with_signals(self, signals: Mapping[str, Series], note: str) -> Recording:
        """Same recording with other series; `note` is appended to the history."""
        return dataclasses.replace(self, signals=dict(signals), history=(*self.history, note))

    def __repr__(self) -> str:
        parts = ", ".join(f"{k}: {v!r}" for k, v in self.signals.items())
        return f"Recording({self.dataset}/{self.id}, {self.duration:g} s, {parts})"


@dataclass(frozen=True, eq=False, repr=False)
class Foci:
    """Activation peaks of published studies: xyz (n, 3) millimetres as published, one row per peak.

    study, contrast, direction and space (n,) say what each peak belongs to; direction is "activation",
    "deactivation" or "unknown", space "MNI", "TAL" (Talairach), "OTHER" or "UNKNOWN". sample_size (n,) is
    how many people are behind the contrast, NaN where that is not said.
    """

    xyz: Array
    study: Array
    contrast: Array
    direction: Array
    space: Array
    source: str
    sample_size: Array | None = None

    def __post_init__(self) -> None:
        _need(self.xyz.ndim == 2 and self.xyz.shape[1] == 3, f"xyz needs shape (n, 3), got {self.xyz.shape}.")
        for name in ("study", "contrast", "direction", "space", *(("sample_size",) if self.sample_size is not None else ())):
            _need(len(getattr(self, name)) == len(self.xyz), f"{name} has {len(getattr(self, name))} entries for {len(self.xyz)} peaks.")

    def __repr__(self) -> str:
        return f"Foci({self.source}, {len(np.unique(self.study))} studies, {len(self.xyz)} peaks, {'/'.join(np.unique(self.space))})"


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Rows of subjects or regions with typed columns: name -> (n_rows,) array."""

    columns: Mapping[str, Array]
    source: str

    def __post_init__(self) -> None:
        lengths = {k: len(v) for k, v in self.columns.items()}
        _need(len(set(lengths.values())) <= 1, f"columns differ in length: {lengths}.")

    def __repr__(self) -> str:
        rows = len(next(iter(self.columns.values()), ()))
        return f"Table({self.source}, {rows} rows, {len(self.columns)} columns)"


@dataclass(frozen=True, eq=False)
class StreamBatch:
    """One signal of a batch of windows.

    values (B, T, C) z-scored by the training windows (spike counts: the z-scored square root), 0
    where there is nothing; mask (B, T) True = valid; times (B, T) seconds from the window's start;
    t0 (B,), dt (B,) seconds; ids (B, C) rows of the vocabulary, 0 for unknown and padding;
    channel_mask (B, C) True = a real channel; positions (B, C, 3), NaN for a channel without a place,
    or None; counts (B, T, C) as measured, for spikes; seen (B, T, C) True = measured, for signals that
    may miss a value (None: all are there).
    Events (words, trials) have their own times and no sampling step, dt NaN; labels are their words,
    as many in each window as its mask is True, and values (B, T, 1) how many seconds each lasts.
    """

    modality: str
    values: torch.Tensor
    mask: torch.Tensor
    times: torch.Tensor
    t0: torch.Tensor
    dt: torch.Tensor
    ids: torch.Tensor
    channel_mask: torch.Tensor
    positions: torch.Tensor | None = None
    counts: torch.Tensor | None = None
    seen: torch.Tensor | None = None
    labels: tuple[tuple[str, ...], ...] | None = None

    @property
    def valid(self) -> torch.Tensor:
        """(B, T, C) True where a real channel has a real value."""
        valid = self.mask[:, :, None] & self.channel_mask[:, None]
        return valid if self.seen is None else valid & self.seen

    def to(self, device: torch.device | str) -> StreamBatch:
        return _move(self, device)


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows with any subset of signals.

    times (B, L) seconds from the window's start, dt (B,) seconds and mask (B, L): the grid the latents
    live on, bin k covering times[k] +- dt / 2; session (B,) vocabulary rows; rows (B,) of the shard
    index, for audits of the reading order; starts (B,) float64 seconds of the recording at which each
    window starts; targets: task name -> (B, L, K) z-scored, NaN where unknown; side: behaviour and
    stimulus, for objectives that compare them with the streams, which alone are the input; labels: task
    name -> (B,) int64 places among the task's classes, -1 where unknown, or float32 numbers, NaN where unknown;
    domains: "species", "subject" -> (B,) int64 places among the vocabulary's classes, -1 where unknown.
    """

    streams: Mapping[str, StreamBatch]
    times: torch.Tensor
    dt: torch.Tensor
    mask: torch.Tensor
    session: torch.Tensor
    rows: torch.Tensor
    starts: torch.Tensor
    targets: Mapping[str, torch.Tensor] = field(default_factory=dict)
    side: Mapping[str, StreamBatch] = field(default_factory=dict)
    labels: Mapping[str, torch.Tensor] = field(default_factory=dict)
    domains: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        return _move(self, device)


@dataclass(frozen=True, eq=False)
class TokenizedSequence:
    """What every tokenizer returns: tokens (B, T, D), mask (B, T) True = valid, times (B, T) seconds,
    t0 (B,), dt (B,) seconds where regular, else NaN."""

    tokens: torch.Tensor
    mask: torch.Tensor
    times: torch.Tensor
    t0: torch.Tensor
    dt: torch.Tensor
    modality: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def shifted(self, embedding: torch.Tensor) -> TokenizedSequence:
        """The same tokens with an embedding (D,) added to each valid one."""
        return dataclasses.replace(self, tokens=self.tokens + embedding * self.mask[..., None])


@dataclass(frozen=True, eq=False)
class Latents:
    """What probes and interpretation read: values (B, L, D), times (B, L) seconds, mask (B, L)."""

    values: torch.Tensor
    times: torch.Tensor
    mask: torch.Tensor


def _move(item: Any, device: torch.device | str) -> Any:
    """`item` with every tensor inside moved to `device`."""
    if isinstance(item, (StreamBatch, Batch)):
        moved = {f.name: _move(getattr(item, f.name), device) for f in dataclasses.fields(item)}
        return dataclasses.replace(item, **moved)
    if isinstance(item, Mapping):
        return {k: _move(v, device) for k, v in item.items()}
    return item.to(device) if hasattr(item, "to") else item


@dataclass(frozen=True)
class Check:
    """A claim with the number it judged. severity "error" blocks what flows from the artifact."""

    name: str
    passed: bool
    severity: Literal["warn", "error"] = "error"
    numbers: Mapping[str, float] = field(default_factory=dict)
    threshold: str = ""
    note: str = ""


#: Columns of the scores table: one Parquet schema for probes, fine-tuning, baselines, few-shot and transfer.
SCORE_COLUMNS: Mapping[str, type] = {
    "run": str, "fingerprint": str, "family": str, "size": str, "seed": int, "task": str,
    "trained_on": str, "dataset": str, "recording": str, "split": str, "species": str, "modality": str,
    "method": str, "metric": str, "value": float, "ci_low": float, "ci_high": float, "p": float,
    "noise_ceiling": float, "n": int, "k_shot": float, "control": float, "parameters": int,
    "train_seconds": float, "samples_per_second": float,
}  # fmt: skip

#: Columns of a transfer matrix: a readout fitted on `source` and scored on `target`, beside what the target reaches on itself (`within`).
TRANSFER_COLUMNS: Mapping[str, type] = {
    "axis": str, "source": str, "target": str, "task": str, "metric": str, "value": float, "within": float, "chance": float,
    "p": float, "q": float, "n": int, "seed": int, "fingerprint": str,
}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a job says of its artifact: numbers, checks, and files worth showing (label -> path in the artifact)."""

    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    shown: Mapping[str, str] = field(default_factory=dict)


#: Exit codes of a process that runs a job: wrong config or input; stopped, and can be resumed.
EXIT_BAD_INPUT = 2
EXIT_PREEMPTED = 75


class Preempted(Exception):  # noqa: N818 (a request, not an error)
    """Raised by a job that was asked to stop and can be resumed from its working folder."""
