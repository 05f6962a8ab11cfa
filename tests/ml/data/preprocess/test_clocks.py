"""Clocks: offset and drift planted and found with pulses missing, series brought onto one clock to the sample, jumps refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm_ml.data.preprocess import UnifiedPreprocessor
from neurofm_ml.data.preprocess.clocks import Clock, apply_clock, estimate_lag, fit_clock, interpolate
from neurofm_ml.data.simulate import FINE_HZ, simulate, simulate_truth
from neurofm_ml.knowledge.cards import DatasetCard, SplitSpec, StepSpec, datasets
from neurofm_ml.types import Intervals, Recording, Samples, Signal, SpikeTrain

OFFSET, RATE = 37.25, 1 + 80e-6


def pulses(n: int = 600, seed: int = 0) -> np.ndarray:
    """Pulses 0.5 to 1.5 s apart."""
    return np.cumsum(np.random.default_rng(seed).uniform(0.5, 1.5, n))


def clock_of(offset: float, rate: float) -> Clock:
    return Clock(offset, rate, np.empty((0, 2), int), np.zeros(1))


# ---------------------------------------------------------------- fit
@pytest.mark.parametrize(("missing", "extra", "jitter_s"), [(0, 0, 0.0), (0.05, 0.05, 0.0), (0.05, 0.05, 0.0005), (0.15, 0.1, 0.0005)])
def test_offset_and_drift_are_found_although_pulses_are_missing(missing: float, extra: float, jitter_s: float) -> None:
    rng = np.random.default_rng(1)
    true = pulses()
    own, reference = true[rng.uniform(size=600) >= missing], (OFFSET + RATE * true)[rng.uniform(size=600) >= missing]
    own = np.sort(np.append(own, rng.uniform(own[0], own[-1], int(extra * 600))))
    clock = fit_clock(own, reference + rng.normal(size=len(reference)) * jitter_s)
    # To a tenth of a sample at 1 kHz, at both ends.
    at = np.array([own[0], own[-1]])
    np.testing.assert_allclose(clock(at), OFFSET + RATE * at, atol=1e-4 if jitter_s else 1e-8)
    assert len(clock.pairs) >= (1 - 2 * missing - 0.03) * 600
    assert np.abs(clock.residuals).max() < max(5 * jitter_s, 1e-8)
    # An extra pulse may happen to lie beside one that was seen.
    assert np.mean(np.abs(reference[clock.pairs[:, 1]] - OFFSET - RATE * own[clock.pairs[:, 0]]) < 1e-8) > 0.99


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-500, 500), st.integers(5, 80), st.integers(0, 1000))
def test_any_clock_is_found(offset: float, ppm: float, n: int, seed: int) -> None:
    own = pulses(n, seed)
    clock = fit_clock(own, offset + (1 + ppm * 1e-6) * own)
    np.testing.assert_allclose(clock(own), offset + (1 + ppm * 1e-6) * own, atol=1e-6)


def test_a_long_recording_with_many_pulses() -> None:
    own = pulses(5000)
    clock = fit_clock(own, OFFSET + RATE * np.delete(own, np.arange(7, 5000, 19)))
    assert clock.rate == pytest.approx(RATE, abs=1e-9)
    assert clock.offset == pytest.approx(OFFSET, abs=1e-6)


@pytest.mark.parametrize(("own", "reference"), [(slice(3000, 3400), slice(None)), (slice(None), slice(1500, 2100))])
def test_one_clock_may_run_long_before_and_after_the_other(own: slice, reference: slice) -> None:
    true = pulses(5000)
    clock = fit_clock(true[own], (OFFSET + RATE * true)[reference])
    np.testing.assert_allclose(clock(true[own]), OFFSET + RATE * true[own], atol=1e-6)
    assert len(clock.pairs) == min(len(true[own]), len(true[reference]))


def test_even_pulses_need_to_be_told_how_far_the_clocks_are_apart() -> None:
    own = np.arange(300.0)
    reference = np.delete(0.2 + RATE * own, np.arange(0, 300, 20))
    with pytest.raises(ValueError, match="too evenly spaced to tell; set max_offset_s"):
        fit_clock(own, reference)
    clock = fit_clock(own, reference, max_offset_s=0.4)
    assert clock.offset == pytest.approx(0.2)
    assert clock.rate == pytest.approx(RATE)


def test_a_clock_that_jumps_is_refused_and_where_is_said() -> None:
    own = pulses()
    reference = OFFSET + RATE * own
    for jump in (0.05, 2.0, -30.0):
        broken = np.sort(np.where(own > own[400], reference + jump, reference))
        with pytest.raises(ValueError, match="lie on one line; the clock breaks at about") as error:
            fit_clock(own, broken)
        where = float(str(error.value).split("about ")[1].split(" s")[0])
        assert abs(where - own[400]) < 0.02 * own[-1]


@pytest.mark.parametrize(
    ("own", "reference", "match"),
    [
        (pulses(2), pulses(9), "2 and 9 pulses; a clock needs at least 3"),
        (pulses(50), 1000 * pulses(50), "not the same pulses, or times are not in seconds"),
        (pulses(200), pulses(200, seed=5), "lie on one line|not the same pulses"),
    ],
)
def test_other_pulses_are_refused(own: np.ndarray, reference: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        fit_clock(own, reference)


# ---------------------------------------------------------------- apply
def _wave(times: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(2 * np.pi * 3 * times), np.cos(2 * np.pi * 17.3 * times)], axis=1)


def test_a_signal_is_the_same_function_of_time_on_the_other_clock() -> None:
    own = np.arange(60000) / 250
    clock = clock_of(OFFSET, 1 + 300e-6)
    moved = apply_clock(Signal(_wave(OFFSET + own * (1 + 300e-6)), 250.0, "lfp"), clock)
    assert isinstance(moved, Signal)
    assert (moved.sfreq, moved.t0) == (250.0, OFFSET)
    assert len(moved.values) == 60017
    np.testing.assert_allclose(moved.values[8:-8], _wave(moved.times)[8:-8], atol=1e-3)


def test_a_mere_offset_leaves_the_samples_alone() -> None:
    signal = Signal(_wave(np.arange(100) / 250), 250.0, "lfp", t0=1.0)
    moved = apply_clock(signal, clock_of(2.5, 1 + 1e-8))
    assert moved.values is signal.values
    assert moved.t0 == pytest.approx(3.5)


def test_task_variables_keep_their_levels_and_binned_spikes_are_refused() -> None:
    levels = np.repeat([0.0, 1.0, 5.0], 5000)[:, None]
    moved = apply_clock(Signal(levels, 100.0, "task"), clock_of(0, 1.0005))
    assert set(np.unique(moved.values)) == {0, 1, 5}
    assert np.flatnonzero(np.diff(moved.values[:, 0]))[0] == pytest.approx(5000 * 1.0005, abs=2)
    with pytest.raises(ValueError, match="align the spike times before binning"):
        apply_clock(Signal(levels, 100.0, "spikes"), clock_of(0, 1.0005))


def test_times_of_events_are_moved() -> None:
    clock = clock_of(10.0, 1.001)
    train = apply_clock(SpikeTrain(np.array([0.0, 100.0]), np.array([0, 0]), ("a",)), clock)
    np.testing.assert_allclose(train.times, [10.0, 110.1])
    gaze = apply_clock(Samples(np.array([0.0, 100.0]), np.zeros((2, 1)), "eye"), clock)
    np.testing.assert_allclose(gaze.times, [10.0, 110.1])


def test_interpolation_keeps_samples_constants_and_holes() -> None:
    x = np.random.default_rng(0).normal(size=50)
    np.testing.assert_allclose(interpolate(x, np.arange(50.0)), x, atol=1e-12)
    np.testing.assert_allclose(interpolate(np.full(50, 3.0), np.linspace(0, 49, 77)), 3.0)
    x[20] = np.nan
    found = interpolate(x, np.arange(50) * 1.0)
    assert np.flatnonzero(np.isnan(found)).tolist() == [20]


# ---------------------------------------------------------------- lag
@pytest.mark.parametrize("lag", [0, 7, -12.25, 3.4])
def test_a_planted_lag_is_found_between_samples(lag: float) -> None:
    rng = np.random.default_rng(0)
    coarse = np.convolve(rng.normal(size=4000), np.hanning(25), "same")
    times = np.arange(200, 3800)
    a, b = (np.interp(times, np.arange(4000), coarse), interpolate(coarse, times - lag))
    noisy = [x + 0.2 * x.std() * rng.normal(size=len(x)) for x in (a, b)]
    assert estimate_lag(*noisy, 100.0) == pytest.approx(lag / 100, abs=0.002)


def test_a_lag_beyond_what_is_looked_at_is_refused() -> None:
    a = np.convolve(np.random.default_rng(0).normal(size=1000), np.hanning(99), "same")
    with pytest.raises(ValueError, match="look further"):
        estimate_lag(a, np.roll(a, 40), 100.0, max_lag_s=0.2)


def test_planted_delays_of_simulated_modalities_are_found_to_the_sample() -> None:
    card = datasets()["simulation_modalities"]
    recording, truth = simulate_truth(dataclasses.replace(card, recordings=card.recordings[:1]), 120.0)[0]
    for name in ("lfp", "ecog", "meg", "audio"):
        seen, planted = recording.signals[name], truth.planted[name]
        assert isinstance(seen, Signal)
        every = round(seen.sfreq / FINE_HZ)
        driven = truth.latent @ planted.mixing.T
        for c in range(2):
            lag = estimate_lag(driven[:, c], np.asarray(seen.values)[::every, c], FINE_HZ, max_lag_s=1.0)
            assert lag == pytest.approx(planted.view.delay_s, abs=0.5 / FINE_HZ)


# ---------------------------------------------------------------- in a card
def _card(*signals: str, **parameters: Any) -> DatasetCard:
    card = datasets()["simulation"]
    parameters = {"own": "eeg_pulses", "reference": "rig_pulses", **parameters}
    step = StepSpec(step="align_clock", signals=signals, parameters=parameters)
    return dataclasses.replace(card, recordings=card.recordings[:1], preprocess=(step,), split=SplitSpec(kind="subject"))


@pytest.fixture(scope="module")
def simulated() -> tuple[Recording, Recording]:
    """A simulated recording as it is, and with its EEG and its marks on a clock of their own, 5 % of the pulses missing."""
    true = simulate(_card("eeg"), 120.0)[0]
    own = clock_of(-OFFSET / RATE, 1 / RATE)
    on_own = apply_clock(true.signals["eeg"], own)
    rng, at = np.random.default_rng(0), pulses(110)
    at = at[at < 119]
    mine, theirs = (at[rng.uniform(size=len(at)) >= 0.05] for _ in range(2))
    intervals = {
        "rig_pulses": Intervals(theirs, theirs),
        "eeg_pulses": Intervals(own(mine), own(mine)),
        "marks": Intervals(own(np.array([10.0, 50.0])), own(np.array([11.0, 52.0])), ("a", "b")),
    }
    return true, dataclasses.replace(true, signals={**true.signals, "eeg": on_own}, intervals=intervals)


def test_simulated_modalities_align_to_the_sample(simulated: tuple[Recording, Recording]) -> None:
    true, apart = simulated
    done = UnifiedPreprocessor(_card("eeg", intervals=["marks"]))(apart)
    before, after = true.signals["eeg"], done.signals["eeg"]
    assert isinstance(before, Signal)
    assert isinstance(after, Signal)
    assert after.t0 == pytest.approx(0, abs=0.001)
    n = min(len(before.values), len(after.values))
    lags = [estimate_lag(before.values[:n, c], after.values[:n, c], 128.0) for c in range(3)]
    assert np.abs(lags).max() * 128 < 0.05
    smooth = [np.apply_along_axis(np.convolve, 0, s.values[:n], np.hanning(9), "same") for s in (before, after)]
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(smooth[0].T, smooth[1].T, strict=True)) > 0.999
    np.testing.assert_allclose(done.intervals["marks"].start, [10, 50], atol=1e-6)
    np.testing.assert_allclose(done.intervals["marks"].end, [11, 52], atol=1e-6)
    assert done.signals["spikes"] is apart.signals["spikes"]
    assert done.history[-2].startswith("align_clock(eeg, own=eeg_pulses, reference=rig_pulses")
    assert done.history[-1].startswith("eeg: Clock(offset 37.25")
    assert "drift 80.00 ppm" in done.history[-1]


@pytest.mark.parametrize(
    ("signals", "parameters", "match"),
    [
        (("eeg",), {"own": "ttl"}, "there are no intervals ttl; there are rig_pulses, eeg_pulses, marks"),
        ((), {}, "would move every signal; name those that run on the clock of 'eeg_pulses'"),
        (("eeg",), {"max_offset_s": 1.0}, "not the same pulses|lie on one line"),
    ],
)
def test_wrong_alignments_are_refused(
    simulated: tuple[Recording, Recording], signals: tuple[str, ...], parameters: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        UnifiedPreprocessor(_card(*signals, **parameters))(simulated[1])
