"""Configs of baselines and scores."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.augment import AugmentConfig
from neurofm_ml.presets.base import positive
from neurofm_ml.presets.loop import TrainConfig
from neurofm_ml.presets.neurofmx import NeuroFMxConfig


@config
class BaselinesConfig:
    """Tuned baselines of one dataset's tasks: ridge with lags, kNN, a GRU of equal budget.

    The GRU's 300 updates are about a recording's share of pretraining at size tiny and its fine-tuning.
    """

    dataset: str
    seed: int = 0
    model: NeuroFMxConfig = NeuroFMxConfig(backbone="gru")
    train: TrainConfig = TrainConfig(steps=300, checkpoint_every=300)
    augment: AugmentConfig = AugmentConfig()


@config
class ScoreConfig:
    """Probe and fine-tuned scores of one run beside the baselines, with bootstrap intervals and controls."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    n_boot: int = 1000

    def __post_init__(self) -> None:
        positive(self, "n_boot")
