"""Spikes, calcium, EEG, LFP and ECoG sets of the bundle: the numbers their descriptions state, and published or plain
baselines reproduced, which only hold where spikes, behaviour and events lie where they belong."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofm_ml.data import read
from neurofm_ml.data.grid import to_grid
from neurofm_ml.data.recordings import load_recording, save_recording
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.types import Array, Intervals, Recording, Signal, SpikeTrain

DATA = Path(os.environ.get("NEUROFM_DATA") or "unset")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="NEUROFM_DATA does not name a folder of real recordings")


@functools.cache
def read_set(name: str) -> dict[str, Recording]:
    recordings = read(name)
    assert isinstance(recordings, list)
    return {recording.id: recording for recording in recordings}


def gridded(name: str, recording: str) -> Recording:
    return to_grid(read_set(name)[recording], datasets()[name])


def signal(recording: Recording, name: str) -> Signal:
    series = recording.signals[name]
    assert isinstance(series, Signal)
    return series


# ---------------------------------------------------------------- what is in the files
def test_head_direction_cells_awake_and_asleep() -> None:
    sleep = {"sws": 870900, "rem": 97600}
    recordings = read_set("mouse_hd_peyrache")
    for name, n in {"run": 212078, **sleep}.items():
        counts = signal(recordings[name], "counts")
        assert (counts.values.shape, counts.sfreq, counts.values.max() <= 4) == ((n, 19), 100, True)
        state = recordings[name].intervals["state"]
        assert (state.start[0], state.end[0]) == (0, pytest.approx(n / 100))
        assert state.labels == ("wake" if name == "run" else name,)
    head = signal(recordings["run"], "head")
    assert head.ch_names == ("head_cos", "head_sin")
    np.testing.assert_allclose((head.values**2).sum(axis=1), 1, atol=1e-5)
    assert all("head" not in recordings[name].signals for name in sleep)


def test_a_maze_with_four_streams_on_one_clock() -> None:
    for name, n, t0 in (("748", 3236, 2282.6), ("1356", 3566, 4122.8)):
        trial = read_set("monkey_mcmaze_hisde")[name]
        counts, hand = signal(trial, "counts"), signal(trial, "hand")
        assert (counts.values.shape, counts.ch_names[0], counts.t0, counts.sfreq) == ((n, 182), "unit_1011", pytest.approx(t0), 1000)
        assert set(np.unique(counts.values)) == {0, 1}
        moved = np.gradient(hand.values[:, :2].astype(np.float64), 1e-3, axis=0)
        assert np.corrcoef(moved[:, 0], hand.values[:, 2])[0, 1] > 0.99, "velocity is the change of position, in mm and s"
        assert {s.t0 for s in trial.signals.values() if isinstance(s, Signal)} == {counts.t0}


def test_trials_of_reaches_keep_their_order_and_conditions() -> None:
    ex1, ex2 = read_set("monkey_reach_datahigh").values()
    assert signal(ex1, "counts").values.shape == (210 * 400, 61)
    assert signal(ex2, "counts").values.shape == (142345, 61)
    trials = ex1.intervals["trials"]
    assert trials.labels == tuple(f"reach{k}" for k in range(1, 8) for _ in range(30)), "sorted by condition, as the file is"
    np.testing.assert_allclose(trials.end - trials.start, 0.4)
    lengths = np.diff(np.append(ex2.intervals["trials"].start, ex2.duration))
    assert (len(lengths), lengths.min(), lengths.max()) == (112, pytest.approx(1.018), pytest.approx(1.526))


def test_retinal_waves() -> None:
    recordings = read_set("retinal_waves")
    assert len(recordings) == 22
    subjects = [r.subject for r in recordings.values()]
    assert [s.diagnosis for s in subjects].count("wild type") == [s.diagnosis for s in subjects].count("beta2 knock-out") == 11
    assert {round(365.25 * (s.age or 0)) for s in subjects} == {4, 5, 6, 7}
    first = recordings["Kirkby2013_01_B2KO_P4"].signals["spikes"]
    assert isinstance(first, SpikeTrain)
    assert (len(first.unit_ids), len(first.times), first.span) == (26, 1385, (26.846, 2099.3))
    assert np.bincount(first.unit_index)[:3].tolist() == [8, 14, 26]
    assert recordings["Kirkby2013_01_B2KO_P4"].subject.age == pytest.approx(4 / 365.25)


def test_two_days_under_two_photons() -> None:
    for day, shape, n_left_out in (("day1", (7853, 49), 305), ("day2", (7859, 45), 103)):
        recording = read_set("mouse_2p_biane")[day]
        assert signal(recording, "calcium").values.shape == shape
        trials, events = recording.intervals["trials"], recording.intervals["events"]
        kinds = [trials.labels.count(name) for name in ("ODOR4", "ODOR6", "TONE_RW", "SHOCK", "BLAST")]
        assert kinds == [15, 15, 30, 10, 10]
        assert trials.end[-1] == pytest.approx(recording.duration)
        onset = events.start[events.labels.index("ODOR6")] - trials.start[trials.labels.index("ODOR6")]
        assert onset == pytest.approx(6, abs=0.002), "six seconds before each stimulus, says the protocol"
        assert recording.history[-1] == f"left out {n_left_out} events between trials"


@pytest.mark.parametrize(
    ("name", "n", "kinds"),
    [("eeg_muse_p300", 6, {"1": 976, "2": 185}), ("eeg_muse_n170", 3, {"1": 305, "2": 282}), ("eeg_muse_ssvep", 6, {"1": 90, "2": 107})],
)
def test_a_headband_with_markers(name: str, n: int, kinds: dict[str, int]) -> None:
    recordings = read_set(name)
    assert len(recordings) == n
    assert {r.subject.id for r in recordings.values()} == {"subject1"}
    labels = [label for r in recordings.values() for label in r.intervals["events"].labels]
    assert {kind: labels.count(kind) for kind in sorted(set(labels))} == kinds
    for recording in recordings.values():
        eeg = signal(recording, "eeg")
        assert (eeg.ch_names, eeg.sfreq, eeg.unit) == (("TP9", "AF7", "AF8", "TP10"), 256, "uV")
        assert eeg.values.std(axis=0).max() < 100
        assert eeg.positions is not None


def test_a_seizure_in_ragged_text() -> None:
    recording = read_set("eeg_seizure_scalp8")["seizure"]
    eeg = signal(recording, "eeg")
    assert (eeg.values.shape, eeg.ch_names) == ((32678, 8), ("c3", "c4", "cz", "p3", "p4", "t3", "t4", "t5"))
    np.testing.assert_allclose(eeg.values[:6, 0], [-2.551564, -6.551564, -5.551564, -9.551564, -14.55156, -15.55156])
    assert recording.intervals["state"].end.tolist() == [163.39, 326.78]


def test_snippets_of_sleep_lfp_and_ecog() -> None:
    sleep = read_set("yasa_sleep_snippets")
    shapes = {name: (s.values.shape, s.sfreq) for r in sleep.values() for name in r.signals if (s := signal(r, name))}
    assert shapes == {"eeg_n2": ((3000, 1), 200), "eeg_n3": ((3000, 1), 100), "eog": ((219904, 2), 256)}
    assert signal(read_set("ecog_m1_neurodsp")["m1"], "ecog").values.shape == (10000, 1)
    assert signal(read_set("lfp_ca1_neurodsp")["hc2"], "lfp").values.shape == (150000, 1)
    seizure = read_set("ieeg_seizure_pt01")["pt01"]
    ieeg = signal(seizure, "ieeg")
    assert (ieeg.values.shape, ieeg.ch_names[83], seizure.bounds) == ((3000, 84), "SLT4", (-1, 2))
    assert seizure.intervals["state"].labels == ("before", "seizure")


def test_resting_eeg_is_kept_as_it_is_read(tmp_path: Path) -> None:
    """MNE's sizes are numpy's integers, which a saved array's header must not spell."""
    recording = read_set("yasa_rest")["rest"]
    kept = signal(load_recording(save_recording(recording, tmp_path)), "eeg")
    assert (kept.values.shape, kept.sfreq, kept.ch_names) == ((72000, 2), 200, ("F4-A1", "CZ-A2"))
    np.testing.assert_array_equal(kept.values, np.asarray(signal(recording, "eeg").values))


def test_counts_in_overlapping_windows() -> None:
    for rat, shape in (("R2192", (6964, 72)), ("R2217", (7969, 40))):
        recording = read_set("rat_ca1_track_ratgps")[rat]
        counts = signal(recording, "counts").values
        assert counts.shape == shape
        assert 0 <= signal(recording, "position").values.min() < signal(recording, "position").values.max() == 600
        assert "each count covers 1.4 s" in recording.history[1]


# ---------------------------------------------------------------- baselines that hold where streams are aligned
def bayes(counts: Array, place: Array, n_places: int, smooth: float) -> Array:
    """(n_test,) most likely place of each bin: Poisson rates by place from the first 80 %, smoothed over neighbouring places
    (of a circle), applied to the rest. counts (n_bins, n_units), place (n_bins,) whole numbers."""
    split = int(0.8 * len(counts))
    seen = np.bincount(place[:split], minlength=n_places)
    sums = np.stack([np.bincount(place[:split], unit[:split], minlength=n_places) for unit in counts.T], axis=1)
    away = np.minimum(np.arange(n_places), n_places - np.arange(n_places))
    kernel = np.stack([np.roll(np.exp(-0.5 * (away / smooth) ** 2), k) for k in range(n_places)])
    rates = (kernel @ sums + 1e-2) / (kernel @ seen + 1e-1)[:, None]
    found: Array = (counts[split:] @ np.log(rates).T - rates.sum(axis=1)).argmax(axis=1)
    return found


def head_direction_error(counts: Array, head: Array) -> float:
    """Median error in degrees over the last 20 %."""
    angles = np.arctan2(head[:, 1], head[:, 0])
    found = bayes(counts, np.floor((angles + np.pi) / (2 * np.pi) * 60).astype(int) % 60, 60, 1.5)
    off = (found + 0.5) / 60 * 2 * np.pi - np.pi - angles[int(0.8 * len(angles)) :]
    return float(np.degrees(np.median(np.abs((off + np.pi) % (2 * np.pi) - np.pi))))


def test_head_direction_is_decoded_as_well_as_stated_and_not_when_shifted() -> None:
    """18.8 degrees with bins of 100 ms, chance 90."""
    run = gridded("mouse_hd_peyrache", "run")
    counts, head = signal(run, "counts").values, signal(run, "head").values
    assert head_direction_error(counts, head) == pytest.approx(18.8, abs=0.7)
    assert head_direction_error(np.roll(counts, 600, axis=0), head) > 60, "a minute later"
    assert head_direction_error(np.roll(counts, 10, axis=0), head) > 25, "a second later"


@pytest.mark.parametrize("rat", ["R2192", "R2217"])
def test_place_on_the_track_is_decoded_and_not_when_shifted(rat: str) -> None:
    """14 to 31 cm stated; 76 to 186 for a constant guess."""
    recording = gridded("rat_ca1_track_ratgps", rat)
    counts, x = signal(recording, "counts").values, signal(recording, "position").values[:, 0]
    place = np.minimum(x // 10, 59).astype(int)
    rest = x[int(0.8 * len(x)) :]

    def error(shift: int) -> float:
        return float(np.median(np.abs(bayes(np.roll(counts, shift, axis=0), place, 60, 1.0) * 10 + 5 - rest)))

    assert error(0) < 35
    assert error(100) > 60, "twenty seconds later"


def trial_counts(recording: Recording) -> tuple[Array, Array]:
    """(n_trials, n_units) spikes of each trial and its condition."""
    trials, counts = recording.intervals["trials"], signal(recording, "counts")
    return np.array([counts.slice(a, b).values.sum(axis=0) for a, b in zip(trials.start, trials.end, strict=True)]), np.array(trials.labels)


@pytest.mark.slow
def test_reaches_are_told_apart_as_stated() -> None:
    """.986 of 7 reaches from 400 ms counts by linear discriminants."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    counts, conditions = trial_counts(read_set("monkey_reach_datahigh")["ex1"])
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    assert cross_val_score(LinearDiscriminantAnalysis(), counts, conditions, cv=folds).mean() == pytest.approx(0.986, abs=0.01)


def wave_statistics(recording: Recording) -> list[float]:
    """Number of units, rates, irregularity and correlation of a retina's spikes in bins of two seconds."""
    spikes: Any = recording.signals["spikes"]
    start, end = spikes.span
    counts = np.histogram2d(spikes.times, spikes.unit_index, [np.arange(start, end, 2.0), np.arange(len(spikes.unit_ids) + 1)])[0]
    rates = np.log(counts.mean(axis=0) + 1e-3)
    firing = counts[:, counts.std(axis=0) > 0]
    together = np.corrcoef(firing.T)[np.triu_indices(firing.shape[1], 1)]
    total = counts.sum(axis=1)
    return [
        counts.shape[1],
        rates.mean(),
        rates.std(),
        np.nanmean(together),
        np.nanstd(together),
        total.std() / total.mean(),
        (total == 0).mean(),
    ]


@pytest.mark.slow
def test_genotype_is_told_from_the_waves() -> None:
    """.909 stated for seven summary statistics, leaving one recording out; these seven are others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    recordings = read_set("retinal_waves").values()
    x, y = np.array([wave_statistics(r) for r in recordings]), np.array([r.subject.diagnosis for r in recordings])
    assert cross_val_score(make_pipeline(StandardScaler(), LogisticRegression()), x, y, cv=LeaveOneOut()).mean() > 0.8


def flicker_power(recordings: list[Recording], late_s: float) -> tuple[Array, Array]:
    """Log power at 20 and 30 Hz in two seconds from `late_s` after each marker, and whether the light flickered at 20."""
    from scipy.signal import welch

    features, labels = [], []
    for recording in recordings:
        events: Intervals = recording.intervals["events"]
        for start, label in zip(events.start + late_s, events.labels, strict=True):
            values = signal(recording, "eeg").slice(start, start + 2).values
            if len(values) == 512:
                power = welch(values.T, 256, nperseg=512)[1]
                features.append(np.log(power[:, [40, 60]]).ravel())
                labels.append(label == "2")
    return np.array(features), np.array(labels)


@pytest.mark.slow
def test_flicker_is_seen_after_its_marker_and_not_before() -> None:
    """.984 stated; the two seconds that end at the marker know less."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    recordings = list(read_set("eeg_muse_ssvep").values())

    def auc(late_s: float) -> float:
        (x, y), (unseen, truth) = flicker_power(recordings[:4], late_s), flicker_power(recordings[4:], late_s)
        return float(roc_auc_score(truth, make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y).decision_function(unseen)))

    assert auc(0.2) > 0.94
    assert auc(-2.0) < 0.8
