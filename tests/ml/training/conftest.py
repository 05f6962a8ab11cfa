"""A small simulated dataset with several tasks, whose clock starts between two bins."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.config import to_dict
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import Scaler, fit, load_scaler
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.knowledge.cards import SplitSpec, TaskSpec, datasets
from neurofm_ml.presets import ScalerConfig, ShardsConfig
from neurofm_ml.training.problems import Problem, find_problems
from neurofm_ml.types import Recording, Signal, SpikeTrain

TASKS = (
    TaskSpec(name="behaviour", target="behaviour", inputs=("spikes",)),
    TaskSpec(name="first", target="behaviour", inputs=("spikes",), channels=("x",)),
    TaskSpec(name="slow", target="behaviour", inputs=("calcium",)),
    TaskSpec(name="far", target="behaviour", inputs=("eeg",)),
    TaskSpec(name="both", target="behaviour", inputs=("spikes", "calcium"), channels=("y",)),
)
#: Seconds: a recording that starts half a bin of 8 Hz after a whole number of bins.
START = 100.0625


def later(recording: Recording) -> Recording:
    """The same recording on a clock that starts at START, with behaviour unknown for a while."""
    signals = {}
    for name, series in recording.signals.items():
        if isinstance(series, SpikeTrain):
            signals[name] = dataclasses.replace(series, times=series.times + START)
        elif isinstance(series, Signal):
            signals[name] = dataclasses.replace(series, t0=series.t0 + START)
    start, end = recording.bounds
    signals["behaviour"].values[96:160] = np.nan
    return dataclasses.replace(recording, signals=signals, span=(start + START, end + START))


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings of 60 s, the first two of one session; calcium at twice the grid's rate, EEG at eight times."""
    card = datasets()["simulation"]
    kept = {name: card.signals[name] for name in ("spikes", "calcium", "eeg", "behaviour")}
    kept |= {"calcium": dataclasses.replace(kept["calcium"], sfreq=16.0), "eeg": dataclasses.replace(kept["eeg"], sfreq=64.0)}
    split = SplitSpec(gap_s=1.0)
    card = dataclasses.replace(card, recordings=card.recordings[:3], signals=kept, window_s=4.0, stride_s=1.5, split=split, tasks=TASKS)
    source, out = tmp_path_factory.mktemp("recordings"), tmp_path_factory.mktemp("shards")
    for k, recording in enumerate(simulate(card, 60.0)):
        save_recording(dataclasses.replace(later(recording), session="one" if k < 2 else "two"), source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(ShardsConfig(dataset="simulation"), source, out)
    return out


@pytest.fixture(scope="session")
def scaler(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Scaler:
    folders = []
    for modality in ("spikes", "calcium", "eeg", "pose"):
        folders.append(tmp_path_factory.mktemp(modality))
        fit(ScalerConfig(modality=modality), [shards], folders[-1])
    return load_scaler(folders)


@pytest.fixture(scope="session")
def problems(shards: Path) -> list[Problem]:
    return list(find_problems(shards))
