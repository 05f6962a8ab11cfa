"""Axona trials: what is written is read in volts, metres and seconds; what is cut short or does not belong together is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec
from neurofm_ml.types import Array, Recording, Signal, SpikeTrain

RNG = np.random.default_rng(0)
LFP = RNG.integers(-128, 128, (2, 500)).astype(np.int8)
XY = RNG.integers(0, 700, (100, 4)).astype(">u2")
STAMPS = np.array([4800, 9600, 19200, 96000])
COMMON = "trial_date Tuesday, 14 Dec 2010\r\ntrial_time 10:44:07\r\nduration 2         \r\n"


def block(path: Path, fields: str, body: bytes) -> None:
    path.write_bytes((COMMON + fields).encode() + b"data_start" + body + b"\r\ndata_end\r\n")


def write_lfp(path: Path, values: Array, kind: str = "EEG", rate: int = 250) -> None:
    block(
        path,
        f"num_chans 1\r\nsample_rate {rate}.0 hz\r\nbytes_per_sample {values.itemsize}\r\nnum_{kind}_samples {len(values)}    \r\n",
        values.tobytes(),
    )


def write_positions(path: Path, frames: Array, layout: str = "t,x1,y1,x2,y2,numpix1,numpix2") -> None:
    records = np.zeros(len(XY), np.dtype([("frame", ">u4"), ("xy", ">u2", 4), ("pixels", ">u2", 4)]))
    records["frame"], records["xy"] = frames, XY
    block(path, f"sample_rate 50.0 hz\r\npixels_per_metre 350\r\npos_format {layout}\r\nnum_pos_samples {len(XY)}\r\n", records.tobytes())


def write_tetrode(path: Path) -> None:
    wire = np.dtype([("t", ">u4"), ("wave", "i1", 50)])
    spikes = np.zeros((len(STAMPS), 4), wire)
    spikes["t"] = STAMPS[:, None]
    fields = "num_chans 4\r\ntimebase 96000 hz\r\nbytes_per_timestamp 4\r\nsamples_per_spike 50\r\nnum_spikes 4     \r\n"
    block(path, fields, spikes.tobytes())


def write_cut(path: Path, clusters: str) -> None:
    path.write_text(f"n_clusters: 3\n cluster: 0 center:    0    0\n\nExact_cut_for: t spikes: 4\n{clusters}\n")


def write_trial(folder: Path) -> Path:
    """Two LFP channels (channels 1 and 3), two tetrodes of which one is cut, a position that is missing once."""
    gains = "ADC_fullscale_mv 1500\r\ngain_ch_0 5000\r\ngain_ch_2 10000\r\nEEG_ch_1 1\r\nEEG_ch_2 3\r\n"
    (folder / "t.set").write_bytes((COMMON + gains).encode())
    for k, suffix in enumerate(("eeg", "eeg2")):
        write_lfp(folder / f"t.{suffix}", LFP[k])
    XY[7, :2] = 1023
    write_positions(folder / "t.pos", np.arange(100) + 52_000)
    for tetrode in (2, 11):
        write_tetrode(folder / f"t.{tetrode}")
    write_cut(folder / "t_11.cut", "  1  0\n  2  1")
    return folder / "t.set"


def read_one(path: Path) -> Recording:
    recording = read(path)
    assert isinstance(recording, Recording)
    return recording


def test_a_trial_is_read_whole(tmp_path: Path) -> None:
    trial = read_one(write_trial(tmp_path))
    assert (trial.bounds, trial.modalities) == ((0.0, 2.0), ("spikes", "lfp", "pose"))
    lfp, spikes, position = (trial.signals[name] for name in ("lfp", "spikes", "position"))
    assert isinstance(lfp, Signal)
    assert isinstance(spikes, SpikeTrain)
    assert isinstance(position, Signal)
    assert (lfp.ch_names, lfp.sfreq, lfp.unit) == (("ch1", "ch3"), 250.0, "V")
    np.testing.assert_allclose(lfp.values, LFP.T / 128 * 1.5 / np.array([5000, 10000]), rtol=1e-6)
    assert spikes.unit_ids == ("t2", "t11c1", "t11c2")
    np.testing.assert_allclose(spikes.times[spikes.unit_index == 0], STAMPS / 96_000)
    np.testing.assert_allclose(spikes.times[spikes.unit_index == 1], [0.05, 1.0])
    np.testing.assert_allclose(spikes.times[spikes.unit_index == 2], [0.2])
    assert np.isnan(position.values[7, :2]).all()
    np.testing.assert_allclose(np.delete(position.values, 7, axis=0), np.delete(XY, 7, axis=0) / 350, rtol=1e-6)
    assert (position.sfreq, position.t0, position.unit) == (50.0, 0.0, "m")
    assert trial.history == ("read (axona)", "left out 1 spikes of the noise clusters 0")


def test_miscounted_frames_are_told(tmp_path: Path) -> None:
    path = write_trial(tmp_path)
    write_positions(tmp_path / "t.pos", np.append(np.arange(98), [97, 97]))
    assert any("2 frame counts do not follow" in note for note in read_one(path).history)


def test_fast_lfp_has_sixteen_bits(tmp_path: Path) -> None:
    path = write_trial(tmp_path)
    values = RNG.integers(-30000, 30000, 9600).astype(">i2")
    write_lfp(tmp_path / "t.egf", values, "EGF", 4800)
    egf = read_one(path).signals["egf"]
    assert isinstance(egf, Signal)
    np.testing.assert_allclose(egf.values[:, 0], values / 32768 * 1.5 / 5000, rtol=1e-6)
    assert egf.sfreq == 4800


def test_a_card_finds_the_settings_among_the_files(tmp_path: Path) -> None:
    write_trial(tmp_path)
    card = DatasetCard(
        name="d", title="t", species="s", licence="l", source="s", reader="axona", root=str(tmp_path), pattern="{id}*",
        recordings=(RecordingSpec(id="t"),), signals={"xy": SignalSpec(modality="pose", variable=("x1", "y1"))},
        grid_hz=1, window_s=1, stride_s=1,
    )  # fmt: skip
    (trial,) = read(card)
    assert isinstance(trial, Recording)
    xy = trial.signals["xy"]
    assert isinstance(xy, Signal)
    assert xy.ch_names == ("x1", "y1")


def cut(name: str, n: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-n])


def without(name: str, field: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes().replace(field.encode(), b"nothing"))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (cut("t.eeg", 60), r"t.eeg is cut short: its header states 500 records, it has 45\d; get it again"),
        (cut("t.pos", 60), r"t.pos is cut short: its header states 100 records"),
        (cut("t.2", 260), r"t.2 is cut short: its header states 4 records, it has 2"),
        (lambda f: write_cut(f / "t_11.cut", "1 2 1"), r"t_11.cut names the cluster of 3 spikes, the tetrode has 4"),
        (lambda f: write_lfp(f / "t.eeg2", LFP[1, :400]), r"t.set: its .eeg files differ in rate or length"),
        (lambda f: write_positions(f / "t.pos", np.arange(100), "t,x,y"), r"t.pos: its pos_format is 't,x,y'; the reader knows t,x1,y1"),
        (without("t.set", "gain_ch_2"), r"t.set: its header has no number 'gain_ch_2'"),
        (without("t.eeg", "sample_rate"), r"t.eeg: its header has no number 'sample_rate'"),
        (lambda f: (f / "t.pos").write_bytes(b"hello"), r"t.pos has no header with a trial_date; it is no Axona file"),
        (lambda f: [p.unlink() for p in f.iterdir() if p.suffix != ".set"], r"t.set has no .eeg, .egf, .pos or tetrode beside it"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], object], match: str) -> None:
    path = write_trial(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=match):
        read(path)
