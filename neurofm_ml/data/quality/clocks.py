"""Whether times are right: gaps and drift of time stamps, rates that a device can have, rows that belong together,
intervals within the recording, labels in no order.
"""

from collections import Counter

import numpy as np

from neurofm_ml.types import Array, Intervals, Recording, Samples, Signal

#: Hz that devices of a modality sample at. fMRI has repetition times of 0.2 to 10 s; fields of the brain are sampled at
#: twice alpha (13 Hz) at least, a patched membrane within its time constant, a muscle's envelope within a tenth of a second.
RATES = {
    "spikes": (0.1, 1e5),
    "intracellular": (100.0, 1e6),
    "lfp": (26.0, 1e5),
    "eeg": (26.0, 1e5),
    "meg": (26.0, 1e5),
    "ecog": (26.0, 1e5),
    "ieeg": (26.0, 1e5),
    "emg": (10.0, 1e5),
    "calcium": (0.1, 2e3),
    "fmri": (0.1, 5.0),
    "eye": (1.0, 1e4),
    "pose": (0.1, 1e4),
}
#: A clock ticks when nine in ten of its steps are this close to the median one.
TICKS = 0.5
#: Share of the recording that an interval may lie outside of it: what two clocks disagree by.
SLACK = 0.01
#: Labels in order: intervals that share their label with the next, beyond chance; of labels that come this often,
#: among so many intervals.
LEAST_OF_LABEL, LEAST_LABELLED = 5, 20
#: States that fill a recording, one after another.
MOST_STATES = 3


def stamp_numbers(series: Samples) -> dict[str, float]:
    """Longest gap in seconds, and how much slower (above 1) or faster the clock ticks at the end than at the start."""
    steps = np.diff(series.times)
    return {"longest_gap_s": float(steps.max(initial=0.0)), "drift": _drift(steps)}


def _drift(steps: Array) -> float:
    """Relative change of the mean step from the first to the last third; NaN where time stamps do not tick."""
    typical = float(np.median(steps)) if len(steps) >= 300 else 0.0
    ticks = np.abs(steps - typical) <= TICKS * typical
    if not typical or ticks.mean() < 0.9:
        return float("nan")
    third = len(steps) // 3
    first, last = (float(part[kept].mean()) for part, kept in ((steps[:third], ticks[:third]), (steps[-third:], ticks[-third:])))
    return abs(last / first - 1)


def rate_off(signal: Signal) -> float:
    """Powers of ten that the rate lies outside what devices of the modality have; NaN where that is not known."""
    if signal.modality not in RATES:
        return float("nan")
    low, high = RATES[signal.modality]
    return float(max(np.log10(low / signal.sfreq), np.log10(signal.sfreq / high), 0.0))


def rows_off(recording: Recording) -> dict[str, float]:
    """signal -> share of rows by which its length differs from the usual one among signals of its rate and start; one row
    is none."""
    regular = {name: s for name, s in recording.signals.items() if isinstance(s, Signal)}
    found = {}
    for name, signal in regular.items():
        like = [s for s in regular.values() if np.isclose(s.sfreq, signal.sfreq, rtol=1e-6) and abs(s.t0 - signal.t0) * s.sfreq < 0.5]
        if len(like) > 1:
            usual = Counter(len(s.values) for s in like).most_common(1)[0][0]
            apart = abs(len(signal.values) - usual)
            found[name] = apart / max(usual, 1) if apart > 1 else 0.0
    return found


def interval_numbers(intervals: Intervals, recording: Recording) -> dict[str, float]:
    """Share of intervals outside of the recording or longer than it, and how far their labels come in order."""
    if not len(intervals.start):
        return {}
    (start, end), slack = recording.bounds, SLACK * recording.duration
    outside = (intervals.start > end + slack) | (intervals.end < start - slack)
    longer = intervals.end - intervals.start > recording.duration + slack
    order = label_order(intervals.labels)
    return {"outside": float(np.mean(outside | longer)), "label_order": 1.0 if _in_states(intervals, recording) else order}


def _in_states(intervals: Intervals, recording: Recording) -> bool:
    """Whether a recording is one state after another, each once: its label is then no more than the time. Labels that
    only count (sweep 1, sweep 2) are no states."""
    few = 2 <= len(intervals.labels) <= MOST_STATES and len(set(intervals.labels)) == len(intervals.labels)
    counted = len({label.rstrip("0123456789") for label in intervals.labels}) == 1
    return few and not counted and float(np.sum(intervals.end - intervals.start)) > recording.duration / 2


def label_order(labels: tuple[str, ...]) -> float:
    """0 where labels (n,) come as by chance or alternate, 1 where each comes in one run: kappa of the next label with
    this one. NaN where too few repeat."""
    common = {label for label, n in Counter(labels).items() if n >= LEAST_OF_LABEL}
    kept = np.array([label for label in labels if label in common])
    if len(common) < 2 or len(kept) < LEAST_LABELLED:
        return float("nan")
    chance = float(np.sum((np.unique(kept, return_counts=True)[1] / len(kept)) ** 2))
    same = float(np.mean(kept[1:] == kept[:-1]))
    return max((same - chance) / (1 - chance), 0.0)
