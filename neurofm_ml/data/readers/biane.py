"""Two-photon sessions of Biane et al.: a trace per cell in text, and what an Arduino wrote down of the session.

    676951  BEGIN       milliseconds; the microscope runs from here
    682951  ODOR6
    696951  END         to here, once per trial

Frames were taken only between BEGIN and END, and their clock is not kept: a trial holds the frames that begin in it
at the card's rate. Trials are laid end to end; what happened between them is left out, and named. `trials` are whole,
`stimuli` last from the first stimulus to the end of its trial.
"""

from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.base import build, naming
from neurofm_ml.data.readers.series import read_series
from neurofm_ml.data.readers.variables import load_columns
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.knowledge.files import recording_files
from neurofm_ml.types import Array, Intervals, Recording

#: What a stimulus is, by how its word begins.
KINDS = {"ODOR": "odour", "TONE_RW": "sucrose", "SHOCK": "shock", "BLAST": "blast"}


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """The traces of one day with its trials and events."""
    (name, signal), *_ = card.signals.items()
    if signal.sfreq is None:
        raise ValueError(f"{card.name}: signal {name!r} needs sfreq; the frame clock is not in the files.")
    traces = read_series(recording_files(card, spec, signal.file)[0], signal)
    codes = recording_files(card, spec, card.pattern)[0]
    with naming(codes):
        times, words = read_codes(codes)
        windows = imaging_windows(times, words)
        n_frames = np.ceil(np.diff(windows, axis=1)[:, 0] * signal.sfreq).astype(int)
        if n_frames.sum() != len(traces.times):
            raise ValueError(
                f"{len(windows)} imaging windows hold {n_frames.sum()} frames at {signal.sfreq:g} Hz, the traces {len(traces.times)}; "
                "one of the two files is cut short, or sfreq is wrong."
            )
        intervals, left_out = _intervals(times, words, windows, n_frames / signal.sfreq)
    notes = ("trials laid end to end; the times between them were not imaged", f"left out {left_out} events between trials")
    return build(card, spec, {name: traces}, intervals, notes)


def read_codes(path: Path) -> tuple[Array, Array]:
    """(times (n,) seconds, words (n,)) of an event file."""
    times, words = load_columns(path, ("0", "1"))
    return times.astype(np.float64) / 1000, words


def imaging_windows(times: Array, words: Array) -> Array:
    """(n_trials, 2) seconds of every BEGIN and its END."""
    marks = np.flatnonzero(np.isin(words, ("BEGIN", "END")))
    if not len(marks) or len(marks) % 2 or (words[marks] != np.tile(["BEGIN", "END"], len(marks) // 2)).any():
        raise ValueError("BEGIN and END do not take turns; the file is cut short, get it again.")
    return times[marks].reshape(-1, 2)


def _intervals(times: Array, words: Array, windows: Array, lengths: Array) -> tuple[dict[str, Intervals], int]:
    """Trials named after their first stimulus, the stimuli, and the events inside trials, on the clock of the frames; events outside."""
    starts = np.cumsum(lengths) - lengths
    told = ~np.isin(words, ("BEGIN", "END"))
    trial = np.searchsorted(windows[:, 0], times, side="right") - 1
    inside = told & (trial >= 0) & (times <= windows[trial, 1])
    at = starts[trial] + times - windows[trial, 0]
    stimuli = np.flatnonzero(inside & (words != "LICK"))
    shown, place = np.unique(trial[stimuli], return_index=True)
    first = stimuli[place]
    labels = np.full(len(windows), "none", dtype=object)
    labels[shown] = words[first]
    found = {
        "trials": Intervals(starts, starts + lengths, tuple(map(str, labels)), {"trial": np.arange(len(windows))}),
        "stimuli": _stimuli(at[first], (starts + lengths)[shown], words[first]),
        "events": Intervals(at[inside], at[inside], tuple(map(str, words[inside]))),
    }
    return found, int((told & ~inside).sum())


def _stimuli(start: Array, end: Array, words: Array) -> Intervals:
    """One interval per stimulus, its `kind` beside its word."""
    kinds = [next((kind for begin, kind in KINDS.items() if word.startswith(begin)), "other") for word in words]
    return Intervals(start, end, tuple(map(str, words)), {"kind": np.array(kinds)})
