"""Epochs and Morlet power against MNE."""

import numpy as np
import pytest

from neurofm_ml.data.preprocess.epochs import cut_epochs
from neurofm_ml.data.preprocess.timefreq import MorletPower, morlet_power
from neurofm_ml.types import Intervals, Signal

SFREQ = 100.0


@pytest.fixture(scope="module")
def signal() -> Signal:
    values = np.random.default_rng(0).normal(size=(3000, 4))
    values[1200:1260, 2] += np.linspace(0, 50, 60)
    return Signal(values, SFREQ, "eeg", t0=5.0)


@pytest.fixture(scope="module")
def events() -> Intervals:
    start = np.array([5.1, 8.0, 12.345, 17.2, 20.0, 26.5, 34.9])
    return Intervals(start, start)


def test_epochs_are_those_of_mne(signal: Signal, events: Intervals) -> None:
    import mne

    info = mne.create_info(4, SFREQ, "eeg")
    raw = mne.io.RawArray(np.asarray(signal.values).T, info, verbose="error")
    samples = np.round((events.start - signal.t0) * SFREQ).astype(int)
    table = np.stack([samples, 0 * samples, 1 + 0 * samples], axis=1)
    theirs = mne.Epochs(raw, table, tmin=-0.2, tmax=0.8, baseline=(-0.2, 0), reject={"eeg": 20}, preload=True, verbose="error")
    ours = cut_epochs(signal, events, -0.2, 0.8, baseline=(-0.2, 0), peak_to_peak=20)
    np.testing.assert_allclose(ours.values, theirs.get_data(copy=False).transpose(0, 2, 1), atol=1e-9)
    np.testing.assert_allclose(ours.times, theirs.times)
    assert (ours.kept.tolist(), ours.off_edge.tolist(), ours.rejected.tolist()) == ([1, 2, 4, 5], [0, 6], [3])


@pytest.mark.parametrize(
    ("arguments", "match"), [((0.5, 0.1), "the end must follow the start"), ((0, 0.5, (-0.5, -0.1)), r"baseline is .*spans 0 to 0.5 s")]
)
def test_impossible_epochs_are_refused(signal: Signal, events: Intervals, arguments: tuple[float, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        cut_epochs(signal, events, *arguments)


def test_power_is_that_of_mne(signal: Signal) -> None:
    from mne.time_frequency import tfr_array_morlet

    freqs = (4.0, 10.0, 31.5)
    theirs = tfr_array_morlet(
        np.asarray(signal.values).T[None], SFREQ, np.array(freqs), n_cycles=5, output="power", zero_mean=True, verbose="error"
    )
    ours = morlet_power(np.asarray(signal.values), SFREQ, freqs, 5)
    np.testing.assert_allclose(ours, theirs[0].transpose(2, 0, 1), rtol=1e-6, atol=1e-9)


def test_a_burst_is_found_where_and_at_what_frequency_it_was_planted() -> None:
    t = np.arange(2000) / SFREQ
    burst = np.sin(2 * np.pi * 12 * t) * (np.abs(t - 10) < 1)
    power = morlet_power(burst[:, None], SFREQ, (6, 9, 12, 16, 20))[:, 0]
    when, which = np.unravel_index(power.argmax(), power.shape)
    assert which == 2
    assert abs(t[when] - 10) < 1
    assert power[np.abs(t - 10) > 2, 2].max() < 0.01 * power.max()


def test_power_as_channels(signal: Signal) -> None:
    made = MorletPower(into="power", freqs_hz=(4.0, 10.0)).derive(signal)
    assert made.ch_names[:3] == ("0_4Hz", "0_10Hz", "1_4Hz")
    np.testing.assert_allclose(made.values[:, 2], morlet_power(np.asarray(signal.values), SFREQ, (4.0,))[:, 1, 0], rtol=1e-5)
    assert (made.t0, made.sfreq) == (5.0, SFREQ)


@pytest.mark.parametrize(
    ("freqs", "match"), [((), "freqs_hz is"), ((60.0,), "between 0 and 50 Hz"), ((0.05,), "lasts .* s, the signal 30 s")]
)
def test_impossible_frequencies_are_refused(signal: Signal, freqs: tuple[float, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        morlet_power(np.asarray(signal.values), SFREQ, freqs)
