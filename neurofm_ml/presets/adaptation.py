"""Configs of what is done with a pretrained model: adaptation, learning one task after the other, meta-learning, distillation."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.augment import AugmentConfig
from neurofm_ml.presets.base import checked_size, not_negative, positive
from neurofm_ml.presets.loop import TrainConfig
from neurofm_ml.presets.neurofmx import NeuroFMxConfig, neurofmx

Size = Literal["tiny", "small", "medium", "large"]


@config
class AdaptConfig:
    """Fit a pretrained checkpoint to the decoding tasks of `datasets` (None: of all that are here).

    `method` says which parameters are fitted: "full" all of them; "probe" the readout; "new_units" the rows of the
    recording's units and session, and the readout; "lora" those and low-rank updates of `lora_rank` to the linear layers
    of fusion and backbone. `label_share` of each training block keeps its labels, the last part of it.
    """

    seed: int
    size: Size
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    datasets: tuple[str, ...] | None = None
    method: Literal["full", "probe", "new_units", "lora"] = "full"
    lora_rank: int = 4
    label_share: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "lora_rank", "label_share")
        if self.label_share > 1:
            raise ValueError(f"AdaptConfig.label_share is {self.label_share!r}; it must lie in (0, 1].")
        _single(self, "processes share the decoders")


@config
class ContinualConfig:
    """Learn the recordings of `datasets` one after the other, with and without elastic weights (EWC).

    `strength` weighs the penalty: at 1 an earlier recording counts as much as the one that is learned, as far as the
    diagonal of its Fisher information tells. `passes` over the training windows estimate it.
    """

    seed: int
    size: Size
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    datasets: tuple[str, ...] | None = None
    strength: float = 10.0
    passes: int = 4

    def __post_init__(self) -> None:
        positive(self, "passes")
        not_negative(self, "strength")
        _single(self, "recordings are learned in turn")


@config
class MetaConfig:
    """Meta-learning over the recordings of `datasets`: weights from which `inner_steps` updates at `inner_lr` go far.

    "reptile" steps towards the weights that the updates reach; "maml" along the gradient there of a batch they have not
    seen (first order). `train` is the outer loop: one of its updates is one recording's episode.
    """

    seed: int
    size: Size
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    datasets: tuple[str, ...] | None = None
    method: Literal["reptile", "maml"] = "reptile"
    inner_steps: int = 5
    inner_lr: float = 2e-3

    def __post_init__(self) -> None:
        positive(self, "inner_steps", "inner_lr")
        _single(self, "an episode is one process's")
        if self.train.compile:
            raise ValueError(
                "MetaConfig.train.compile is True; it must be False: episodes train copies, which compiled layers do not follow."
            )


@config
class DistillConfig:
    """Teach the student `model` what a larger pretrained model makes of the training windows of `datasets`.

    Weights: of the teacher's latents, read from the student's through a projection, of its behaviour, and of the
    labels themselves.
    """

    seed: int
    size: Size
    model: NeuroFMxConfig
    train: TrainConfig
    augment: AugmentConfig = AugmentConfig()
    datasets: tuple[str, ...] | None = None
    latents: float = 1.0
    behaviour: float = 1.0
    labels: float = 0.5

    def __post_init__(self) -> None:
        not_negative(self, "latents", "behaviour", "labels")
        if not self.latents + self.behaviour + self.labels:
            raise ValueError("DistillConfig.latents, behaviour and labels are all 0; one must be positive.")
        _single(self, "the teacher is held by one process")


def _single(cfg: AdaptConfig | ContinualConfig | MetaConfig | DistillConfig, why: str) -> None:
    if cfg.train.strategy != "single":
        raise ValueError(f'{type(cfg).__name__}.train.strategy is {cfg.train.strategy!r}; it must be "single": {why}.')


def adapt(size: str, seed: int = 0) -> AdaptConfig:
    """Fine-tuning at one size."""
    return AdaptConfig(seed=seed, size=size, train=_fitting(size))  # type: ignore[arg-type]


def continual(size: str, seed: int = 0) -> ContinualConfig:
    """Learning in turn at one size."""
    return ContinualConfig(seed=seed, size=size, train=_fitting(size))  # type: ignore[arg-type]


def meta_train(size: str, seed: int = 0) -> MetaConfig:
    """Meta-learning at one size."""
    train = TrainConfig(steps=200) if checked_size(size) == "tiny" else TrainConfig(steps=20_000, lr=1e-3, ema=0.999, checkpoint_every=1000)
    return MetaConfig(seed=seed, size=size, train=train)  # type: ignore[arg-type]


def distill(size: str, seed: int = 0) -> DistillConfig:
    """Distillation into a student of one size."""
    train = TrainConfig(steps=800, ema=0.995, checkpoint_every=200)
    if checked_size(size) != "tiny":
        train = TrainConfig(steps=50_000, batch_size=64, lr=1e-3, ema=0.999, precision="bf16-mixed", checkpoint_every=1000)
    return DistillConfig(seed=seed, size=size, model=neurofmx(size), train=train)  # type: ignore[arg-type]


def _fitting(size: str) -> TrainConfig:
    if checked_size(size) == "tiny":
        return TrainConfig(steps=200, lr=2e-3)
    return TrainConfig(steps=2000, lr=3e-4, ema=0.99, precision="bf16-mixed")
