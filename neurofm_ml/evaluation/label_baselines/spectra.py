"""Features of one window: how strong each channel is in bands of frequency, as logarithms.

Shapes: T samples, C channels, B bands.
"""

from itertools import pairwise

import numpy as np

from neurofm_ml.types import Array, Signal

Bands = tuple[tuple[float, float], ...]

_CORTEX: Bands = ((1, 4), (4, 8), (8, 13), (13, 30), (30, 60), (60, 120), (120, 200))
#: Hz, the bands that are customary for each modality, beta and gamma in halves.
BANDS: dict[str, Bands] = {
    **dict.fromkeys(("eeg", "meg"), ((1, 4), (4, 8), (8, 13), (13, 18), (18, 25), (25, 35), (35, 45))),
    **dict.fromkeys(("lfp", "ecog", "ieeg"), _CORTEX),
    "emg": ((5, 20), (20, 45), (45, 70), (70, 95), (95, 150), (150, 250), (250, 450)),
}
#: Share of half the sampling rate above which an anti-aliasing filter leaves little.
_USABLE = 0.95
#: Seconds of the segments whose periodograms are averaged (Welch 1967).
_SEGMENT_S = 2.0
#: Bands of equal width in a fine spectrum, where the window is long enough to tell them apart.
_FINE = 44


def bands_of(signal: Signal) -> Bands:
    """The bands of its modality that its rate and length resolve."""
    top, resolution = _USABLE * signal.sfreq / 2, signal.sfreq / _segment(signal)
    found = [(low, min(high, top)) for low, high in BANDS[signal.modality]]
    return tuple((low, high) for low, high in found if np.ceil(low / resolution) * resolution < high)


def band_power(signal: Signal) -> Array:
    """(C, B) log power in the customary bands."""
    return log_power(signal, bands_of(signal))


def spectrum(signal: Signal) -> Array:
    """(C, B) log power in narrow bands of equal width over the same range."""
    known, resolution = bands_of(signal), signal.sfreq / _segment(signal)
    low, high = known[0][0], known[-1][1]
    edges = np.linspace(low, high, max(1, min(_FINE, int((high - low) / resolution))) + 1)
    return log_power(signal, tuple(pairwise(edges)))


def log_power(signal: Signal, bands: Bands) -> Array:
    """(C, B) log of the mean power density of each channel in each band [low, high) Hz; NaN for a channel that never moves."""
    from scipy.signal import welch

    hz, density = welch(signal.values, signal.sfreq, nperseg=_segment(signal), axis=0)
    power = np.stack([density[(hz >= low) & (hz < high)].mean(axis=0) for low, high in bands], axis=1)
    return np.log(np.where(power > 0, power, np.nan))


def _segment(signal: Signal) -> int:
    return min(len(signal.values), round(_SEGMENT_S * signal.sfreq))
