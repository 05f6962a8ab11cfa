"""`UnifiedPreprocessor`: what a card says about preprocessing, applied to its recordings and written into their history.

Clocks are aligned (step 'align_clock'), modalities normalised and streams derived here; cutting into windows is the
affair of ``neurofm_ml.data.windows``.
"""

import dataclasses

import numpy as np

from neurofm_ml.config import from_dict, to_dict
from neurofm_ml.data.preprocess.base import Step
from neurofm_ml.data.preprocess.steps import STEPS
from neurofm_ml.data.readers.base import naming
from neurofm_ml.knowledge.cards import DatasetCard, StepSpec
from neurofm_ml.types import Recording


class UnifiedPreprocessor:
    """The steps of a card, validated once, applied in order to each of its recordings.

    Raises ValueError for unknown steps, parameters and signals, and for what would carry the test block into training
    under a block split: a step that learns from the whole recording, and filters that reach further than ``gap_s``.
    """

    def __init__(self, card: DatasetCard) -> None:
        self.card = card
        self.steps: list[tuple[StepSpec, Step]] = []
        for k, spec in enumerate(card.preprocess):
            with naming(f"card {card.name!r}, preprocess[{k}] ({spec.step})"):
                self.steps.append((spec, _checked(card, spec)))

    def __call__(self, recording: Recording) -> Recording:
        """`recording` after every step; each step with its parameters is one line of its history."""
        reach: dict[str, float] = {}
        for spec, step in self.steps:
            with naming(f"{recording.dataset}/{recording.id}, step {spec.step!r}"):
                if names := self._names(recording, spec, step):
                    _extend(reach, recording, names, step)
                    noted = dataclasses.replace(recording, history=(*recording.history, _line(spec.step, names, step)))
                    recording = step.apply(noted, names, self.card)
        self._check_reach(reach)
        return recording

    def _names(self, recording: Recording, spec: StepSpec, step: Step) -> tuple[str, ...]:
        """The signals of one recording that the step works on; none where the card gives them to other recordings."""
        chosen = [(name, self.card.signals[name].recordings) for name in _fitting(self.card, spec, step)]
        own = [name for name, recordings in chosen if not recordings or recording.id in recordings]
        if spec.signals and (missing := [name for name in own if name not in recording.signals]):
            raise ValueError(f"there is no signal {', '.join(missing)}; there are {', '.join(recording.signals)}.")
        return tuple(name for name in own if name in recording.signals)

    def _check_reach(self, reach: dict[str, float]) -> None:
        split = self.card.split
        for name, exact in reach.items():
            if split.kind == "block" and exact > split.gap_s:
                seconds = np.ceil(100 * exact) / 100
                raise ValueError(
                    f"card {self.card.name!r}: the filters on {name!r} reach {seconds:g} s, beyond the gap of {split.gap_s:g} s between "
                    f"train, validation and test; set split.gap_s to at least {seconds:g}, or filter less sharply."
                )


def _checked(card: DatasetCard, spec: StepSpec) -> Step:
    step = from_dict(STEPS[spec.step], spec.parameters, "parameters")
    _fitting(card, spec, step)
    into = getattr(step, "into", None)
    if into is not None and into not in card.signals:
        raise ValueError(f"it makes the signal {into!r}; name it among the card's signals too, as `{into}: {{modality: ...}}`.")
    if step.fits and card.split.kind == "block":
        raise ValueError(
            "it learns from the whole recording, so under a block split the training windows would hold something of the test "
            "block; split by recording, session or subject, or leave the step out."
        )
    return step


def _fitting(card: DatasetCard, spec: StepSpec, step: Step) -> tuple[str, ...]:
    """The signals that the step works on: those named, or all of the modalities it is for."""
    fitting = tuple(name for name, signal in card.signals.items() if signal.modality in step.modalities)
    wrong = [name for name in spec.signals if name not in fitting]
    if wrong or not fitting:
        have = ", ".join(f"{name} ({signal.modality})" for name, signal in card.signals.items())
        but = f", not on {', '.join(wrong)}" if wrong else ""
        raise ValueError(f"it works on {', '.join(step.modalities)}{but}; the card's signals are {have}.")
    return spec.signals or fitting


def _extend(reach: dict[str, float], recording: Recording, names: tuple[str, ...], step: Step) -> None:
    """Reaches of filters one after the other add up; a derived signal starts with that of its source."""
    further = {name: reach.get(name, 0.0) + step.reach_s(recording.signals[name]) for name in names}
    into = getattr(step, "into", None)
    reach.update(further if into is None else {into: max(further.values())})


def _line(name: str, signals: tuple[str, ...], step: Step) -> str:
    parameters = (f"{key}={value}" for key, value in to_dict(step).items())
    return f"{name}({', '.join((*signals, *parameters))})"
