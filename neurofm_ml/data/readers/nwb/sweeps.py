"""Patch clamp: sweeps of one kind, electrode, unit and rate laid end to end as one Signal, each with its stimulus beside it.

Sweeps are recorded apart and often all start at 0, so they share no clock. Where a file holds nothing but sweeps they
are laid end to end in the order of their numbers; `sweeps` says which lies where, and when it was started.
"""

from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from neurofm_ml.data.lazy import laid_end_to_end
from neurofm_ml.data.readers.nwb.series import rate_of, values_of
from neurofm_ml.types import Intervals, Series, Signal


class Laid(NamedTuple):
    """Sweeps as signals, the table of them, and stimuli that could not be laid beside their sweeps."""

    signals: dict[str, Series]
    intervals: dict[str, Intervals]
    left_out: list[str]


def lay_sweeps(responses: list[Any], stimuli: list[Any], pairs: Any) -> Laid:
    """`responses` and `stimuli` are PatchClampSeries; `pairs` is the file's IntracellularRecordingsTable or None.

    Stimulus and response belong together by that table, else by their sweep number.
    """
    stimulus_of = _stimulus_of(responses, stimuli, pairs)
    laid, t0 = Laid({}, {}, []), 0.0
    rows: list[tuple[float, float, str, str, Any]] = []
    used: set[int] = set()
    for key, group in groupby(sorted(responses, key=_order), key=_kind):
        sweeps = list(group)
        name = _name(key, laid.signals)
        laid.signals[name] = _signal(sweeps, "intracellular", t0)
        paired = [stimulus_of.get(id(s)) for s in sweeps]
        if all(stimulus is not None and _fits(stimulus, s) for stimulus, s in zip(paired, sweeps, strict=True)) and _alike(paired):
            laid.signals[_name(_kind(paired[0]), laid.signals)] = _signal(paired, "task", t0)
            used.update(map(id, paired))
        for sweep in sweeps:
            rows.append((t0, t0 + len(sweep.data) / rate_of(sweep), sweep.name, name, sweep))
            t0 = rows[-1][1]
    laid.left_out.extend(f"stimulus/{s.name}" for s in stimuli if id(s) not in used)
    laid.intervals["sweeps"] = _table(rows)
    return laid


def _stimulus_of(responses: list[Any], stimuli: list[Any], pairs: Any) -> dict[int, Any]:
    """id of a response -> its stimulus."""
    if pairs is not None:
        sides = (pairs["responses"]["response"][:], pairs["stimuli"]["stimulus"][:])
        return {id(r.timeseries): s.timeseries for r, s in zip(*sides, strict=True) if r.count > 0 and s.count > 0}
    numbered = {(s.sweep_number, s.electrode.name): s for s in stimuli if s.sweep_number is not None}
    return {id(r): s for r in responses if (s := numbered.get((r.sweep_number, r.electrode.name))) is not None}


def _kind(series: Any) -> tuple[str, str, str, float]:
    return type(series).__name__, series.electrode.name, series.unit, rate_of(series)


def _order(series: Any) -> tuple[tuple[str, str, str, float], int, float, str]:
    number = int(series.sweep_number) if series.sweep_number is not None else 0
    return _kind(series), number, float(series.starting_time), series.name


def _fits(stimulus: Any, sweep: Any) -> bool:
    """Whether the two lie sample by sample on each other."""
    return bool(stimulus.rate is not None and rate_of(stimulus) == rate_of(sweep) and len(stimulus.data) == len(sweep.data))


def _alike(stimuli: list[Any]) -> bool:
    return len({_kind(s) for s in stimuli}) == 1


def _name(kind: tuple[str, str, str, float], taken: dict[str, Series]) -> str:
    """The type; with electrode and rate where the type alone is taken."""
    return kind[0] if kind[0] not in taken else f"{kind[0]}_{kind[1]}_{kind[3]:g}Hz"


def _signal(sweeps: list[Any], modality: str, t0: float) -> Signal:
    _, electrode, unit, rate = _kind(sweeps[0])
    return Signal(laid_end_to_end([values_of(s) for s in sweeps]), rate, modality, t0, (electrode,), unit=unit)


def _table(rows: list[tuple[float, float, str, str, Any]]) -> Intervals:
    start, end, labels, names, sweeps = zip(*rows, strict=True)
    columns = {
        "signal": np.array(names),
        "sweep_number": np.array([-1 if s.sweep_number is None else int(s.sweep_number) for s in sweeps]),
        "starting_time": np.array([float(s.starting_time) for s in sweeps]),
        "stimulus": np.array([str(s.stimulus_description) for s in sweeps]),
    }
    return Intervals(np.array(start), np.array(end), tuple(labels), columns)
