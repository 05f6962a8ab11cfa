"""The survey of what there is to cut: recordings on their grid, their channels, and the windows of each split.

Nothing is written here; that is the affair of ``windows.py``. Which stretch belongs to which split is that of ``splits.py``.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from neurofm_ml.data.lazy import chunks
from neurofm_ml.data.splits import Blocks, assign, blocks, family_of
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Recording, Signal, Subject

#: Columns that a recording may not know.
_MAY_BE_UNKNOWN = ("family", "site")


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


class Found(NamedTuple):
    """One recording on its grid: `n` bins from `t0`; `left_out_s` seconds not covered by every neural signal."""

    recording: str
    session: str
    subject: Subject
    history: tuple[str, ...]
    t0: float
    n: int
    left_out_s: float

    def unit(self, kind: str) -> str:
        """What is kept whole when recordings are split by `kind`. Raises ValueError where it is not known."""
        if kind == "family":
            return family_of(self.subject.family, self.subject.id)
        known = {"recording": self.recording, "session": self.session, "subject": self.subject.id, "site": self.subject.site}
        if not (unit := known[kind]):
            raise ValueError(
                f"{self.recording}: its {kind} is not known, so recordings cannot be split by {kind}; give the card the field "
                f"{kind!r} of its subject, or another kind of split."
            )
        return unit


@dataclass
class Survey:
    """What there is to cut, from one pass over the recordings."""

    card: DatasetCard
    found: list[Found] = field(default_factory=list)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, list[float]] = field(default_factory=dict)

    def add(self, gridded: Recording, duration: float) -> None:
        """Take in a recording on its grid, which lasted `duration` seconds before."""
        n = round(gridded.duration * self.card.grid_hz)
        left_out = duration - gridded.duration
        self.found.append(Found(gridded.id, gridded.session, gridded.subject, gridded.history, gridded.bounds[0], n, left_out))
        known = self.channels.setdefault(gridded.session, {})
        for name, signal in signals_of(gridded):
            self._check_length(gridded.id, name, signal)
            self.missing.setdefault(name, []).append(_share_missing(signal))
            about = _about(signal)
            # As text, where a place that is unknown (NaN) equals itself.
            if json.dumps(known.setdefault(name, about)) != json.dumps(about):
                raise ValueError(
                    f"{gridded.id}: signal {name!r} has other channels, rate or unit than an earlier recording of session "
                    f"{gridded.session!r}; give it a session of its own (the card's field 'session')."
                )

    def _check_length(self, recording: str, name: str, signal: Signal) -> None:
        samples = self.card.window_s * signal.sfreq
        if abs(samples - round(samples)) > 1e-3:
            raise ValueError(
                f"card {self.card.name!r}: a window of {self.card.window_s:g} s holds {samples:g} samples of {name!r} ({recording}, "
                f"{signal.sfreq:g} Hz); set window_s to a whole number of samples of every signal."
            )

    @property
    def modalities(self) -> dict[str, str]:
        """signal -> modality. Raises ValueError for a name that stands for two."""
        found: dict[str, str] = {}
        for session, signals in self.channels.items():
            for name, about in signals.items():
                if found.setdefault(name, about["modality"]) != about["modality"]:
                    raise ValueError(
                        f"signal {name!r} is {found[name]} and, in session {session!r}, {about['modality']}; give it two names in the card."
                    )
        return found

    def table(self) -> pd.DataFrame:
        """The window table, split by split. Raises ValueError when it is empty."""
        rows = [row for found, plan in self.plans() for row in self._rows(found, plan)]
        if not rows:
            longest = max((f.n for f in self.found), default=0) / self.card.grid_hz
            raise ValueError(
                f"card {self.card.name!r}: no block holds a window of {self.card.window_s:g} s (the longest recording has {longest:g} s); "
                "set a smaller window_s, or a smaller gap_s."
            )
        table = pd.DataFrame(rows).astype(dict.fromkeys(_MAY_BE_UNKNOWN, "string"))
        return table.sort_values("split", key=lambda s: s.map(SPLITS.index), kind="stable", ignore_index=True)

    def _rows(self, found: Found, plan: Blocks) -> Iterator[dict[str, Any]]:
        for k, window in enumerate(windows(plan, self.card)):
            yield {
                "key": f"{re.sub(r'[^A-Za-z0-9_-]', '_', found.recording)}-{k:06d}",
                "recording": found.recording,
                "session": found.session,
                "subject": found.subject.id,
                **{name: getattr(found.subject, name) for name in _MAY_BE_UNKNOWN},
                "split": window.split,
                "start": found.t0 + window.start / self.card.grid_hz,
                "end": found.t0 + window.end / self.card.grid_hz,
            }

    def plans(self) -> list[tuple[Found, Blocks]]:
        """Each recording with its blocks."""
        spec = self.card.split
        if spec.kind == "block":
            return [(found, blocks(found.n, self.card)) for found in self.found]
        units = [found.unit(spec.kind) for found in self.found]
        splits = assign(units, spec)
        return [(found, {splits[unit]: (0, found.n)}) for found, unit in zip(self.found, units, strict=True)]

    def recordings(self) -> dict[str, dict[str, Any]]:
        """What recordings.json holds: session, subject and history of each."""
        return {f.recording: {"session": f.session, "subject": asdict(f.subject), "history": list(f.history)} for f in self.found}

    def below_a_window_s(self) -> float:
        """Seconds in blocks too short for a window."""
        lengths = [(end - start) / self.card.grid_hz for _, plan in self.plans() for start, end in plan.values()]
        return sum(length for length in lengths if length < self.card.window_s - 1e-6)

    def missing_shares(self) -> dict[str, float]:
        """signal -> share of values that are NaN or infinite."""
        return {name: float(np.mean(shares)) for name, shares in self.missing.items()}


def signals_of(gridded: Recording) -> list[tuple[str, Signal]]:
    """Signals of a recording on the grid, where nothing else is left."""
    return [(name, cast(Signal, series)) for name, series in gridded.signals.items()]


def _share_missing(signal: Signal) -> float:
    finite = sum(int(np.isfinite(rows).sum()) for rows in chunks(signal.values))
    return 1 - finite / signal.values.size if signal.values.size else 0.0


def _about(signal: Signal) -> dict[str, Any]:
    return {
        "modality": signal.modality,
        "sfreq": signal.sfreq,
        "ch_names": list(signal.ch_names),
        "positions": None if signal.positions is None else np.asarray(signal.positions, float).tolist(),
        "unit": signal.unit,
    }
