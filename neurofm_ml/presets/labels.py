"""Config of adaptation to labels."""

from typing import Literal

from neurofm_ml.config import config
from neurofm_ml.presets.base import checked_size
from neurofm_ml.presets.loop import TrainConfig


@config
class AdaptLabelsConfig:
    """Fit a pretrained encoder of any family to the label tasks of `datasets` (None: of all that are here), a decoder per dataset.

    First the readout alone, by regression, then all of it for ``train.steps`` updates; of the two, what is better on the
    validation windows is kept (Kumar et al. 2022, who fit the readout first for the sake of unseen data).
    """

    seed: int
    size: Literal["tiny", "small", "medium", "large"]
    train: TrainConfig
    datasets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.train.strategy != "single":
            raise ValueError(
                f'AdaptLabelsConfig.train.strategy is {self.train.strategy!r}; it must be "single": processes share the decoders.'
            )


def adapt_labels(size: str, seed: int = 0) -> AdaptLabelsConfig:
    """Adaptation to labels at one size."""
    tiny = TrainConfig(steps=30, batch_size=8, lr=1e-3, ema=0.9, checkpoint_every=30)
    train = tiny if checked_size(size) == "tiny" else TrainConfig(steps=1000, batch_size=64, lr=1e-4, ema=0.99, precision="bf16-mixed")
    return AdaptLabelsConfig(seed=seed, size=size, train=train)  # type: ignore[arg-type]
