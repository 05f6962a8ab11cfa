"""Recordings without a brain: the grid is that of their own span, they become shards, and what is left out has a reason."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from neurofm_ml.data import read
from neurofm_ml.data.grid import to_grid
from neurofm_ml.data.windows import load_block
from neurofm_ml.jobs import JobResult, JobSpec, run
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, datasets
from neurofm_ml.knowledge.files import find_recordings, raw_files
from neurofm_ml.types import Recording, Samples, Signal, Subject

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
real = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
CARD = {
    "name": "walk",
    "title": "",
    "species": "",
    "licence": "CC0",
    "source": "",
    "reader": "arrays",
    "pattern": "{id}.csv",
    "signals": {"pose": {"modality": "pose", "sfreq": 20}},
    "grid_hz": 20,
    "window_s": 1,
    "stride_s": 0.5,
}
POSE = "scorer,net,net\nbodyparts,nose,nose\ncoords,x,y\n" + "".join(f"{k},{k},{2 * k}\n" for k in range(400))


def recording(**signals: Signal | Samples) -> Recording:
    return Recording("r", "d", Subject("s"), "s", "", "", signals)


def card(hz: float) -> DatasetCard:
    return DatasetCard(
        name="d", title="", species="", licence="", source="", reader="arrays", signals={"pose": SignalSpec(modality="pose")},
        grid_hz=hz, window_s=1, stride_s=1,
    )  # fmt: skip


def test_frames_are_the_bins_of_a_grid_at_their_rate() -> None:
    pose = Signal(np.arange(300.0)[:, None], 150, "pose", 12.5)
    gridded = to_grid(recording(pose=pose), card(150))
    (on_grid,) = gridded.signals.values()
    assert isinstance(on_grid, Signal)
    assert (gridded.bounds, on_grid.sfreq, on_grid.t0) == ((12.5, 14.5), 150, 12.5)
    np.testing.assert_array_equal(on_grid.values, pose.values)


def test_gaze_with_a_pause_is_averaged_and_the_pause_is_nan() -> None:
    times = np.concatenate([np.arange(0, 1, 0.004), np.arange(2, 3.001, 0.004)])
    gaze = Samples(times, 10 * times[:, None], "eye")
    (on_grid,) = to_grid(recording(gaze=gaze), card(25)).signals.values()
    assert on_grid.values.shape == (75, 1)
    np.testing.assert_allclose(on_grid.values[:25, 0], 10 * (np.arange(25) / 25 + 0.018), rtol=1e-5)
    assert np.isnan(on_grid.values[26:49]).all()


def test_two_rates_share_the_grid_and_the_longer_one_bounds_it() -> None:
    ecg = Signal(np.ones((1000, 1)), 250, "physio")
    task = Signal(np.ones((20, 1)), 10, "task", 1.0)
    gridded = to_grid(recording(ecg=ecg, task=task), card(50))
    assert gridded.bounds == (0, 4)
    assert [s.values.shape for s in gridded.signals.values()] == [(200, 1), (200, 1)]
    seen = np.isfinite(gridded.signals["task"].values[:, 0])
    assert np.flatnonzero(seen)[[0, -1]] / 50 == pytest.approx([1.0, 2.88])


@pytest.mark.parametrize("modality", ["audio", "video", "language"])
def test_stimuli_keep_their_rate_and_windows_lie_where_they_are(modality: str) -> None:
    stimulus = Signal(np.arange(200.0)[:, None], 100, modality, 1.0)
    gridded = to_grid(recording(stimulus=stimulus, pose=Signal(np.ones((400, 1)), 100, "pose")), card(25))
    kept = gridded.signals["stimulus"]
    assert isinstance(kept, Signal)
    assert (kept.sfreq, gridded.bounds) == (100, (1, 3))
    np.testing.assert_array_equal(kept.values, stimulus.values)


def job(name: str, inputs: dict[str, tuple[str, ...]], folder: Path) -> JobResult:
    return run(JobSpec(job=name, config={"dataset": "walk"}, inputs=inputs, out=str(folder / name)))


def test_from_tracked_frames_to_shards_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m1.csv").write_text(POSE)
    (tmp_path / "walk.yaml").write_text(yaml.safe_dump(CARD))
    monkeypatch.setenv("NEUROFM_CARDS", str(tmp_path))
    raw = tuple(map(str, raw_files(datasets()["walk"])))
    ingested = job("ingest", {"raw": raw}, tmp_path)
    quality, shards = (job(name, {"recordings": (ingested.path,)}, tmp_path) for name in ("assess_quality", "write_shards"))
    assert not [*ingested.failed, *quality.failed, *shards.failed]
    channels = json.loads((Path(shards.path) / "channels.json").read_text())
    assert channels["m1"]["pose"]["ch_names"] == ["nose.x", "nose.y"]
    block = load_block(Path(shards.path), "m1", "test").signals["pose"]
    np.testing.assert_array_equal(block.values, np.stack([np.arange(300, 400), np.arange(600, 800, 2)], axis=1))


def test_recordings_are_left_out_by_name(tmp_path: Path) -> None:
    for name in ("m1", "m2"):
        (tmp_path / f"{name}.csv").write_text(POSE if name == "m1" else POSE + "400,1\n")
    values = {**CARD, "root": str(tmp_path), "signals": {"pose": SignalSpec(modality="pose", sfreq=20)}}
    with pytest.raises(ValueError, match=r"m2.csv, line 404 has 2 columns where the first has 3"):
        read(DatasetCard(**values))
    without = DatasetCard(**values, leave_out={"m2": "line 404 is cut off"})
    assert [spec.id for spec in find_recordings(without)] == ["m1"]
    assert raw_files(without) == [tmp_path / "m1.csv"]


# ---------------------------------------------------------------- real sets
@real
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("systole_ppg", {"331.29": (24847, 1)}),
        ("biosppy_physio", {"15": (15000, 1), "150": (150000, 1), "60": (60000, 1), "20": (20000, 1)}),
        ("biosppy_emg", {"100": (100000, 1), "63.88": (63880, 1)}),
        ("biosppy_eeg_eyes", {"305.75": (38219, 1), "241.62": (30203, 1)}),
    ],
)
def test_real_physiology(name: str, shapes: dict[str, tuple[int, int]]) -> None:
    recordings = read(name)
    assert isinstance(recordings, list)
    found = {f"{r.duration:.2f}".rstrip("0").rstrip("."): next(iter(r.signals.values())).values.shape for r in recordings}  # type: ignore[union-attr]
    assert found == shapes
    assert all(len(r.signals) == 1 for r in recordings)
    gridded = to_grid(recordings[0], datasets()[name])
    assert gridded.duration == pytest.approx(recordings[0].duration, abs=1 / datasets()[name].grid_hz)


@real
def test_real_gestures() -> None:
    """Every file but the malformed one; gestures alternate with rest every five seconds."""
    specs = find_recordings(datasets()["myo_gestures"])
    assert len(specs) == 55
    assert {spec.subject.id for spec in specs if spec.subject} == {"10000", "12378", "19999"}
    card = datasets()["myo_gestures"]
    (fist,) = read(_with(card, "12378_1_7"))  # type: ignore[misc]
    emg, gesture, gestures = fist.signals["emg"], fist.signals["gesture"], fist.intervals["gestures"]
    assert (emg.values.shape, fist.session) == ((12011, 8), "12378-1")
    assert np.abs(emg.values).max() <= 128
    assert set(np.unique(gesture.values)) == {0, 7}
    assert set(gestures.labels) == {"7"}
    np.testing.assert_allclose((gestures.end - gestures.start)[:-1], 5, atol=0.3)
    on_grid = to_grid(fist, card).signals["gesture"]
    assert set(np.unique(on_grid.values)) == {0, 7}


def _with(card: DatasetCard, recording_id: str) -> DatasetCard:
    from dataclasses import replace

    return replace(card, recordings=tuple(s for s in find_recordings(card) if s.id == recording_id))
