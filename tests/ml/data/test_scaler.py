"""Scalers against a naive twin: the same numbers as numpy on the contiguous training blocks."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm_ml.config import to_dict
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import Moments, fit, load_scaler
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.windows import load_block, shard_recordings
from neurofm_ml.knowledge.cards import SplitSpec, datasets
from neurofm_ml.presets import ScalerConfig, ShardsConfig
from neurofm_ml.types import Array, Recording, Signal

MODALITIES = {"spikes": "spikes", "eeg": "eeg", "pose": "behaviour"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings, two of them one session; a constant electrode; behaviour with holes."""
    card = datasets()["simulation"]
    card = dataclasses.replace(card, recordings=card.recordings[:3], window_s=4.0, stride_s=1.5, split=SplitSpec(gap_s=1.0))
    source, out = tmp_path_factory.mktemp("recordings"), tmp_path_factory.mktemp("shards")
    for k, recording in enumerate(simulate(card, 40.0)):
        eeg, behaviour = _signal(recording, "eeg"), _signal(recording, "behaviour")
        eeg.values[:, 3] = 12.345
        behaviour.values[40:80, 1] = np.nan
        session = "first" if k < 2 else "second"
        save_recording(dataclasses.replace(recording, session=session), source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(ShardsConfig(dataset="simulation"), source, out)
    return out


@pytest.fixture(scope="module")
def scalers(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for modality in MODALITIES:
        folders.append(tmp_path_factory.mktemp(modality))
        report = fit(ScalerConfig(modality=modality), [shards], folders[-1])
        assert all(c.passed for c in report.checks)
    return folders


def _signal(recording: Recording, name: str) -> Signal:
    signal = recording.signals[name]
    assert isinstance(signal, Signal)
    return signal


def _training(shards: Path, name: str, recordings: list[str]) -> Array:
    return np.concatenate([_signal(load_block(shards, r, "train"), name).values for r in recordings]).astype(np.float64)


@pytest.mark.parametrize("modality", MODALITIES)
def test_equals_numpy_on_the_training_blocks(shards: Path, scalers: list[Path], modality: str) -> None:
    name, scaler = MODALITIES[modality], load_scaler(scalers)
    for session, recordings in {"first": ["sub1_ses1", "sub1_ses2"], "second": ["sub2_ses1"]}.items():
        values = _training(shards, name, recordings)
        values = np.sqrt(values) if modality == "spikes" else values
        mean, std = scaler("simulation", session, name)
        np.testing.assert_allclose(mean, np.nanmean(values, axis=0), rtol=1e-5, atol=1e-6)
        expected = np.nanstd(values, axis=0)
        if modality == "eeg":
            assert std[3] == 1.0
            assert mean[3] == pytest.approx(12.345)
            std, expected = np.delete(std, 3), np.delete(expected, 3)
        np.testing.assert_allclose(std, expected, rtol=1e-5)


def test_the_table_counts_each_training_sample_once(shards: Path, scalers: list[Path]) -> None:
    table = pd.concat([pd.read_parquet(folder / "scaler.parquet") for folder in scalers])
    windows = pd.read_parquet(shards / "windows.parquet")
    train = windows[windows.split == "train"].groupby("recording")
    seconds = train.end.max() - train.start.min()
    eeg = table[(table.signal == "eeg") & (table.session == "first")]
    assert set(eeg.n) == {round(128 * (seconds["sub1_ses1"] + seconds["sub1_ses2"]))}
    behaviour = table[(table.signal == "behaviour") & (table.session == "second")].set_index("channel").n
    assert behaviour["x"] - behaviour["y"] == 10  # 40 samples of 32 Hz missing: 10 bins of 8 Hz


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 1e6]),
    missing=st.floats(0, 0.9),
    seed=st.integers(0, 10**6),
)
def test_moments_do_not_depend_on_the_cuts_and_survive_a_large_offset(cuts: list[int], offset: float, missing: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = offset + rng.normal(size=(61, 3))
    values[rng.uniform(size=values.shape) < missing] = np.nan
    values[0] = offset
    moments = Moments(3)
    for part in np.split(values, sorted(cuts)):
        moments.add(part)
    rows = pd.DataFrame(moments.rows("abc"))
    np.testing.assert_array_equal(rows.n, np.isfinite(values).sum(0))
    np.testing.assert_allclose(rows["mean"], np.nanmean(values, axis=0), rtol=1e-12)
    expected = np.nanstd(values - offset, axis=0)
    np.testing.assert_allclose(rows["std"], np.where(rows.constant, 1.0, expected), atol=1e-6)


def test_a_channel_without_a_value_is_reported() -> None:
    moments = Moments(2)
    moments.add(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert [(r["mean"], r["std"], r["n"], r["constant"]) for r in moments.rows("ab")] == [(2.0, 1.0, 2, False), (0.0, 1.0, 0, True)]


def test_modality_that_is_not_there(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no training window of .* holds 'meg'"):
        fit(ScalerConfig(modality="meg"), [shards], tmp_path)


def test_unknown_session(scalers: list[Path]) -> None:
    with pytest.raises(ValueError, match="no scaler for signal 'eeg' of session 'third' of 'simulation'"):
        load_scaler(scalers)("simulation", "third", "eeg")


def test_a_held_out_session_is_scaled_as_its_channels_are_in_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen = {(s, c): 1e4 + rng.normal(k, 1 + k, 50 + 10 * k) for k, (s, c) in enumerate(itertools.product("xy", "ab"))}
    rows = []
    for (session, channel), values in seen.items():
        moments = Moments(1)
        moments.add(values[:, None])
        rows += [{"dataset": "toy", "session": session, "signal": "emg", **row} for row in moments.rows([channel])]
    still = {**rows[0], "channel": "still", "mean": 5.0, "std": 1.0, "constant": True}
    pd.DataFrame([*rows, still]).to_parquet(tmp_path / "scaler.parquet")
    mean, std = load_scaler([tmp_path])("toy", "held out", "emg", ("b", "new"))
    expected = [np.concatenate([v for (_, c), v in seen.items() if c in names]) for names in ("b", "ab")]
    np.testing.assert_allclose(mean, [v.mean() for v in expected], rtol=1e-6)
    np.testing.assert_allclose(std, [v.std() for v in expected], rtol=1e-6)
