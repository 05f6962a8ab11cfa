"""Time and frequency: power by complex Morlet wavelets (Tallon-Baudry et al. 1996), with MNE's normalisation."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import ELECTRIC, DerivedStep, check_finite
from neurofm_ml.types import Array, Series, Signal

#: Standard deviations of the Gaussian that a wavelet extends to on each side.
_EXTENT = 5.0


def morlet(sfreq: float, freq_hz: float, n_cycles: float) -> Array:
    """(n_taps,) complex wavelet of `n_cycles` cycles at `freq_hz`: zero mean, norm sqrt(2)."""
    sigma_s = n_cycles / (2 * np.pi * freq_hz)
    half = np.arange(0, _EXTENT * sigma_s, 1 / sfreq)
    t = np.concatenate([-half[:0:-1], half])
    # The Gaussian's own mean at this frequency, without which slow drifts would leak in.
    wave = np.exp(2j * np.pi * freq_hz * t) - np.exp(-2 * (np.pi * freq_hz * sigma_s) ** 2)
    wave *= np.exp(-(t**2) / (2 * sigma_s**2))
    return wave / (np.sqrt(0.5) * np.linalg.norm(wave))


def morlet_power(values: Array, sfreq: float, freqs_hz: Sequence[float], n_cycles: float = 7.0) -> Array:
    """(n_times, n_chans) -> (n_times, n_chans, n_freqs) power, in the unit of `values` squared."""
    from scipy.signal import fftconvolve

    check_finite(values)
    if not freqs_hz or not all(0 < f < sfreq / 2 for f in freqs_hz):
        raise ValueError(f"freqs_hz is {tuple(freqs_hz)}; at {sfreq:g} Hz each must lie between 0 and {sfreq / 2:g} Hz.")
    power = np.empty((*values.shape, len(freqs_hz)))
    for k, freq in enumerate(freqs_hz):
        wavelet = morlet(sfreq, freq, n_cycles)
        if len(wavelet) > len(values):
            raise ValueError(
                f"a wavelet of {n_cycles:g} cycles at {freq:g} Hz lasts {len(wavelet) / sfreq:.3g} s, the signal "
                f"{len(values) / sfreq:.3g} s; take fewer cycles or higher frequencies."
            )
        power[..., k] = np.abs(fftconvolve(values, wavelet[:, None], mode="same", axes=0)) ** 2
    return power


@config
class MorletPower(DerivedStep):
    """Power of every channel at each of `freqs_hz`, as channels ``<channel>_<freq>Hz`` of a new signal."""

    modalities: ClassVar = ELECTRIC
    freqs_hz: tuple[float, ...]
    n_cycles: float = 7.0

    def derive(self, signal: Signal) -> Signal:
        power = morlet_power(np.asarray(signal.values), signal.sfreq, self.freqs_hz, self.n_cycles)
        names = tuple(f"{channel}_{freq:g}Hz" for channel in signal.ch_names for freq in self.freqs_hz)
        flat = power.reshape(len(power), -1).astype(np.float32)
        return Signal(flat, signal.sfreq, signal.modality, signal.t0, names, unit=f"{signal.unit}^2")

    def reach_s(self, series: Series) -> float:
        return _EXTENT * self.n_cycles / (2 * np.pi * min(self.freqs_hz))
