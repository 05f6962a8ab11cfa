"""Quality of recordings: numbers per recording and signal, and the claims they support.

What would poison everything after it blocks (not finite, a senseless clock, mostly flat channels);
what a person should know is a warning (an empty parcel, clipping, gaps, units that cannot be right,
odd firing). Thresholds that depend on the dataset come from the config, those of physics and
physiology stand here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm_ml.data.grid import BEHAVIOUR
from neurofm_ml.data.recordings import load_recordings
from neurofm_ml.presets import QualityConfig
from neurofm_ml.types import Array, Check, Recording, Report, Samples, Series, SpikeTrain

#: Times are seconds from the start of a session; three years is beyond any (and below the Unix clock).
LATEST_S = 1e8
#: Before a session's zero: a baseline, not another clock.
EARLIEST_S = -3600.0
#: Share of samples stuck at a channel's extreme value, in runs of at least CLIP_RUN, that means clipping.
MAX_CLIPPED, CLIP_RUN = 0.01, 5
#: Share of samples at which no channel moves (a dropout filled with the last value or zeros).
MAX_FROZEN = 0.01
#: Share of the recording that a signal may miss at its ends.
MAX_UNCOVERED = 0.1
#: Firing that no neuron sustains, Hz.
MAX_RATE_HZ = 200.0
#: Two spikes of one neuron are further apart; above this share of closer pairs a unit mixes neurons.
REFRACTORY_S, MAX_REFRACTORY = 1e-3, 0.05
#: Volts (tesla for MEG) that a channel's typical deviation lies between.
PLAUSIBLE = {
    "eeg": (1e-7, 1e-3),
    "ecog": (1e-7, 5e-3),
    "ieeg": (1e-7, 5e-3),
    "lfp": (1e-7, 5e-3),
    "emg": (1e-7, 2e-2),
    "meg": (1e-15, 1e-9),
}
#: What one unit is in volts or tesla.
TO_SI = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "µV": 1e-6, "nV": 1e-9, "T": 1.0, "pT": 1e-12, "fT": 1e-15}
#: What the picture shows, one panel each.
PANELS = {
    "missing": "missing (share)",
    "flat_share": "flat channels (share)",
    "clipped": "clipped (share)",
    "longest_gap_s": "longest gap (s)",
    "rate_max_hz": "fastest unit (Hz)",
    "noise": "noise / deviation",
}


def assess(cfg: QualityConfig, recordings: Path, out: Path) -> Report:
    """Job `assess_quality`: a recordings artifact -> `quality.parquet` (a row per recording and signal), a picture, checks."""
    table = pd.DataFrame([row for recording in load_recordings(recordings) for row in measure(recording)])
    table.to_parquet(out / "quality.parquet", index=False)
    draw(table, out / "quality.png")
    metrics = {
        "recordings": table.recording.nunique(),
        "seconds": float(table.groupby("recording").duration_s.max().sum()),
        "missing": float(table.missing.max()),
        "flat_channels": int(table.flat.sum()),
        "zero_channels": int(table.zero.sum()),
    }
    return Report(metrics, judge(table, cfg), {"quality": "quality.png", "table": "quality.parquet"})


# ---------------------------------------------------------------- measure
def measure(recording: Recording) -> list[dict[str, Any]]:
    """One row per signal; a number that does not apply to a kind of series is NaN."""
    who = {"recording": recording.id, "session": recording.session, "subject": recording.subject.id, "duration_s": recording.duration}
    rows = [{**who, "signal": name, **_EMPTY, **measure_series(series)} for name, series in recording.signals.items()]
    return [{**row, "uncovered": 1 - (row["end_s"] - row["start_s"]) / max(recording.duration, 1e-9)} for row in rows]


def measure_series(series: Series) -> dict[str, Any]:
    start, end = series.span
    row: dict[str, Any] = {"modality": series.modality, "kind": type(series).__name__, "start_s": start, "end_s": end}
    if isinstance(series, SpikeTrain):
        return {**row, "n_chans": len(series.unit_ids), **_trains(series)}
    values = np.asarray(series.values, np.float64)
    row |= {"n_chans": len(series.ch_names), "unit": series.unit, **_values(values)}
    if isinstance(series, Samples):
        return {**row, "longest_gap_s": float(np.diff(series.times).max(initial=0.0))}
    if series.modality == "spikes":
        return {**row, **_counts(values, series.sfreq)}
    return {**row, **_shape(values)} if series.modality not in BEHAVIOUR else row


_EMPTY: dict[str, Any] = {
    "unit": "",
    **dict.fromkeys(
        ("missing", "infinite", "flat", "flat_share", "zero", "clipped", "frozen", "longest_gap_s", "amplitude", "noise"), np.nan
    ),
    **dict.fromkeys(("rate_min_hz", "rate_median_hz", "rate_max_hz", "silent_units", "refractory", "not_counts"), np.nan),
}


def _values(values: Array) -> dict[str, float]:
    """values (T, C): shares that are NaN or infinite, channels that never change (a channel without a value does not)."""
    finite = np.isfinite(values)
    low = np.where(finite, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf)
    flat = high <= low
    return {
        "missing": float(np.mean(np.isnan(values))),
        "infinite": float(np.mean(np.isinf(values))),
        "flat": int(flat.sum()),
        "flat_share": float(flat.mean()),
        "zero": int((flat & (low == 0) & (high == 0)).sum()),
    }


def _trains(train: SpikeTrain) -> dict[str, float]:
    start, end = train.span
    order = np.lexsort((train.times, train.unit_index))
    units, intervals = train.unit_index[order], np.diff(train.times[order])
    close = (intervals < REFRACTORY_S) & (np.diff(units) == 0)
    spikes = np.bincount(units, minlength=len(train.unit_ids))
    violations = np.bincount(units[1:][close], minlength=len(train.unit_ids))
    return {**_rates(spikes / max(end - start, 1e-9)), "refractory": float((violations / np.maximum(spikes, 1)).max(initial=0.0))}


def _counts(values: Array, sfreq: float) -> dict[str, float]:
    """values (T, N) counts per bin."""
    rates = np.where(np.isfinite(values), values, 0.0).mean(axis=0) * sfreq
    return {**_rates(rates), "not_counts": float(np.mean((values < 0) | (values != np.floor(values))))}


def _rates(rates: Array) -> dict[str, float]:
    """rates (N,) Hz."""
    return {
        "rate_min_hz": float(rates.min()),
        "rate_median_hz": float(np.median(rates)),
        "rate_max_hz": float(rates.max()),
        "silent_units": int((rates == 0).sum()),
    }


def _shape(values: Array) -> dict[str, float]:
    """values (T, C), of which the finite, changing channels are looked at: typical deviation in the signal's unit, noise
    as a share of it (deviation of the steps over root two: 1 for white noise), both robust; clipping of the worst
    channel; share of samples at which none moves."""
    alive = values[:, np.isfinite(values).all(axis=0) & (values != values[:1]).any(axis=0)]
    if not alive.size:
        return {}
    steps = np.diff(alive, axis=0)
    deviation = _robust_sd(alive)
    return {
        "amplitude": float(np.median(deviation)),
        "noise": float(np.median(_robust_sd(steps) / np.maximum(deviation, 1e-300)) / np.sqrt(2)),
        "clipped": max(_clipped(channel) for channel in alive.T),
        "frozen": float((steps == 0).all(axis=1).mean()),
    }


def _robust_sd(values: Array) -> Array:
    """(C,) 1.4826 times the median absolute deviation."""
    return np.asarray(1.4826 * np.median(np.abs(values - np.median(values, axis=0)), axis=0))


def _clipped(x: Array) -> float:
    """Share of samples (T,) in runs of at least CLIP_RUN at the highest or lowest value."""
    share = 0.0
    for extreme in (x.max(), x.min()):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], x == extreme, [False]])))
        runs = edges[1::2] - edges[::2]
        share += float(runs[runs >= CLIP_RUN].sum()) / len(x)
    return share


# ---------------------------------------------------------------- judge
def judge(table: pd.DataFrame, cfg: QualityConfig) -> tuple[Check, ...]:
    """The claims about a quality table. Behaviour may have NaN and gaps; they are reported as warnings."""
    behaviour = table.modality.isin(BEHAVIOUR)
    not_finite = table.missing + table.infinite
    time = pd.DataFrame({"early": table.start_s / EARLIEST_S, "late": table.end_s / LATEST_S}).max(axis=1)

    def claim(name: str, values: "pd.Series[float]", limit: float, what: str, severity: Any = "warn") -> Check:
        return _claim(name, values, limit, what, severity, table)

    return (
        claim("values_are_finite", not_finite[~behaviour], 0, "share not finite in neural signals", "error"),
        claim("clock_is_sane", time, 1, f"times as a share of the limits {EARLIEST_S:g} and {LATEST_S:g} s", "error"),
        claim("channels_vary", table.flat_share[~behaviour], cfg.max_flat_fraction, "share of flat channels in neural signals", "error"),
        claim("no_channel_is_flat", table.flat, 0, "flat channels"),
        claim("behaviour_is_complete", not_finite[behaviour], 0, "share missing in behaviour"),
        claim("signals_cover_the_recording", table.uncovered, MAX_UNCOVERED, "share not covered"),
        claim("no_long_gaps", table.longest_gap_s, cfg.max_jump_s, "seconds between samples"),
        claim("nothing_is_frozen", table.frozen, MAX_FROZEN, "share of samples at which no channel moves"),
        claim("nothing_is_clipped", table.clipped, MAX_CLIPPED, "share of samples stuck at an extreme"),
        claim("amplitudes_are_plausible", _decades_off(table), 0, "decades outside the modality's range"),
        claim("counts_are_whole", table.not_counts, 0, "share of counts negative or fractional"),
        claim("rates_are_plausible", table.rate_max_hz, MAX_RATE_HZ, "Hz of the fastest unit"),
        claim("units_fire", table.silent_units, 0, "silent units"),
        claim(
            "refractory_periods_hold", table.refractory, MAX_REFRACTORY, f"share of intervals below {REFRACTORY_S:g} s in the worst unit"
        ),
    )


def _claim(name: str, values: "pd.Series[float]", limit: float, what: str, severity: Any, table: pd.DataFrame) -> Check:
    """`values` (indexed like rows of `table`) are at most `limit`; the note names the worst offenders."""
    over = values[values > limit].sort_values(ascending=False, kind="stable")
    where = (table.recording + "/" + table.signal)[over.index[:5]]
    note = ", ".join(f"{at} {value:.3g}" for at, value in zip(where, over, strict=False))
    note += f" and {len(over) - 5} more" if len(over) > 5 else ""
    judged = int(values.notna().sum())
    numbers = {"worst": float(values.max()) if judged else 0.0, "over": len(over), "judged": judged}
    return Check(name, over.empty, severity, numbers, f"{what} <= {limit:g}", note)


def _decades_off(table: pd.DataFrame) -> "pd.Series[float]":
    """Powers of ten that an amplitude lies outside what its modality allows; NaN where the unit is not a known one."""
    si = table.amplitude * table.unit.map(TO_SI)
    low, high = (table.modality.map({name: bounds[side] for name, bounds in PLAUSIBLE.items()}) for side in (0, 1))
    return pd.DataFrame({"too small": np.log10(low / si), "too large": np.log10(si / high)}).max(axis=1).clip(lower=0)


def draw(table: pd.DataFrame, path: Path) -> None:
    """One panel per measure that applies, one dot per recording, one colour per signal."""
    from matplotlib.figure import Figure

    measures = [name for name in PANELS if table[name].notna().any()]
    figure = Figure(figsize=(2.6 * len(measures) + 1.2, 2.8), layout="constrained")
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    place = {name: i for i, name in enumerate(table.recording.unique())}
    for axes, name in zip(panels, measures, strict=True):
        for signal, rows in table.groupby("signal", sort=False):
            axes.plot(rows.recording.map(place), rows[name], ".", label=signal, clip_on=False)
        axes.set(title=PANELS[name], xlabel="recording")
        axes.set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=90)
