"""Heart: beats from ECG and PPG, rate and its variability. Beats are sample numbers, intervals between them seconds."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import Step, add_signal, as_signal, one_channel, only
from neurofm_ml.data.preprocess.filters import band_pass
from neurofm_ml.data.preprocess.gaps import runs
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Intervals, Recording, Series, Signal


class Detector(NamedTuple):
    """Bands and windows of a beat detector by two moving averages (Elgendi et al. 2010 for ECG, 2013 for PPG)."""

    low_hz: float
    high_hz: float
    #: About as long as the wave looked for.
    wave_s: float
    #: About as long as a beat.
    beat_s: float
    #: The short average must exceed the long one by this share of the energy around.
    offset: float
    refractory_s: float


DETECTORS = {
    "ecg": Detector(8.0, 20.0, 0.097, 0.611, 0.08, 0.25),
    "ppg": Detector(0.5, 8.0, 0.111, 0.667, 0.02, 0.3),
}
#: Seconds of energy around a beat that the offset is a share of.
_AROUND_S = 10.0
#: Intervals between beats of awake people, seconds (20 to 300 per minute); others come from a missed or extra beat.
PLAUSIBLE_S = (0.2, 3.0)


def find_beats(values: Array, sfreq: float, kind: str) -> Array:
    """(n_times,) ECG or PPG -> (n_beats,) samples of the R peaks or systolic peaks."""
    detector = DETECTORS[kind]
    # Relative to its median, so that a flat line is nothing at all after the filter.
    filtered = band_pass(values - np.median(values), sfreq, detector.low_hz, detector.high_hz, order=2)
    # A systolic wave points up; an R peak either way, depending on the lead.
    energy = np.square(filtered if kind == "ecg" else np.maximum(filtered, 0))
    wave, beat, around = (_moving_mean(energy, round(s * sfreq)) for s in (detector.wave_s, detector.beat_s, _AROUND_S))
    start, end = runs(wave > beat + detector.offset * around)
    long_enough = end - start >= round(detector.wave_s * sfreq)
    blocks = list(zip(start[long_enough], end[long_enough], strict=True))
    strength = np.array([energy[a:b].max() for a, b in blocks])
    peaks = np.array([a + int(np.argmax(energy[a:b])) for a, b in blocks], int)
    return peaks[_apart(peaks, strength, detector.refractory_s * sfreq)]


def _moving_mean(values: Array, width: int) -> Array:
    from scipy.ndimage import uniform_filter1d

    mean: Array = uniform_filter1d(values, width | 1, mode="nearest")
    return mean


def _apart(peaks: Array, strength: Array, least: float) -> list[int]:
    """Rows of `peaks`, the stronger of any two that are less than `least` apart."""
    kept: list[int] = []
    for k in range(len(peaks)):
        if not kept or peaks[k] - peaks[kept[-1]] >= least:
            kept.append(k)
        elif strength[k] > strength[kept[-1]]:
            kept[-1] = k
    return kept


# ---------------------------------------------------------------- rate and variability
def sdnn_ms(rr: Array) -> float:
    """Standard deviation of the intervals between beats (seconds), in milliseconds (Task Force 1996); NaN for fewer than 2."""
    return float(1000 * np.std(rr, ddof=1)) if len(rr) > 1 else np.nan


def rmssd_ms(rr: Array) -> float:
    """Root mean square of successive differences of the intervals (seconds), in milliseconds (Task Force 1996); NaN for fewer than 2."""
    return float(1000 * np.sqrt(np.mean(np.diff(rr) ** 2))) if len(rr) > 1 else np.nan


def heart_series(beat_times: Array, times: Array, window_s: float) -> Array:
    """(n_beats,) seconds -> (n_times, 3) at `times`: beats per minute of the interval that holds the time, SDNN and RMSSD in
    milliseconds of the intervals within `window_s` around it. NaN outside the beats and in implausible intervals (`PLAUSIBLE_S`)."""
    rr = np.diff(beat_times)
    rr = np.where((rr >= PLAUSIBLE_S[0]) & (rr <= PLAUSIBLE_S[1]), rr, np.nan)
    out = np.full((len(times), 3), np.nan)
    holding = np.searchsorted(beat_times, times, side="right") - 1
    inside = (holding >= 0) & (holding < len(rr))
    out[inside, 0] = 60 / rr[holding[inside]]
    first, last = (np.searchsorted(beat_times, times + side * window_s / 2) for side in (-1, 1))
    for k in np.flatnonzero(inside & (last - first > 2)):
        within = rr[first[k] : last[k] - 1]
        out[k, 1:] = sdnn_ms(within), rmssd_ms(within)
    return out


@config
class HeartBeats(Step):
    """Beats of an ECG or PPG `channel` as intervals `events`, and heart rate, SDNN and RMSSD at `sfreq` as the signal `into`."""

    modalities: ClassVar = ("physio",)
    into: str
    kind: Literal["ecg", "ppg"]
    channel: str = ""
    events: str = "beats"
    sfreq: float = 4.0
    window_s: float = 30.0

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        signal = as_signal(recording, only(names))
        beats = find_beats(one_channel(signal, self.channel), signal.sfreq, self.kind)
        at = signal.t0 + beats / signal.sfreq
        made = self._series(at, signal)
        marked = dataclasses.replace(recording, intervals={**recording.intervals, self.events: Intervals(at, at)})
        return add_signal(marked, self.into, made, card)

    def _series(self, beats: Array, signal: Signal) -> Signal:
        start, end = signal.span
        times = start + np.arange(int((end - start) * self.sfreq)) / self.sfreq
        values = heart_series(beats, times, self.window_s).astype(np.float32)
        return Signal(values, self.sfreq, signal.modality, start, ("heart_rate", "sdnn", "rmssd"), unit="1/min, ms, ms")

    def reach_s(self, series: Series) -> float:
        return _AROUND_S / 2 + self.window_s / 2
