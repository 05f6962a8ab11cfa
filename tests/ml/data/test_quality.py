"""Quality: numbers are what they say, long signals cost no memory, clean sets raise no alarm, known traps are named."""

import dataclasses
import functools
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import corruptions as c
import numpy as np
import pandas as pd
import pytest

from neurofm_ml.config import to_dict
from neurofm_ml.data.duplicates import find_repeats
from neurofm_ml.data.quality import as_table, assess, judge, measure, measure_series
from neurofm_ml.data.quality.channels import odd_channels
from neurofm_ml.data.quality.clocks import label_order
from neurofm_ml.data.quality.fmri import dvars, framewise_displacement, motion_numbers
from neurofm_ml.data.quality.hearts import beats_per_minute
from neurofm_ml.data.quality.pieces import PIECE_VALUES, excerpt, pieces
from neurofm_ml.data.quality.spectra import spectral_numbers, spectrum
from neurofm_ml.data.quality.spikes import overlap, resolution
from neurofm_ml.data.quality.values import edge_numbers, range_of
from neurofm_ml.data.readers import READERS, read
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.simulate import simulate
from neurofm_ml.jobs import JOBS
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, datasets
from neurofm_ml.knowledge.files import find_recordings, is_here
from neurofm_ml.presets import QualityConfig
from neurofm_ml.types import Check, Recording, Signal, SpikeTrain, Subject

RNG = np.random.default_rng


# ---------------------------------------------------------------- numbers
def test_rates_and_refractory_periods() -> None:
    times = np.array([0.0, 0.0005, 0.50013, 1.00017, 2.0])
    train = measure_series(SpikeTrain(times, np.array([0, 0, 1, 0, 1]), ("a", "b", "c")))
    assert (train["rate_min_hz"], train["rate_median_hz"], train["rate_max_hz"]) == (0, 1.0, 1.5)
    assert (train["silent"], train["silent_names"]) == (1, "c")
    assert train["refractory"] == pytest.approx(1 / 3)


def test_missing_and_flat_channels_have_names() -> None:
    values = np.stack([np.arange(10.0), np.zeros(10), np.full(10, 3.0), np.full(10, np.nan)], axis=1)
    row = measure_series(Signal(values, 1.0, "pose", ch_names=("moves", "zero", "three", "none")))
    assert (row["missing"], row["flat"], row["zero"], row["flat_share"]) == (0.25, 3, 1, 0.75)
    assert row["flat_names"] == "zero three none"


def test_amplitude_and_noise() -> None:
    white = measure_series(Signal(5e-6 * RNG(0).normal(size=(20_000, 2)), 100.0, "eeg", unit="V"))
    assert white["amplitude"] == pytest.approx(5e-6, rel=0.03)
    assert white["noise"] == pytest.approx(1.0, rel=0.03)
    assert measure_series(Signal(np.sin(np.arange(20_000.0) / 100)[:, None], 100.0, "eeg"))["noise"] < 0.02


def test_the_spectrum_is_welchs() -> None:
    from scipy.signal import welch

    values = RNG(0).normal(size=(5000, 3))
    freqs, power = spectrum([values], 100.0)
    theirs, density = welch(values, 100.0, np.hanning(200), noverlap=100, axis=0, scaling="density")
    np.testing.assert_allclose(freqs, theirs)
    np.testing.assert_allclose(power[1:-1] / power[20], density[1:-1] / density[20], rtol=1e-9)


@pytest.mark.parametrize("sfreq", [250.0, 1000.0])
def test_the_share_of_the_mains(sfreq: float) -> None:
    """A sine of amplitude a has a^2 / 2 of the power beside noise of variance 1."""
    t, noise = np.arange(round(60 * sfreq)) / sfreq, RNG(0).normal(size=(round(60 * sfreq), 2))
    noise[:, 1] += 2 * np.sin(2 * np.pi * 50 * t) + np.sin(2 * np.pi * 100 * t)
    numbers = spectral_numbers([noise], sfreq)
    assert numbers["line_share"] == pytest.approx(2.5 / 3.5, abs=0.01)
    assert numbers["line_off_hz"] == pytest.approx(0.0, abs=0.02)
    assert numbers["band"] > 0.99


def test_a_comb_of_lines_is_no_mains() -> None:
    t, noise = np.arange(30_000) / 500, RNG(0).normal(size=(30_000, 1))
    comb = noise + sum(3 * np.sin(2 * np.pi * f * t) for f in range(5, 250, 10))[:, None]
    assert np.isnan(spectral_numbers([comb], 500.0)["line_off_hz"])


def test_the_last_values_are_clipped_and_placeholders_are_lonely() -> None:
    values = RNG(0).normal(size=(1000, 3))
    values[100:120, 0] = values[:, 0].max()  # stuck at its own highest value, the sample itself elsewhere
    values[[5, 500, 900], 1] = -9999
    numbers = edge_numbers(values, range_of(values))
    assert numbers["clipped"] == 0.02
    assert numbers["placeholder"] == 0.003
    codes = np.repeat([[0.0], [1.0], [10.0]], 100, axis=0)
    assert edge_numbers(codes, range_of(codes))["placeholder"] == 0


def test_odd_channels_among_sensors() -> None:
    field = RNG(0).normal(size=(4000, 2)) @ RNG(1).normal(size=(2, 12)) + 0.3 * RNG(2).normal(size=(4000, 12))
    field[:, 3] = 100 * RNG(3).normal(size=4000)
    field[:, 5] = RNG(4).normal(size=4000)
    field[:, 7] = 5 - 0.1 * field[:, 6]
    field[:, 9] *= 100  # large, but it sees the field
    odd = odd_channels([field], sensors=True)
    assert {what: np.flatnonzero(which).tolist() for what, which in odd.items()} == {"repeated": [7], "noisy": [3], "lone": [3, 5]}


def test_framewise_displacement_is_powers() -> None:
    """One millimetre along x, then 0.02 rad about y: 1 mm, and 50 mm times 0.02."""
    translation, rotation = np.zeros((3, 3)), np.zeros((3, 3))
    translation[1:, 0] = 1.0
    rotation[2:, 1] = 0.02
    np.testing.assert_allclose(framewise_displacement(translation, rotation), [1.0, 1.0])
    names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    motion = Signal(np.concatenate([translation, rotation], axis=1), 0.5, "physio", ch_names=names, unit="mm, rad")
    assert motion_numbers(motion)["motion_mm"] == pytest.approx(1.0)
    afni = dataclasses.replace(
        motion,
        values=np.concatenate([np.rad2deg(rotation), translation], axis=1),
        ch_names=("roll", "pitch", "yaw", "dS", "dL", "dP"),
        unit="deg, mm",
    )
    assert motion_numbers(afni)["motion_mm"] == pytest.approx(1.0)
    assert motion_numbers(dataclasses.replace(motion, unit="")) == {}


def test_dvars_of_steps() -> None:
    values = np.zeros((6, 4))
    values[3:] = [1, 1, -1, 1]
    np.testing.assert_allclose(dvars(values), [0, 0, 2, 0, 0])  # the deviation of each parcel is 1/2


@pytest.mark.parametrize("bpm", [45.0, 72.0, 180.0])
@pytest.mark.parametrize("sfreq", [100.0, 1000.0])
def test_beats_per_minute(bpm: float, sfreq: float) -> None:
    t = np.arange(round(60 * sfreq)) / sfreq
    wave = np.exp(-0.5 * (((t * bpm / 60) % 1 - 0.5) / 0.02) ** 2)
    assert beats_per_minute(wave + 0.02 * RNG(0).normal(size=len(t)), sfreq) == pytest.approx(bpm, rel=0.03)


@pytest.mark.parametrize(("width", "hz"), [(1, 1.0), (2, 5.0), (7, 0.3), (8, 20.0), (20, 1.0)])
def test_overlap_of_counts_is_found_exactly(width: int, hz: float) -> None:
    fine = RNG(0).poisson(hz * np.exp(np.sin(np.arange(3000) / 40))[:, None] * np.ones(5))
    sums = np.lib.stride_tricks.sliding_window_view(fine, width, axis=0).sum(axis=-1)
    assert overlap(sums) == width


def test_joints_of_trials_do_not_hide_an_overlap() -> None:
    sums = [np.lib.stride_tricks.sliding_window_view(RNG(k).poisson(1.0, (400, 5)), 6, axis=0).sum(axis=-1) for k in range(6)]
    assert overlap(np.concatenate(sums)) in (1, 6)
    assert overlap(np.concatenate([s[:256] for s in sums])) == 6


def test_theta_modulated_counts_do_not_overlap() -> None:
    rate = 2 * (1 + 0.9 * np.sin(2 * np.pi * 8 * np.arange(20_000) * 0.02))
    assert overlap(RNG(0).poisson(np.stack([rate, rate[::-1]], axis=1))) == 1


@pytest.mark.parametrize("step", [0.1, 0.01, 0.001])
def test_resolution_of_spike_times(step: float) -> None:
    times = np.sort(RNG(0).uniform(0, 500, 3000))
    assert resolution(np.round(times / step) * step) == step
    assert resolution(times) == 0
    assert resolution(np.round(times * 30_000) / 30_000) == 0


def test_label_order_is_a_kappa() -> None:
    assert label_order(tuple("ab" * 20)) == 0
    assert label_order(tuple("a" * 20 + "b" * 20)) == pytest.approx((38 / 39 - 0.5) / 0.5)
    assert np.isnan(label_order(tuple("ab" * 5)))
    many = [label_order(tuple(RNG(k).permutation(list("abc" * 20)))) for k in range(200)]
    assert max(many) < 0.3


def test_long_signals_are_looked_at_in_pieces(tmp_path: Path) -> None:
    """A signal of 64 MB is judged, to its last sample, with less than its size as float64 in memory."""
    shape = (4_000_000, 4)
    file = np.lib.format.open_memmap(tmp_path / "long.npy", mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, shape[0], 500_000):
        file[start : start + 500_000] = RNG(start).normal(size=(500_000, 4))
    file[-1, 2] = np.nan
    values = np.load(tmp_path / "long.npy", mmap_mode="r")
    assert sum(len(piece) for piece in pieces(values)) == shape[0]
    assert sum(part.size for part in excerpt(values, np.arange(4))) <= PIECE_VALUES
    tracemalloc.start()
    row = measure_series(Signal(values, 1000.0, "lfp", unit="uV"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row["missing"] == 1 / values.size
    assert row["amplitude"] == pytest.approx(1.0, rel=0.01)
    assert peak < 3 * 8 * PIECE_VALUES * 2


# ---------------------------------------------------------------- the job
def test_the_job_writes_a_table_a_text_and_a_picture(tmp_path: Path) -> None:
    card = datasets()["simulation"]
    card = dataclasses.replace(card, recordings=card.recordings[:2])
    first, second = simulate(card, 30.0)
    bad = c.corrupted(second, c.Corruption("an empty parcel", "fmri", c.put(slice(None), 3, 0.0), "no_channel_is_flat"))
    source, out = tmp_path / "recordings", tmp_path / "quality"
    out.mkdir()
    for recording in (first, bad):
        save_recording(recording, source / "recordings")
    (source / "card.json").write_text(json.dumps(to_dict(card)))
    report = assess(QualityConfig(dataset=card.name), source, out)
    table = pd.read_parquet(out / "quality.parquet")
    assert list(table.signal) == 2 * list(first.signals)
    assert {check.name: check.severity for check in report.checks} == dict(JOBS["assess_quality"].checks)
    assert [check.name for check in report.checks if not check.passed] == ["no_channel_is_flat"]
    text = (out / report.shown["report"]).read_text()
    assert f"{len(report.checks) - 1} of {len(report.checks)} checks pass." in text
    assert "| no_channel_is_flat | warns | sub1_ses2/fmri 1 (parcel03) | flat channels <= 0 | ignore or drop them |" in text
    assert "| eeg | eeg | 2 |" in text
    assert (out / report.shown["quality"]).read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------- real sets
needs_data = pytest.mark.skipif("NEUROFM_DATA" not in os.environ, reason="NEUROFM_DATA does not name the real recordings")

#: What the real sets deserve, and why. Everything else passes every check.
KNOWN = {
    # Parcels that a person's scan does not reach are zero.
    **{name: {"no_channel_is_flat"} for name in ("abide_nyu", "abide_pitt", "abide_sdsu")},
    # One scan stands under two people, a control of twelve and a boy with autism of ten.
    "abide_yale": {"no_channel_is_flat"},
    # The converter of ten bits is at its lowest value for two per cent of the time.
    "biosppy_eeg_eyes": {"nothing_is_clipped"},
    # 60 Hz is more than nine tenths of one electrode.
    "eeg_muse_p300": {"mains_are_quiet"},
    # One half is before, the other during the seizure.
    "eeg_seizure_scalp8": {"labels_are_mixed"},
    "ieeg_seizure_pt01": {"labels_are_mixed"},
    # The recording pauses between trials, and was announced minutes before it began.
    "eyelink_saccades": {"no_long_gaps", "intervals_lie_inside"},
    # MEG 2443 is the bad channel of MNE's sample.
    "meg_evoked_sample": {"no_channel_is_noisy"},
    "meg_kit_sample": {"mains_are_quiet"},
    # Rows count eight finer bins and move on by one.
    "monkey_m1_chewie": {"counts_do_not_overlap"},
    # The eye tracker says -354.5 where it lost the eye.
    "monkey_mcmaze_hisde": {"no_value_stands_for_missing"},
    # Trials of ex2 are sorted by condition.
    "monkey_reach_datahigh": {"labels_are_mixed"},
    # The eye is lost for up to a third of the time.
    "pupillometry_arithmetic": {"behaviour_is_complete"},
    # Clusters of tetrode 10 were cut twice (the same spikes are in two units), and a unit is silent in both runs.
    "rat_ca1_track": {"no_channel_is_repeated", "units_fire"},
    # Windows of 1400 ms every 200 ms.
    "rat_ca1_track_ratgps": {"counts_do_not_overlap"},
    # Times were written with five digits: after a thousand seconds they are tenths.
    "retinal_waves": {"spike_times_are_precise"},
    # FP1 of one person is mostly mains.
    "uci_eeg": {"no_channel_is_noisy", "mains_are_quiet"},
    # The last eight seconds are zeros.
    "yasa_rest": {"nothing_is_frozen"},
}


def few(card: DatasetCard) -> tuple[RecordingSpec, ...]:
    """Five recordings or so, and those that are known for something."""
    specs = find_recordings(card)
    known = ("0050209", "0050578", "0050602", "0050605", "0050045", "0051062", "6", "co2a0000371")
    return tuple(s for k, s in enumerate(specs) if k % max(len(specs) // 5, 1) == 0 or s.id in known)


def checked(card: DatasetCard, recordings: list[Recording]) -> dict[str, Check]:
    table = as_table([row for recording in recordings for row in measure(recording, card)])
    checks = judge(table, QualityConfig(dataset=card.name), card, find_repeats(recordings))
    return {check.name: check for check in checks if not check.passed}


def quality_of(card: DatasetCard) -> dict[str, Check]:
    if not is_here(card):
        pytest.skip(f"the files of {card.name} are not under NEUROFM_DATA")
    return checked(card, list(READERS[card.reader](card)))


#: Those that nothing is known of take a minute together.
SETS = [pytest.param(n, marks=() if n in KNOWN else pytest.mark.slow) for n in datasets() if not n.startswith("simulation")]


@needs_data
@pytest.mark.parametrize("name", SETS)
def test_real_sets_raise_no_false_alarm_and_every_known_one(name: str) -> None:
    card = datasets()[name]
    if is_here(card):
        card = dataclasses.replace(card, recordings=few(card))
    assert set(quality_of(card)) == KNOWN.get(name, set())


def altered(name: str, **fields: object) -> DatasetCard:
    return dataclasses.replace(datasets()[name], **fields)  # type: ignore[arg-type]


def signal(name: str, of: str, **fields: object) -> dict[str, object]:
    """Signals of a card with fields of one changed."""
    signals = datasets()[name].signals
    return {**signals, of: dataclasses.replace(signals[of], **fields)}  # type: ignore[arg-type]


@functools.cache
def traps() -> dict[str, tuple[DatasetCard, str, str]]:
    """Trap -> the card that does not know of it, the check that does, what its note says."""
    alice = (RecordingSpec(id="s33", subject=Subject("s33")),)
    return {
        "all-zero parcels": (
            altered("abide_sdsu", recordings=(RecordingSpec(id="0050209"),)), "no_channel_is_flat", "0050209/bold 27 ",
        ),
        "a subject of zeros": (altered("alice_listening", recordings=alice), "channels_vary", "s33/bold 1"),
        "372 against 362 rows": (
            altered("alice_listening", recordings=(RecordingSpec(id="s18"),), signals=signal("alice_listening", "motion", t0=0.0)),
            "rows_agree", "s18/motion 0.02",
        ),
        "units off by a million": (
            altered("stn_ecog_pyneuromodulation", signals=signal("stn_ecog_pyneuromodulation", "ecog", scale=1.0)),
            "amplitudes_are_plausible", "testsub/ecog 3.",
        ),
        "a repetition time in milliseconds": (
            altered("abide_olin", recordings=(RecordingSpec(id="0050102"),), signals=signal("abide_olin", "bold", sfreq=1 / 1500)),
            "sampling_rates_fit", "0050102/bold 2.",
        ),
        "overlapping windows": (altered("rat_ca1_track_ratgps"), "counts_do_not_overlap", "R2192/counts 7, R2217/counts 7"),
        "blocks that share spikes": (
            altered("rat_ca1_track_ratgps", signals=signal("rat_ca1_track_ratgps", "counts", bin_s=None),
                    split=dataclasses.replace(datasets()["rat_ca1_track_ratgps"].split, gap_s=1.0)),
            "gap_covers_the_overlap", "R2192/counts 0.2",
        ),
        "trials sorted by condition": (altered("monkey_reach_datahigh"), "labels_are_mixed", "ex2/trials 0.98"),
        "stimuli in blocks": (
            altered("mouse_2p_biane", recordings=(RecordingSpec(id="day1", values={"day": "day1"}),)), "labels_are_mixed", "day1/trials 0.6",
        ),
        "a scan under two people": (
            altered("abide_yale", leave_out={}, recordings=(RecordingSpec(id="0050578"), RecordingSpec(id="0050602"))),
            "no_recording_is_repeated", "0050578 and 0050602: copies (r = 0.9",
        ),
    }  # fmt: skip


@needs_data
@pytest.mark.parametrize("trap", traps())
def test_a_known_trap_is_named(trap: str) -> None:
    card, name, note = traps()[trap]
    found = quality_of(card)
    assert name in found
    assert found[name].note.startswith(note)


@needs_data
def test_an_age_of_minus_9999_is_no_valid_row() -> None:
    from neurofm_ml.data.ingest import _row
    from neurofm_ml.data.schemas import RECORDINGS, validate

    card = datasets()["abide_nyu"]
    assert card.subjects is not None
    unaware = dataclasses.replace(card, subjects=dataclasses.replace(card.subjects, fields={"age": "BMI"}, missing=("",)))
    found = validate(pd.DataFrame([_row(r) for r in rows(unaware)]).drop(columns="channels"), RECORDINGS)
    assert not found.passed
    assert "age: column_values_to_be_between" in found.note
    assert "-9999" in found.note


def rows(card: DatasetCard) -> Iterator[Recording]:
    yield from READERS[card.reader](dataclasses.replace(card, recordings=find_recordings(card)[:40]))


@needs_data
def test_what_readers_refuse_is_named_by_them() -> None:
    """The malformed line, the map of NaN, five dimensions: their readers say so (see their tests)."""
    root = Path(os.environ["NEUROFM_DATA"])
    with pytest.raises(ValueError, match=r"2.txt.*line \d+"):
        read(root / "ephys/emg/myo_readings_8ch/_readings_right_hand/19999-2/2.txt", datasets()["myo_gestures"].signals["emg"])
