"""Repeats: planted copies of every kind are found, siblings that share their making are not."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import pytest

from neurofm_ml.data.duplicates import MARGIN, Repeat, find_repeats
from neurofm_ml.data.readers import READERS
from neurofm_ml.data.simulate import simulate
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.files import find_recordings, is_here
from neurofm_ml.types import Recording, Series, Signal, SpikeTrain, Subject

RNG = np.random.default_rng
Change = Callable[[Series], Series]


def values(change: Callable[[np.ndarray], np.ndarray], **fields: object) -> Change:
    """`change` done to the values of a signal."""

    def corrupt(series: Series) -> Series:
        assert isinstance(series, Signal)
        return dataclasses.replace(series, values=change(np.asarray(series.values, np.float64)).astype(np.float32), **fields)  # type: ignore[arg-type]

    return corrupt


def recording(name: str, series: Series, subject: str = "") -> Recording:
    return Recording(name, "toy", Subject(subject or name), name, "none", "none", {"x": series})


def eeg(seed: int, seconds: float = 60.0, sfreq: float = 250.0, n_chans: int = 16) -> Signal:
    """Noise that falls with frequency, mixed to the electrodes in the same way for everyone."""
    n = round(seconds * sfreq)
    spectrum = np.fft.rfft(RNG(seed).normal(size=(n, 8)), axis=0) / np.maximum(np.fft.rfftfreq(n, 1 / sfreq), 0.5)[:, None]
    return Signal((np.fft.irfft(spectrum, n, axis=0) @ RNG(0).normal(size=(8, n_chans))).astype(np.float32), sfreq, "eeg")


def scan(person: int, seed: int, n: int = 200, regions: int = 60) -> Signal:
    """Region series with a covariance that a person has for life, on top of everyone's."""
    everyone, own = RNG(0).normal(size=(10, regions)), RNG(1000 + person).normal(size=(10, regions))
    rng = RNG(seed)
    smooth = [np.stack([np.convolve(x, np.hanning(5), "same") for x in rng.normal(size=(10, n))], axis=1) for _ in range(2)]
    return Signal((smooth[0] @ everyone + 0.7 * smooth[1] @ own + rng.normal(size=(n, regions))).astype(np.float32), 0.5, "fmri")


def train(seed: int, seconds: float = 300.0) -> SpikeTrain:
    rng = RNG(seed)
    units = np.sort(rng.integers(0, 12, rng.poisson(12 * 5 * seconds)))
    times = rng.uniform(0, seconds, len(units))
    order = np.argsort(times)
    return SpikeTrain(times[order], units[order].astype(np.int32), tuple(map(str, range(12))))


def downsampled(sfreq: float) -> Change:
    from scipy.signal import resample

    return lambda s: values(lambda v: resample(v, round(len(v) * sfreq / s.sfreq)), sfreq=sfreq)(s) if isinstance(s, Signal) else s


def low_passed(v: np.ndarray) -> np.ndarray:
    from scipy.signal import butter, sosfiltfilt

    return sosfiltfilt(butter(4, 0.1, output="sos"), v, axis=0)


def noisy(share: float, seed: int = 9) -> Change:
    return values(lambda v: v + share * v.std(axis=0) * RNG(seed).normal(size=v.shape))


def thinned(series: Series) -> Series:
    """One spike in five is lost."""
    assert isinstance(series, SpikeTrain)
    keep = RNG(4).uniform(size=len(series.times)) < 0.8
    return SpikeTrain(series.times[keep], series.unit_index[keep], series.unit_ids)


#: How a copy was made, and how it is found: resampled slow waves keep their turning points, so either will do.
COPIES: dict[str, tuple[str, Change, str]] = {
    "eeg, the same file twice": ("eeg", lambda s: s, "stretch"),
    "eeg, another gain and offset": ("eeg", values(lambda v: 0.02 * v + 3), "stretch"),
    "eeg, rounded": ("eeg", values(lambda v: np.round(v / v.std() * 500)), "stretch"),
    "eeg, its start cut off": ("eeg", values(lambda v: v[1777:]), "stretch"),
    "eeg, a part within another": ("eeg", values(lambda v: np.concatenate([np.asarray(eeg(50).values)[:4000], v[8000:12000]])), "stretch"),
    "eeg, low-passed": ("eeg", values(low_passed), "copy"),
    "eeg, at another rate": ("eeg", downsampled(200.0), "stretch copy"),
    "eeg, with noise": ("eeg", noisy(0.7), "copy"),
    "fmri, scaled": ("fmri", values(lambda v: v * 7 + 100), "stretch"),
    "fmri, its head only": ("fmri", values(lambda v: v[:110]), "stretch"),
    "fmri, resampled": ("fmri", downsampled(0.4), "copy"),
    "fmri, with noise": ("fmri", noisy(0.8), "copy"),
    "fmri, other voxels of the same head": ("fmri", values(lambda v: v + 0.5 * np.roll(v, 1, axis=1)), "copy"),
    "spikes, shifted": ("spikes", lambda s: dataclasses.replace(s, times=s.times + 1234.5) if isinstance(s, SpikeTrain) else s, "stretch"),
    "spikes, some lost": ("spikes", thinned, "copy"),
}
SEEDS: dict[str, Callable[[int], Series]] = {"eeg": eeg, "fmri": lambda k: scan(k, k), "spikes": train}


@pytest.mark.parametrize("what", COPIES)
def test_a_copy_among_strangers_is_found(what: str) -> None:
    kind, change, expected = COPIES[what]
    make = SEEDS[kind]
    others = [recording(f"r{k}", make(k)) for k in range(1, 6)]
    (found,) = find_repeats([*others, recording("copy", change(make(3)), "somebody")])
    assert found.kind in expected
    assert (found.a, found.b, set(found.subjects)) == ("r3", "copy", {"r3", "somebody"})


@pytest.mark.parametrize("kind", SEEDS)
def test_strangers_share_nothing(kind: str) -> None:
    assert find_repeats([recording(f"r{k}", SEEDS[kind](k)) for k in range(12)]) == []


def test_sessions_of_the_simulation_share_nothing() -> None:
    """Same units, same mixtures, another latent."""
    assert find_repeats(simulate(datasets()["simulation"], 60.0)) == []


def test_the_stretch_says_where_and_how_long() -> None:
    whole = eeg(1)
    part = values(lambda v: v[5000:10_000])(whole)
    (found,) = find_repeats([recording("whole", whole), recording("part", part)])
    assert found.kind == "stretch"
    assert found.lag_s == pytest.approx(-20.0, abs=1e-3)
    assert found.seconds == pytest.approx(20.0, abs=1.0)
    assert str(found) == f"whole and part: the same {found.seconds:.3g} s -20 s apart, of whole and part"


def test_what_was_shown_to_all_is_no_repeat() -> None:
    film = dataclasses.replace(eeg(1), modality="video")
    assert find_repeats([recording(f"r{k}", film) for k in range(3)]) == []


def test_a_person_scanned_twice_is_found_and_two_scans_of_one_subject_are_not() -> None:
    scans = [recording(f"s{k}", scan(k, k)) for k in range(15)]
    (found,) = find_repeats([*scans, recording("again", scan(4, 99), "other")])
    assert (found.kind, found.a, found.b) == ("person", "s4", "again")
    assert found.likeness >= MARGIN
    assert find_repeats([*scans, recording("again", scan(4, 99), "s4")]) == []


def test_few_people_have_no_mean_to_differ_from() -> None:
    assert find_repeats([recording(f"s{k}", scan(k % 3, k), f"p{k}") for k in range(5)]) == []


# ---------------------------------------------------------------- real scans
needs_data = pytest.mark.skipif("NEUROFM_DATA" not in os.environ, reason="NEUROFM_DATA does not name the real recordings")


def scans_of(*names: str) -> list[Recording]:
    cards = [dataclasses.replace(datasets()[name], leave_out={}) for name in names]
    if not all(map(is_here, cards)):
        pytest.skip("the scans are not under NEUROFM_DATA")
    return [found for card in cards for found in READERS[card.reader](card)]


@needs_data
@pytest.mark.slow
def test_abide_holds_one_scan_twice() -> None:
    """Yale 50578 (control, 12 years) and 50602 (autism, 10 years). The archive's own table agrees: theirs is the only pair
    whose quality measures of the scan (func_efc, func_mean_fd, ...) are equal to the last digit."""
    names = [name for name in datasets() if name.startswith("abide_")]
    (found,) = find_repeats(scans_of(*names))
    assert isinstance(found, Repeat)
    assert (found.kind, found.a, found.b, found.lag_s) == ("copy", "0050578", "0050602", 0.0)
    assert found.likeness == pytest.approx(0.95, abs=0.01)


@needs_data
def test_twins_at_the_same_film_are_no_repeats() -> None:
    assert find_repeats(scans_of("qtab_partlycloudy")) == []


@needs_data
def test_half_scans_of_one_person_are_told_from_strangers() -> None:
    """Halves of the scans of sixty people under false names: no strangers are taken for one person, most people are found."""
    card = datasets()["abide_nyu"]
    if not is_here(card):
        pytest.skip("the scans are not under NEUROFM_DATA")
    people = list(READERS[card.reader](dataclasses.replace(card, recordings=find_recordings(card)[:60])))
    halves = [
        dataclasses.replace(r.slice(*span), id=f"{r.id} {part}", subject=Subject(f"{r.id} {part}"))
        for r in people
        for part, span in (("a", (0, r.duration / 2)), ("b", (r.duration / 2, r.duration)))
    ]
    found = [r for r in find_repeats(halves) if r.kind == "person"]
    assert all(r.a.split()[0] == r.b.split()[0] for r in found)
    assert len(found) > 0.4 * len(people)
