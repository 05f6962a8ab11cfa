"""Grid, splits, windows: what is cut equals what was recorded, and no split has seen another."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from neurofm_ml.config import to_dict
from neurofm_ml.data.grid import to_grid
from neurofm_ml.data.preprocess import UnifiedPreprocessor
from neurofm_ml.data.recordings import load_card, load_recordings, save_recording
from neurofm_ml.data.shards import Reader, read_index, read_manifest, write_manifest, write_shards
from neurofm_ml.data.simulate import simulate
from neurofm_ml.data.splits import blocks
from neurofm_ml.data.survey import windows
from neurofm_ml.data.windows import load_block, shard_recordings
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, StepSpec, datasets
from neurofm_ml.presets import SPLITS, ShardsConfig
from neurofm_ml.types import Array, Intervals, Recording, Samples, Series, Signal, SpikeTrain, Subject


def _card(**changes: object) -> DatasetCard:
    card = datasets()["simulation"]
    return dataclasses.replace(card, **{"grid_hz": 10.0, "window_s": 2.0, "stride_s": 0.5, "split": SplitSpec(gap_s=0.6), **changes})  # type: ignore[arg-type]


def _eeg_alone() -> dict[str, object]:
    return {"signals": {"eeg": datasets()["simulation"].signals["eeg"]}, "tasks": ()}


def _recording(
    signals: dict[str, Series], name: str = "a", subject: str = "s", session: str = "x", span: tuple[float, float] | None = None
) -> Recording:
    return Recording(name, "simulation", Subject(subject), session, "none", "CC0-1.0", signals, span=span)


def _artifact(folder: Path, card: DatasetCard, recordings: list[Recording]) -> Path:
    for recording in recordings:
        save_recording(recording, folder / "recordings")
    (folder / "card.json").write_text(json.dumps(to_dict(card)))
    return folder


def _values(recording: Recording, name: str) -> Array:
    signal = recording.signals[name]
    assert isinstance(signal, Signal)
    return np.asarray(signal.values)


# ---------------------------------------------------------------- grid
def test_spikes_are_counted_in_half_open_bins() -> None:
    train = SpikeTrain(np.array([0.0, 0.05, 0.1, 0.1, 0.95, 1.0]), np.array([0, 1, 0, 0, 1, 0]), ("u", "v"))
    counts = _values(to_grid(_recording({"spikes": train}, span=(0.0, 1.0)), _card()), "spikes")
    expected = np.zeros((10, 2))
    expected[0], expected[1, 0], expected[9, 1] = (1, 1), 2, 1  # the spike at 1.0 lies outside [0, 1)
    np.testing.assert_array_equal(counts, expected)


def test_counts_equal_a_histogram_per_unit() -> None:
    rng = np.random.default_rng(0)
    times, units = np.sort(rng.uniform(3.0, 23.0, 4000)), rng.integers(0, 5, 4000)
    train = SpikeTrain(times, units, tuple("abcde"))
    counts = _values(to_grid(_recording({"spikes": train}, span=(3.0, 23.0)), _card()), "spikes")
    for unit in range(5):
        np.testing.assert_array_equal(counts[:, unit], np.histogram(times[units == unit], 200, (3.0, 23.0))[0])


def test_fast_behaviour_is_averaged_slow_behaviour_interpolated() -> None:
    fast = Signal(np.arange(1000.0)[:, None], 100.0, "pose")
    slow = Samples(np.arange(0.0, 10.5, 0.5), np.arange(0.0, 10.5, 0.5)[:, None] * 3, "eye")
    grid = to_grid(_recording({"fast": fast, "slow": slow}, span=(0.0, 10.0)), _card())
    np.testing.assert_allclose(_values(grid, "fast")[:, 0], np.arange(100) * 10 + 4.5)
    np.testing.assert_allclose(_values(grid, "slow")[:, 0], (np.arange(100) + 0.5) / 10 * 3, rtol=1e-6)


def test_behaviour_is_nan_where_it_was_not_seen_and_short_gaps_are_bridged() -> None:
    times = np.arange(0.0, 10.0, 0.04)
    times = times[~((times > 3.98) & (times < 6.02))]  # two seconds without a sample
    values = np.stack([times, times], axis=1)
    values[:25, 1] = np.nan  # and a channel that is missing for the first second
    out = _values(to_grid(_recording({"pose": Samples(times, values, "pose")}, span=(-1.0, 10.0)), _card()), "pose")
    centres = -0.95 + 0.1 * np.arange(110)
    assert np.isnan(out[centres < 0]).all()
    assert np.isnan(out[(centres > 4.1) & (centres < 6.0)]).all()
    assert np.isnan(out[centres < 1.0, 1]).all()
    seen = (centres > 0) & ~((centres > 4.0) & (centres < 6.1)) & (centres < 9.9)
    np.testing.assert_allclose(out[seen, 0], centres[seen], atol=0.05)


def test_the_grid_covers_what_every_neural_signal_covers() -> None:
    eeg = Signal(np.zeros((1000, 2), np.float32), 100.0, "eeg", t0=1.0)
    bold = Signal(np.zeros((8, 3), np.float32), 1.0, "fmri", t0=2.0)
    pose = Signal(np.ones((30, 1)), 10.0, "pose", t0=0.0)
    grid = to_grid(_recording({"eeg": eeg, "bold": bold, "pose": pose}), _card())
    assert grid.bounds == (2.0, 10.0)
    assert [len(_values(grid, n)) for n in ("eeg", "bold", "pose")] == [800, 8, 80]
    assert np.isfinite(_values(grid, "pose")).sum() == 10  # seen until 3.0 s, kept as NaN after


@pytest.mark.parametrize(
    ("signals", "match"),
    [
        ({"eeg": Signal(np.zeros((10, 1)), 10.0, "eeg"), "bold": Signal(np.zeros((9, 1)), 1.0, "fmri", t0=5.0)}, "share no whole bin"),
        (
            {"counts": Signal(np.zeros((10, 1)), 25.0, "spikes")},
            "binned at 25 Hz, which no whole number of bins brings to the grid's 10 Hz",
        ),
    ],
)
def test_what_cannot_be_put_on_the_grid(signals: dict[str, Series], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        to_grid(_recording(signals), _card())


# ---------------------------------------------------------------- windows
@pytest.mark.parametrize(("bins", "starts"), [(20, [0]), (25, [0, 5]), (27, [0, 5, 7]), (19, [])])
def test_windows_cover_a_block_and_stay_inside(bins: int, starts: list[int]) -> None:
    cut = windows({"train": (100, 100 + bins)}, _card())
    assert [w.start - 100 for w in cut] == starts
    assert all(w.end - w.start == 20 for w in cut)


@pytest.mark.parametrize("stride_s", [0.01, 2.5])
def test_strides_that_would_skip_or_stand_still(stride_s: float) -> None:
    with pytest.raises(ValueError, match=r"stride_s is .* it needs one bin \(0.1 s\) to one window \(2 s\)"):
        windows({"train": (0, 100)}, _card(stride_s=stride_s))


# ---------------------------------------------------------------- shards and back
@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(recordings, shards) of half a minute of simulation, with a hole in the behaviour."""
    card = dataclasses.replace(datasets()["simulation"], window_s=4.0, stride_s=1.5, split=SplitSpec(gap_s=1.0))
    recordings = simulate(card, 40.0)
    behaviour = recordings[0].signals["behaviour"]
    assert isinstance(behaviour, Signal)
    behaviour.values[100:200] = np.nan
    source = _artifact(tmp_path_factory.mktemp("recordings"), card, recordings)
    out = tmp_path_factory.mktemp("shards")
    report = shard_recordings(ShardsConfig(dataset="simulation", shard_mb=1.0), source, out)
    assert not [c.name for c in report.checks if not c.passed]
    assert report.metrics["missing.behaviour"] == pytest.approx(100 / 32 / 160, rel=0.02)
    assert report.metrics["windows"] == len(pd.read_parquet(out / "windows.parquet"))
    return source, out


@pytest.mark.parametrize("split", SPLITS)
def test_a_block_read_back_is_the_recording_on_its_grid(sharded: tuple[Path, Path], split: str) -> None:
    source, out = sharded
    card = load_card(out)
    for recording in load_recordings(source):
        whole = to_grid(recording, card)
        start, end = blocks(round(whole.duration * card.grid_hz), card)[split]
        expected, block = whole.slice(start / card.grid_hz, end / card.grid_hz), load_block(out, recording.id, split)
        assert block.bounds == pytest.approx(expected.bounds)
        for name in card.signals:
            np.testing.assert_array_equal(_values(block, name), _values(expected, name))
            assert block.signals[name].t0 == pytest.approx(expected.signals[name].t0)  # type: ignore[union-attr]
            assert block.signals[name].ch_names == expected.signals[name].ch_names  # type: ignore[union-attr]


def test_shards_hold_what_the_format_says(sharded: tuple[Path, Path]) -> None:
    _, out = sharded
    table, index = pd.read_parquet(out / "windows.parquet"), read_index(out)
    assert list(table.columns) == ["key", "recording", "session", "subject", "family", "site", "split", "start", "end"]
    assert table.key.is_unique
    assert index.keys.to_pylist() == list(table.key)
    assert "train-00001.tar" in index.shards  # 1 MB a shard: more than one
    sample = Reader(index).sample(0)
    assert sample["spikes"].dtype == np.uint8
    assert [len(sample[name]) for name in ("spikes", "calcium", "eeg", "fmri", "behaviour")] == [32, 32, 512, 4, 32]
    assert sample["json"]["grid"] == {"t0": 0.0, "hz": 8.0, "n": 32}
    assert read_manifest(out)["licence"] == "Apache-2.0"
    channels = json.loads((out / "channels.json").read_text())
    assert channels["sub1_ses1"]["eeg"]["ch_names"][0] == "Fp1"
    assert len(channels["sub1_ses1"]["eeg"]["positions"]) == 19
    assert channels["sub1_ses1"]["spikes"]["positions"] is None


def test_same_recordings_same_bytes(sharded: tuple[Path, Path], tmp_path: Path) -> None:
    source, out = sharded
    shard_recordings(ShardsConfig(dataset="simulation", shard_mb=1.0), source, tmp_path)
    for path in out.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_subjects_are_kept_whole(tmp_path: Path) -> None:
    card = _card(split=SplitSpec(kind="subject"), **_eeg_alone())
    rng = np.random.default_rng(0)
    people = [
        _recording({"eeg": Signal(rng.normal(size=(n, 2)).astype(np.float32), 10.0, "eeg")}, f"r{i}", f"s{i // 2}")
        for i, n in enumerate([50, 60] * 4 + [15])  # the last is shorter than a window
    ]
    report = shard_recordings(ShardsConfig(dataset="simulation"), _artifact(tmp_path / "in", card, people), _made(tmp_path / "out"))
    table = pd.read_parquet(tmp_path / "out" / "windows.parquet")
    assert table.groupby("subject").split.nunique().max() == 1
    assert report.metrics["seconds_in_blocks_below_a_window"] == 1.5
    assert [(c.name, c.note) for c in report.checks if not c.passed] == [("recordings_are_used", "r8")]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _eeg(n: int, sfreq: float = 10.0, n_chans: int = 2) -> dict[str, Series]:
    return {"eeg": Signal(np.zeros((n, n_chans), np.float32), sfreq, "eeg")}


@pytest.mark.parametrize(
    ("recordings", "match"),
    [
        ([_recording(_eeg(30))], r"no block holds a window of 2 s \(the longest recording has 3 s\)"),
        ([_recording(_eeg(200, 9.87))], r"a window of 2 s holds 19.74 samples of 'eeg'"),
        ([_recording(_eeg(200), "a"), _recording(_eeg(200, n_chans=3), "b")], "b: signal 'eeg' has other channels"),
        ([_recording(_eeg(200), "a.b"), _recording(_eeg(200), "a b")], "give every sample .* its own key"),
    ],
)
def test_what_cannot_be_cut(tmp_path: Path, recordings: list[Recording], match: str) -> None:
    card = _card(**_eeg_alone())
    with pytest.raises(ValueError, match=match):
        shard_recordings(ShardsConfig(dataset="simulation"), _artifact(tmp_path / "in", card, recordings), _made(tmp_path / "out"))


def test_neural_nan_blocks(tmp_path: Path) -> None:
    card = _card(**_eeg_alone())
    signals = _eeg(200)
    assert isinstance(signals["eeg"], Signal)
    signals["eeg"].values[50, 1] = np.nan
    report = shard_recordings(
        ShardsConfig(dataset="simulation"), _artifact(tmp_path / "in", card, [_recording(signals)]), _made(tmp_path / "out")
    )
    failed = {c.name: c for c in report.checks if not c.passed}
    assert failed["neural_signals_are_finite"].severity == "error"
    assert failed["neural_signals_are_finite"].numbers == {"eeg": pytest.approx(1 / 400)}


def _rewritten(out: Path, target: Path, change: str) -> Path:
    """A copy of a shards artifact with one training window dropped or altered, its index and manifest in order."""
    index, table = read_index(out), pd.read_parquet(out / "windows.parquet")
    reader = Reader(index)
    samples = [(key, reader.sample(row)) for row, key in enumerate(index.keys.to_pylist())]
    if change == "altered":
        samples[1][1]["calcium"] = samples[1][1]["calcium"] + 1
    else:
        del samples[1:4]
    write_manifest(target, [write_shards(samples, target, "all", 10**9)], {})
    table[table.key.isin({key for key, _ in samples})].to_parquet(target / "windows.parquet")
    for name in ("card.json", "channels.json", "recordings.json"):
        (target / name).write_bytes((out / name).read_bytes())
    return target


@pytest.mark.parametrize(
    ("change", "match"),
    [("altered", "sub1_ses1/train: windows disagree on signal 'calcium' at 1.5 s"), ("dropped", "hole of [0-9]+ samples at 4 s")],
)
def test_a_block_that_cannot_be_stitched(sharded: tuple[Path, Path], tmp_path: Path, change: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load_block(_rewritten(sharded[1], tmp_path, change), "sub1_ses1", "train")


def test_a_block_that_is_not_there(sharded: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"'nobody' has no windows in split 'test'; there are sub1_ses1/test"):
        load_block(sharded[1], "nobody", "test")


# ---------------------------------------------------------------- before the cut
def test_preprocessing_comes_once_before_the_grid_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = StepSpec(step="band_pass", signals=("eeg",), parameters={"high_hz": 2.0})
    card = _card(**_eeg_alone(), preprocess=(step,), split=SplitSpec(kind="recording"))
    rng = np.random.default_rng(0)
    people = [_recording({"eeg": Signal(rng.normal(size=(200, 2)).astype(np.float32), 10.0, "eeg")}, f"r{i}") for i in range(4)]
    seen: list[str] = []
    real = UnifiedPreprocessor.__call__
    monkeypatch.setattr(UnifiedPreprocessor, "__call__", lambda self, recording: (seen.append(recording.id), real(self, recording))[1])
    out = _made(tmp_path / "out")
    shard_recordings(ShardsConfig(dataset="simulation"), _artifact(tmp_path / "in", card, people), out)
    assert seen == ["r0", "r1", "r2", "r3"]
    assert not [path for path in out.iterdir() if path.is_dir()]  # what was kept between the passes is gone
    told = json.loads((out / "recordings.json").read_text())
    table = pd.read_parquet(out / "windows.parquet").drop_duplicates("recording")
    for name, split in zip(table.recording, table.split, strict=True):
        block = load_block(out, name, split)
        expected = to_grid(UnifiedPreprocessor(card)(next(r for r in people if r.id == name)), card)
        np.testing.assert_array_equal(_values(block, "eeg"), _values(expected, "eeg"))
        assert block.history == (*expected.history, f"load_block({split})")
        assert [line.split("(")[0] for line in told[name]["history"]] == ["band_pass", "to_grid"]


# ---------------------------------------------------------------- intervals
@pytest.fixture(scope="module")
def with_trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recording]:
    """Shards of one recording with trials (two of them equal), instants, and a table without labels."""
    trials = Intervals(
        np.array([0.5, 3.2, 3.2, 7.9, 19.0]),
        np.array([1.5, 6.0, 6.0, 8.4, 19.5]),
        ("left", "right", "right", "left", "right"),
        {"rt": np.array([0.3, np.nan, np.nan, 0.5, 0.1]), "block": np.array([1, 1, 1, 2, 2]), "cue": np.array(["a", "b", "b", "a", "c"])},
    )
    words = Intervals(np.array([0.1, 5.0]), np.array([0.1, 5.0]), ("the", "cat"))
    sleep = Intervals(np.array([9.0]), np.array([20.0]))
    recording = dataclasses.replace(
        _recording({"eeg": Signal(np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32), 10.0, "eeg")}),
        subject=Subject("s", age=31.5, site="NYU"),
        intervals={"trials": trials, "words": words, "sleep": sleep},
    )
    card, out = _card(**_eeg_alone()), tmp_path_factory.mktemp("out")
    shard_recordings(ShardsConfig(dataset="simulation"), _artifact(tmp_path_factory.mktemp("in"), card, [recording]), out)
    return out, recording


def test_a_window_names_the_intervals_that_overlap_it(with_trials: tuple[Path, Recording]) -> None:
    out, recording = with_trials
    index = read_index(out)
    for row in range(len(index)):
        meta = Reader(index).sample(row)["json"]
        window = recording.slice(meta["start"], meta["end"])
        assert {name: listed["labels"] for name, listed in meta["intervals"].items()} == {
            name: list(ivs.labels) for name, ivs in window.intervals.items() if len(ivs.start)
        }
        if "trials" in meta["intervals"]:
            listed, expected = meta["intervals"]["trials"], window.intervals["trials"]
            assert (listed["start"], listed["end"]) == (expected.start.tolist(), expected.end.tolist())
            assert listed["columns"]["cue"] == expected.columns["cue"].tolist()


@pytest.mark.parametrize("split", SPLITS)
def test_a_block_has_its_intervals_each_as_often_as_it_was(with_trials: tuple[Path, Recording], split: str) -> None:
    out, recording = with_trials
    block = load_block(out, "a", split)
    expected = {name: ivs for name, ivs in recording.slice(*block.bounds).intervals.items() if len(ivs.start)}
    assert block.intervals.keys() == expected.keys()
    for name, ivs in expected.items():
        found = block.intervals[name]
        np.testing.assert_array_equal(found.start, ivs.start)
        np.testing.assert_array_equal(found.end, ivs.end)
        assert found.labels == ivs.labels
        for column, values in ivs.columns.items():
            np.testing.assert_array_equal(found.columns[column], values)
    assert block.subject == recording.subject


# ---------------------------------------------------------------- signals that some recordings lack, layouts
def _three_of_several() -> list[Recording]:
    """Spikes and gaze everywhere, EEG in two of three recordings."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(3):
        counts = Signal(rng.poisson(2.0, (300, 4)).astype(np.float32), 10.0, "spikes", unit="count")
        gaze = Signal(rng.normal(size=(300, 2)).astype(np.float32), 10.0, "eye")
        eeg = Signal(rng.normal(size=(1500, 3)).astype(np.float32), 50.0, "eeg")
        made.append(_recording({"spikes": counts, "gaze": gaze, **({"eeg": eeg} if i != 1 else {})}, f"r{i}", session=f"day{i}"))
    return made


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """layout -> shards of the same recordings."""
    signals = {"spikes": SignalSpec(modality="spikes"), "eeg": SignalSpec(modality="eeg"), "gaze": SignalSpec(modality="eye")}
    source = _artifact(tmp_path_factory.mktemp("in"), _card(signals=signals, tasks=()), _three_of_several())
    found = {}
    for layout in ("multimodal", "modality"):
        found[layout] = tmp_path_factory.mktemp(layout)
        report = shard_recordings(ShardsConfig(dataset="simulation", shard_mb=0.05, layout=layout), source, found[layout])  # type: ignore[arg-type]
        assert all(check.passed for check in report.checks)
    return found


def _alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) if isinstance(a[k], np.ndarray) else a[k] == b[k] for k in a)


def test_both_layouts_hold_the_same_samples(layouts: dict[str, Path]) -> None:
    mixed, divided = (Reader(read_index(layouts[name])) for name in ("multimodal", "modality"))
    assert mixed.index.keys == divided.index.keys
    assert all(_alike(mixed.sample(row), divided.sample(row)) for row in range(len(mixed.index)))
    names = {path.name.rsplit("-", 1)[0] for path in layouts["modality"].glob("*.tar")}
    assert names == {f"{split}-{modality}" for split in SPLITS for modality in ("spikes", "eeg", "eye", "json")}
    assert len(list(layouts["modality"].glob("train-eeg-*.tar"))) > 1
    assert read_manifest(layouts["modality"])["layout"] == "modality"


def test_a_tar_of_one_modality_is_a_webdataset(layouts: dict[str, Path]) -> None:
    wds = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(layouts["modality"].glob("train-eeg-*.tar"))]
    read = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode())
    index = read_index(layouts["modality"])
    for got in read:
        np.testing.assert_array_equal(got["eeg.npy"], Reader(index).member(index.row_of[got["__key__"]], "eeg"))
    table = pd.read_parquet(layouts["modality"] / "windows.parquet")
    assert len(read) == ((table.split == "train") & (table.recording != "r1")).sum()


@pytest.mark.parametrize("layout", ["multimodal", "modality"])
def test_a_signal_that_a_recording_lacks_is_missing_from_its_windows_alone(layouts: dict[str, Path], layout: str) -> None:
    out = layouts[layout]
    assert [("eeg" in signals) for signals in json.loads((out / "channels.json").read_text()).values()] == [True, False, True]
    index, table = read_index(out), pd.read_parquet(out / "windows.parquet").set_index("key")
    for row in range(len(index)):
        sample = Reader(index).sample(row)
        lacking = table.recording[index.key(row)] == "r1"
        assert ("eeg" in sample) == ("eeg" in sample["json"]["signals"]) == (not lacking)
    assert sorted(load_block(out, "r1", "train").signals) == ["gaze", "spikes"]
    assert _values(load_block(out, "r2", "test"), "eeg").shape[1] == 3


def test_one_name_for_two_modalities_is_refused(tmp_path: Path) -> None:
    eeg, ecog = (Signal(np.zeros((300, 1), np.float32), 10.0, modality) for modality in ("eeg", "ecog"))
    both = [_recording({"field": eeg}, "a", session="x"), _recording({"field": ecog}, "b", session="y")]
    source = _artifact(tmp_path / "in", _card(signals={"field": SignalSpec(modality="eeg")}, tasks=()), both)
    with pytest.raises(ValueError, match="signal 'field' is eeg and, in session 'y', ecog; give it two names"):
        shard_recordings(ShardsConfig(dataset="simulation"), source, _made(tmp_path / "out"))
