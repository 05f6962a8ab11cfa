"""Where examples come from: the features of a model, or the recordings themselves, beside the targets of their tasks.

Shapes: n rows, T bins, D features.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm_ml.evaluation.examples import ABOUT, Examples, averaged
from neurofm_ml.evaluation.features import Features
from neurofm_ml.evaluation.label_tasks import LabelCase, find_label_cases
from neurofm_ml.evaluation.tasks import Case, find_cases
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array


def read_examples(found: Mapping[str, Features], shards: Sequence[Path], scaler: Sequence[Path], layer: str) -> Iterator[Examples]:
    """Every task of every recording, or of every dataset where windows have labels, for which there are features."""
    for folder in shards:
        yield from _of_series([c for c in find_cases(folder, scaler) if c.dataset in found], found, layer)
        for case in find_label_cases(folder, scaler):
            if case.dataset in found:
                yield label_examples(case, found[case.dataset], layer)


def _of_series(cases: Sequence[Case], found: Mapping[str, Features], layer: str) -> Iterator[Examples]:
    for case in cases:
        features = found[case.dataset]
        if features.has_bins(case.recording, case.task.inputs):
            x = {split: features.bins(case.recording, split, layer, case.task.inputs) for split in SPLITS}
            yield series_examples(case, features.windows, x)


def series_examples(case: Case, windows: pd.DataFrame, x: Mapping[str, Array]) -> Examples:
    """Bins of the three blocks whose target is known, on features x: split -> (T, D); a second is a trial."""
    data, (session, subject) = case.data, _owner(windows, case.recording)
    known = np.concatenate([data.known[split] for split in SPLITS])
    times = np.concatenate([data.times[split] for split in SPLITS])
    constant = {"dataset": case.dataset, "recording": case.recording, "session": session, "subject": subject}
    about = pd.DataFrame(
        {
            **constant,
            "species": case.species,
            "modality": case.modality,
            "split": np.repeat(SPLITS, [len(data.times[split]) for split in SPLITS]),
            "unit": [f"{case.recording}@{second}" for second in np.floor(times).astype(int)],
            "time": times,
        }
    )
    about = about.assign(trial=about.unit)[list(ABOUT)]
    values, y = (np.concatenate([part[split] for split in SPLITS]) for part in (x, data.y))
    return Examples(case.task, np.asarray(values, np.float64), y, about).where(known)


def _owner(windows: pd.DataFrame, recording: str) -> tuple[str, str]:
    row = windows[windows.recording == recording].iloc[0]
    return str(row.session), str(row.subject)


def label_examples(case: LabelCase, features: Features, layer: str) -> Examples:
    """Windows with a known label, on their pooled features; recordings where a person is asked."""
    place = pd.Series(np.arange(len(features.windows)), features.windows.key)
    there = case.data.rows.key.isin(place.index).to_numpy()
    x = features.pooled(layer)[place[case.data.rows.key[there]].to_numpy()]
    return labelled(case, x, there)


def labelled(case: LabelCase, x: Array, rows: Array) -> Examples:
    """Features x (n, D) of the case's windows that `rows` marks True, beside their labels."""
    about = case.data.rows[rows].assign(species=case.species, modality=case.modality)
    about = about.assign(time=about.start)[list(ABOUT)].reset_index(drop=True)
    found = Examples(case.task, np.asarray(x, np.float64), case.data.y[rows, None].astype(np.float64), about)
    return averaged(found) if case.task.of_subject else found
