"""Config of pretraining."""

from dataclasses import field
from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.augment import AugmentConfig
from neurofm_ml.presets.base import checked_size, fraction
from neurofm_ml.presets.curriculum import SamplingConfig, StageConfig, checked_stages
from neurofm_ml.presets.loop import TrainConfig
from neurofm_ml.presets.neurofmx import NeuroFMxConfig, neurofmx
from neurofm_ml.presets.objectives import Weighting, checked_weights


@config
class PretrainConfig:
    """Pretrain on every dataset in `datasets` that is here (None: every card). `objectives` maps names to weights.

    `labelled_share` of the updates go to the datasets with tasks, where there are both kinds and `sampling` says nothing
    else. With a `curriculum`, its stages decide what is drawn and have objectives of their own.
    """

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    model: NeuroFMxConfig
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    objectives: dict[str, float] = field(default_factory=lambda: {"behaviour": 1.0, "masked": 0.1})
    weighting: Weighting = "fixed"
    sampling: SamplingConfig = SamplingConfig()
    curriculum: tuple[StageConfig, ...] = ()
    labelled_share: float = 0.75
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        fraction(self, "labelled_share")
        checked_weights(self, self.objectives)
        checked_stages(self.curriculum, self.train.steps)


def pretrain(size: str, seed: int = 0) -> PretrainConfig:
    """Pretraining at one size; the larger ones assume the GPUs that `resources` asks for."""
    train = {
        "tiny": TrainConfig(steps=800, ema=0.995, checkpoint_every=200),
        "small": TrainConfig(steps=100_000, batch_size=64, lr=1e-3, ema=0.999, precision="bf16-mixed", checkpoint_every=1000),
        "medium": TrainConfig(
            steps=200_000, batch_size=64, lr=6e-4, ema=0.999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
        "large": TrainConfig(
            steps=500_000, batch_size=64, lr=3e-4, ema=0.9999, precision="bf16-mixed", strategy="fsdp", checkpoint_every=1000
        ),
    }[checked_size(size)]
    return PretrainConfig(seed=seed, size=size, model=neurofmx(size), train=train)  # type: ignore[arg-type]
