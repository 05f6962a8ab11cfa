"""Configs of the training loop, of augmentation, of pretraining and adaptation."""

from dataclasses import field
from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import checked_size, fraction, not_negative, positive
from neurofm_ml.presets.neurofmx import NeuroFMxConfig, neurofmx


@config
class TrainConfig:
    """The one training loop: budget, optimiser, precision, strategy, checkpoints.

    `batch_size` is per process and micro-batch; `warmup` and `ema` are shares: of the steps, and of the
    old average kept at each update. Logged values are means over `log_every` steps.
    """

    steps: int = 600
    batch_size: int = 16
    lr: float = 3e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip_norm: float = 1.0
    ema: float = 0.98
    accumulate: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    strategy: Literal["single", "ddp"] = "single"
    compile: bool = False
    log_every: int = 10
    checkpoint_every: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        positive(self, "steps", "batch_size", "lr", "clip_norm", "accumulate", "log_every", "checkpoint_every", "keep")
        fraction(self, "warmup", "ema", "weight_decay")


@config
class AugmentConfig:
    """What training windows go through: share of signals dropped where there are several, largest unit dropout,
    masked share of time, noise and largest drift in deviations.

    Drift is an offset per channel that lasts the whole window: what electrodes and animals do within the hour.
    """

    modality_dropout: float = 0.5
    unit_dropout: float = 0.6
    time_mask: float = 0.1
    noise: float = 0.3
    drift: float = 0.4

    def __post_init__(self) -> None:
        fraction(self, "modality_dropout", "unit_dropout", "time_mask")
        not_negative(self, "noise", "drift")


@config
class PretrainConfig:
    """Pretrain on every dataset in `datasets` that is here (None: every card). `objectives` maps names to weights.

    `labelled_share` of the updates go to the datasets with tasks, where there are both kinds.
    """

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    model: NeuroFMxConfig
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    objectives: dict[str, float] = field(default_factory=lambda: {"behaviour": 1.0, "masked": 0.1})
    labelled_share: float = 0.75
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        fraction(self, "labelled_share")
        if not (all(weight >= 0 for weight in self.objectives.values()) and any(self.objectives.values())):
            raise ValueError(f"PretrainConfig.objectives is {self.objectives!r}; weights must not be negative, and one must be positive.")


@config
class AdaptConfig:
    """Fine-tune a pretrained checkpoint on the decoding tasks of `datasets` (None: of all that are here)."""

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.train.strategy != "single":
            raise ValueError(f'AdaptConfig.train.strategy is {self.train.strategy!r}; it must be "single": processes share the decoders.')


def pretrain(size: str, seed: int = 0) -> PretrainConfig:
    """Pretraining at one size; the larger ones assume the GPUs that `resources` asks for."""
    train = {
        "tiny": TrainConfig(steps=800, ema=0.995, checkpoint_every=200),
        "small": TrainConfig(steps=100_000, batch_size=64, lr=1e-3, ema=0.999, precision="bf16-mixed", checkpoint_every=1000),
        "medium": TrainConfig(
            steps=200_000, batch_size=64, lr=6e-4, ema=0.999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
        "large": TrainConfig(
            steps=500_000, batch_size=64, lr=3e-4, ema=0.9999, precision="bf16-mixed", strategy="ddp", checkpoint_every=1000
        ),
    }[checked_size(size)]
    return PretrainConfig(seed=seed, size=size, model=neurofmx(size), train=train)  # type: ignore[arg-type]


def adapt(size: str, seed: int = 0) -> AdaptConfig:
    """Fine-tuning at one size."""
    train = (
        TrainConfig(steps=200, lr=2e-3)
        if checked_size(size) == "tiny"
        else TrainConfig(steps=2000, lr=3e-4, ema=0.99, precision="bf16-mixed")
    )
    return AdaptConfig(seed=seed, size=size, train=train)  # type: ignore[arg-type]
