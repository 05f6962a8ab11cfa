"""Simulated recordings with known truth: one latent trajectory seen by every modality at once.

A Lorenz system moves in three dimensions. Spikes are Poisson through an exponential link, calcium
is the decaying trace of such spikes, EEG is a mixture at the electrodes, fMRI its haemodynamic
response, EMG noise whose amplitude follows it, a task state the wing of the attractor it is on; fields,
stimuli and behaviour are mixtures of it. What is planted (latent, mixing, delay, signal to
noise) comes back from `simulate_truth`, so that tests can ask whether an analysis finds it.

The card says which signals there are and at which rates, and which recordings: sessions have
units of their own, subjects their own electrode mixture, parcels and readout. Same card, same bytes.

Shapes: T times, C channels; the latent has 3 columns.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec, SignalSpec
from neurofm_ml.knowledge.files import fill
from neurofm_ml.types import Array, Recording, Series, Signal, SpikeTrain, Subject

DURATION_S = 300.0
#: Rate of the latent and of everything before sampling, Hz.
FINE_HZ = 128.0
#: Seconds of latent before the recording starts, longer than any delay or response.
LEAD_S = 40.0
#: Lorenz time units per second: one loop takes about two seconds.
SPEED = 0.4
CALCIUM_DECAY_S = 0.5
CALCIUM_RATE_HZ = 2.0
EEG_MICROVOLTS = 10.0
HEAD_RADIUS_M = 0.095
UNITS = {"calcium": "dF/F", "eeg": "uV", "fmri": "au"}
#: 10-20 electrodes: inclination from the vertex and azimuth from the right ear, degrees.
ELECTRODES = {
    "Fp1": (90, 108), "Fp2": (90, 72), "F7": (90, 144), "F3": (60, 129), "Fz": (45, 90), "F4": (60, 51), "F8": (90, 36),
    "T7": (90, 180), "C3": (45, 180), "Cz": (0, 0), "C4": (45, 0), "T8": (90, 0),
    "P7": (90, 216), "P3": (60, 231), "Pz": (45, 270), "P4": (60, 309), "P8": (90, 324), "O1": (90, 252), "O2": (90, 288),
}  # fmt: skip
#: Standard deviation of a unit's log rate.
LOG_RATE_SD = 0.8


class View(NamedTuple):
    """How one modality sees the latent: channels, lag behind the latent in seconds, and the variance
    of the noiseless signal over the variance of the noise (for spikes: of the expected count in a
    grid bin over its mean, which is the Poisson variance)."""

    n_chans: int
    delay_s: float
    snr: float


VIEWS = {
    "spikes": View(40, 0.0, 0.4),
    "calcium": View(30, 0.0, 4.0),
    "eeg": View(19, 0.0625, 0.5),
    "fmri": View(50, 0.0, 2.0),
    "pose": View(2, 0.125, 20.0),
    "intracellular": View(1, 0.0, 10.0),
    "lfp": View(8, 0.0, 1.0),
    "ecog": View(16, 0.0625, 1.0),
    "ieeg": View(8, 0.0625, 1.0),
    "meg": View(16, 0.0625, 0.5),
    "emg": View(4, 0.0625, 0.2),
    "eye": View(2, 0.125, 20.0),
    "physio": View(1, 1.0, 10.0),
    "task": View(1, 0.0, np.inf),
    "video": View(16, 0.0, 50.0),
    "audio": View(16, 0.0, 50.0),
    "language": View(3, 0.0, 50.0),
}


class Mixture(NamedTuple):
    """A modality that is a plain mixture of the latent: what its channels are called, how large it is, in what unit."""

    prefix: str
    scale: float
    unit: str


MIXTURES = {
    "pose": Mixture("", 5.0, "cm"),
    "eye": Mixture("", 5.0, "deg"),
    "intracellular": Mixture("cell", 5.0, "mV"),
    "lfp": Mixture("lfp", 50.0, "uV"),
    "ecog": Mixture("grid", 100.0, "uV"),
    "ieeg": Mixture("depth", 100.0, "uV"),
    "meg": Mixture("MEG", 1e-13, "T"),
    "physio": Mixture("skin", 1.0, "uS"),
    "video": Mixture("patch", 1.0, "au"),
    "audio": Mixture("band", 1.0, "au"),
    "language": Mixture("feature", 1.0, "au"),
}


@dataclass(frozen=True, eq=False)
class Planted:
    """What one signal was made of: mixing (C, 3), the noiseless signal (T, C), its view.

    For spikes the noiseless signal is the rate in Hz at FINE_HZ; for the others it stands on the
    signal's own samples.
    """

    mixing: Array
    noiseless: Array
    view: View


@dataclass(frozen=True, eq=False)
class Truth:
    """Latent (T, 3), standardised, at FINE_HZ from the start of the recording, and what was planted per signal."""

    latent: Array
    planted: dict[str, Planted]


def simulate(card: DatasetCard, duration_s: float = DURATION_S) -> list[Recording]:
    """The recordings of a simulation card."""
    return [recording for recording, _ in simulate_truth(card, duration_s)]


def simulate_truth(card: DatasetCard, duration_s: float = DURATION_S) -> list[tuple[Recording, Truth]]:
    """The recordings of a simulation card, each with what was planted in it."""
    return [_simulate_one(card, spec, duration_s) for spec in card.recordings]


def _simulate_one(card: DatasetCard, spec: RecordingSpec, duration_s: float) -> tuple[Recording, Truth]:
    session, subject = fill(card.session, spec), spec.subject or Subject(spec.id)
    latent = Latent(lorenz(_rng(card, "latent", spec.id), round((LEAD_S + duration_s) * FINE_HZ)), duration_s)
    signals: dict[str, Series] = {}
    planted = {}
    for name, signal in card.measured.items():
        if signal.modality not in VIEWS:
            raise ValueError(f"card {card.name!r}: {signal.modality!r} of signal {name!r} is not simulated; allowed: {', '.join(VIEWS)}.")
        owner = session if signal.modality in ("spikes", "calcium") else subject.id
        scene = Scene(card, signal, VIEWS[signal.modality], latent, _rng(card, name, owner), _rng(card, f"{name} noise", spec.id))
        signals[name], planted[name] = _SEEN[signal.modality](scene)
    recording = Recording(
        id=spec.id,
        dataset=card.name,
        subject=subject,
        session=session,
        species=card.species,
        licence=card.licence,
        signals=signals,
        span=(0.0, duration_s),
        history=(f"simulate({duration_s:g} s, seed {card.split.seed})",),
    )
    return recording, Truth(latent.fine[latent.lead :], planted)


def _rng(card: DatasetCard, what: str, owner: str) -> np.random.Generator:
    """One stream per thing and owner: changing one signal leaves the others as they were."""
    digest = hashlib.sha256(f"{card.name}/{card.split.seed}/{what}/{owner}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


# ---------------------------------------------------------------- the latent
def lorenz(rng: np.random.Generator, n_times: int) -> Array:
    """(n_times, 3) standardised Lorenz trajectory at FINE_HZ (sigma 10, rho 28, beta 8/3; Runge-Kutta 4)."""
    dt = SPEED / FINE_HZ
    burn_in = round(20 / dt)
    x, y, z = (float(v) for v in rng.normal((1.0, 1.0, 25.0), 1.0))
    path = np.empty((n_times, 3))
    for k in range(burn_in + n_times):
        x, y, z = _step(x, y, z, dt)
        if k >= burn_in:
            path[k - burn_in] = x, y, z
    return (path - path.mean(0)) / path.std(0)


def _step(x: float, y: float, z: float, dt: float) -> tuple[float, float, float]:
    ax, ay, az = _velocity(x, y, z)
    bx, by, bz = _velocity(x + dt / 2 * ax, y + dt / 2 * ay, z + dt / 2 * az)
    cx, cy, cz = _velocity(x + dt / 2 * bx, y + dt / 2 * by, z + dt / 2 * bz)
    dx, dy, dz = _velocity(x + dt * cx, y + dt * cy, z + dt * cz)
    s = dt / 6
    return x + s * (ax + 2 * bx + 2 * cx + dx), y + s * (ay + 2 * by + 2 * cy + dy), z + s * (az + 2 * bz + 2 * cz + dz)


def _velocity(x: float, y: float, z: float) -> tuple[float, float, float]:
    return 10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z


@dataclass(frozen=True, eq=False)
class Latent:
    """The latent at FINE_HZ with its lead-in: `fine[lead]` is the start of the recording."""

    fine: Array
    duration_s: float

    @property
    def lead(self) -> int:
        return len(self.fine) - round(self.duration_s * FINE_HZ)

    def at(self, times: Array, fine: Array) -> Array:
        """(len(times), C) rows of a fine series (T, C), linearly interpolated at `times` in seconds."""
        clock = (np.arange(len(fine)) - self.lead) / FINE_HZ
        return np.stack([np.interp(times, clock, column) for column in fine.T], axis=1)


# ---------------------------------------------------------------- the views
@dataclass(frozen=True, eq=False)
class Scene:
    """What a view needs: `owner` draws what stays the same for a session or subject, `noise` what is new each time."""

    card: DatasetCard
    signal: SignalSpec
    view: View
    latent: Latent
    owner: np.random.Generator
    noise: np.random.Generator

    @property
    def sfreq(self) -> float:
        if self.signal.sfreq is None:
            raise ValueError(f"card {self.card.name!r}: a simulated {self.signal.modality} signal needs sfreq.")
        return self.signal.sfreq

    def times(self) -> Array:
        return np.arange(round(self.latent.duration_s * self.sfreq)) / self.sfreq

    def directions(self) -> Array:
        """(C, 3) unit vectors."""
        mixing = self.owner.normal(size=(self.view.n_chans, 3))
        return mixing / np.linalg.norm(mixing, axis=1, keepdims=True)

    def noisy(self, noiseless: Array) -> Array:
        """With Gaussian noise at the view's signal to noise."""
        sd = noiseless.std(0) / np.sqrt(self.view.snr)
        return (noiseless + sd * self.noise.normal(size=noiseless.shape)).astype(np.float32)

    def modulation(self, mixing: Array) -> Array:
        """(T, C) firing relative to its mean, at FINE_HZ, lead-in included: the exponential of a mixture of the latent."""
        delayed = np.roll(self.latent.fine, round(self.view.delay_s * FINE_HZ), axis=0)
        factor = np.exp(LOG_RATE_SD * delayed @ mixing.T)
        return factor / factor[self.latent.lead :].mean(0)


def _see_spikes(scene: Scene) -> tuple[Series, Planted]:
    mixing = scene.directions()
    modulation = scene.modulation(mixing)[scene.latent.lead :]
    # With rate r * m, a bin of 1 / hz seconds has variance (r / hz)^2 var(m) over mean r / hz.
    rates = modulation * scene.view.snr * scene.card.grid_hz / modulation.var(0)
    counts = scene.noise.poisson(rates / FINE_HZ)
    bins, units = (np.repeat(index, counts[counts > 0]) for index in np.nonzero(counts))
    times = (bins + scene.noise.uniform(size=len(bins))) / FINE_HZ
    order = np.argsort(times, kind="stable")
    return SpikeTrain(times[order], units[order].astype(np.int32), _names("u", len(mixing))), Planted(mixing, rates, scene.view)


def _see_calcium(scene: Scene) -> tuple[Series, Planted]:
    """Indicator of spikes at CALCIUM_RATE_HZ on average: each jumps by one and decays."""
    from scipy.signal import lfilter

    mixing = scene.directions()
    spikes = scene.noise.poisson(scene.modulation(mixing) * CALCIUM_RATE_HZ / FINE_HZ)
    trace = lfilter([1.0], [1.0, -np.exp(-1 / (CALCIUM_DECAY_S * FINE_HZ))], spikes, axis=0)
    return _sampled(scene, mixing, trace, 0.0, _names("cell", len(mixing)))


def _see_eeg(scene: Scene) -> tuple[Series, Planted]:
    """Three sources at random places of the upper head, each seen by nearby electrodes (a Gaussian of 5 cm)."""
    sources = scene.owner.normal(size=(3, 3))
    sources[:, 2] = np.abs(sources[:, 2])
    sources *= HEAD_RADIUS_M / np.linalg.norm(sources, axis=1, keepdims=True)
    positions = electrode_positions()
    distance = np.linalg.norm(positions[:, None] - sources[None], axis=2)
    mixing = EEG_MICROVOLTS * np.exp(-((distance / 0.05) ** 2) / 2) + scene.owner.normal(size=distance.shape)
    return _sampled(scene, mixing, scene.latent.fine @ mixing.T, scene.view.delay_s, tuple(ELECTRODES), positions)


def _see_fmri(scene: Scene) -> tuple[Series, Planted]:
    from scipy.signal import fftconvolve

    mixing = scene.directions()
    response = haemodynamic_response()
    bold = fftconvolve(scene.latent.fine, response[:, None], axes=0)[: len(scene.latent.fine)] @ mixing.T
    # Parcels lie in a box of the size of the brain, MNI millimetres.
    positions = scene.owner.uniform(-1, 1, size=(len(mixing), 3)) * (40.0, 60.0, 40.0) + (0.0, -18.0, 18.0)
    return _sampled(scene, mixing, bold, scene.view.delay_s, _names("parcel", len(mixing)), positions)


def _see_mixture(scene: Scene) -> tuple[Series, Planted]:
    about = MIXTURES[scene.signal.modality]
    mixing = about.scale * scene.directions()
    names = _names(about.prefix, len(mixing)) if about.prefix else ("x", "y")
    return _sampled(scene, mixing, scene.latent.fine @ mixing.T, scene.view.delay_s, names)


def _see_emg(scene: Scene) -> tuple[Series, Planted]:
    """White noise times an envelope 1 + a m, m a mixture of the latent of unit variance: rectified, its mean follows it.

    The view's signal to noise is that of the rectified series: for a unit Gaussian |n| has mean sqrt(2 / pi) and
    variance 1 - 2 / pi, so it is (2 / pi) a^2 / ((1 + a^2)(1 - 2 / pi)), which gives the depth a.
    """
    ceiling = (2 / np.pi) / (1 - 2 / np.pi)
    directions = scene.directions()
    mixture = scene.latent.at(scene.times() - scene.view.delay_s, scene.latent.fine @ directions.T)
    depth = np.sqrt(scene.view.snr / (ceiling - scene.view.snr)) / mixture.std(0)
    mixing, envelope = directions * depth[:, None], 1 + mixture * depth
    values = (envelope * scene.noise.normal(size=envelope.shape)).astype(np.float32)
    return _as_series(scene, values, _names("muscle", len(mixing)), "mV"), Planted(mixing, envelope, scene.view)


def _see_task(scene: Scene) -> tuple[Series, Planted]:
    """1 on one wing of the attractor, 0 on the other, without noise."""
    mixing = np.array([[1.0, 0.0, 0.0]])
    state = (scene.latent.at(scene.times(), scene.latent.fine @ mixing.T) > 0).astype(np.float32)
    return _as_series(scene, state, ("wing",), ""), Planted(mixing, state, scene.view)


def _sampled(
    scene: Scene, mixing: Array, fine: Array, delay_s: float, ch_names: tuple[str, ...], positions: Array | None = None
) -> tuple[Series, Planted]:
    """A fine series (T, C) at the signal's own rate, `delay_s` late, with noise at the stated SNR."""
    noiseless = scene.latent.at(scene.times() - delay_s, fine)
    modality = scene.signal.modality
    unit = MIXTURES[modality].unit if modality in MIXTURES else UNITS[modality]
    return _as_series(scene, scene.noisy(noiseless), ch_names, unit, positions), Planted(mixing, noiseless, scene.view)


def _as_series(scene: Scene, values: Array, ch_names: tuple[str, ...], unit: str, positions: Array | None = None) -> Signal:
    return Signal(values, scene.sfreq, scene.signal.modality, ch_names=ch_names, positions=positions, unit=unit)


def _names(prefix: str, n: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i:02d}" for i in range(n))


def haemodynamic_response() -> Array:
    """(T,) canonical double gamma at FINE_HZ over 32 s, unit sum: peak at 5 s, undershoot at 15 s (SPM's parameters)."""
    from scipy.stats import gamma

    t = np.arange(round(32 * FINE_HZ)) / FINE_HZ
    response: Array = gamma.pdf(t, 6) - gamma.pdf(t, 16) / 6
    return response / response.sum()


def electrode_positions() -> Array:
    """(19, 3) metres, x right, y front, z up, on a sphere: the international 10-20 system."""
    inclination, azimuth = np.deg2rad(np.array(list(ELECTRODES.values()), float)).T
    return HEAD_RADIUS_M * np.stack(
        [np.sin(inclination) * np.cos(azimuth), np.sin(inclination) * np.sin(azimuth), np.cos(inclination)], axis=1
    )


_SEEN: dict[str, Callable[[Scene], tuple[Series, Planted]]] = {
    "spikes": _see_spikes,
    "calcium": _see_calcium,
    "eeg": _see_eeg,
    "fmri": _see_fmri,
    "emg": _see_emg,
    "task": _see_task,
    **dict.fromkeys(MIXTURES, _see_mixture),
}
