"""MEG source localisation through MNE, where a forward solution is given."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.preprocess.base import Step, add_signal, as_signal, only
from neurofm_ml.knowledge.cards import DatasetCard, RecordingSpec
from neurofm_ml.knowledge.files import path_of
from neurofm_ml.types import Array, Recording, Signal

Method = Literal["MNE", "dSPM", "sLORETA", "eLORETA"]
#: What brings a unit to tesla (gradiometers: tesla per metre).
_TO_SI = {"T": 1.0, "fT": 1e-15, "pT": 1e-12, "T/m": 1.0, "fT/cm": 1e-13}


class Sources(NamedTuple):
    """values (n_times, n_sources); positions (n_sources, 3) metres in head coordinates."""

    values: Array
    positions: Array


def localise(signal: Signal, forward: Path, method: Method = "dSPM", snr: float = 3.0) -> Sources:
    """Source strengths of an MEG signal by minimum norm (Hamalainen & Ilmoniemi 1994), or noise-normalised forms of it.

    `forward` is an MNE forward solution with the signal's channels; noise is taken as independent between sensors with MNE's
    ad hoc sizes. Raises ValueError for channels that the forward solution does not have, and for units other than tesla.
    """
    import mne

    with mne.use_log_level("error"):
        solution = mne.read_forward_solution(forward)
        raw = mne.io.RawArray(_tesla(signal).T, _info(signal, solution, forward))
        noise = mne.make_ad_hoc_cov(raw.info)
        free = not mne.forward.is_fixed_orient(solution)
        inverse = mne.minimum_norm.make_inverse_operator(raw.info, solution, noise, loose=1.0 if free else 0.0, depth=0.8)
        found = mne.minimum_norm.apply_inverse_raw(raw, inverse, lambda2=1 / snr**2, method=method)
    return Sources(found.data.T, np.concatenate([s["rr"][s["vertno"]] for s in inverse["src"]]))


def _tesla(signal: Signal) -> Array:
    if signal.unit not in _TO_SI:
        raise ValueError(f"unit is {signal.unit!r}; sources need one of {', '.join(_TO_SI)} (set it in the card).")
    return np.asarray(signal.values, np.float64) * _TO_SI[signal.unit]


def _info(signal: Signal, solution: Any, forward: Path) -> Any:
    """MNE's description of the signal's channels, in the signal's order, from the forward solution."""
    import mne

    known = solution["info"]["ch_names"]
    if unknown := [name for name in signal.ch_names if name not in known]:
        raise ValueError(f"{forward} has no channel {', '.join(unknown)}; it has {', '.join(known)}.")
    types = mne.pick_info(solution["info"], [known.index(name) for name in signal.ch_names]).get_channel_types()
    info = mne.create_info(list(signal.ch_names), signal.sfreq, types)
    with info._unlock():
        info["chs"] = [solution["info"]["chs"][known.index(name)].copy() for name in signal.ch_names]
        info["dev_head_t"] = solution["info"]["dev_head_t"]
    return info


@config
class LocaliseSources(Step):
    """Sources of an MEG signal as a new signal; `forward` is a file under the card's root, with ``{subject}`` and the like."""

    modalities: ClassVar = ("meg",)
    into: str
    forward: str
    method: Method = "dSPM"
    snr: float = 3.0

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        signal = as_signal(recording, only(names))
        who = RecordingSpec(id=recording.id, subject=recording.subject, values={"session": recording.session})
        found = localise(signal, path_of(card, self.forward, who), self.method, self.snr)
        ch_names = tuple(f"source{i:04d}" for i in range(len(found.positions)))
        made = dataclasses.replace(
            signal, values=found.values.astype(np.float32), ch_names=ch_names, positions=found.positions, unit=self.method
        )
        return add_signal(recording, self.into, made, card)
