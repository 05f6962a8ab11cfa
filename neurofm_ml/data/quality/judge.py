"""The claims about a quality table: what is judged, against which threshold, and what to do where it fails.

What would poison everything after it blocks (not finite, a senseless clock or rate, mostly flat channels, an input that
holds its target, blocks that share spikes); what a person should know is a warning. Thresholds that depend on the
dataset come from the config, those of physics and physiology stand here.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from neurofm_ml.data.duplicates import Repeat
from neurofm_ml.data.grid import BEHAVIOUR
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.presets import QualityConfig
from neurofm_ml.types import Check

#: Times are seconds from the start of a session; three years is beyond any (and below the Unix clock).
LATEST_S = 1e8
#: Before a session's zero: a baseline, not another clock.
EARLIEST_S = -3600.0
#: Share of samples stuck at a channel's extreme value that means clipping.
MAX_CLIPPED = 0.01
#: Share of samples at which no channel moves (a dropout filled with the last value or zeros).
MAX_FROZEN = 0.01
#: Share of behaviour that blinks and lost tracking take; with more it is a poor recording.
MAX_MISSING = 0.1
#: Share of rows that two tables of one clock may differ by.
MAX_ROWS_OFF = 0.01
#: A unit may be silent for this long, seconds: many fire every ten.
SILENT_S = 60.0
#: Spike times finer than this tell spikes of one neuron apart, seconds.
MAX_RESOLUTION_S = 1e-3
#: Share of the recording that a signal may miss at its ends.
MAX_UNCOVERED = 0.1
#: Share of a channel's power that is mains and its harmonics: beyond half it is more mains than brain.
MAX_LINE = 0.5
#: Hz that a line may lie off 50 or 60 Hz: grids hold 0.2, so 1 % is a wrong rate.
MAX_LINE_OFF_HZ = 0.5
#: Share of the band below Nyquist that holds anything; below it the signal was sampled up.
MIN_BAND = 0.75
#: Change of a clock's pace: crystals hold a ten-thousandth.
MAX_DRIFT = 0.005
#: Firing that no neuron sustains, Hz.
MAX_RATE_HZ = 200.0
#: Share of a unit's intervals below the refractory period beyond which it mixes neurons.
MAX_REFRACTORY = 0.05
#: Share of spikes that half of the units fire together.
MAX_ARTEFACTS = 0.01
#: Mean framewise displacement, mm (Power et al. 2012), and share of volumes that jump, beyond which scans are left out.
MAX_MOTION_MM, MAX_JUMPS = 0.5, 0.2
#: Labels are in order when they say this much of the next one's, beyond chance.
MAX_LABEL_ORDER = 0.5
#: R2 at which an input is the target: no brain is read that well.
MAX_GIVEN_AWAY = 0.999
#: Volts (tesla for MEG) that a channel's typical deviation lies between.
PLAUSIBLE = {
    "eeg": (1e-7, 1e-3),
    "ecog": (1e-7, 5e-3),
    "ieeg": (1e-7, 5e-3),
    "lfp": (1e-7, 5e-3),
    "emg": (1e-7, 2e-2),
    "meg": (1e-15, 1e-9),
    "intracellular": (1e-5, 0.2),
}
#: What one unit is in volts or tesla.
TO_SI = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "µV": 1e-6, "nV": 1e-9, "T": 1.0, "pT": 1e-12, "fT": 1e-15}
#: Where channels lie about their middle: metres for heads, millimetres for parcels of a brain.
PLACES = {"eeg": (0.02, 0.3), "meg": (0.02, 0.3), "ecog": (0.001, 0.3), "ieeg": (0.001, 0.3), "fmri": (2.0, 150.0)}
#: Beats per minute from deep sleep to flight.
HEARTS = {"Homo sapiens": (30.0, 220.0), "Rattus norvegicus": (150.0, 600.0), "Mus musculus": (200.0, 900.0)}
#: Modalities in which a channel that never changes says something: no spike, one label.
LABELS = ("spikes", "task")
#: Offenders that a note names.
NAMED = 5
#: Sums of bins are rounded; a microsecond is far below any bin.
_ROUNDING_S = 1e-6
#: What to do about what is recorded twice.
TWICE = "keep one, or let both fall on one side of the split"


class Claim(NamedTuple):
    """`values` (one per row of the table, NaN: not judged) are at most `limit`. `what` they are, what to do: `remedy`."""

    name: str
    values: "pd.Series[float]"
    limit: float
    what: str
    remedy: str
    severity: Literal["warn", "error"] = "warn"


def judge(table: pd.DataFrame, cfg: QualityConfig, card: DatasetCard, repeats: Sequence[Repeat] = ()) -> tuple[Check, ...]:
    """Every check of the table, and those of what was recorded twice."""
    return (*(_check(claim, table) for claim in claims(table, cfg, card)), *_repeated(repeats, table))


def claims(table: pd.DataFrame, cfg: QualityConfig, card: DatasetCard) -> tuple[Claim, ...]:
    """What is claimed of each row of a quality table."""
    return (*_blocking(table, cfg, card), *_of_times(table, cfg), *_of_values(table), *_of_channels(table), *_of_spikes(table, card))


def _blocking(t: pd.DataFrame, cfg: QualityConfig, card: DatasetCard) -> Iterator[Claim]:
    neural = ~t.modality.isin(BEHAVIOUR)
    bad = (t.missing + t.infinite)[neural]
    time = pd.DataFrame({"early": t.start_s / EARLIEST_S, "late": t.end_s / LATEST_S}).max(axis=1)
    span = f"times as a share of the limits {EARLIEST_S:g} and {LATEST_S:g} s"
    flat = t.flat_share[neural]
    yield Claim("values_are_finite", bad, 0, "share not finite in neural signals", "interpolate or cut them", "error")
    yield Claim("clock_is_sane", time, 1, span, "count from the start of the session", "error")
    yield Claim("channels_vary", flat, cfg.max_flat_fraction, "share of flat neural channels", "leave it out, with the reason", "error")
    yield Claim("sampling_rates_fit", t.rate_off, 0, "decades outside the modality's rates", "correct sfreq: in Hz, from seconds", "error")
    yield Claim("intervals_share_the_clock", t.outside, 0.5, "share of intervals outside", "correct time_scale or the zero", "error")
    given = "R2 of the target from the input by a line"
    yield Claim("no_input_gives_the_target_away", t.gives_away, MAX_GIVEN_AWAY, given, "take the channel out of the input", "error")
    shared = _shared_s(t, card)
    yield Claim("gap_covers_the_overlap", shared, 0, "seconds that blocks share", "raise gap_s in the card's split", "error")


def _of_times(t: pd.DataFrame, cfg: QualityConfig) -> Iterator[Claim]:
    yield Claim("signals_cover_the_recording", t.uncovered, MAX_UNCOVERED, "share not covered", "cut the recording by `span`")
    yield Claim("rows_agree", t.rows_off, MAX_ROWS_OFF, "share of rows more or less than beside it", "give the longer one its t0")
    yield Claim("no_long_gaps", t.longest_gap_s, cfg.max_jump_s, "seconds between samples", "cut the recording by `span`")
    yield Claim("clocks_hold", t.drift, MAX_DRIFT, "change of pace", "read the times of the frames, not the nominal rate")
    yield Claim("intervals_lie_inside", t.outside, 0, "share of intervals outside or longer", "correct their times")
    order = "how far labels come in order"
    yield Claim("labels_are_mixed", t.label_order, MAX_LABEL_ORDER, order, "split by recording; trials drawn at random leak their time")


def _of_values(t: pd.DataFrame) -> Iterator[Claim]:
    behaviour = t.modality.isin(BEHAVIOUR)
    missing, infinite = t.missing[behaviour], t.infinite[behaviour]
    yield Claim("behaviour_is_complete", missing, MAX_MISSING, "share missing in behaviour", "nothing, or leave the recording out")
    yield Claim("nothing_is_infinite", infinite, 0, "share infinite in behaviour", "set these to NaN")
    yield Claim("nothing_is_frozen", t.frozen, MAX_FROZEN, "share of samples at which no channel moves", "cut the dropout")
    yield Claim("nothing_is_clipped", t.clipped, MAX_CLIPPED, "share of samples stuck at an extreme", "drop the channel or cut the stretch")
    lonely = "share of samples at one lonely extreme"
    yield Claim("no_value_stands_for_missing", t.placeholder, 0, lonely, "name the value under `missing` in the card")
    yield Claim("amplitudes_are_plausible", _decades_off(t), 0, "decades outside the modality's range", "correct unit or scale in the card")
    yield Claim("mains_are_quiet", t.line_share, MAX_LINE, "share of power at 50 or 60 Hz", "notch filter, or drop the channel")
    line, empty = "Hz of the line off 50 and 60 Hz", "share of the band that is empty"
    yield Claim("mains_are_in_place", t.line_off_hz, MAX_LINE_OFF_HZ, line, "the rate is wrong by as much: correct sfreq")
    yield Claim("spectra_reach_nyquist", 1 - t.band, 1 - MIN_BAND, empty, "it was sampled up: take the rate it was recorded at")
    yield Claim("head_motion_is_low", t.motion_mm, MAX_MOTION_MM, "mm from volume to volume", "leave the scan out or regress motion out")
    yield Claim("volumes_are_steady", t.jumps, MAX_JUMPS, "share of volumes that jump (DVARS)", "censor volumes or leave the scan out")


def _of_channels(t: pd.DataFrame) -> Iterator[Claim]:
    flat = t.flat[~t.modality.isin(LABELS)]
    yield Claim("no_channel_is_flat", flat, 0, "flat channels", "ignore or drop them")
    yield Claim("no_channel_is_noisy", t.noisy, 0, "channels far louder than the others and like none", "drop or interpolate them")
    yield Claim("no_channel_is_alone", t.lone, 0, "channels that resemble no other", "drop or interpolate them")
    yield Claim("no_channel_is_repeated", t.repeated, 0, "channels or units that are another one again", "keep one of each")
    yield Claim("positions_are_plausible", _misplaced(t), 0, "decades outside of a head", "metres for heads, millimetres for MNI")


def _of_spikes(t: pd.DataFrame, card: DatasetCard) -> Iterator[Claim]:
    """Of spikes, and of hearts."""
    silent = t.silent[t.duration_s >= SILENT_S]
    together = "share of spikes that half of the units fire at once"
    yield Claim("counts_are_whole", t.not_counts, 0, "share of counts negative or fractional", "these are rates; give counts")
    yield Claim("counts_do_not_overlap", t.overlap, 1, "bins that each count sums", "state bin_s, and a gap_s as long, in the card")
    yield Claim("rates_are_plausible", t.rate_max_hz, MAX_RATE_HZ, "Hz of the fastest unit", "correct the bin width; drop noise clusters")
    yield Claim("spike_times_are_precise", t.resolution_s, MAX_RESOLUTION_S, "seconds that times are rounded to", "use wider bins")
    yield Claim("units_fire", silent, 0, "silent units", "ignore or drop them")
    yield Claim("refractory_periods_hold", t.refractory, MAX_REFRACTORY, "share of intervals below 1 ms", "drop the unit: it mixes neurons")
    yield Claim("no_artefact_is_sorted", t.artefacts, MAX_ARTEFACTS, together, "drop these events")
    yield Claim("heart_rate_is_plausible", _heart_off(t, card), 0, "octaves outside of what hearts do", "correct sfreq")


def _check(claim: Claim, table: pd.DataFrame) -> Check:
    """The note names the worst offenders, and their channels where the table does."""
    over = claim.values[claim.values > claim.limit].sort_values(ascending=False, kind="stable")
    judged = int(claim.values.notna().sum())
    numbers = {"worst": float(claim.values.max()) if judged else 0.0, "over": len(over), "judged": judged}
    names = table.get(f"{claim.values.name}_names")
    where = table.recording + "/" + table.signal
    told = [f"{where[i]} {over[i]:.3g}" + (f" ({names[i]})" if names is not None else "") for i in over.index[:NAMED].tolist()]
    note = ", ".join(told) + (f" and {len(over) - NAMED} more" if len(over) > NAMED else "")
    return Check(claim.name, over.empty, claim.severity, numbers, f"{claim.what} <= {claim.limit:g}", note)


def _repeated(repeats: Sequence[Repeat], table: pd.DataFrame) -> tuple[Check, ...]:
    people = [r for r in repeats if r.kind == "person"]
    data = [r for r in repeats if r.kind != "person"]
    return tuple(
        Check(name, not found, "warn", {"pairs": len(found), "recordings": table.recording.nunique()}, what, _listed(found))
        for name, found, what in (
            ("no_recording_is_repeated", data, "pairs of recordings that share data: 0"),
            ("no_person_is_repeated", people, "pairs of people whose scans are of one: 0"),
        )
    )


def _listed(repeats: Sequence[Repeat]) -> str:
    return "; ".join(map(str, repeats[:NAMED])) + (f" and {len(repeats) - NAMED} more" if len(repeats) > NAMED else "")


def _shared_s(table: pd.DataFrame, card: DatasetCard) -> "pd.Series[float]":
    """Seconds by which blocks of a split share counts: rows t and t + W - 1 share a finer bin, so W - 1 rows must lie
    between the last row of a block and the next block. NaN where counts do not overlap, or whole recordings are split."""
    reach = ((table.overlap - 1) / table.sfreq).where(table.overlap > 1)
    return reach - card.split.gap_s - _ROUNDING_S if card.split.kind == "block" else reach * np.nan


def _decades_off(table: pd.DataFrame) -> "pd.Series[float]":
    """Powers of ten that an amplitude lies outside what its modality allows; NaN where the unit is not a known one."""
    return _outside(table.amplitude * table.unit.map(TO_SI), table.modality, PLAUSIBLE)


def _misplaced(table: pd.DataFrame) -> "pd.Series[float]":
    return _outside(table.radius, table.modality, PLACES)


def _outside(values: "pd.Series[float]", modality: "pd.Series[str]", allowed: dict[str, tuple[float, float]]) -> "pd.Series[float]":
    """Powers of ten below or above what is allowed for a modality; NaN where nothing is known."""
    low, high = (modality.map({name: bounds[side] for name, bounds in allowed.items()}) for side in (0, 1))
    return pd.DataFrame({"small": np.log10(low / values), "large": np.log10(values / high)}).max(axis=1).clip(lower=0)


def _heart_off(table: pd.DataFrame, card: DatasetCard) -> "pd.Series[float]":
    low, high = HEARTS.get(card.species, (np.nan, np.nan))
    rate = table.beats_per_minute
    return pd.DataFrame({"slow": np.log2(low / rate), "fast": np.log2(rate / high)}).max(axis=1).clip(lower=0)
