"""Where examples come from: the features of a model, or the recordings themselves, beside the targets of their tasks.

Shapes: n rows, T bins, D features.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neurofm_ml.data.windows import read_channels
from neurofm_ml.evaluation.baselines.baselines import roots
from neurofm_ml.evaluation.baselines.ridge import LAGS, lagged
from neurofm_ml.evaluation.features.features import Features
from neurofm_ml.evaluation.label_baselines.registry import suited
from neurofm_ml.evaluation.label_baselines.views import look
from neurofm_ml.evaluation.tasks.label_tasks import LabelCase, find_label_cases
from neurofm_ml.evaluation.tasks.tasks import Case, find_cases
from neurofm_ml.evaluation.transfer.examples import ABOUT, Examples, averaged
from neurofm_ml.presets import SPLITS
from neurofm_ml.types import Array


def read_examples(found: Mapping[str, Features], shards: Sequence[Path], scaler: Sequence[Path], layer: str) -> Iterator[Examples]:
    """Every task of every recording, or of every dataset where windows have labels, for which there are features."""
    for folder in shards:
        for case in find_cases(folder, scaler):
            if case.dataset in found and (examples := series_of(case, found[case.dataset], layer)):
                yield examples
        for label_case in find_label_cases(folder, scaler):
            if label_case.dataset in found:
                yield label_examples(label_case, found[label_case.dataset], layer)


# ---------------------------------------------------------------- from features
def series_of(case: Case, features: Features, layer: str) -> Examples | None:
    """Bins of a recording, None where there are no features of the task's inputs."""
    if not features.has_bins(case.recording, case.task.inputs):
        return None
    return series_examples(case, features.windows, {s: features.bins(case.recording, s, layer, case.task.inputs) for s in SPLITS})


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
    return Examples(case.task, np.asarray(values, np.float64), y, about, _columns(case, session)).where(known)


def _columns(case: Case, session: str) -> tuple[str, ...]:
    """The columns of the target, each with its unit."""
    target = read_channels(case.shards)[session][case.task.target]
    return tuple(f"{name} [{target['unit']}]" for name in case.task.channels or target["ch_names"])


def _owner(windows: pd.DataFrame, recording: str) -> tuple[str, str]:
    row = windows[windows.recording == recording].iloc[0]
    return str(row.session), str(row.subject)


def label_examples(case: LabelCase, features: Features, layer: str) -> Examples:
    """Windows with a known label, on their pooled features; recordings where a person is asked."""
    place = pd.Series(np.arange(len(features.windows)), features.windows.key)
    there = case.data.rows.key.isin(place.index).to_numpy()
    x = features.pooled(layer)[place[case.data.rows.key[there]].to_numpy()]
    found = _labelled(case, np.flatnonzero(there), x)
    return averaged(found) if case.task.of_subject else found


def _labelled(case: LabelCase, rows: Array, x: Array) -> Examples:
    """Features x (n, D) of the windows that are `rows` (n,) of the case, beside their labels."""
    about = case.data.rows.iloc[rows].assign(species=case.species, modality=case.modality)
    about = about.assign(time=about.start)[list(ABOUT)].reset_index(drop=True)
    return Examples(case.task, np.asarray(x, np.float64), case.data.y[rows, None].astype(np.float64), about)


# ---------------------------------------------------------------- from recordings
def raw_series(case: Case, windows: pd.DataFrame) -> list[Examples]:
    """The bins themselves, counts square-rooted, beside their neighbours: once for each width of lags."""
    x = roots(case.data)
    return [series_examples(case, windows, {split: lagged(values, lag) for split, values in x.items()}) for lag in LAGS]


def raw_labels(case: LabelCase) -> list[Examples]:
    """What label baselines first look at in this modality (band power, connectivity, courses of activity), once for each view;
    means and scales are those of training windows, without their labels."""
    found = []
    for view in suited(case):
        table = look(case.data, view)
        rows = [np.flatnonzero(case.data.rows.split == split)[table.first[split]] for split in SPLITS]
        found.append(_labelled(case, np.concatenate(rows), np.concatenate([table.x[split] for split in SPLITS])))
    return found
