"""Configs of what is drawn when: sampling of datasets and modalities, and the stages of a curriculum."""

from collections.abc import Sequence
from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import NEURAL, positive
from neurofm_ml.presets.objectives import checked_weights


@config
class SamplingConfig:
    """How often each source of windows is drawn: a dataset, read through some of its modalities.

    rule "labelled"     datasets with tasks share `PretrainConfig.labelled_share` of the batches equally, so do the others the rest
         "proportional" as often as a source has windows
         "temperature"  sets of modalities as often as the `temperature`-th root of their windows (Arivazhagan et al. 2019),
                        the datasets that have a set by their windows
         "round_robin"  sets of modalities in turn, the datasets that have a set by their windows
    """

    rule: Literal["labelled", "proportional", "temperature", "round_robin"] = "labelled"
    temperature: float = 3.0

    def __post_init__(self) -> None:
        positive(self, "temperature")


@config
class StageConfig:
    """One stage of a curriculum: what a batch holds, what is learned from it, when it is enough.

    kind        a batch holds one modality, two, or whatever a window has
    modalities  that take part (none named: all)
    pairs       that are drawn in a pairwise stage (none named: all)
    fusion      "none": the modality stands alone. "early": modalities meet in the Perceiver, before the backbone.
                "mid+late": there, and once more after the backbone, where what each alone says is averaged
    steps       updates after which the next stage begins
    patience    or logged losses in a row that bring nothing better; the last stage lasts until training ends
    """

    kind: Literal["unimodal", "pairwise", "multimodal"]
    objectives: dict[str, float]
    modalities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    fusion: Literal["none", "early", "mid+late"] = "early"
    steps: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        checked_weights(self, self.objectives)
        positive(self, *(name for name in ("steps", "patience") if getattr(self, name) is not None))
        if (self.kind == "unimodal") != (self.fusion == "none"):
            raise ValueError(f'StageConfig.fusion is {self.fusion!r} in a {self.kind} stage; it is "none" where there is one modality.')
        if self.pairs and (self.kind != "pairwise" or self.modalities):
            raise ValueError("StageConfig.pairs belong to a pairwise stage, in the place of modalities.")
        if unknown := {*self.modalities, *(m for pair in self.pairs for m in pair)} - set(NEURAL):
            raise ValueError(f"a stage names {', '.join(sorted(unknown))}; models read {', '.join(NEURAL)}.")


def checked_stages(stages: Sequence[StageConfig], steps: int) -> None:
    """Refuse a curriculum whose stages are not all reached within `steps` updates."""
    if endless := [i for i, s in enumerate(stages[:-1]) if s.steps is None and s.patience is None]:
        raise ValueError(f"stage {endless[0] + 1} of {len(stages)} never ends; give it steps or patience.")
    if (least := sum(s.steps or 0 for s in stages[:-1] if s.patience is None)) >= steps:
        raise ValueError(f"the first {len(stages) - 1} stages take {least} updates and training has {steps}; the last is never reached.")


def curriculum(steps: int) -> tuple[StageConfig, ...]:
    """Each modality for a fifth of `steps`, pairs for a fifth, then all together."""
    alone = {"behaviour": 1.0, "masked": 0.1}
    fifth = max(1, steps // 5)
    return (
        StageConfig(kind="unimodal", objectives=alone, fusion="none", steps=fifth),
        StageConfig(kind="pairwise", objectives={**alone, "contrastive": 0.1}, steps=fifth),
        StageConfig(kind="multimodal", objectives={**alone, "trimodal": 0.1, "forecast": 0.1}, fusion="mid+late"),
    )
