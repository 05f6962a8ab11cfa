"""How fast a heart beats, from an ECG or a pulse wave: where the rate is none that hearts have, the sampling rate is wrong."""

import numpy as np

from neurofm_ml.types import Array, Signal

#: Beats per minute that are looked for; what is plausible is judged elsewhere.
SLOWEST_BPM, FASTEST_BPM = 6.0, 1200.0
#: The first peak of the autocorrelation that is this high beside the highest: later ones are several beats.
FIRST_PEAK = 0.8
#: Seconds that are listened to, and the least rate in Hz that shows a beat.
LISTENED_S, LEAST_HZ = 60.0, 20.0
_NAMES = ("ecg", "ekg", "ppg", "pleth", "bvp")


def heart_numbers(name: str, signal: Signal) -> dict[str, float]:
    """Beats per minute of a signal that is named as a heart's (ECG, PPG); else nothing."""
    hearts = [i for i, ch in enumerate(signal.ch_names) if any(heart in f"{name} {ch}".lower() for heart in _NAMES)]
    if not hearts or signal.sfreq < LEAST_HZ:
        return {}
    values = np.asarray(signal.values[: round(LISTENED_S * signal.sfreq), hearts[0]], np.float64)
    return {"beats_per_minute": beats_per_minute(values, signal.sfreq)} if np.isfinite(values).all() and values.std() else {}


def beats_per_minute(values: Array, sfreq: float) -> float:
    """From the first strong peak of the autocorrelation of the slope over 20 ms, its size smoothed over 50 ms. values (T,)."""
    step, width = max(round(0.02 * sfreq), 1), max(round(0.05 * sfreq), 1)
    energy = np.sqrt(np.convolve((values[step:] - values[:-step]) ** 2, np.ones(width) / width, "same"))
    energy = energy - energy.mean()
    n = len(energy)
    r = np.fft.irfft(np.abs(np.fft.rfft(energy, 2 * n)) ** 2)[:n] / np.arange(n, 0, -1)
    low, high = round(60 / FASTEST_BPM * sfreq), min(round(60 / SLOWEST_BPM * sfreq), n // 3)
    inner = np.arange(max(low, 1), high - 1)
    peaks = inner[(r[inner] >= r[inner - 1]) & (r[inner] > r[inner + 1])]
    if not len(peaks):
        return float("nan")
    return float(60 * sfreq / peaks[np.argmax(r[peaks] >= FIRST_PEAK * r[peaks].max())])
