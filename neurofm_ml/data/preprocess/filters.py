"""Linear filters without delay and anti-aliased resampling. Arrays are (n_times,) or (n_times, n_chans), rates Hz."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import CONTINUOUS, ELECTRIC, ChannelStep, SignalStep, by_channel, check_finite
from neurofm_ml.types import Array, Series, Signal

#: A filter has settled when its response has fallen to this share.
SETTLED = 0.01
#: Taps of the polyphase filter on each side, in samples of the slower rate (scipy.signal.resample_poly).
_POLYPHASE_TAPS = 10


def butterworth(sfreq: float, low_hz: float | None, high_hz: float | None, order: int = 4) -> Array:
    """Second-order sections (n_sections, 6) of a Butterworth filter that lets `low_hz` to `high_hz` through (None: no bound)."""
    from scipy.signal import butter

    bounds = [f for f in (low_hz, high_hz) if f is not None]
    if not bounds or not all(0 < f < sfreq / 2 for f in bounds) or (len(bounds) == 2 and not bounds[0] < bounds[1]):
        raise ValueError(
            f"low_hz is {low_hz}, high_hz is {high_hz}; at {sfreq:g} Hz they must rise between 0 and {sfreq / 2:g} Hz, and one must be given."
        )
    kind = "bandpass" if len(bounds) == 2 else "lowpass" if low_hz is None else "highpass"
    sos: Array = butter(order, bounds if len(bounds) == 2 else bounds[0], kind, fs=sfreq, output="sos")
    return sos


def band_stop(sfreq: float, freq_hz: float, width_hz: float) -> Array:
    """Second-order sections (2, 6) of a Butterworth filter that takes out `width_hz` around `freq_hz`."""
    from scipy.signal import butter

    low, high = freq_hz - width_hz / 2, freq_hz + width_hz / 2
    if not 0 < low < high < sfreq / 2:
        raise ValueError(
            f"a notch of {width_hz:g} Hz at {freq_hz:g} Hz does not fit between 0 and {sfreq / 2:g} Hz (half the rate); leave it out."
        )
    sos: Array = butter(2, (low, high), "bandstop", fs=sfreq, output="sos")
    return sos


def settling_s(sos: Array, sfreq: float) -> float:
    """Seconds after which the filter's slowest pole has decayed to `SETTLED`."""
    from scipy.signal import sos2zpk

    slowest = np.abs(sos2zpk(sos)[1]).max()
    return float(np.log(SETTLED) / np.log(slowest) / sfreq)


def zero_phase(values: Array, sos: Array, sfreq: float) -> Array:
    """`values` filtered forwards and backwards: no delay, twice the attenuation. The ends are mirrored for as long as the filter rings."""
    from scipy.signal import sosfiltfilt

    check_finite(values)
    ringing = min(len(values) - 1, round(settling_s(sos, sfreq) * sfreq) + 1)
    filtered: Array = sosfiltfilt(sos, values, axis=0, padlen=ringing)
    return filtered


def band_pass(values: Array, sfreq: float, low_hz: float | None, high_hz: float | None, order: int = 4) -> Array:
    """`values` between `low_hz` and `high_hz`: Butterworth, zero phase."""
    return zero_phase(values, butterworth(sfreq, low_hz, high_hz, order), sfreq)


def notch(values: Array, sfreq: float, freqs_hz: Sequence[float], width_hz: float = 2.0) -> Array:
    """`values` without `width_hz` around each of `freqs_hz` (mains and its harmonics)."""
    for freq in freqs_hz:
        values = zero_phase(values, band_stop(sfreq, freq, width_hz), sfreq)
    return values


def resample(values: Array, sfreq: float, to_hz: float) -> Array:
    """`values` at `to_hz`, anti-aliased by a polyphase filter; the first sample keeps its time.

    (n_times, ...) -> (ceil(n_times * to_hz / sfreq), ...). Raises ValueError for rates without a small ratio.
    """
    from scipy.signal import resample_poly

    check_finite(values)
    ratio = _ratio(sfreq, to_hz)
    resampled: Array = resample_poly(values, ratio.numerator, ratio.denominator, axis=0, padtype="line")
    return resampled


def _ratio(sfreq: float, to_hz: float) -> Fraction:
    ratio = Fraction(to_hz / sfreq).limit_denominator(2000)
    if not to_hz > 0 or abs(float(ratio) * sfreq / to_hz - 1) > 1e-9:
        raise ValueError(f"{sfreq:g} Hz cannot be resampled to {to_hz:g} Hz; choose a rate in a ratio of whole numbers below 2000 to it.")
    return ratio


def resample_signal(signal: Signal, to_hz: float) -> Signal:
    """A signal at another rate."""
    return dataclasses.replace(signal, values=by_channel(signal, lambda x: resample(x, signal.sfreq, to_hz)), sfreq=to_hz)


# ---------------------------------------------------------------- steps
@config
class BandPass(ChannelStep):
    """Zero-phase Butterworth filter; without `low_hz` a low-pass, without `high_hz` a high-pass."""

    modalities: ClassVar = CONTINUOUS
    low_hz: float | None = None
    high_hz: float | None = None
    order: int = 4

    def column(self, x: Array, sfreq: float) -> Array:
        return band_pass(x, sfreq, self.low_hz, self.high_hz, self.order)

    def reach_s(self, series: Series) -> float:
        sfreq = _rate(series)
        return settling_s(butterworth(sfreq, self.low_hz, self.high_hz, self.order), sfreq)


@config
class Notch(ChannelStep):
    """Mains and its harmonics taken out."""

    modalities: ClassVar = (*ELECTRIC, "physio")
    freqs_hz: tuple[float, ...]
    width_hz: float = 2.0

    def column(self, x: Array, sfreq: float) -> Array:
        return notch(x, sfreq, self.freqs_hz, self.width_hz)

    def reach_s(self, series: Series) -> float:
        return sum(settling_s(band_stop(_rate(series), f, self.width_hz), _rate(series)) for f in self.freqs_hz)


@config
class Resample(SignalStep):
    """Another rate, anti-aliased."""

    modalities: ClassVar = CONTINUOUS
    sfreq: float

    def change(self, signal: Signal) -> Signal:
        return resample_signal(signal, self.sfreq)

    def reach_s(self, series: Series) -> float:
        return _POLYPHASE_TAPS / min(self.sfreq, _rate(series))


@config
class Lfp(SignalStep):
    """Field potentials from a wide band: `low_hz` to `high_hz`, at `sfreq`."""

    modalities: ClassVar = ("lfp", "ecog", "ieeg")
    low_hz: float = 1.0
    high_hz: float = 100.0
    sfreq: float = 250.0

    def change(self, signal: Signal) -> Signal:
        filtered = BandPass(low_hz=self.low_hz, high_hz=self.high_hz).change(signal)
        return resample_signal(filtered, self.sfreq)

    def reach_s(self, series: Series) -> float:
        return BandPass(low_hz=self.low_hz, high_hz=self.high_hz).reach_s(series) + Resample(sfreq=self.sfreq).reach_s(series)


def _rate(series: Series) -> float:
    assert isinstance(series, Signal)
    return series.sfreq
