"""Electrode artefacts: the average reference, bad channels rebuilt from their neighbours, components of the eyes taken out.

Shapes: T times, C channels, K components. Positions (C, 3) are metres on the head.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import SignalStep, Step, as_signal, check_finite
from neurofm_ml.data.preprocess.filters import band_pass
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Recording, Signal

#: Hz in which eye movements and blinks are compared with components.
EYE_BAND = (1.0, 10.0)
#: Spherical splines: order, terms of the Legendre series and regularisation (Perrin et al. 1989; MNE's values).
_STIFFNESS, _TERMS, _ALPHA = 4, 50, 1e-5
_ICA_STEPS = 500


def average_reference(values: Array, bad: Sequence[int] = ()) -> Array:
    """(T, C) minus the mean of its channels but `bad` at each time."""
    good = np.delete(values, list(bad), axis=1)
    check_finite(good)
    return values - good.mean(axis=1, keepdims=True)


# ---------------------------------------------------------------- bad channels
def interpolate_bad(values: Array, positions: Array, bad: Sequence[int]) -> Array:
    """(T, C) with the channels `bad` rebuilt from the others by spherical splines (Perrin et al. 1989)."""
    good = np.setdiff1d(np.arange(values.shape[1]), bad)
    if len(good) < 4:
        raise ValueError(f"{len(good)} good channels are left; rebuilding the others needs at least 4. Leave the recording out.")
    unit = _on_sphere(positions, good)
    out = np.array(values)
    out[:, list(bad)] = values[:, good] @ spherical_splines(unit[good], unit[list(bad)]).T
    return out


def _on_sphere(positions: Array, good: Array) -> Array:
    """(C, 3) directions from the centre of the sphere that fits the `good` positions best."""
    # |p|^2 = 2 p.c + (r^2 - |c|^2) is linear in the centre c.
    design = np.column_stack([2 * positions[good], np.ones(len(good))])
    centre = np.linalg.lstsq(design, (positions[good] ** 2).sum(axis=1), rcond=None)[0][:3]
    away = positions - centre
    return away / np.linalg.norm(away, axis=1, keepdims=True)


def spherical_splines(source: Array, target: Array) -> Array:
    """(n_target, n_source) weights that take values at `source` to `target`, both unit vectors (n, 3)."""
    n = len(source)
    system = np.ones((n + 1, n + 1))
    system[:n, :n] = _kernel(source @ source.T) + _ALPHA * np.eye(n)
    system[n, n] = 0
    weights: Array = np.column_stack([_kernel(target @ source.T), np.ones(len(target))]) @ np.linalg.pinv(system)[:, :n]
    return weights


def _kernel(cosine: Array) -> Array:
    """Green's function of the spline on the sphere, of the cosine between two directions."""
    n = np.arange(1, _TERMS + 1)
    series = (2 * n + 1) / (n * (n + 1)) ** _STIFFNESS / (4 * np.pi)
    return np.polynomial.legendre.legval(np.clip(cosine, -1, 1), [0, *series])


# ---------------------------------------------------------------- components
def remove_components(
    values: Array, reference: Array, sfreq: float, threshold: float = 0.5, n_components: int | None = None, seed: int = 0
) -> tuple[Array, Array]:
    """(T, C) without the independent components that follow `reference` (T, K), and the correlation (n,) of each one taken out.

    FastICA (Hyvarinen 1999) above 1 Hz, of the `n_components` largest principal components (default: as many as the data have
    dimensions; what is not decomposed is kept); a component goes when it is correlated with a reference by more than `threshold`
    between 1 and 10 Hz. Raises ValueError when FastICA does not converge.
    """
    values = np.asarray(values, np.float64)
    ica = _fit_ica(band_pass(values, sfreq, EYE_BAND[0], None), n_components, seed)
    sources = (values - values.mean(axis=0)) @ ica.components_.T
    eyes = band_pass(np.asarray(reference, np.float64), sfreq, *EYE_BAND)
    follows = _correlation(band_pass(sources, sfreq, *EYE_BAND), eyes)
    out = np.flatnonzero(np.abs(follows) > threshold)
    return values - sources[:, out] @ ica.mixing_[:, out].T, follows[out]


def _fit_ica(values: Array, n_components: int | None, seed: int) -> Any:
    """FastICA on (T, C); an average reference or a rebuilt channel takes one dimension away."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    spread = np.linalg.svd(np.cov(values.T), compute_uv=False)
    rank = int(np.sum(spread > 1e-7 * spread[0]))
    ica = FastICA(min(n_components or rank, rank), whiten="unit-variance", random_state=seed, max_iter=_ICA_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return ica.fit(values)
        except ConvergenceWarning:
            raise ValueError(
                f"{ica.n_components} components did not converge in {_ICA_STEPS} steps, as happens where only noise is left to divide; "
                "set n_components lower."
            ) from None


def _correlation(sources: Array, references: Array) -> Array:
    """(K,) correlation of each source with the reference that it follows most."""
    n = sources.shape[1]
    all_pairs = np.corrcoef(sources.T, references.T)[:n, n:]
    best = np.abs(all_pairs).argmax(axis=1)
    return all_pairs[np.arange(n), best]


# ---------------------------------------------------------------- steps
@config
class AverageReference(SignalStep):
    """Potentials relative to the mean of all electrodes but `bad`."""

    modalities: ClassVar = ("eeg", "ecog", "ieeg")
    bad: tuple[str, ...] = ()

    def change(self, signal: Signal) -> Signal:
        bad = _indices(signal, self.bad)
        return dataclasses.replace(signal, values=average_reference(np.asarray(signal.values), bad))


@config
class InterpolateBad(SignalStep):
    """Bad electrodes rebuilt from the others."""

    modalities: ClassVar = ("eeg",)
    bad: tuple[str, ...]

    def change(self, signal: Signal) -> Signal:
        if signal.positions is None:
            raise ValueError("the signal has no positions; name a montage in the card (signals: positions).")
        rebuilt = interpolate_bad(np.asarray(signal.values), np.asarray(signal.positions), _indices(signal, self.bad))
        return dataclasses.replace(signal, values=rebuilt.astype(np.float32))


@config
class RemoveEyeComponents(Step):
    """Independent components that follow the signal `reference` (the EOG channels) taken out of each signal."""

    modalities: ClassVar = ("eeg", "meg")
    reference: str
    threshold: float = 0.5
    n_components: int | None = None
    seed: int = 0

    @property
    def fits(self) -> bool:
        return True

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        if self.reference not in recording.signals:
            raise ValueError(f"reference is {self.reference!r}; the signals are {', '.join(recording.signals)}.")
        eyes = as_signal(recording, self.reference)
        for name in (n for n in names if n != self.reference):
            recording = self._cleaned(recording, name, eyes)
        return recording

    def _cleaned(self, recording: Recording, name: str, eyes: Signal) -> Recording:
        signal = as_signal(recording, name)
        if (signal.sfreq, signal.t0, len(signal.values)) != (eyes.sfreq, eyes.t0, len(eyes.values)):
            raise ValueError(f"{name} ({signal!r}) and {self.reference} ({eyes!r}) must have the same samples; resample one of them.")
        values, follows = remove_components(signal.values, eyes.values, signal.sfreq, self.threshold, self.n_components, self.seed)
        cleaned = dataclasses.replace(signal, values=values.astype(np.float32))
        note = f"{name}: {len(follows)} components taken out, correlated {', '.join(f'{r:.2f}' for r in follows) or 'none'}"
        return recording.with_signals({**recording.signals, name: cleaned}, note)


def _indices(signal: Signal, names: Sequence[str]) -> list[int]:
    if unknown := [name for name in names if name not in signal.ch_names]:
        raise ValueError(f"bad names {', '.join(unknown)}; the channels are {', '.join(signal.ch_names)}.")
    return [signal.ch_names.index(name) for name in names]
