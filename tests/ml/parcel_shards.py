"""Shards of fMRI parcels for tests: planted communities, and a few people of real datasets."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from neurofm_ml.config import to_dict
from neurofm_ml.data import read
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import Scaler, fit, load_scaler
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SplitSpec, datasets
from neurofm_ml.presets import ScalerConfig, ShardsConfig
from neurofm_ml.types import Array, Recording, Signal, Subject

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")


def communities(n_times: int = 80, per_community: int = 8, n_communities: int = 3, seed: int = 0) -> tuple[Array, Array]:
    """(T, R) series of parcels that share the signal of their community, and the community (R,) of each."""
    rng = np.random.default_rng(seed)
    community = np.repeat(np.arange(n_communities), per_community)
    return rng.normal(size=(n_times, n_communities))[:, community] + rng.normal(size=(n_times, len(community))), community


def write(folder: Path, card: DatasetCard, recordings: Sequence[Recording]) -> Path:
    """The shards artifact of some recordings, without its report: what that says is tested where it is made."""
    out = folder / card.name
    (out / "shards").mkdir(parents=True)
    for recording in recordings:
        save_recording(recording, out / "recordings" / "recordings")
    (out / "recordings" / "card.json").write_text(json.dumps(to_dict(card)))
    with mock.patch("neurofm_ml.data.windows._report"):
        shard_recordings(ShardsConfig(dataset=card.name), out / "recordings", out / "shards")
    return out / "shards"


def write_series(folder: Path, name: str, series: Sequence[Array], places: Array | None, tr: float = 2.0, window_s: float = 80.0) -> Path:
    """Shards of a person per series (T, R), one volume each `tr` seconds, split by person."""
    card = datasets()["abide_nyu"]
    signals = {"bold": dataclasses.replace(card.signals["bold"], sfreq=1 / tr)}
    split = SplitSpec(kind="subject")
    card = dataclasses.replace(card, name=name, signals=signals, grid_hz=1 / tr, window_s=window_s, stride_s=window_s, split=split)
    people = [
        Recording(
            f"p{i:02d}",
            name,
            Subject(f"p{i:02d}"),
            "one",
            "Homo sapiens",
            "CC0",
            {"bold": Signal(x.astype(np.float32), 1 / tr, "fmri", positions=places)},
        )
        for i, x in enumerate(series)
    ]
    return write(folder, card, people)


def write_real(folder: Path, name: str, ids: Sequence[str]) -> Path:
    """Shards of some people of a dataset that is here."""
    card = datasets()[name]
    card = dataclasses.replace(card, leave_out={}, recordings=tuple(RecordingSpec(id=i) for i in ids))
    people = read(card)
    assert isinstance(people, list)
    return write(folder, card, people)


def scaler_of(folder: Path, shards: Sequence[Path]) -> Scaler:
    (folder / "scaler").mkdir()
    fit(ScalerConfig(modality="fmri"), list(shards), folder / "scaler")
    return load_scaler([folder / "scaler"])
