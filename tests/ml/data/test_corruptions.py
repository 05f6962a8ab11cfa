"""What is injected into clean recordings, simulated and real, is found by the check that is there for it."""

import dataclasses
import functools
import os
from collections.abc import Callable

import corruptions as c
import numpy as np
import pytest
from corruptions import Corruption

from neurofm_ml.data.quality import as_table, judge, measure
from neurofm_ml.data.readers import READERS
from neurofm_ml.data.simulate import simulate
from neurofm_ml.jobs import JOBS
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, datasets
from neurofm_ml.knowledge.files import find_recordings, is_here
from neurofm_ml.presets import QualityConfig
from neurofm_ml.types import Check, Intervals, Recording, Samples, Series, Signal

Clean = tuple[Recording, DatasetCard]
BLOCKING = {name for name, severity in JOBS["assess_quality"].checks.items() if severity == "error"}
#: What one corruption may do besides: a signal that is cut, moved or hummed over is odd in more than one way.
ALSO = {
    "signals_cover_the_recording", "no_long_gaps", "no_channel_is_flat", "no_channel_is_noisy", "no_channel_is_alone", "rows_agree",
    "refractory_periods_hold", "no_channel_is_repeated", "mains_are_quiet", "mains_are_in_place", "spectra_reach_nyquist",
    "amplitudes_are_plausible", "nothing_is_clipped", "nothing_is_frozen", "volumes_are_steady", "counts_do_not_overlap", "counts_are_whole",
    "intervals_lie_inside", "head_motion_is_low", "channels_vary",
}  # fmt: skip


def failed(recording: Recording, card: DatasetCard) -> dict[str, Check]:
    checks = judge(as_table(measure(recording, card)), QualityConfig(dataset=card.name), card)
    return {check.name: check for check in checks if not check.passed}


@functools.cache
def failed_before(clean: Callable[[], Clean]) -> dict[str, Check]:
    return failed(*clean())


def beats(bpm: float, sfreq: float, seconds: float) -> Signal:
    """An ECG of narrow peaks, as regular as `bpm` says, in noise."""
    t = np.arange(round(seconds * sfreq)) / sfreq
    phase = (t * bpm / 60) % 1
    values = np.exp(-0.5 * ((phase - 0.5) / 0.01) ** 2) + 0.05 * np.random.default_rng(3).normal(size=len(t))
    return Signal(values[:, None].astype(np.float32), sfreq, "physio", ch_names=("ecg",), unit="mV")


@functools.cache
def simulated() -> Clean:
    """A minute of everything, with the signals that the simulation lacks."""
    card = datasets()["simulation"]
    signals = {**card.signals, "eeg": SignalSpec(modality="eeg", sfreq=256)}
    card = dataclasses.replace(card, signals=signals, recordings=card.recordings[:1])
    recording = simulate(card, 64.0)[0]
    rng = np.random.default_rng(0)
    more: dict[str, Series] = {
        "gaze": Samples(
            np.arange(0, 64, 0.02), np.stack([np.convolve(x, np.hanning(50), "same") for x in rng.normal(size=(2, 3200))], 1), "eye"
        ),
        "counts": Signal(rng.poisson(1.0, (512, 4)).astype(np.float32), 8.0, "spikes", unit="count"),
        "motion": Signal(
            np.cumsum(rng.normal(0, 1e-3, (64, 6)), axis=0), 1.0, "physio", ch_names=("x", "y", "z", "pitch", "roll", "yaw"), unit="mm, rad"
        ),
        "ecg": beats(72.0, 100.0, 64.0),
    }
    recording = recording.with_signals({**recording.signals, **more}, "more signals")
    return c.with_intervals(recording, c.trials(recording, c.shuffled())), dataclasses.replace(card, species="Homo sapiens")


def noisy(series: Series) -> Series:
    """The EEG of the simulation, whose electrodes see the brain well: one of them sees nothing."""
    assert isinstance(series, Signal)
    shared = np.random.default_rng(1).normal(size=(len(series.values), 3)) @ np.random.default_rng(2).normal(size=(3, 19))
    values = series.values + 30 * shared
    values[:, 4] = values.std() * np.random.default_rng(3).normal(size=len(values))
    return dataclasses.replace(series, values=values.astype(np.float32))


SIMULATED = [
    *c.electric("eeg"),
    *c.sensors("eeg"),
    Corruption("an electrode that sees nothing", "eeg", noisy, "no_channel_is_alone"),
    Corruption("a dead cell", "calcium", c.put(slice(None), 3, 0.0), "no_channel_is_flat"),
    *c.scans("fmri"),
    *c.trains("spikes"),
    *c.counts("counts"),
    *c.behaviours("behaviour"),
    *c.clocks("gaze"),
    Corruption("rows for volumes that were thrown away", "motion", c.longer(3), "rows_agree"),
    Corruption("a head that moves", "motion", c.values(c.restless), "head_motion_is_low"),
    Corruption("a heart at ten times its rate", "ecg", c.rate(10), "heart_rate_is_plausible"),
    Corruption("a heart at a tenth of its rate", "ecg", c.rate(0.25), "heart_rate_is_plausible"),
]


def check(clean: Callable[[], Clean], corruption: Corruption) -> None:
    recording, card = clean()
    before, after = failed_before(clean), failed(c.corrupted(recording, corruption), card)
    assert corruption.check not in before
    assert corruption.check in after
    found = after[corruption.check]
    assert found.note.startswith(f"{recording.id}/{corruption.signal} ")
    assert found.severity == ("error" if corruption.check in BLOCKING else "warn")
    assert found.numbers["worst"] > float(found.threshold.rsplit("<= ", 1)[1])
    assert set(after) - set(before) - {corruption.check} <= ALSO


def test_the_clean_recording_passes_every_check() -> None:
    assert failed(*simulated()) == {}


@pytest.mark.parametrize("corruption", SIMULATED, ids=lambda k: f"{k.signal}: {k.what}")
def test_a_corruption_of_the_simulation_is_found(corruption: Corruption) -> None:
    check(simulated, corruption)


@pytest.mark.parametrize("split", [False, True], ids=["a channel is the target", "two channels add up to the target"])
@pytest.mark.parametrize(("source", "target"), [("calcium", "behaviour"), ("eeg", "behaviour"), ("eeg", "gaze")])
def test_an_input_that_holds_its_target_blocks(source: str, target: str, split: bool) -> None:
    recording, _ = simulated()
    check(simulated, Corruption("a leak", source, c.leaked(recording.signals[target], split), "no_input_gives_the_target_away"))


def longer(recording: Recording) -> Intervals:
    sound = c.trials(recording, c.shuffled())
    end = sound.end.copy()
    end[0] += 2 * recording.duration
    return Intervals(sound.start, end, sound.labels)


def halves(recording: Recording) -> Intervals:
    start, end = recording.bounds
    return Intervals(np.array([start, (start + end) / 2]), np.array([(start + end) / 2, end]), ("before", "seizure"))


#: Wrong intervals, and the check that finds them.
INTERVALS: dict[str, tuple[Callable[[Recording], Intervals], str]] = {
    "in milliseconds": (lambda r: c.trials(r, c.shuffled(), unit_s=1e-3), "intervals_share_the_clock"),
    "on another clock": (lambda r: c.trials(r, c.shuffled(), shift_s=2 * r.duration), "intervals_share_the_clock"),
    "late by a tenth": (lambda r: c.trials(r, c.shuffled(), shift_s=0.1 * r.duration), "intervals_lie_inside"),
    "longer than the recording": (longer, "intervals_lie_inside"),
    "sorted by label": (lambda r: c.trials(r, sorted(c.shuffled())), "labels_are_mixed"),
    "in blocks of ten": (lambda r: c.trials(r, [label for label in "abcabc" for _ in range(10)]), "labels_are_mixed"),
    "one state after another": (halves, "labels_are_mixed"),
}
#: Intervals that are as they should be.
SOUND: dict[str, Callable[[Recording], Intervals]] = {
    "labels in random order": lambda r: c.trials(r, c.shuffled()),
    "labels that alternate": lambda r: c.trials(r, ["rest", "move"] * 30),
    "each category once": lambda r: c.trials(r, list("abcdefgh")),
    "sweeps that are counted": lambda r: c.trials(r, ["sweep 1", "sweep 2"]),
    "words": lambda r: c.trials(r, [f"word{k % 50}" for k in range(400)]),
    "no labels": lambda r: c.trials(r, []),
}


@pytest.mark.parametrize("what", INTERVALS)
def test_wrong_intervals_are_found(what: str) -> None:
    recording, card = simulated()
    make, name = INTERVALS[what]
    after = failed(c.with_intervals(recording, make(recording)), card)
    assert name in after
    assert set(after) - {name} <= ALSO
    assert after[name].note.startswith(f"{recording.id}/trials ")


@pytest.mark.parametrize("what", SOUND)
def test_sound_intervals_raise_no_alarm(what: str) -> None:
    recording, card = simulated()
    assert failed(c.with_intervals(recording, SOUND[what](recording)), card) == {}


# ---------------------------------------------------------------- real recordings
@functools.cache
def real(name: str) -> Callable[[], Clean]:
    """The first recording of a real dataset."""

    @functools.cache
    def read() -> Clean:
        card = datasets()[name]
        if not is_here(card):
            pytest.skip(f"the files of {name} are not under NEUROFM_DATA")
        (recording,) = READERS[card.reader](dataclasses.replace(card, recordings=find_recordings(card)[:1]))
        return recording, card

    return read


#: Dataset -> what is injected into its first recording.
REAL = {
    "uci_eeg": [
        *c.electric("eeg"),
        *c.sensors("eeg"),
        Corruption("an electrode off the head", "eeg", c.white(4, 1.0), "no_channel_is_alone"),
    ],
    "stn_ecog_pyneuromodulation": [
        *c.electric("ecog"),
        Corruption("units off by a million", "lfp", c.scaled(1e6), "amplitudes_are_plausible"),
    ],
    "abide_olin": c.scans("bold"),
    "alice_listening": [
        Corruption("motion of volumes that were thrown away", "motion", c.stated(t0=0.0), "rows_agree"),
        Corruption("a head that moves", "motion", c.values(c.restless), "head_motion_is_low"),
    ],
    "rat_ca1_track": [*c.trains("spikes"), *c.clocks("position")],
    "rat_ca1_openfield": [*c.counts("counts"), *c.behaviours("position")],
    "worm_swf415": c.behaviours("behaviour"),
    "mit_bih_100": [Corruption("a heart at ten times its rate", "ecg", c.rate(10), "heart_rate_is_plausible")],
}
needs_data = pytest.mark.skipif("NEUROFM_DATA" not in os.environ, reason="NEUROFM_DATA does not name the real recordings")


@needs_data
@pytest.mark.parametrize(("name", "corruption"), [pytest.param(n, k, id=f"{n} {k.what}") for n, ks in REAL.items() for k in ks])
def test_a_corruption_of_a_real_recording_is_found(name: str, corruption: Corruption) -> None:
    check(real(name), corruption)


def test_there_are_more_than_forty_ways_and_every_claim_has_one() -> None:
    injected = {k.check for k in SIMULATED} | {name for _, name in INTERVALS.values()} | {"no_input_gives_the_target_away"}
    # What is recorded twice and wrong tables have tests of their own.
    elsewhere = {"no_recording_is_repeated", "no_person_is_repeated", "table_is_valid"}
    assert injected == set(JOBS["assess_quality"].checks) - elsewhere
    assert len({(k.what, k.check) for k in SIMULATED}) + len(INTERVALS) > 40
