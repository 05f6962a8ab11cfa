"""Skin conductance: its slow level (tonic), what comes on top (phasic), and single responses."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import Step, add_signal, as_signal, one_channel, only
from neurofm_ml.data.preprocess.filters import band_pass, butterworth, settling_s
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Intervals, Recording, Series, Signal

#: Hz below which conductance is tonic, and above which it is noise (Boucsein et al. 2012).
TONIC_HZ, NOISE_HZ = 0.05, 3.0
#: A response rises within this time, seconds.
_RISE_S = 5.0


class Responses(NamedTuple):
    """Skin conductance responses: samples of onset and peak (n,), and rise from one to the other in the signal's unit (n,)."""

    onset: Array
    peak: Array
    amplitude: Array


def decompose(values: Array, sfreq: float) -> tuple[Array, Array]:
    """(n_times,) -> tonic (below 0.05 Hz) and phasic (the rest below 3 Hz), both (n_times,); their sum is the smoothed signal."""
    smooth = band_pass(values, sfreq, None, NOISE_HZ, order=2) if sfreq > 2 * NOISE_HZ else np.asarray(values, np.float64)
    tonic = band_pass(smooth, sfreq, None, TONIC_HZ, order=2)
    return tonic, smooth - tonic


def find_responses(phasic: Array, sfreq: float, least: float = 0.05) -> Responses:
    """Peaks of (n_times,) `phasic` that rise by at least `least` within five seconds; the onset is the lowest sample before."""
    from scipy.signal import find_peaks

    peaks = find_peaks(phasic, prominence=least, wlen=round(4 * _RISE_S * sfreq) | 1)[0]
    before = [max(peak - round(_RISE_S * sfreq), 0) for peak in peaks]
    onset = np.array([a + int(np.argmin(phasic[a:b])) for a, b in zip(before, peaks, strict=True)], int)
    amplitude = phasic[peaks] - phasic[onset]
    rises = amplitude >= least
    return Responses(onset[rises], peaks[rises], amplitude[rises])


@config
class SkinConductance(Step):
    """Tonic and phasic conductance as the signal `into`, responses of at least `least` (in the signal's unit) as intervals `events`
    from onset to peak, with their amplitude."""

    modalities: ClassVar = ("physio",)
    into: str
    channel: str = ""
    events: str = "skin_responses"
    least: float = 0.05

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        signal = as_signal(recording, only(names))
        tonic, phasic = decompose(one_channel(signal, self.channel), signal.sfreq)
        found = find_responses(phasic, signal.sfreq, self.least)
        start, end = (signal.t0 + samples / signal.sfreq for samples in (found.onset, found.peak))
        intervals = {**recording.intervals, self.events: Intervals(start, end, columns={"amplitude": found.amplitude})}
        values = np.stack([tonic, phasic], axis=1).astype(np.float32)
        made = dataclasses.replace(signal, values=values, ch_names=("tonic", "phasic"), positions=None)
        return add_signal(dataclasses.replace(recording, intervals=intervals), self.into, made, card)

    def reach_s(self, series: Series) -> float:
        assert isinstance(series, Signal)
        return settling_s(butterworth(series.sfreq, None, TONIC_HZ, order=2), series.sfreq)
