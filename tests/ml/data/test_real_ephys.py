"""Axona, WFDB, BIDS, MEG, EEG and patch clamp sets on their real files: the numbers that are known of them."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from neurofm_ml.data import read
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.types import Array, Recording, Signal, SpikeTrain

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")
EPHYS = DATA / "ephys"


def read_set(name: str) -> Recording:
    found = read(name)
    assert isinstance(found, list)
    (recording,) = found
    assert isinstance(recording, Recording)
    return recording


def signal(recording: Recording, name: str) -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


@pytest.mark.parametrize(
    "name",
    [
        "rat_mec_r1838", "mit_bih_100", "meg_kit_sample", "meg_evoked_sample", "biosemi_sample", "brainvision_sample", "eeglab_sample",
        "yasa_rest", "stn_ecog_pyneuromodulation", "nwb_current_clamp", "nwb_voltage_clamp",
    ],
)  # fmt: skip
def test_a_set_is_as_its_card_expects(name: str) -> None:
    card, recording = datasets()[name], read_set(name)
    assert list(recording.signals) == list(card.measured)
    assert recording.duration == pytest.approx(card.expected["duration_s"], rel=1e-3)
    for key, series in recording.signals.items():
        n = len(series.unit_ids) if isinstance(series, SpikeTrain) else len(series.ch_names)
        assert n == card.expected[f"n_channels.{key}"]
        if isinstance(series, Signal) and card.signals[key].modality not in ("pose", "task", "physio"):
            assert card.window_s * series.sfreq == pytest.approx(round(card.window_s * series.sfreq), abs=1e-4)


# ---------------------------------------------------------------- spikes, LFP and position of one rat
def per_second(values: Array, sfreq: float) -> Array:
    """Means of whole seconds."""
    n = int(len(values) / sfreq)
    return np.asarray(values[: int(n * sfreq)].reshape(n, -1, *values.shape[1:]).mean(axis=1))


def running_speed(position: Signal) -> Array:
    """(n_times,) metres per second, from positions over 0.4 s."""
    xy = np.array(position.values, np.float64)
    for column in xy.T:
        seen = np.isfinite(column)
        column[:] = np.interp(position.times, position.times[seen], column[seen])
    smooth = scipy.ndimage.uniform_filter1d(xy, int(0.4 * position.sfreq), axis=0)
    return np.hypot(*np.diff(smooth, axis=0, prepend=smooth[:1]).T) * position.sfreq


def test_theta_goes_with_running_and_not_when_shifted() -> None:
    """An alignment test of two clocks: r .58, .56, .59 over whole seconds, gone when one of the streams is a minute late."""
    rat = read_set("rat_mec_r1838")
    lfp, position = signal(rat, "lfp"), signal(rat, "position")
    assert np.isnan(position.values).mean() == pytest.approx(0.0154, abs=1e-3)
    theta = scipy.signal.sosfiltfilt(scipy.signal.butter(3, [6, 10], "band", fs=lfp.sfreq, output="sos"), lfp.values, axis=0)
    amplitude = per_second(np.abs(scipy.signal.hilbert(theta, axis=0)), lfp.sfreq)
    speed = per_second(running_speed(position), position.sfreq)
    n = min(len(amplitude), len(speed))
    together = [np.corrcoef(channel[:n], speed[:n])[0, 1] for channel in amplitude.T]
    late = [np.corrcoef(channel[: n - 60], speed[60:n])[0, 1] for channel in amplitude.T]
    np.testing.assert_allclose(together, [0.58, 0.56, 0.59], atol=0.025)
    assert np.abs(late).max() < 0.15


def test_the_rat_has_volts_metres_and_spikes() -> None:
    rat = read_set("rat_mec_r1838")
    lfp, position, spikes = signal(rat, "lfp"), signal(rat, "position"), rat.signals["spikes"]
    assert isinstance(spikes, SpikeTrain)
    assert len(spikes.times) == 5656 + 9307 - 7363
    assert ((lfp.values.std(axis=0) > 2e-5) & (lfp.values.std(axis=0) < 2e-4)).all()
    assert (np.nanmax(position.values, axis=0) - np.nanmin(position.values, axis=0) < 1.3).all()
    assert 0.1 < np.median(running_speed(position)) < 0.4


# ---------------------------------------------------------------- the others
def test_every_beat_of_record_100() -> None:
    record = read_set("mit_bih_100")
    beats, ecg = record.intervals["beats"], signal(record, "ecg")
    assert Counter(beats.labels) == {"N": 2239, "A": 33, "V": 1}
    assert (ecg.values.shape, ecg.unit, ecg.ch_names) == ((650_000, 2), "mV", ("MLII", "V5"))
    at = (beats.start[:200] * ecg.sfreq).round().astype(int)
    heights = ecg.values[: at[-1] + 20][:, 0]
    assert np.median([heights[k - 5 : k + 6].max() for k in at[1:]]) > np.quantile(heights, 0.98), "beats lie on R peaks"


def test_bids_of_a_patient() -> None:
    patient = read_set("stn_ecog_pyneuromodulation")
    lfp, ecog = signal(patient, "lfp"), signal(patient, "ecog")
    assert (lfp.modality, ecog.modality, lfp.unit) == ("lfp", "ecog", "V")
    assert 1e-5 < np.median(np.asarray(ecog.values).std(axis=0)) < 1e-4, "volts once the header's unit is corrected"
    assert ecog.positions is not None
    assert np.abs(ecog.positions).max() < 0.09, "metres"
    assert any("V times 1e-06 are V" in note for note in patient.history)
    (whole,) = [r for r in read(EPHYS / "lfp/pyneuromodulation_testsub") if isinstance(r, Recording)]
    assert (whole.subject.id, whole.subject.age, list(whole.signals)) == ("testsub", None, ["dbs", "ecog", "misc"])


def test_channels_of_a_set_keep_to_themselves() -> None:
    eeg, eog = (signal(read_set("eeglab_sample"), name) for name in ("eeg", "eog"))
    assert not {"EOG1", "EOG2"} & {*eeg.ch_names}
    assert eog.ch_names == ("EOG1", "EOG2")
    assert eeg.positions is not None
    assert Counter(read_set("eeglab_sample").intervals["events"].labels) == {"square": 80, "rt": 74}
    assert {name[0] for name in signal(read_set("biosemi_sample"), "eeg").ch_names} == set("ABCDEFGH")


def test_current_steps_drive_the_cell() -> None:
    """The larger the step, the higher the mean voltage during it."""
    cell = read_set("nwb_current_clamp")
    voltage, current, sweeps = signal(cell, "voltage"), signal(cell, "current"), cell.intervals["sweeps"]
    assert (voltage.unit, current.unit, len(sweeps.start)) == ("V", "pA", 10)
    steps = [current.slice(start + 0.3, start + 0.5).values.mean() for start in sweeps.start]
    levels = [np.median(voltage.slice(start + 0.3, start + 0.5).values) for start in sweeps.start]
    assert np.corrcoef(steps, levels)[0, 1] > 0.8


def test_annotations_alone_are_no_recording() -> None:
    with pytest.raises(ValueError, match=r"test_edfann.edf has no channel that NeuroFM knows; it has none, annotations at most"):
        read(EPHYS / "physio/wfdb_samples/test_edfann.edf")


def test_participants_alone_are_no_recording() -> None:
    with pytest.raises(ValueError, match=r"staging is a BIDS dataset without EEG, iEEG or MEG"):
        read(EPHYS / "metadata/narratives_participants/staging")
