"""UCI EEG database: one gzipped text file per one-second trial, a line per sample.

    # S1 obj , trial 0
    # FP1 chan 0
    0 FP1 0 -8.921          trial, channel, sample, microvolts

A recording is one participant: trials laid end to end in the order of their numbers, since the times between
them are not in the files. The fourth letter of the participant's code says alcoholic (a) or control (c).
"""

import gzip
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neurofm_ml.data.readers.base import build, naming
from neurofm_ml.data.readers.positions import positions_of
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.knowledge.files import recording_files
from neurofm_ml.types import Array, Intervals, Recording, Signal

_DIAGNOSES = {"a": "alcoholic", "c": "control"}
#: Eye movements and a nose electrode: recorded with the cap, but no EEG.
_NOT_EEG = ("X", "Y", "nd")


class Trial(NamedTuple):
    """values (n_samples, n_chans) microvolts."""

    number: int
    condition: str
    ch_names: tuple[str, ...]
    values: Array


def read_trial(path: Path) -> Trial:
    """One trial. Raises ValueError for a file that is empty, cut short or of another layout."""
    try:
        with gzip.open(path, "rt") as file:
            lines = file.read().splitlines()
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); get it again.") from None
    header = re.search(r"^# (S\d .+?)\s*, trial (\d+)", "\n".join(lines), re.MULTILINE)
    ch_names = tuple(m[1] for line in lines if (m := re.match(r"# (\w+) chan \d+", line)))
    numbers = np.array([line.rsplit(" ", 1)[1] for line in lines if line and not line.startswith("#")], np.float32)
    if header is None or not ch_names or not len(numbers) or len(numbers) % len(ch_names):
        raise ValueError(f"{path} holds no whole trial: {len(ch_names)} channels and {len(numbers)} samples in all; get it again.")
    return Trial(int(header[2]), header[1].strip(), ch_names, numbers.reshape(len(ch_names), -1).T)


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """All trials of one participant, with their conditions as intervals."""
    (name, signal), *_ = card.signals.items()
    files = recording_files(card, spec, card.pattern)
    if signal.sfreq is None:
        raise ValueError(f"{card.name}: signal {name!r} needs sfreq; the database is sampled at 256 Hz.")
    trials = sorted(map(read_trial, files), key=lambda trial: trial.number)
    layouts = {(t.ch_names, t.values.shape) for t in trials}
    if len(layouts) > 1:
        raise ValueError(f"{files[0].parent}: the trials differ in channels or samples; remove the odd ones.")
    keep = [i for i, channel in enumerate(trials[0].ch_names) if channel not in _NOT_EEG]
    ch_names = tuple(trials[0].ch_names[i] for i in keep)
    with naming(files[0].parent):
        positions = positions_of(card, signal, ch_names)
    values = np.concatenate([t.values[:, keep] for t in trials])
    series = Signal(values, signal.sfreq, signal.modality, 0.0, ch_names, positions, signal.unit)
    notes = ("trials laid end to end; the times between them are not known", f"left out {', '.join(_NOT_EEG)}: no EEG")
    recording = build(card, spec, {name: series}, {"trials": _intervals(trials, signal.sfreq)}, notes)
    return replace(recording, subject=replace(recording.subject, diagnosis=_DIAGNOSES.get(spec.id[3:4])))


def _intervals(trials: list[Trial], sfreq: float) -> Intervals:
    seconds = len(trials[0].values) / sfreq
    start = np.arange(len(trials)) * seconds
    return Intervals(start, start + seconds, tuple(t.condition for t in trials), {"trial": np.array([t.number for t in trials])})
