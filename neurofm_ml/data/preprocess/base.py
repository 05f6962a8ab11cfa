"""What a step of preprocessing is: typed parameters, the modalities it is for, and what it does to a recording.

A step is a config. Its name in the registry `STEPS` and its parameters stand in a card's `preprocess`.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from neurofm_ml.config import config
from neurofm_ml.data.readers.base import naming
from neurofm_ml.knowledge.cards import DatasetCard
from neurofm_ml.types import Array, Recording, Series, Signal

#: Modalities that are sampled potentials, fields or currents.
ELECTRIC = ("intracellular", "lfp", "eeg", "meg", "ecog", "ieeg", "emg")
#: Modalities that are continuous series of numbers.
CONTINUOUS = (*ELECTRIC, "calcium", "fmri", "physio")


@config
class Step(ABC):
    """One step with its parameters."""

    modalities: ClassVar[tuple[str, ...]]

    @property
    def fits(self) -> bool:
        """Whether it learns something from the whole recording (a mean, a mixing matrix): under a block split, from the test block too."""
        return False

    def reach_s(self, series: Series) -> float:
        """Seconds from which other samples move a sample of `series` noticeably."""
        return 0.0

    @abstractmethod
    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        """`recording` with the series `names` changed, or with series or intervals made from them."""


@config
class SignalStep(Step):
    """A step that changes regular series, each on its own."""

    @abstractmethod
    def change(self, signal: Signal) -> Signal: ...

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        signals = {**recording.signals}
        for name in names:
            with naming(f"signal {name!r}"):
                signals[name] = self.change(as_signal(recording, name))
        return dataclasses.replace(recording, signals=signals)


@config
class ChannelStep(SignalStep):
    """A step that changes regular series channel by channel, so that one channel at a time is in memory as float64."""

    @abstractmethod
    def column(self, x: Array, sfreq: float) -> Array:
        """x (n_times,) float64 -> (n_times,)."""

    def change(self, signal: Signal) -> Signal:
        return dataclasses.replace(signal, values=by_channel(signal, lambda x: self.column(x, signal.sfreq)))


@config
class DerivedStep(Step):
    """A step that makes one new signal, `into`, from one that is there; the card says what modality it is."""

    into: str

    @abstractmethod
    def derive(self, signal: Signal) -> Signal: ...

    def apply(self, recording: Recording, names: Sequence[str], card: DatasetCard) -> Recording:
        made = self.derive(as_signal(recording, only(names)))
        return add_signal(recording, self.into, made, card)


def by_channel(signal: Signal, change: Callable[[Array], Array]) -> Array:
    """(n_times', n_chans) float32: `change` of every channel, one at a time."""
    values = np.asarray(signal.values)
    columns = []
    for name, column in zip(signal.ch_names, values.T, strict=True):
        with naming(f"channel {name!r}"):
            columns.append(change(column.astype(np.float64)).astype(np.float32))
    return np.stack(columns, axis=1)


def as_signal(recording: Recording, name: str) -> Signal:
    """A regular series of the recording. Raises ValueError for an irregular one."""
    series = recording.signals[name]
    if not isinstance(series, Signal):
        raise ValueError(f"signal {name!r} is {type(series).__name__}, not sampled regularly; put it on a clock first (step 'regularise').")
    return series


def only(names: Sequence[str]) -> str:
    """The one name. Raises ValueError when there are several."""
    if len(names) != 1:
        raise ValueError(f"it works on one signal and {', '.join(names)} would all do; name one in `signals`.")
    return names[0]


def one_channel(signal: Signal, name: str) -> Array:
    """(n_times,) float64 of the channel `name`, of the only one when it is empty."""
    if name not in signal.ch_names and (name or len(signal.ch_names) > 1):
        raise ValueError(f"channel is {name!r}; name one of {', '.join(signal.ch_names)}.")
    return np.asarray(signal.values)[:, signal.ch_names.index(name) if name else 0].astype(np.float64)


def add_signal(recording: Recording, name: str, signal: Signal, card: DatasetCard) -> Recording:
    """`recording` with one more signal, of the modality that the card names."""
    if name in recording.signals:
        raise ValueError(f"into is {name!r}, which is there already; choose another name.")
    made = dataclasses.replace(signal, modality=card.signals[name].modality)
    return dataclasses.replace(recording, signals={**recording.signals, name: made})


def check_finite(values: Array, remedy: str = "fill short gaps (step 'fill_gaps') or leave the channel or recording out") -> None:
    """Raises ValueError where there are NaN or infinite values."""
    if bad := int(np.sum(~np.isfinite(values))):
        raise ValueError(f"{bad} of {values.size} values are NaN or infinite, and would spread; {remedy}.")
