"""Parcel series of the Preprocessed Connectomes Project: ``.1D`` text, a header of labels, one row per volume.

The sampling rate is not in the files: the card states it. Parcels without signal come as zeros; they are
kept, and named in the history.
"""

from pathlib import Path

import numpy as np

from neurofm_ml.data.readers.base import build, naming
from neurofm_ml.data.readers.positions import positions_of
from neurofm_ml.data.readers.tables import read_table
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.knowledge.files import recording_files
from neurofm_ml.types import Array, Recording, Signal


def read_1d(path: Path) -> tuple[Array, tuple[str, ...]]:
    """((n_volumes, n_parcels) float32, labels of the parcels)."""
    table = read_table(path)
    if not table.named:
        raise ValueError(f"{path} has no header of parcel labels (#1 #2 ...); give it one, or read it with the reader 'arrays'.")
    return table.numbers(table.header).astype(np.float32), table.header


def read_recording(card: DatasetCard, spec: RecordingSpec) -> Recording:
    """One scan: the parcel series of the card's one signal."""
    (name, signal), *others = card.signals.items()
    if others or signal.sfreq is None:
        raise ValueError(f"{card.name}: the reader 'parcels' needs one signal with its sfreq (1 / TR), for example sfreq: 0.5.")
    path = recording_files(card, spec, signal.file or card.pattern)[0]
    values, labels = read_1d(path)
    with naming(path):
        positions = positions_of(card, signal, labels)
    series = Signal(values, signal.sfreq, signal.modality, 0.0, labels, positions, signal.unit)
    empty = [label for label, column in zip(labels, values.T, strict=True) if not column.any()]
    notes = (f"parcels that are all zero: {', '.join(empty)}",) if empty else ()
    return build(card, spec, {name: series}, notes=notes)
