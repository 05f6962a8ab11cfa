"""Derived streams: movement, beats, breath, skin, gaze: planted, and in real recordings with marks of their own."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml.data.preprocess import UnifiedPreprocessor
from neurofm_ml.data.preprocess.cardiac import find_beats, heart_series, rmssd_ms, sdnn_ms
from neurofm_ml.data.preprocess.eda import decompose, find_responses
from neurofm_ml.data.preprocess.gaze import adaptive_threshold, gaze_events, gaze_velocity
from neurofm_ml.data.preprocess.kinematics import derivative, speed_heading
from neurofm_ml.data.preprocess.respiration import breathing_series, find_breaths
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, StepSpec
from neurofm_ml.types import Array, Intervals, Recording, Series, Signal, Subject

REAL = pytest.mark.skipif("NEUROFM_DATA" not in os.environ, reason="NEUROFM_DATA is not set")


def real(path: str) -> Path:
    return Path(os.environ["NEUROFM_DATA"]) / "ephys" / path


def card_with(step: str, modality: str, made: bool = True, **parameters: Any) -> DatasetCard:
    signals = {"source": SignalSpec(modality=modality), **({"made": SignalSpec(modality=modality)} if made else {})}
    return DatasetCard(
        name="body",
        title="Body",
        species="Homo sapiens",
        licence="none",
        source="here",
        reader="arrays",
        signals=signals,
        preprocess=(StepSpec(step=step, parameters={**({"into": "made"} if made else {}), **parameters}),),
        grid_hz=10,
        window_s=1,
        stride_s=1,
        split=SplitSpec(kind="subject"),
    )


def recording_of(series: Series) -> Recording:
    return Recording("r", "body", Subject("s"), "s", "Homo sapiens", "none", {"source": series})


def made_by(step: str, series: Signal, **parameters: Any) -> Signal:
    made = UnifiedPreprocessor(card_with(step, series.modality, **parameters))(recording_of(series)).signals["made"]
    assert isinstance(made, Signal)
    assert made.modality == series.modality
    return made


def events_by(step: str, series: Signal, made: bool = True, **parameters: Any) -> Intervals:
    done = UnifiedPreprocessor(card_with(step, series.modality, made, **parameters))(recording_of(series))
    (events,) = done.intervals.values()
    return events


# ---------------------------------------------------------------- movement
def test_derivatives_of_a_cubic_are_exact() -> None:
    t = np.arange(200) / 50
    cubic = np.stack([t**3 - 2 * t, 4 * t**2], axis=1)
    np.testing.assert_allclose(derivative(cubic, 50.0), np.stack([3 * t**2 - 2, 8 * t], axis=1), atol=1e-8)
    np.testing.assert_allclose(derivative(cubic, 50.0, order=2), np.stack([6 * t, 0 * t + 8], axis=1), atol=1e-6)


def test_a_missing_sample_is_missing_in_its_windows_alone() -> None:
    t = np.arange(200) / 50
    holed = (t**2)[:, None].repeat(3, axis=1)
    holed[100, 0] = holed[2, 1] = np.nan
    found = derivative(holed, 50.0, window_s=0.2)
    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == list(range(95, 106))
    # The first window serves the first five samples as well.
    assert np.flatnonzero(np.isnan(found[:, 1])).tolist() == list(range(8))
    np.testing.assert_allclose(found[np.isfinite(found)], np.broadcast_to(2 * t[:, None], (200, 3))[np.isfinite(found)], atol=1e-9)


def test_speed_and_heading_on_a_circle() -> None:
    t = np.arange(500) / 100
    circle = np.stack([3 * np.cos(2 * t), 3 * np.sin(2 * t)], axis=1)
    speed, heading = speed_heading(derivative(circle, 100.0))
    np.testing.assert_allclose(speed, 6, rtol=1e-3)
    np.testing.assert_allclose(np.exp(1j * heading), 1j * np.exp(2j * t), atol=1e-3)
    made = made_by("speed_heading", Signal(circle, 100.0, "pose", ch_names=("x", "y"), unit="cm"))
    np.testing.assert_allclose(made.values, np.stack([speed, np.cos(heading), np.sin(heading)], axis=1), atol=1e-5)


def test_velocity_as_a_signal() -> None:
    pose = Signal(np.cumsum(np.ones((100, 2)), axis=0), 50.0, "pose", t0=3.0, unit="cm")
    made = made_by("derivative", pose)
    np.testing.assert_allclose(made.values, 50, rtol=1e-5)
    assert (made.unit, made.t0, made.ch_names) == ("cm/s", 3.0, pose.ch_names)
    assert made_by("derivative", pose, order=2).unit == "cm/s^2"


# ---------------------------------------------------------------- heart
def _ecg(beats: Array, sfreq: float, seconds: float, sign: float = 1.0) -> Array:
    """P, QRS and T waves at each of `beats` (seconds), on drifting ground."""
    t = np.arange(int(seconds * sfreq)) / sfreq
    wave = 0.3 * np.sin(2 * np.pi * 0.2 * t)
    for beat in beats:
        for delay, height, width in ((-0.18, 0.15, 0.03), (-0.03, -0.15, 0.01), (0, 1.2, 0.012), (0.03, -0.25, 0.01), (0.25, 0.3, 0.05)):
            wave += sign * height * np.exp(-((t - beat - delay) ** 2) / (2 * width**2))
    return wave


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_planted_beats_are_found_in_either_lead(sign: float) -> None:
    rng = np.random.default_rng(0)
    beats = np.cumsum(0.8 + 0.05 * rng.normal(size=70))
    ecg = _ecg(beats, 250.0, 58.0, sign) + 0.05 * rng.normal(size=14500)
    found = find_beats(ecg, 250.0, "ecg") / 250
    inside = beats[beats < 57.5]
    assert len(found[found < 57.6]) == len(inside)
    assert np.abs(found[: len(inside)] - inside).max() < 0.012


def test_variability_by_hand() -> None:
    rr = np.array([0.8, 0.9, 0.7, 1.0])
    assert sdnn_ms(rr) == pytest.approx(1000 * np.sqrt(np.sum((rr - 0.85) ** 2) / 3))
    assert rmssd_ms(rr) == pytest.approx(1000 * np.sqrt((0.1**2 + 0.2**2 + 0.3**2) / 3))
    assert np.isnan(sdnn_ms(rr[:1]))
    assert np.isnan(rmssd_ms(rr[:1]))


def test_rate_and_variability_over_time() -> None:
    beats = np.concatenate([np.arange(10), 9 + 0.5 * np.arange(1, 21), [24.0]])
    found = heart_series(beats, np.array([-1.0, 0.5, 8.99, 9.01, 15.2, 20.0, 25.0]), window_s=4.0)
    np.testing.assert_allclose(found[:, 0], [np.nan, 60, 60, 120, 120, np.nan, np.nan])
    assert found[4, 1] == pytest.approx(0, abs=1e-9)
    around = np.array([1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    # Beats from 7 to 11 s: 7, 8, 9, 9.5, 10, 10.5.
    np.testing.assert_allclose(found[2, 1:], [sdnn_ms(around[:5]), rmssd_ms(around[:5])])


def test_beats_become_events_and_a_signal() -> None:
    beats = 0.5 + 0.75 * np.arange(66)
    ecg = Signal(np.stack([_ecg(beats, 250.0, 50.0), np.zeros(12500)], 1), 250.0, "physio", t0=100.0, ch_names=("ecg", "other"), unit="mV")
    made = made_by("heart_beats", ecg, kind="ecg", channel="ecg")
    assert (made.ch_names, made.sfreq, made.t0) == (("heart_rate", "sdnn", "rmssd"), 4.0, 100.0)
    np.testing.assert_allclose(made.values[20:-20, 0], 80, rtol=0.01)
    # Within a sample of 4 ms.
    assert np.nanmax(made.values[:, 1]) < 4
    events = events_by("heart_beats", ecg, kind="ecg", channel="ecg")
    np.testing.assert_allclose(events.start, 100 + beats, atol=0.005)
    with pytest.raises(ValueError, match="channel is ''; name one of ecg, other"):
        made_by("heart_beats", ecg, kind="ecg")
    with pytest.raises(ValueError, match="kind is 'bcg'; allowed: 'ecg', 'ppg'"):
        made_by("heart_beats", ecg, kind="bcg")


def test_a_flat_line_has_no_beats() -> None:
    flat = Signal(np.full((5000, 1), 3.0), 250.0, "physio")
    assert np.isnan(made_by("heart_beats", flat, kind="ecg").values).all()
    assert len(events_by("heart_beats", flat, kind="ecg").start) == 0


@REAL
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_beats_of_mit_bih_100() -> None:
    from wfdb import rdann, rdrecord
    from wfdb.processing import compare_annotations

    path = str(real("physio/wfdb_samples/100"))
    record, marks = rdrecord(path), rdann(path, "atr")
    beats = marks.sample[np.isin(marks.symbol, ["N", "A", "V"])]
    assert len(beats) == 2273
    found = find_beats(record.p_signal[:, 0], record.fs, "ecg")
    score = compare_annotations(beats, found, round(0.05 * record.fs))
    assert score.sensitivity >= 0.999
    assert score.positive_predictivity >= 0.999
    # Their variability is that of the marks.
    ours, theirs = (np.diff(x) / record.fs for x in (found, beats))
    assert sdnn_ms(ours) == pytest.approx(sdnn_ms(theirs), rel=0.01)
    assert rmssd_ms(ours) == pytest.approx(rmssd_ms(theirs), rel=0.03)


@REAL
def test_pulses_of_real_ppg() -> None:
    ppg = np.load(real("physio/systole/ppg.npy"))
    rr = np.diff(find_beats(ppg, 75.0, "ppg")) / 75
    assert 55 < 60 / np.median(rr) < 85
    assert np.mean(np.abs(rr / np.median(rr) - 1) < 0.3) > 0.97
    finger = np.loadtxt(real("physio/biosppy/ppg.txt"))
    rr = np.diff(find_beats(finger, 1000.0, "ppg")) / 1000
    assert rr.std() < 0.05
    # As many as its spectrum says.
    spectrum = np.abs(np.fft.rfft(finger - finger.mean())) ** 2
    freqs = np.fft.rfftfreq(len(finger), 1e-3)
    band = (freqs > 0.7) & (freqs < 3)
    assert 1 / rr.mean() == pytest.approx(freqs[band][spectrum[band].argmax()], abs=0.05)


# ---------------------------------------------------------------- breath
def test_planted_breaths_and_their_rate() -> None:
    t = np.arange(6000) / 50
    rate = 12 + 3 * np.sin(2 * np.pi * t / 120)
    chest = 2 * np.sin(2 * np.pi * np.cumsum(rate / 60) / 50) + 0.1 * np.random.default_rng(0).normal(size=6000) + 0.01 * t
    found = breathing_series(chest, 50.0)
    assert len(find_breaths(chest, 50.0)) == round(rate.mean() * 2)
    np.testing.assert_allclose(found[500:-500, 0], rate[500:-500], atol=1.0)
    np.testing.assert_allclose(found[1000:-1000, 1], 4, rtol=0.1)
    made = made_by("breathing", Signal(chest[:, None], 50.0, "physio", unit="V"))
    np.testing.assert_allclose(made.values, found, rtol=1e-5)
    assert made.unit == "1/min, V"


@REAL
def test_breaths_of_a_real_belt_are_as_many_as_by_eye() -> None:
    breaths = find_breaths(np.loadtxt(real("physio/biosppy/resp.txt")), 1000.0)
    assert 17 <= len(breaths) <= 22
    # Three that nobody could miss.
    for at in (26.4, 32.2, 48.9):
        assert np.abs(breaths / 1000 - at).min() < 0.3


# ---------------------------------------------------------------- skin
def _skin(onsets: Array, amplitudes: Array, sfreq: float = 20.0) -> Array:
    """Responses (rise 0.75 s, decay 2 s) on a slowly falling level, microsiemens."""
    t = np.arange(int(200 * sfreq)) / sfreq
    level = 5 - 0.005 * t
    for onset, amplitude in zip(onsets, amplitudes, strict=True):
        since = np.maximum(t - onset, 0)
        shape = np.exp(-since / 2) - np.exp(-since / 0.75)
        level += amplitude * shape / 0.364
    return level


def test_planted_responses_are_found() -> None:
    onsets, amplitudes = np.array([20.0, 55, 90, 130, 170]), np.array([0.3, 0.8, 0.15, 0.5, 0.04])
    tonic, phasic = decompose(_skin(onsets, amplitudes), 20.0)
    np.testing.assert_allclose((tonic + phasic)[100:-100], _skin(onsets, amplitudes)[100:-100], atol=0.05)
    spectrum = np.abs(np.fft.rfft(np.hanning(4000) * (tonic - tonic.mean()))) ** 2
    assert spectrum[np.fft.rfftfreq(4000, 1 / 20) > 0.2].sum() < 0.001 * spectrum.sum()
    found = find_responses(phasic, 20.0, least=0.05)
    np.testing.assert_allclose(found.onset / 20, onsets[:4], atol=1.0)
    # The peak of the shape above: 1.18 s after its onset.
    np.testing.assert_allclose(found.peak / 20, onsets[:4] + 1.18, atol=0.3)
    np.testing.assert_allclose(found.amplitude, amplitudes[:4], rtol=0.25)


def test_conductance_as_signal_and_events() -> None:
    skin = _skin(np.array([30.0, 80.0]), np.array([0.5, 0.5]))
    signal = Signal(skin[:, None], 20.0, "physio", t0=50.0, unit="uS")
    made = made_by("skin_conductance", signal)
    np.testing.assert_allclose(made.values, np.stack(decompose(skin, 20.0), axis=1), rtol=1e-4, atol=1e-5)
    assert made.ch_names == ("tonic", "phasic")
    events = events_by("skin_conductance", signal)
    np.testing.assert_allclose(events.start, [80, 130], atol=1.0)
    assert events.columns["amplitude"].min() > 0.3


@REAL
def test_responses_in_a_real_hand() -> None:
    _, phasic = decompose(np.loadtxt(real("physio/biosppy/eda.txt")), 1000.0)
    found = find_responses(phasic, 1000.0, least=20.0)
    assert 5 <= len(found.peak) <= 12
    assert ((found.peak - found.onset) / 1000 <= 5).all()
    assert (np.diff(found.onset) > 1000).all()


# ---------------------------------------------------------------- gaze
SACCADES = ((1.0, 8.0), (1.6, -5.0), (2.5, 12.0), (4.2, -3.0), (5.1, 1.0))


def _gaze(noise: float = 0.02, seed: int = 0) -> Array:
    """Fixations with slow drift and saccades of 40 ms in x (degrees) at 500 Hz; a blink at 3.4 s."""
    t = np.arange(3000) / 500
    x = 0.1 * np.sin(2 * np.pi * 0.3 * t)
    for at, amplitude in SACCADES:
        x += amplitude * (1 + np.tanh((t - at - 0.02) / 0.01)) / 2
    gaze = np.stack([x, 0.3 * x], axis=1) + noise * np.random.default_rng(seed).normal(size=(3000, 2))
    gaze[1700:1760] = np.nan
    return gaze


@pytest.mark.parametrize("adaptive", [True, False])
def test_planted_saccades_fixations_and_blinks_are_found(adaptive: bool) -> None:
    gaze = _gaze()
    threshold = adaptive_threshold(gaze_velocity(gaze, 500.0)) if adaptive else np.full(2, 30.0)
    events = gaze_events(gaze, 500.0, threshold)
    saccades = [e for e in events if e.label == "saccade"]
    np.testing.assert_allclose([(e.start + e.end) / 1000 - 0.02 for e in saccades], [at for at, _ in SACCADES], atol=0.006)
    np.testing.assert_allclose([e.amplitude for e in saccades], [abs(a) * np.hypot(1, 0.3) for _, a in SACCADES], atol=0.55)
    assert [(e.start, e.end) for e in events if e.label == "blink"] == [(1700, 1760)]
    fixations = [e for e in events if e.label == "fixation"]
    assert len(fixations) == 7
    assert fixations[1].x == pytest.approx(8, abs=0.3)
    assert sum(e.end - e.start for e in fixations) > 2600


def test_what_moves_beside_a_blink_is_the_lid() -> None:
    gaze = _gaze()
    gaze[1690:1700, 1] += np.linspace(0, 10, 10)
    events = gaze_events(gaze, 500.0, np.full(2, 30.0))
    assert len([e for e in events if e.label == "saccade"]) == len(SACCADES)
    assert max(e.end for e in events if e.label == "fixation" and e.start < 1700) <= 1692
    gaze[1700:2300] = np.nan
    assert [e.label for e in gaze_events(gaze, 500.0, np.full(2, 30.0)) if 1700 <= e.start < 2300] == ["lost"]


def test_gaze_events_are_intervals() -> None:
    signal = Signal(_gaze(), 500.0, "eye", t0=10.0, ch_names=("x", "y"), unit="deg")
    events = events_by("gaze_events", signal, made=False, velocity=30.0)
    saccade = [i for i, label in enumerate(events.labels) if label == "saccade"]
    np.testing.assert_allclose(events.start[saccade], 10 + np.array([at for at, _ in SACCADES]), atol=0.02)
    assert (events.columns["peak_velocity"][saccade] > 30).all()
    card = card_with("gaze_events", "eye", made=False)
    with pytest.raises(ValueError, match="learns from the whole recording"):
        UnifiedPreprocessor(dataclasses.replace(card, split=SplitSpec(gap_s=5)))
    with pytest.raises(ValueError, match="there is no channel left_x; name two of x, y"):
        events_by("gaze_events", signal, made=False, x="left_x")
    still = dataclasses.replace(signal, values=np.zeros((3000, 2)))
    with pytest.raises(ValueError, match="gaze stands still for half of the recording"):
        events_by("gaze_events", still, made=False)


@REAL
def test_events_are_those_that_the_eye_tracker_marked() -> None:
    times, gaze, marked = _eyelink(real("eyetracking/saccades_luketudge/example_eyelink_events.txt"))
    rows = (times - times[0]) // 4
    regular = np.full((rows[-1] + 1, 2), np.nan)
    regular[rows] = gaze
    # 30 degrees per second, EyeLink's own threshold, at 21.7 pixels per degree.
    events = gaze_events(regular, 250.0, np.full(2, 652.0))
    lost = np.flatnonzero(np.isnan(regular[:, 0]))
    ours = np.array([(e.start, e.end) for e in events if e.label == "saccade"])
    # The tracker marks saccades that run into a blink or into the end of a trial, and single fast samples.
    theirs = (np.array(marked["ESACC"]) - times[0]) // 4
    clear = [(a, b) for a, b in theirs if b - a >= 3 and np.abs(lost - a).min() > 30 and np.abs(lost - b).min() > 30]
    assert len(clear) > 120
    found = [bool(((ours[:, 0] <= b) & (ours[:, 1] > a)).any()) for a, b in clear]
    true = [bool(((theirs[:, 0] <= b) & (theirs[:, 1] >= a)).any()) for a, b in ours]
    assert np.mean(found) > 0.99
    assert np.mean(true) > 0.95
    late = [np.abs(ours[:, 0] - a).min() for a, b in clear]
    assert np.median(late) <= 1
    fixations = np.array([(e.start, e.end) for e in events if e.label == "fixation"])
    overlaps = []
    for a, b in (np.array(marked["EFIX"]) - times[0]) // 4:
        overlaps.append(np.max(np.minimum(fixations[:, 1], b + 1) - np.maximum(fixations[:, 0], a)) / (b + 1 - a))
    assert np.median(overlaps) > 0.97
    blinks = [e for e in events if e.label == "blink"]
    assert abs(len(blinks) - len(marked["EBLINK"])) <= 2


def _eyelink(path: Path) -> tuple[Array, Array, dict[str, list[tuple[int, int]]]]:
    """Times in ms, gaze (n, 2) in pixels, and start and end of the events that the tracker marked."""
    times, gaze = [], []
    marked: dict[str, list[tuple[int, int]]] = {"ESACC": [], "EFIX": [], "EBLINK": []}
    for line in path.read_text(encoding="latin-1").splitlines():
        words = line.split()
        if words and words[0].isdigit():
            times.append(int(words[0]))
            gaze.append([np.nan if w == "." else float(w) for w in words[1:3]])
        elif words and words[0] in marked:
            marked[words[0]].append((int(words[2]), int(words[3])))
    return np.array(times), np.array(gaze), marked
