"""Calcium, spikes, muscles, gaps and scales against closed forms and scipy."""

import dataclasses

import numpy as np
import pytest

from neurofm_ml.data.preprocess.calcium import DeltaFOverF, delta_f_over_f
from neurofm_ml.data.preprocess.emg import MovingRms, envelope, moving_rms
from neurofm_ml.data.preprocess.filters import Lfp, band_pass, resample
from neurofm_ml.data.preprocess.gaps import Regularise, ZScore, fill_gaps, flagged, regularise, runs, zscore
from neurofm_ml.data.preprocess.spikes import SmoothSpikes, bin_spikes, smooth_counts
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.types import Recording, Samples, Signal, SpikeTrain, Subject


# ---------------------------------------------------------------- calcium
def test_planted_transients_on_a_constant_and_on_a_drifting_baseline() -> None:
    t = np.arange(6000) / 10
    transients = ((t % 30) < 3) * 0.8
    np.testing.assert_allclose(delta_f_over_f(200 * (1 + transients), 10.0), transients, atol=1e-12)
    bleaching = 200 * np.exp(-t / 1200)
    found = delta_f_over_f(bleaching * (1 + transients), 10.0)
    assert np.abs(found - transients)[300:-300].max() < 0.06


def test_baseline_is_the_percentile_of_each_window() -> None:
    f = np.random.default_rng(0).uniform(50, 150, 400)
    found = delta_f_over_f(f, 10.0, window_s=4.0, percentile=20)
    for k in (20, 137, 379):
        window = np.sort(f[k - 20 : k + 21])
        # scipy takes the sample at that rank.
        baseline = window[int(41 * 20 / 100)]
        assert found[k] == pytest.approx((f[k] - baseline) / baseline)


def test_what_is_no_fluorescence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the baseline falls to -.*no raw fluorescence"):
        delta_f_over_f(np.random.default_rng(0).normal(size=500), 10.0)
    made = DeltaFOverF(window_s=10).change(Signal(np.full((500, 2), 7.0), 10.0, "calcium", unit="au"))
    assert (made.unit, made.values.max()) == ("dF/F", 0)


# ---------------------------------------------------------------- spikes
def test_a_spike_becomes_a_gaussian_and_none_is_lost() -> None:
    counts = np.zeros((401, 2))
    counts[200, 0], counts[1, 1] = 1, 3
    smooth = smooth_counts(counts, 100.0, 0.05)
    t = (np.arange(401) - 200) / 100
    gaussian = np.exp(-(t**2) / (2 * 0.05**2)) / (0.05 * np.sqrt(2 * np.pi)) / 100
    np.testing.assert_allclose(smooth[:, 0], gaussian, atol=1e-4)
    np.testing.assert_allclose(smooth.sum(axis=0), [1, 3])


def test_spikes_are_binned_as_numpy_does_and_smoothed_on_the_grid() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(3, 13, 500))
    train = SpikeTrain(times, rng.integers(0, 3, 500), ("a", "b", "c"))
    binned = bin_spikes(train, 3.0, 13.0, 8.0)
    for unit in range(3):
        expected = np.histogram(times[train.unit_index == unit], 3 + np.arange(81) / 8)[0]
        np.testing.assert_array_equal(binned.values[:, unit], expected)
    recording = Recording("r", "d", Subject("s"), "s", "none", "none", {"spikes": train}, span=(3.0, 13.0))
    smooth = SmoothSpikes(sigma_s=0.25).apply(recording, ("spikes",), datasets()["simulation"]).signals["spikes"]
    assert isinstance(smooth, Signal)
    np.testing.assert_allclose(smooth.values, smooth_counts(binned.values, 8.0, 0.25), rtol=1e-6)


# ---------------------------------------------------------------- field potentials and muscles
def test_lfp_is_its_filter_and_its_rate() -> None:
    values = np.random.default_rng(0).normal(size=(4000, 2)) + 10
    made = Lfp().change(Signal(values, 1000.0, "lfp", t0=2.0))
    np.testing.assert_allclose(made.values, resample(band_pass(values, 1000, 1, 100), 1000, 250), atol=1e-5)
    assert (made.sfreq, made.t0, len(made.values)) == (250.0, 2.0, 1000)


def test_the_envelope_follows_the_strength_of_a_burst() -> None:
    t = np.arange(8000) / 1000
    strength = 1 + np.sin(2 * np.pi * 0.5 * t)
    emg = strength * np.sin(2 * np.pi * 90 * t) + 5 * np.sin(2 * np.pi * 2 * t)
    found = envelope(emg, 1000.0)
    # The mean of a rectified sine is 2 / pi of its height.
    np.testing.assert_allclose(found[500:-500], (2 / np.pi * strength)[500:-500], atol=0.05)


def test_moving_rms_by_brute_force_and_of_a_sine() -> None:
    x = np.random.default_rng(0).normal(size=300)
    expected = [np.sqrt(np.mean(x[max(k - 10, 0) : k + 11] ** 2)) for k in range(300)]
    np.testing.assert_allclose(moving_rms(x, 100.0, 0.21), expected)
    t = np.arange(2000) / 1000
    made = MovingRms(window_s=0.1).change(Signal(3 * np.sin(2 * np.pi * 50 * t)[:, None], 1000.0, "emg"))
    np.testing.assert_allclose(made.values[100:-100, 0], 3 / np.sqrt(2), rtol=0.01)


# ---------------------------------------------------------------- gaps
def test_runs() -> None:
    start, end = runs(np.array([True, True, False, True, False, False, True]))
    assert (start.tolist(), end.tolist()) == ([0, 3, 6], [2, 4, 7])


def test_short_gaps_are_filled_by_lines_and_flagged_long_ones_and_ends_stay() -> None:
    line = np.linspace(0, 10, 101)[:, None] * [1.0, -1.0]
    holed = line.copy()
    holed[20:23, 0] = holed[50:70, 0] = holed[:2, 1] = holed[98:, 1] = holed[40, 1] = np.nan
    filled, made = fill_gaps(holed, 10.0, max_gap_s=0.5)
    assert np.isnan(filled).sum() == 20 + 2 + 3
    np.testing.assert_allclose(filled[20:23, 0], line[20:23, 0])
    np.testing.assert_allclose(filled[40, 1], line[40, 1])
    assert made.sum() == 4
    assert not made[np.isfinite(holed)].any()
    where = flagged(Signal(filled, 10.0, "pose", t0=100.0, ch_names=("x", "y")), made)
    assert (where.start.tolist(), where.end.tolist(), where.labels) == ([102.0, 104.0], [102.3, 104.1], ("x", "y"))


def test_a_blink_is_replaced_with_the_half_closed_lids_beside_it() -> None:
    pupil = np.full((200, 1), 4.0)
    pupil[95:105] = 1.0
    pupil[98:102] = np.nan
    filled, made = fill_gaps(pupil, 100.0, max_gap_s=0.1, margin_s=0.03)
    np.testing.assert_allclose(filled, 4.0)
    assert made.sum() == 10
    longer, made = fill_gaps(pupil, 100.0, max_gap_s=0.03, margin_s=0.03)
    assert np.isnan(longer).sum() == 10
    assert not made.any()


def test_irregular_samples_lie_on_a_clock() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(np.concatenate([rng.uniform(2, 12, 600), rng.uniform(14, 20, 400), [20.0]]))
    samples = Samples(times, np.stack([times, 2 * times], 1), "eye", ("x", "y"))
    made = regularise(samples, 25.0)
    assert (made.sfreq, made.t0) == (25.0, times[0])
    assert abs(made.span[1] - times[-1]) < 1 / 25
    seen = np.isfinite(made.values[:, 0])
    np.testing.assert_allclose(made.values[seen, 0], made.times[seen], atol=0.04)
    assert not seen[(made.times > 12.2) & (made.times < 13.8)].any()
    recording = Recording("r", "d", Subject("s"), "s", "none", "none", {"gaze": samples, "other": made})
    done = Regularise(sfreq=25.0).apply(recording, ("gaze", "other"), datasets()["simulation"])
    np.testing.assert_array_equal(done.signals["gaze"].values, made.values)
    assert done.signals["other"] is made


def test_zscore_is_that_of_scipy() -> None:
    from scipy.stats import zscore as theirs

    x = np.random.default_rng(0).normal(3, 5, 500)
    x[[3, 77]] = np.nan
    np.testing.assert_allclose(zscore(x), theirs(x, nan_policy="omit"))
    np.testing.assert_array_equal(zscore(np.full(5, 2.0)), 0)
    made = ZScore().change(dataclasses.replace(Signal(x[:, None], 10.0, "physio"), unit="V"))
    assert made.unit == "z"
