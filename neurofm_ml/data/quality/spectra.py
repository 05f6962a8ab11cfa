"""What the spectrum of an electrical signal shows: mains, mains at the wrong place, nothing where the rate promises something.

Shapes: T times, C channels, F frequencies.
"""

import numpy as np

from neurofm_ml.types import Array

#: Frequencies of the mains, Hz; grids are held to within 0.2 Hz of them.
MAINS = (50.0, 60.0)
#: Windows of the spectrum, seconds: lines half a hertz apart.
WINDOW_S = 2.0
#: A line is this many times as strong as the frequencies about it; lines further apart than this many Hz are several.
LINE_RATIO, LINE_APART = 100.0, 3.0
#: Density below this share of the strongest is nothing: every amplifier and converter has a higher floor (the lowest
#: among the sets at hand is 1e-7).
NOTHING = 1e-9


def spectral_numbers(parts: list[Array], sfreq: float) -> dict[str, float]:
    """Share of power at the mains and its harmonics (worst channel), distance of the strongest line near the mains
    from it in Hz, and the share of the band below Nyquist that holds anything."""
    if sfreq < 2 * (MAINS[1] + 10) or max(map(len, parts)) < round(WINDOW_S * sfreq):
        return {}
    freqs, power = spectrum(parts, sfreq)
    audible = freqs >= 1
    density = np.median(power / np.maximum(power[audible].max(axis=0), 1e-300), axis=1)
    edge = float(freqs[audible][density[audible] > NOTHING].max(initial=0.0))
    return {"line_share": _line_share(freqs, power), "line_off_hz": _line_off(freqs, power), "band": 2 * edge / sfreq}


def spectrum(parts: list[Array], sfreq: float) -> tuple[Array, Array]:
    """Welch's estimate over the parts that hold a window: freqs (F,) Hz, power (F, C)."""
    n = round(WINDOW_S * sfreq)
    taper = np.hanning(n)[:, None]
    total, count = np.zeros((n // 2 + 1, parts[0].shape[1])), 0
    for part in parts:
        for start in range(0, len(part) - n + 1, n // 2):
            window = part[start : start + n]
            total += np.abs(np.fft.rfft((window - window.mean(axis=0)) * taper, axis=0)) ** 2
            count += 1
    return np.fft.rfftfreq(n, 1 / sfreq), total / count


def _line_share(freqs: Array, power: Array) -> float:
    """Power above what surrounds the mains and its harmonics, over all power from 1 Hz: the worse of 50 and 60 Hz, of
    the worst channel."""
    total = power[freqs >= 1].sum(axis=0)
    excess = [np.sum([_excess(freqs, power, f) for f in np.arange(mains, freqs[-1] - 1, mains)], axis=0) for mains in MAINS]
    return float((np.max(excess, axis=0) / np.maximum(total, 1e-300)).max())


def _excess(freqs: Array, power: Array, f: float) -> Array:
    away = np.abs(freqs - f)
    at, around = away <= 1, (away > 1.5) & (away <= 5)
    return np.maximum(power[at].sum(axis=0) - at.sum() * np.median(power[around], axis=0), 0.0)


def _line_off(freqs: Array, power: Array) -> float:
    """Hz from the line that stands alone between 40 and 70 Hz, in the channel where it is strongest, to the nearer mains
    frequency; NaN without one (a comb of lines is no mains)."""
    near = np.flatnonzero((freqs >= 40) & (freqs <= 70))
    ratio = np.stack([power[i] / np.maximum(_background(freqs, power, int(i)), 1e-300) for i in near])
    k, channel = np.unravel_index(ratio.argmax(), ratio.shape)
    lines = freqs[near[ratio[:, channel] > LINE_RATIO]]
    if not len(lines) or np.ptp(lines) > LINE_APART:
        return float("nan")
    i = near[k]
    left, middle, right = np.log(power[i - 1 : i + 2, channel])
    f = freqs[i] + (freqs[1] - freqs[0]) * 0.5 * (left - right) / (left - 2 * middle + right)
    return float(min(abs(f - mains) for mains in MAINS))


def _background(freqs: Array, power: Array, i: int) -> Array:
    away = np.abs(freqs - freqs[i])
    return np.asarray(np.median(power[(away > 1.5) & (away <= 5)], axis=0))
